//! The datagram: a header in clear and a sealed payload.
//!
//! ```text
//! 0        4         5        9        21                      n-16
//! | "HvMb" | version | key id | nonce  | sealed: kind, content | tag |
//! |   4    |    1    | 4, BE  |   12   |          1 + c        | 16  |
//! ```
//! The seal is AES-256-GCM-SIV (RFC 8452) with the whole header as associated data. Nonces are random, 96 bits, and the
//! cipher keeps its promises, save that equal datagrams look equal, should one ever come twice. The content is foca's
//! message as postcard writes it for [`Kind::Gossip`], and a number of 8 bytes, big-endian, for an echo and its answer.
//!
//! A datagram proves that a holder of the key wrote it, not when: an old one can be sent again by whoever saw it. Gossip
//! withstands that, since generations and incarnations only rise; an old answer to a probe counts only if its 8-bit
//! number is the one that is waited for and its source address is forged.

use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce, Tag};

use crate::config::Key;
use crate::limits::DATAGRAM_SIZE_BYTES_MAX;

const MAGIC: [u8; 4] = *b"HvMb";
const VERSION: u8 = 1;
const NONCE_SIZE_BYTES: usize = 12;
const HEADER_SIZE_BYTES: usize = 4 + 1 + 4 + NONCE_SIZE_BYTES;
const TAG_SIZE_BYTES: usize = 16;

/// The most bytes of content that fit a datagram, beside the kind.
pub(crate) const CONTENT_SIZE_BYTES_MAX: usize =
    DATAGRAM_SIZE_BYTES_MAX - HEADER_SIZE_BYTES - 1 - TAG_SIZE_BYTES;

/// What a datagram carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Gossip = 1,
    Echo = 2,
    EchoAnswer = 3,
}

/// What an opened datagram holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Payload<'a> {
    Gossip(&'a [u8]),
    Echo(u64),
    EchoAnswer(u64),
}

/// Why a datagram was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("the datagram is shorter or longer than any of ours")]
    Size,
    #[error("the datagram is of another protocol or version")]
    Format,
    #[error("the datagram is sealed with a key that is not held")]
    UnknownKey,
    #[error("the seal is broken")]
    Forged,
    #[error("the payload is of no known kind or size")]
    Payload,
}

/// The keys, ready for use; the first one seals.
pub(crate) struct KeyRing {
    ciphers: Vec<(u32, Aes256GcmSiv)>,
}

impl KeyRing {
    /// At least one key is needed: `check_keys` has seen to it.
    pub(crate) fn new(keys: &[Key]) -> Self {
        Self { ciphers: keys.iter().map(|key| (key.id, Aes256GcmSiv::new(&key.secret.into()))).collect() }
    }

    /// A datagram of `content`, or none if that does not fit.
    pub(crate) fn seal(&self, kind: Kind, content: &[u8], nonce: [u8; NONCE_SIZE_BYTES]) -> Option<Vec<u8>> {
        if content.len() > CONTENT_SIZE_BYTES_MAX {
            return None;
        }
        let (key_id, cipher) = self.ciphers.first()?;
        let mut datagram = Vec::with_capacity(HEADER_SIZE_BYTES + 1 + content.len() + TAG_SIZE_BYTES);
        datagram.extend_from_slice(&MAGIC);
        datagram.push(VERSION);
        datagram.extend_from_slice(&key_id.to_be_bytes());
        datagram.extend_from_slice(&nonce);
        datagram.push(kind as u8);
        datagram.extend_from_slice(content);
        let (header, sealed) = datagram.split_at_mut(HEADER_SIZE_BYTES);
        let tag = cipher.encrypt_inout_detached(&Nonce::from(nonce), header, sealed.into()).ok()?;
        datagram.extend_from_slice(&tag);
        Some(datagram)
    }

    /// What `datagram` holds. It is opened in place: a refused one is left in an unspecified state.
    pub(crate) fn open<'a>(&self, datagram: &'a mut [u8]) -> Result<Payload<'a>, OpenError> {
        if !(HEADER_SIZE_BYTES + 1 + TAG_SIZE_BYTES..=DATAGRAM_SIZE_BYTES_MAX).contains(&datagram.len()) {
            return Err(OpenError::Size);
        }
        let (header, body) = datagram.split_at_mut(HEADER_SIZE_BYTES);
        if header[..4] != MAGIC || header[4] != VERSION {
            return Err(OpenError::Format);
        }
        let key_id = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        let (_, cipher) = self.ciphers.iter().find(|(id, _)| *id == key_id).ok_or(OpenError::UnknownKey)?;
        let mut nonce = [0; NONCE_SIZE_BYTES];
        nonce.copy_from_slice(&header[9..]);
        let (sealed, tag) = body.split_at_mut(body.len() - TAG_SIZE_BYTES);
        let tag = Tag::try_from(&*tag).map_err(|_| OpenError::Size)?;
        cipher
            .decrypt_inout_detached(&Nonce::from(nonce), header, (&mut *sealed).into(), &tag)
            .map_err(|_| OpenError::Forged)?;
        payload(sealed)
    }
}

fn payload(opened: &[u8]) -> Result<Payload<'_>, OpenError> {
    let (kind, content) = opened.split_first().ok_or(OpenError::Payload)?;
    let number = || content.try_into().map(u64::from_be_bytes).map_err(|_| OpenError::Payload);
    match *kind {
        1 => Ok(Payload::Gossip(content)),
        2 => number().map(Payload::Echo),
        3 => number().map(Payload::EchoAnswer),
        _ => Err(OpenError::Payload),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring(ids: &[u32]) -> KeyRing {
        let key = |id: &u32| Key { id: *id, secret: [*id as u8 + 1; 32] };
        KeyRing::new(&ids.iter().map(key).collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened_by_whoever_holds_the_key(
            content in proptest::collection::vec(any::<u8>(), 0..=CONTENT_SIZE_BYTES_MAX),
            nonce: [u8; 12],
        ) {
            let mut datagram = ring(&[7]).seal(Kind::Gossip, &content, nonce).unwrap();
            prop_assert!(datagram.len() <= DATAGRAM_SIZE_BYTES_MAX);
            let mut copy = datagram.clone();
            prop_assert_eq!(ring(&[9, 7]).open(&mut copy), Ok(Payload::Gossip(&content)));
            prop_assert_eq!(ring(&[9]).open(&mut datagram), Err(OpenError::UnknownKey));
        }

    }

    proptest! {
        // Each case tries every bit.
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn a_datagram_with_any_bit_flipped_is_refused(
            content in proptest::collection::vec(any::<u8>(), 0..64),
            nonce: [u8; 12],
        ) {
            let ring = ring(&[7, 6, 5]);
            let datagram = ring.seal(Kind::Gossip, &content, nonce).unwrap();
            for bit in 0..datagram.len() * 8 {
                let mut flipped = datagram.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(ring.open(&mut flipped).is_err(), "bit {}", bit);
            }
        }
    }

    proptest! {
        #[test]
        fn a_shortened_or_lengthened_datagram_is_refused(content: [u8; 16], cut in 1_usize..53, more in 1_usize..99) {
            let datagram = ring(&[7]).seal(Kind::Gossip, &content, [3; 12]).unwrap();
            prop_assert!(ring(&[7]).open(&mut datagram[..datagram.len() - cut].to_vec()).is_err());
            let mut longer = datagram.clone();
            longer.resize(datagram.len() + more, 0);
            prop_assert!(ring(&[7]).open(&mut longer).is_err());
        }
    }

    #[test]
    fn echoes_carry_their_number_and_nothing_else() {
        let ring = ring(&[1]);
        let mut echo = ring.seal(Kind::Echo, &77_u64.to_be_bytes(), [0; 12]).unwrap();
        assert_eq!(ring.open(&mut echo), Ok(Payload::Echo(77)));
        let mut answer = ring.seal(Kind::EchoAnswer, &78_u64.to_be_bytes(), [0; 12]).unwrap();
        assert_eq!(ring.open(&mut answer), Ok(Payload::EchoAnswer(78)));
        let mut long = ring.seal(Kind::Echo, &[0; 9], [0; 12]).unwrap();
        assert_eq!(ring.open(&mut long), Err(OpenError::Payload));
    }

    #[test]
    fn a_content_that_does_not_fit_is_not_sealed() {
        assert_eq!(ring(&[1]).seal(Kind::Gossip, &[0; CONTENT_SIZE_BYTES_MAX + 1], [0; 12]), None);
    }
}
