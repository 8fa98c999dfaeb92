//! Secrets, and the hashes by which they are known.

use std::fmt::{self, Write as _};

use rand::RngCore as _;
use sha2::Sha256;

/// What a token's secret begins with, so that people and scanners of leaked secrets recognise one.
const TOKEN_PREFIX: &str = "hmt_";

/// The SHA-256 of a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    pub(crate) fn of(secret: &str) -> Self {
        use sha2::Digest as _;
        Digest(Sha256::digest(secret).into())
    }

    /// Reads what [`fmt::Display`] writes.
    pub(crate) fn parse(hex: &str) -> Option<Self> {
        let byte = |i: usize| u8::from_str_radix(hex.get(2 * i..2 * i + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..32).map(byte).collect();
        bytes?.try_into().ok().filter(|_| hex.len() == 64).map(Digest)
    }
}

/// Hex, as it is kept.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A secret of 32 random bytes in hex.
pub(crate) fn draw() -> String {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The secret of a new token.
pub(crate) fn draw_token() -> String {
    format!("{TOKEN_PREFIX}{}", draw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_back_and_nothing_else_is() {
        let digest = Digest::of("x");
        let text = digest.to_string();
        assert_eq!(text, "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881");
        assert_eq!(Digest::parse(&text), Some(digest));
        for wrong in ["", &text[1..], &format!("{text}0"), &text.replace('2', "g"), &"é".repeat(32)] {
            assert_eq!(Digest::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn no_two_secrets_are_the_same() {
        let (one, two) = (draw_token(), draw_token());
        assert!(one.starts_with("hmt_") && one.len() == 68 && one != two, "{one} {two}");
    }
}
