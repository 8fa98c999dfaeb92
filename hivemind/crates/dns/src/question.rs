//! From a request that hickory-server has decoded to a question that we take, or the reason why not.

use hickory_proto::op::{Edns, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, LowerName, RecordType};
use hickory_server::net::xfer::Protocol;
use hickory_server::server::Request;

use crate::limits::{QUERY_BYTES_MAX, UDP_PAYLOAD_BYTES_MAX};
use crate::reply::Reply;

/// The EDNS version that we speak (RFC 6891).
const EDNS_VERSION: u8 = 0;

/// The payload every client takes without EDNS (RFC 1035 section 4.2.1).
const PLAIN_PAYLOAD_BYTES: u16 = 512;

/// One question of class IN, with what its answer must respect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) metadata: &'a Metadata,
    /// The question in the client's spelling.
    pub(crate) query: &'a Query,
    /// The name that is asked, for lookups.
    pub(crate) name: &'a LowerName,
    /// Present if the client speaks EDNS.
    pub(crate) edns: Option<ClientEdns>,
}

/// What a client says in its OPT record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientEdns {
    /// Wants DNSSEC records (the DO bit).
    pub(crate) dnssec_ok: bool,
}

/// Why a request is not a question for us.
#[derive(Debug)]
pub(crate) enum Rejection {
    /// Not understood; the reply says so.
    Malformed(Box<Reply>),
    /// Understood and not done; the reply says so.
    Refused(Box<Reply>),
}

impl<'a> Question<'a> {
    /// Looks at `request`, which is not a response: those hickory-server drops, lest two servers answer each
    /// other for ever.
    pub(crate) fn new(request: &'a Request) -> Result<Self, Rejection> {
        debug_assert_ne!(request.metadata.message_type, MessageType::Response);
        if request.metadata.op_code != OpCode::Query {
            return Err(Rejection::Refused(Box::new(Reply::bare(&request.metadata, ResponseCode::NotImp))));
        }
        // A question, no answers, and room for a signature; OPT is apart.
        let [query] = request.queries.queries() else { return Err(malformed(request)) };
        let records_fit =
            request.answers.is_empty() && request.authorities.is_empty() && request.additionals.len() <= 1;
        if !records_fit || request.as_slice().len() > QUERY_BYTES_MAX {
            return Err(malformed(request));
        }
        let question = Self {
            metadata: &request.metadata,
            query: query.original(),
            name: query.name(),
            edns: request.edns.as_ref().map(|edns| ClientEdns { dnssec_ok: edns.flags().dnssec_ok }),
        };
        question.check(request.edns.as_ref())
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
}

/// The longest answer that the client takes, bytes.
pub(crate) fn answer_bytes_max(request: &Request) -> u16 {
    match (request.protocol(), &request.edns) {
        (Protocol::Udp, None) => PLAIN_PAYLOAD_BYTES,
        (Protocol::Udp, Some(edns)) => edns.max_payload().clamp(PLAIN_PAYLOAD_BYTES, UDP_PAYLOAD_BYTES_MAX),
        _ => u16::MAX,
    }
}

fn malformed(request: &Request) -> Rejection {
    Rejection::Malformed(Box::new(Reply::bare(&request.metadata, ResponseCode::FormErr)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Message;
    use hickory_proto::rr::{Name, RData, Record, rdata::A};
    use proptest::prelude::*;

    fn question(edit: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii("Web.Local.").unwrap(), RecordType::A));
        edit(&mut message);
        message.to_vec().unwrap()
    }

    fn request(packet: Vec<u8>, protocol: Protocol) -> Option<Request> {
        Request::from_bytes(packet, "127.0.0.1:5353".parse().unwrap(), protocol).ok()
    }

    #[test]
    fn the_payload_of_edns_is_respected_between_512_and_our_own_limit() {
        let limit_of = |payload: Option<u16>, protocol| {
            let packet = question(|message| {
                if let Some(payload) = payload {
                    message.set_edns(Edns::new()).edns.as_mut().unwrap().set_max_payload(payload);
                }
            });
            answer_bytes_max(&request(packet, protocol).unwrap())
        };
        assert_eq!(limit_of(None, Protocol::Udp), 512);
        assert_eq!(limit_of(Some(512), Protocol::Udp), 512);
        assert_eq!(limit_of(Some(900), Protocol::Udp), 900);
        assert_eq!(limit_of(Some(4096), Protocol::Udp), 1232);
        assert_eq!(limit_of(None, Protocol::Tcp), 65535);
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
            let request = request(question(edit), Protocol::Udp).unwrap();
            let Err(Rejection::Refused(reply)) = Question::new(&request) else {
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
        for packet in [two, none, answers, additionals, long] {
            let request = request(packet, Protocol::Tcp).unwrap();
            let Err(Rejection::Malformed(reply)) = Question::new(&request) else {
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
            let Some(request) = request(packet, Protocol::Udp) else { return Ok(()) };
            if request.metadata.message_type == MessageType::Response {
                return Ok(());
            }
            let reply = match Question::new(&request) {
                Ok(question) => Box::new(Reply::failure(&question, ResponseCode::ServFail)),
                Err(Rejection::Malformed(reply) | Rejection::Refused(reply)) => reply,
            };
            let bytes = reply.encode(&request.queries, 512).unwrap();
            prop_assert!(bytes.len() >= 12 && bytes[2] & 0x80 != 0);
            prop_assert_eq!(&bytes[..2], &request.as_slice()[..2]);
        }
    }
}
