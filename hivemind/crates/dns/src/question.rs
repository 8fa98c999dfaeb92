//! From a packet to a question that we take, or the reason why not.

use hickory_proto::op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, LowerName, Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use crate::limits::QUERY_BYTES_MAX;
use crate::reply::Reply;
use crate::server::Protocol;
use crate::wire::{KeyBytes, answer_bytes_max};

/// The EDNS version that we speak (RFC 6891).
const EDNS_VERSION: u8 = 0;

/// An OPT record, and room for a signature.
const ADDITIONALS_MAX: u16 = 2;

/// One question of class IN, with what its answer must respect.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) metadata: Metadata,
    /// The question in the client's spelling.
    pub(crate) query: Query,
    /// The name that is asked, for lookups.
    pub(crate) name: LowerName,
    /// Present if the client speaks EDNS.
    pub(crate) edns: Option<ClientEdns>,
    /// The longest answer that the client takes.
    pub(crate) answer_bytes_max: u16,
}

/// What a client says in its OPT record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientEdns {
    /// Wants DNSSEC records (the DO bit).
    pub(crate) dnssec_ok: bool,
}

/// Why a packet is not a question for us.
#[derive(Debug)]
pub(crate) enum Rejection {
    /// Not answered: a response, lest two servers answer each other for ever, or shorter than a header.
    Ignored,
    /// Not understood; the reply says so.
    Malformed(Box<Reply>),
    /// Understood and not done; the reply says so.
    Refused(Box<Reply>),
}

impl Question {
    /// Decodes `packet`. What its header claims is looked at first, so that no room is made for records that are not
    /// there.
    pub(crate) fn read(packet: &[u8], protocol: Protocol) -> Result<Self, Rejection> {
        let header = Header::read(&mut BinDecoder::new(packet)).map_err(|_| Rejection::Ignored)?;
        let (metadata, counts) = (header.metadata, header.counts);
        if metadata.message_type == MessageType::Response {
            return Err(Rejection::Ignored);
        }
        if metadata.op_code != OpCode::Query {
            return Err(Rejection::Refused(Box::new(Reply::bare(&metadata, ResponseCode::NotImp))));
        }
        let malformed = || Rejection::Malformed(Box::new(Reply::bare(&metadata, ResponseCode::FormErr)));
        let is_one_question = counts.queries == 1 && counts.answers == 0 && counts.authorities == 0;
        if !is_one_question || counts.additionals > ADDITIONALS_MAX || packet.len() > QUERY_BYTES_MAX {
            return Err(malformed());
        }
        let mut message = Message::from_vec(packet).map_err(|_| malformed())?;
        // A question, and room for a signature; OPT is apart.
        let Some(query) = message.queries.pop() else { return Err(malformed()) };
        if message.additionals.len() > 1 {
            return Err(malformed());
        }
        let payload = message.edns.as_ref().map(Edns::max_payload);
        let question = Self {
            metadata,
            name: LowerName::new(query.name()),
            query,
            edns: message.edns.as_ref().map(|edns| ClientEdns { dnssec_ok: edns.flags().dnssec_ok }),
            answer_bytes_max: answer_bytes_max(protocol, payload),
        };
        question.check(message.edns.as_ref())
    }

    /// Turns away what is well formed and not served.
    fn check(self, edns: Option<&Edns>) -> Result<Self, Rejection> {
        let refused = |code| Err(Rejection::Refused(Box::new(Reply::failure(&self, code))));
        if edns.is_some_and(|edns| edns.version() > EDNS_VERSION) {
            return refused(ResponseCode::BADVERS);
        }
        let served = self.query.query_class() == DNSClass::IN
            && !matches!(
                self.query.query_type(),
                RecordType::ANY | RecordType::AXFR | RecordType::IXFR | RecordType::OPT | RecordType::ZERO
            );
        if served { Ok(self) } else { refused(ResponseCode::Refused) }
    }

    pub(crate) fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// What its forwarded answer is kept under.
    pub(crate) fn foreign_key(&self) -> KeyBytes {
        let record_type = self.query.query_type();
        KeyBytes::of(&self.name, record_type, self.dnssec_ok(), self.metadata.checking_disabled)
    }

    /// The same question about another name.
    pub(crate) fn about(&self, name: Name) -> Self {
        let mut other = self.clone();
        other.name = LowerName::new(&name);
        other.query.set_name(name);
        other
    }

    /// The same question in small letters.
    pub(crate) fn canonical(&self) -> Self {
        let mut canonical = self.clone();
        canonical.query.set_name((&self.name).into());
        canonical.edns = None;
        canonical
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::{RData, Record, rdata::A};
    use proptest::prelude::*;

    fn question(edit: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii("Web.Local.").unwrap(), RecordType::A));
        edit(&mut message);
        message.to_vec().unwrap()
    }

    #[test]
    fn other_operations_types_classes_and_edns_versions_are_refused_with_their_code() {
        type Edit = fn(&mut Message);
        let cases: [(Edit, ResponseCode); 5] = [
            (|message| message.metadata.op_code = OpCode::Update, ResponseCode::NotImp),
            (
                |message| {
                    message.queries[0].set_query_type(RecordType::ANY);
                },
                ResponseCode::Refused,
            ),
            (
                |message| {
                    message.queries[0].set_query_type(RecordType::AXFR);
                },
                ResponseCode::Refused,
            ),
            (
                |message| {
                    message.queries[0].set_query_class(DNSClass::CH);
                },
                ResponseCode::Refused,
            ),
            (
                |message| {
                    let mut edns = Edns::new();
                    edns.set_version(1);
                    message.set_edns(edns);
                },
                ResponseCode::BADVERS,
            ),
        ];
        for (edit, expected) in cases {
            let Err(Rejection::Refused(reply)) = Question::read(&question(edit), Protocol::Udp) else {
                panic!("{expected:?} was not refused");
            };
            assert_eq!(reply.metadata().response_code, expected);
            assert_eq!(reply.metadata().id, 0x1234);
        }
    }

    #[test]
    fn two_questions_or_none_or_records_or_too_many_bytes_are_malformed() {
        let two = question(|message| {
            let again = message.queries[0].clone();
            message.add_query(again);
        });
        let none = question(|message| message.queries.clear());
        let record = || Record::from_rdata(Name::root(), 1, RData::A(A::new(1, 2, 3, 4)));
        let answers = question(|message| {
            message.add_answer(record());
        });
        let additionals = question(|message| {
            message.add_additional(record());
            message.add_additional(record());
        });
        let mut long = question(|_| ());
        long.resize(QUERY_BYTES_MAX + 1, 0);
        let mut claims = question(|_| ());
        claims[4..6].copy_from_slice(&[0xff; 2]); // 65,535 questions, of which one is there
        for packet in [two, none, answers, additionals, long, claims] {
            let Err(Rejection::Malformed(reply)) = Question::read(&packet, Protocol::Tcp) else {
                panic!("was not malformed");
            };
            assert_eq!(reply.metadata().response_code, ResponseCode::FormErr);
        }
    }

    proptest! {
        #[test]
        fn a_question_with_bytes_changed_is_never_a_panic_and_its_replies_can_be_written(
            changes in proptest::collection::vec((0..40_usize, any::<u8>()), 1..6)
        ) {
            let mut packet = question(|message| { message.set_edns(Edns::new()); });
            for (at, value) in changes {
                let at = at % packet.len();
                packet[at] = value;
            }
            let reply = match Question::read(&packet, Protocol::Udp) {
                Ok(question) => Box::new(Reply::failure(&question, ResponseCode::ServFail)),
                Err(Rejection::Malformed(reply) | Rejection::Refused(reply)) => reply,
                Err(Rejection::Ignored) => return Ok(()),
            };
            let bytes = reply.encode(512).unwrap();
            prop_assert!(bytes.len() >= 12 && bytes[2] & 0x80 != 0);
            prop_assert_eq!(&bytes[..2], &packet[..2]);
        }
    }
}
