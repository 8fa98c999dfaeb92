//! An answer in wire format that is made once and sent to many: only what differs from client to client is written anew.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hickory_proto::op::Message;

use crate::limits::UDP_PAYLOAD_BYTES_MAX;
use crate::wire::{
    AUTHENTIC_DATA, AUTHORITATIVE, CHECKING_DISABLED, CODE, HEADER_BYTES, OPT_BYTES, RECURSION_AVAILABLE,
    RECURSION_DESIRED, RESPONSE, Usual, ttl_positions,
};

/// Where the count of additional records ends in a header.
const ADDITIONALS_LOW: usize = 11;

/// An answer without EDNS to the question in small letters.
#[derive(Debug)]
pub(crate) struct Answer {
    wire: Box<[u8]>,
    /// Where the times to live stand.
    ttls: Box<[u16]>,
    /// How long it may be kept; zero if not at all.
    pub(crate) lifetime: Duration,
    /// The table of local names that was last seen not to have its name; of no matter for a local answer.
    foreign_to: AtomicU64,
}

impl Answer {
    /// Writes `message`, which has one question and no EDNS; none if it cannot be written, or does not fit a message.
    pub(crate) fn new(message: &Message, lifetime: Duration) -> Option<Self> {
        debug_assert!(message.queries.len() == 1 && message.edns.is_none());
        let wire = message.to_vec().ok()?.into_boxed_slice();
        let ttls = ttl_positions(&wire)?.into_boxed_slice();
        Some(Self { wire, ttls, lifetime, foreign_to: AtomicU64::new(0) })
    }

    /// As the decoder reads it.
    pub(crate) fn message(&self) -> Option<Message> {
        Message::from_vec(&self.wire).ok()
    }

    /// Its length on the wire, bytes.
    pub(crate) fn len(&self) -> usize {
        self.wire.len()
    }

    pub(crate) fn with_lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime, ..self }
    }

    /// Whether the table of this number does not have its name.
    pub(crate) fn is_foreign_to(&self, table: u64) -> bool {
        self.foreign_to.load(Ordering::Relaxed) == table
    }

    pub(crate) fn set_foreign_to(&self, table: u64) {
        self.foreign_to.store(table, Ordering::Relaxed);
    }

    /// Appends to `out` the reply to a client's usual query, which has to be the question of this answer in some
    /// spelling, with no time to live above `ttl_max` seconds. Says no, and appends nothing, if it is longer than the
    /// client takes.
    pub(crate) fn write(&self, asked: &Usual<'_>, ttl_max: u32, out: &mut Vec<u8>) -> bool {
        let opt_bytes = asked.dnssec_ok.map_or(0, |_| usize::from(OPT_BYTES));
        if self.wire.len() + opt_bytes > asked.answer_bytes_max.into() {
            return false;
        }
        let start = out.len();
        out.extend_from_slice(&self.wire);
        let reply = &mut out[start..];
        reply[..2].copy_from_slice(&asked.id);
        [reply[2], reply[3]] = self.flags(asked);
        reply[HEADER_BYTES..][..asked.name.len()].copy_from_slice(asked.name);
        for &at in &self.ttls {
            let at = usize::from(at);
            let field: &mut [u8] = &mut reply[at..at + 4];
            let ttl = field.iter().fold(0, |ttl, &byte| ttl << 8 | u32::from(byte));
            field.copy_from_slice(&ttl.min(ttl_max).to_be_bytes());
        }
        if let Some(dnssec_ok) = asked.dnssec_ok {
            let counted = u16::from_be_bytes([reply[ADDITIONALS_LOW - 1], reply[ADDITIONALS_LOW]]) + 1;
            reply[ADDITIONALS_LOW - 1..=ADDITIONALS_LOW].copy_from_slice(&counted.to_be_bytes());
            let [high, low] = UDP_PAYLOAD_BYTES_MAX.to_be_bytes();
            out.extend_from_slice(&[0, 0, 41, high, low, 0, 0, u8::from(dnssec_ok) << 7, 0, 0, 0]);
        }
        true
    }

    /// The third and the fourth byte of the reply.
    fn flags(&self, asked: &Usual<'_>) -> [u8; 2] {
        let [ours, codes] = [self.wire[2], self.wire[3]];
        // "Authentic data" goes only to who asked for it (RFC 6840 section 5.8).
        let authentic = if asked.dnssec_ok == Some(true) { AUTHENTIC_DATA } else { asked.flags[1] };
        [
            RESPONSE | ours & AUTHORITATIVE | asked.flags[0] & RECURSION_DESIRED,
            RECURSION_AVAILABLE
                | codes & CODE
                | codes & authentic & AUTHENTIC_DATA
                | asked.flags[1] & CHECKING_DISABLED,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Protocol;
    use hickory_proto::op::{Edns, MessageType, OpCode, Query};
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record, RecordType};
    use proptest::prelude::*;

    fn answer(count: u8, ttl: u32) -> Answer {
        let mut message = Message::new(0, MessageType::Response, OpCode::Query);
        let name = Name::from_ascii("a.example.").unwrap();
        message.metadata.authentic_data = true;
        message.add_query(Query::query(name.clone(), RecordType::A));
        for last in 0..count {
            message.add_answer(Record::from_rdata(name.clone(), ttl, RData::A(A::new(10, 0, 0, last))));
        }
        Answer::new(&message, Duration::from_secs(60)).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_written_is_the_answer_as_the_client_may_have_it(
            count in 0..60_u8, ttl in 0..1000_u32, ttl_max in 0..1000_u32, id: u16,
            (recursion, authentic, checking_disabled) in any::<(bool, bool, bool)>(),
            edns in proptest::option::of((any::<bool>(), 0..5000_u16)),
            upper in proptest::collection::vec(any::<bool>(), 10)
        ) {
            let spelled: String = "a.example.".chars().zip(upper)
                .map(|(c, upper)| if upper { c.to_ascii_uppercase() } else { c }).collect();
            let mut query = Message::new(id, MessageType::Query, OpCode::Query);
            query.metadata.recursion_desired = recursion;
            query.metadata.authentic_data = authentic;
            query.metadata.checking_disabled = checking_disabled;
            query.add_query(Query::query(Name::from_ascii(&spelled).unwrap(), RecordType::A));
            if let Some((dnssec_ok, payload)) = edns {
                let mut edns = Edns::new();
                edns.set_max_payload(payload);
                edns.set_dnssec_ok(dnssec_ok);
                query.set_edns(edns);
            }
            let packet = query.to_vec().unwrap();
            let asked = Usual::read(&packet, Protocol::Udp).unwrap();
            let mut out = vec![7];
            let written = answer(count, ttl).write(&asked, ttl_max, &mut out);
            let takes = edns.map_or(512, |(_, payload)| payload.clamp(512, 1232));
            let length = 12 + 15 + usize::from(count) * 16 + edns.map_or(0, |_| 11);
            prop_assert_eq!(written, length <= usize::from(takes));
            prop_assert_eq!(out[0], 7);
            if !written {
                prop_assert_eq!(out.len(), 1);
                return Ok(());
            }
            prop_assert_eq!(out.len(), 1 + length);
            let reply = Message::from_vec(&out[1..]).unwrap();
            prop_assert_eq!(reply.metadata.id, id);
            prop_assert_eq!(reply.metadata.message_type, MessageType::Response);
            prop_assert!(reply.metadata.recursion_available && !reply.metadata.authoritative);
            prop_assert_eq!(reply.metadata.recursion_desired, recursion);
            prop_assert_eq!(reply.metadata.checking_disabled, checking_disabled);
            let wants = authentic || edns.is_some_and(|(dnssec_ok, _)| dnssec_ok);
            prop_assert_eq!(reply.metadata.authentic_data, wants);
            prop_assert_eq!(reply.queries[0].name().to_ascii(), spelled.clone());
            prop_assert_eq!(reply.answers.len(), usize::from(count));
            for record in &reply.answers {
                prop_assert_eq!(record.ttl, ttl.min(ttl_max));
                prop_assert_eq!(record.name.to_ascii(), spelled.clone());
            }
            let spoken = reply.edns.as_ref().map(|edns| (edns.flags().dnssec_ok, edns.max_payload()));
            prop_assert_eq!(spoken, edns.map(|(dnssec_ok, _)| (dnssec_ok, 1232)));
        }
    }
}
