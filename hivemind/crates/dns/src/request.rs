//! From a packet to a question that we take, or the reason why not.

use hickory_proto::op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, LowerName, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use crate::limits::UDP_PAYLOAD_BYTES_MAX;
use crate::reply;

/// The EDNS version that we speak (RFC 6891).
const EDNS_VERSION: u8 = 0;

/// The payload every client takes without EDNS (RFC 1035 section 4.2.1).
const PLAIN_PAYLOAD_BYTES: usize = 512;

/// How a query came, which decides how long its answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// One question of class IN, with what its answer must respect.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) metadata: Metadata,
    /// The question in the client's spelling.
    pub(crate) query: Query,
    /// The name that is asked, for lookups.
    pub(crate) name: LowerName,
    /// Present if the client speaks EDNS.
    pub(crate) edns: Option<ClientEdns>,
    /// The longest answer that the client takes, bytes.
    pub(crate) answer_bytes_max: usize,
}

/// What a client says in its OPT record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientEdns {
    /// Wants DNSSEC records (the DO bit).
    pub(crate) dnssec_ok: bool,
}

/// Why a packet is not a question for us.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// Must not be answered: too short for a header, or itself an answer, which would make a loop.
    Silent,
    /// Not understood; the reply says so.
    Malformed(Vec<u8>),
    /// Understood and not done; the reply says so.
    Refused(Vec<u8>),
}

impl Request {
    /// Reads `packet`. Never panics, whatever the bytes are.
    pub(crate) fn parse(packet: &[u8], transport: Transport) -> Result<Self, Rejection> {
        let header = Header::read(&mut BinDecoder::new(packet)).map_err(|_| Rejection::Silent)?;
        let metadata = header.metadata;
        if metadata.message_type == MessageType::Response {
            return Err(Rejection::Silent);
        }
        if metadata.op_code != OpCode::Query {
            return Err(Rejection::Refused(reply::bare(&metadata, ResponseCode::NotImp)));
        }
        let malformed = || Rejection::Malformed(reply::bare(&metadata, ResponseCode::FormErr));
        let counts = header.counts;
        // A question, no answers, and room for OPT and a signature. Checked before the decoder reserves memory.
        if counts.queries != 1 || counts.answers != 0 || counts.authorities != 0 || counts.additionals > 2 {
            return Err(malformed());
        }
        let mut message = Message::from_vec(packet).map_err(|_| malformed())?;
        let query = message.queries.pop().ok_or_else(malformed)?;
        Self::new(metadata, query, message.edns.as_ref(), transport).check(message.edns.as_ref())
    }

    fn new(metadata: Metadata, query: Query, edns: Option<&Edns>, transport: Transport) -> Self {
        let answer_bytes_max = match (transport, edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, None) => PLAIN_PAYLOAD_BYTES,
            (Transport::Udp, Some(edns)) => {
                usize::from(edns.max_payload().min(UDP_PAYLOAD_BYTES_MAX)).max(PLAIN_PAYLOAD_BYTES)
            }
        };
        Self {
            name: LowerName::new(query.name()),
            metadata,
            query,
            edns: edns.map(|edns| ClientEdns { dnssec_ok: edns.flags().dnssec_ok }),
            answer_bytes_max,
        }
    }

    /// Turns away what is well formed and not served.
    fn check(self, edns: Option<&Edns>) -> Result<Self, Rejection> {
        if edns.is_some_and(|edns| edns.version() > EDNS_VERSION) {
            return Err(Rejection::Refused(reply::failure(&self, ResponseCode::BADVERS)));
        }
        let served = self.query.query_class() == DNSClass::IN
            && !matches!(
                self.query.query_type(),
                RecordType::ANY | RecordType::AXFR | RecordType::IXFR | RecordType::OPT | RecordType::ZERO
            );
        if served { Ok(self) } else { Err(Rejection::Refused(reply::failure(&self, ResponseCode::Refused))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::Name;
    use proptest::prelude::*;

    fn question(edit: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii("Web.Local.").unwrap(), RecordType::A));
        edit(&mut message);
        message.to_vec().unwrap()
    }

    fn code(reply: &[u8]) -> ResponseCode {
        Message::from_vec(reply).unwrap().metadata.response_code
    }

    #[test]
    fn the_payload_of_edns_is_respected_between_512_and_our_own_limit() {
        let limit_of = |payload: Option<u16>, transport| {
            let packet = question(|message| {
                if let Some(payload) = payload {
                    // The decoder's own floor is 512, so that a smaller value must be written by hand.
                    message.set_edns(Edns::new()).edns.as_mut().unwrap().set_max_payload(payload);
                }
            });
            Request::parse(&packet, transport).unwrap().answer_bytes_max
        };
        assert_eq!(limit_of(None, Transport::Udp), 512);
        assert_eq!(limit_of(Some(512), Transport::Udp), 512);
        assert_eq!(limit_of(Some(900), Transport::Udp), 900);
        assert_eq!(limit_of(Some(4096), Transport::Udp), 1232);
        assert_eq!(limit_of(None, Transport::Tcp), 65535);
    }

    #[test]
    fn a_response_is_never_answered_so_that_no_loop_can_form() {
        let packet = question(|message| message.metadata.message_type = MessageType::Response);
        assert_eq!(Request::parse(&packet, Transport::Udp).unwrap_err(), Rejection::Silent);
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
            let Err(Rejection::Refused(reply)) = Request::parse(&question(edit), Transport::Udp) else {
                panic!("{expected:?} was not refused");
            };
            // By number, since 16 has two names.
            assert_eq!(u16::from(code(&reply)), u16::from(expected));
            assert_eq!(&reply[..2], [0x12, 0x34]);
        }
    }

    #[test]
    fn two_questions_or_none_or_a_cut_one_are_malformed() {
        let two = question(|message| {
            let again = message.queries[0].clone();
            message.add_query(again);
        });
        let none = question(|message| message.queries.clear());
        let whole = question(|_| ());
        for packet in [&two[..], &none[..], &whole[..whole.len() - 1]] {
            let Err(Rejection::Malformed(reply)) = Request::parse(packet, Transport::Udp) else {
                panic!("was not malformed");
            };
            assert_eq!(code(&reply), ResponseCode::FormErr);
        }
    }

    proptest! {
        #[test]
        fn random_bytes_are_never_a_panic_and_a_reply_is_always_a_response(
            bytes in proptest::collection::vec(any::<u8>(), 0..600)
        ) {
            if let Err(Rejection::Malformed(reply) | Rejection::Refused(reply)) =
                Request::parse(&bytes, Transport::Udp)
            {
                prop_assert!(reply.len() >= 12 && reply[2] & 0x80 != 0);
                prop_assert_eq!(&reply[..2], &bytes[..2]);
            }
        }

        #[test]
        fn a_question_with_bytes_changed_is_never_a_panic(
            changes in proptest::collection::vec((0..40_usize, any::<u8>()), 1..6)
        ) {
            let mut packet = question(|message| { message.set_edns(Edns::new()); });
            for (at, value) in changes {
                let at = at % packet.len();
                packet[at] = value;
            }
            if let Ok(request) = Request::parse(&packet, Transport::Udp) {
                prop_assert!(!reply::failure(&request, ResponseCode::ServFail).is_empty());
            }
        }
    }
}
