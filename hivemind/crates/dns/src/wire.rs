//! The usual question as it lies in a packet, read without decoding the rest.
//!
//! Nearly all queries are one question of class IN and at most an OPT record. Those are recognised here, so that an
//! answer that is kept in wire format can be sent without building a message. Whatever else a packet is, it is none of
//! these, and `question` decodes it in full.

use hickory_proto::rr::{LowerName, RecordType};

use crate::limits::{QUERY_BYTES_MAX, UDP_PAYLOAD_BYTES_MAX};
use crate::server::Protocol;

/// Length of the header of a message (RFC 1035 section 4.1.1).
pub(crate) const HEADER_BYTES: usize = 12;

/// Length of an OPT record without options: a root name, type, payload, flags and an empty body.
pub(crate) const OPT_BYTES: u16 = 11;

/// The payload every client takes without EDNS (RFC 1035 section 4.2.1).
pub(crate) const PLAIN_PAYLOAD_BYTES: u16 = 512;

/// In the third byte of a header: a response, an authoritative one, a wish for recursion.
pub(crate) const RESPONSE: u8 = 0x80;
pub(crate) const AUTHORITATIVE: u8 = 0x04;
pub(crate) const RECURSION_DESIRED: u8 = 0x01;

/// In the fourth byte: recursion available, authentic data, checking disabled, the code.
pub(crate) const RECURSION_AVAILABLE: u8 = 0x80;
pub(crate) const AUTHENTIC_DATA: u8 = 0x20;
pub(crate) const CHECKING_DISABLED: u8 = 0x10;
pub(crate) const CODE: u8 = 0x0f;

/// The longest name, its final zero included (RFC 1035 section 2.3.4).
const NAME_BYTES_MAX: usize = 255;

/// In the third byte: response, operation, truncation; all are zero in a usual query. Of the others, none is looked at.
const UNUSUAL: u8 = 0xfa;

const CLASS_IN: u16 = 1;
const TYPE_OPT: u16 = 41;

/// Types that are not served as usual ones: 0, OPT, IXFR, AXFR, ANY.
const UNUSUAL_TYPES: [u16; 5] = [0, TYPE_OPT, 251, 252, 255];

/// A usual query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usual<'a> {
    pub(crate) id: [u8; 2],
    /// The third and the fourth byte of the header.
    pub(crate) flags: [u8; 2],
    /// The name in the client's spelling, with its final zero, without pointers.
    pub(crate) name: &'a [u8],
    pub(crate) record_type: u16,
    /// Whether the client wants DNSSEC records; nothing if it does not speak EDNS.
    pub(crate) dnssec_ok: Option<bool>,
    /// The longest answer that the client takes.
    pub(crate) answer_bytes_max: u16,
}

impl<'a> Usual<'a> {
    /// Reads `packet` to its end, or finds that it is not a usual query.
    pub(crate) fn read(packet: &'a [u8], protocol: Protocol) -> Option<Self> {
        let (header, rest) = packet.split_first_chunk::<HEADER_BYTES>()?;
        let one_question = header[4..10] == [0, 1, 0, 0, 0, 0] && header[10] == 0 && header[11] <= 1;
        if !one_question || header[2] & UNUSUAL != 0 || packet.len() > QUERY_BYTES_MAX {
            return None;
        }
        let (name, rest) = rest.split_at_checked(name_length(rest)?)?;
        let (&[t0, t1, c0, c1], rest) = rest.split_first_chunk()?;
        let record_type = u16::from_be_bytes([t0, t1]);
        if u16::from_be_bytes([c0, c1]) != CLASS_IN || UNUSUAL_TYPES.contains(&record_type) {
            return None;
        }
        let edns = match header[11] {
            0 => rest.is_empty().then_some(None)?,
            _ => Some(read_opt(rest)?),
        };
        Some(Self {
            id: [header[0], header[1]],
            flags: [header[2], header[3]],
            name,
            record_type,
            dnssec_ok: edns.map(|(_, dnssec_ok)| dnssec_ok),
            answer_bytes_max: answer_bytes_max(protocol, edns.map(|(payload, _)| payload)),
        })
    }

    pub(crate) fn recursion_desired(&self) -> bool {
        self.flags[0] & RECURSION_DESIRED != 0
    }

    /// What its forwarded answer is kept under.
    pub(crate) fn foreign_key(&self) -> KeyBytes {
        let checking_disabled = self.flags[1] & CHECKING_DISABLED != 0;
        KeyBytes::new(self.record_type, self.dnssec_ok == Some(true), checking_disabled, self.name)
    }

    /// What its local answer is kept under: such an answer has no DNSSEC.
    pub(crate) fn local_key(&self) -> KeyBytes {
        KeyBytes::new(self.record_type, false, false, self.name)
    }
}

/// The longest answer that a client takes that offers a `payload` by EDNS, bytes.
pub(crate) fn answer_bytes_max(protocol: Protocol, payload: Option<u16>) -> u16 {
    match (protocol, payload) {
        (Protocol::Tcp, _) => u16::MAX,
        (Protocol::Udp, None) => PLAIN_PAYLOAD_BYTES,
        (Protocol::Udp, Some(payload)) => payload.clamp(PLAIN_PAYLOAD_BYTES, UDP_PAYLOAD_BYTES_MAX),
    }
}

/// How long the name at the start of `bytes` is; none if it has pointers or is no name.
fn name_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let label = usize::from(*bytes.get(at)?);
        at += 1 + label;
        if label > 63 || at > NAME_BYTES_MAX {
            return None;
        }
        if label == 0 {
            return Some(at);
        }
    }
}

/// Payload and wish for DNSSEC of an OPT record of version 0 that is all of `bytes` (RFC 6891 section 6.1.2).
fn read_opt(bytes: &[u8]) -> Option<(u16, bool)> {
    let (&[root, t0, t1, p0, p1, _, version, flags, _, l0, l1], mut options) = bytes.split_first_chunk()?;
    let is_opt = root == 0 && u16::from_be_bytes([t0, t1]) == TYPE_OPT && version == 0;
    if !is_opt || usize::from(u16::from_be_bytes([l0, l1])) != options.len() {
        return None;
    }
    while !options.is_empty() {
        let (&[_, _, l0, l1], rest) = options.split_first_chunk()?;
        options = rest.get(u16::from_be_bytes([l0, l1]).into()..)?;
    }
    Some((u16::from_be_bytes([p0, p1]), flags & 0x80 != 0))
}

/// Type, name in small letters and what else makes two questions the same one, in one piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyBytes {
    bytes: [u8; 3 + NAME_BYTES_MAX],
    length: usize,
}

impl KeyBytes {
    fn new(record_type: u16, dnssec_ok: bool, checking_disabled: bool, name: &[u8]) -> Self {
        let mut key = Self { bytes: [0; 3 + NAME_BYTES_MAX], length: 3 };
        key.bytes[0] = u8::from(dnssec_ok) | u8::from(checking_disabled) << 1;
        key.bytes[1..3].copy_from_slice(&record_type.to_be_bytes());
        key.push(name);
        key
    }

    /// The same of a name that was decoded.
    pub(crate) fn of(
        name: &LowerName,
        record_type: RecordType,
        dnssec_ok: bool,
        checking_disabled: bool,
    ) -> Self {
        let mut key = Self::new(record_type.into(), dnssec_ok, checking_disabled, &[]);
        for label in name.iter() {
            key.push(&[u8::try_from(label.len()).unwrap_or(u8::MAX)]);
            key.push(label);
        }
        key.push(&[0]);
        key
    }

    /// Appends a part of a name in small letters; lengths of labels are below any letter. What is longer than a name can
    /// be is cut off.
    fn push(&mut self, part: &[u8]) {
        let room = &mut self.bytes[self.length..];
        let length = part.len().min(room.len());
        let room = &mut room[..length];
        room.copy_from_slice(&part[..length]);
        room.make_ascii_lowercase();
        self.length += length;
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Where the times to live stand in a message that is whole, has one question and no OPT record; none if it is not so.
pub(crate) fn ttl_positions(message: &[u8]) -> Option<Vec<u16>> {
    let count = |at: usize| Some(usize::from(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?])));
    let records = count(6)? + count(8)? + count(10)?;
    let mut at = skip_name(message, HEADER_BYTES)? + 4;
    let mut positions = Vec::with_capacity(records.min(message.len() / usize::from(OPT_BYTES)));
    for _ in 0..records {
        at = skip_name(message, at)?;
        positions.push(u16::try_from(at + 4).ok()?);
        at += 10 + count(at + 8)?;
    }
    (at == message.len()).then_some(positions)
}

/// Where the name that begins at `at` is over; a pointer ends it (RFC 1035 section 4.1.4).
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer >= 0xc0 => return Some(at + 2),
            label => at += 1 + usize::from(label),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
    use hickory_proto::rr::{DNSClass, Name};
    use proptest::prelude::*;

    fn message(edns: bool) -> Message {
        let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii("Web.Local.").unwrap(), RecordType::AAAA));
        if edns {
            let mut edns = Edns::new();
            edns.set_max_payload(900);
            edns.set_dnssec_ok(true);
            message.set_edns(edns);
        }
        message
    }

    #[test]
    fn a_usual_query_is_read_with_its_spelling_and_its_edns() {
        let packet = message(true).to_vec().unwrap();
        let usual = Usual::read(&packet, Protocol::Udp).unwrap();
        assert_eq!((usual.id, usual.name), ([0x12, 0x34], &b"\x03Web\x05Local\x00"[..]));
        assert_eq!((usual.record_type, usual.dnssec_ok, usual.answer_bytes_max), (28, Some(true), 900));
        assert!(usual.recursion_desired());
        let plain = message(false).to_vec().unwrap();
        let usual = Usual::read(&plain, Protocol::Tcp).unwrap();
        assert_eq!((usual.dnssec_ok, usual.answer_bytes_max), (None, u16::MAX));
    }

    #[test]
    fn the_payload_of_edns_is_respected_between_512_and_our_own_limit() {
        for (payload, expected) in [(None, 512), (Some(100), 512), (Some(900), 900), (Some(4096), 1232)] {
            assert_eq!(answer_bytes_max(Protocol::Udp, payload), expected);
            assert_eq!(answer_bytes_max(Protocol::Tcp, payload), u16::MAX);
        }
    }

    #[test]
    fn what_is_not_usual_is_left_to_the_decoder() {
        type Edit = fn(&mut Message);
        let edits: [Edit; 6] = [
            |message| message.metadata.op_code = OpCode::Notify,
            |message| message.metadata.message_type = MessageType::Response,
            |message| message.queries.clear(),
            |message| {
                message.queries[0].set_query_class(DNSClass::CH);
            },
            |message| {
                message.queries[0].set_query_type(RecordType::ANY);
            },
            |message| {
                message.edns.as_mut().unwrap().set_version(1);
            },
        ];
        for edit in edits {
            let mut message = message(true);
            edit(&mut message);
            assert_eq!(Usual::read(&message.to_vec().unwrap(), Protocol::Udp), None);
        }
        let mut longer = message(false).to_vec().unwrap();
        longer.push(0);
        assert_eq!(Usual::read(&longer, Protocol::Udp), None);
    }

    proptest! {
        #[test]
        fn what_is_read_as_usual_is_what_the_decoder_reads(
            edns: bool, changes in proptest::collection::vec((0..60_usize, any::<u8>()), 0..4)
        ) {
            let mut packet = message(edns).to_vec().unwrap();
            for (at, value) in changes {
                let at = at % packet.len();
                packet[at] = value;
            }
            let Some(usual) = Usual::read(&packet, Protocol::Udp) else { return Ok(()) };
            let Ok(decoded) = Message::from_vec(&packet) else { return Ok(()) };
            let query = &decoded.queries[0];
            prop_assert_eq!(decoded.metadata.id.to_be_bytes(), usual.id);
            prop_assert_eq!(u16::from(query.query_type()), usual.record_type);
            prop_assert_eq!(decoded.edns.as_ref().map(|edns| edns.flags().dnssec_ok), usual.dnssec_ok);
            let (lower, dnssec_ok) = (LowerName::new(query.name()), usual.dnssec_ok == Some(true));
            let key = KeyBytes::of(&lower, query.query_type(), dnssec_ok, decoded.metadata.checking_disabled);
            prop_assert_eq!(usual.foreign_key().bytes().to_vec(), key.bytes().to_vec());
        }

        #[test]
        fn bytes_of_any_kind_are_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (Usual::read(&bytes, Protocol::Udp), ttl_positions(&bytes));
        }
    }
}
