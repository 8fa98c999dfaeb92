//! Replies: what is said, and how much of it fits what the client takes.

use std::net::IpAddr;
use std::slice;
use std::sync::LazyLock;

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Message, Metadata, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::{BinDecoder, BinEncoder};
use hickory_server::server::ResponseInfo;
use hickory_server::zone_handler::{MessageResponse, MessageResponseBuilder, Queries};

use crate::limits::{LOCAL_TTL, UDP_PAYLOAD_BYTES_MAX};
use crate::question::Question;
use crate::records::Server;

/// Length of an OPT record without options: a root name, type, payload, flags and an empty body.
const OPT_BYTES: u16 = 11;

/// What the published records say to a question.
#[derive(Debug)]
pub(crate) enum Local<'a> {
    /// The addresses of the type that was asked.
    Addresses(Vec<IpAddr>),
    /// The name of an address.
    Pointer(&'a Name),
    /// Servers of a service, each with its addresses.
    Servers(Vec<(&'a Server, &'a [IpAddr])>),
    /// Texts.
    Texts(&'a [String]),
    /// The start of authority that was asked for.
    Authority,
    /// Who answers for the zone: ourselves, with our addresses.
    NameServer(&'a [IpAddr]),
    /// The name exists, the type does not.
    NoData,
    /// There is no such name.
    NoName,
}

impl Local<'_> {
    /// Whether there is nothing of what was asked.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Addresses(addresses) => addresses.is_empty(),
            Self::Servers(servers) => servers.is_empty(),
            Self::Texts(texts) => texts.is_empty(),
            _ => false,
        }
    }
}

/// A reply but for the question, which goes back as the client wrote it.
#[derive(Debug)]
pub(crate) struct Reply {
    metadata: Metadata,
    echo: Echo,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
    edns: Option<Edns>,
}

/// What of the request comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Echo {
    /// Its question.
    Question,
    /// Nothing, since no more than the header is understood.
    Nothing,
}

/// The question of a reply that has none.
static NO_QUESTION: LazyLock<Queries> =
    LazyLock::new(|| Queries::read(&mut BinDecoder::new(&[]), 0).expect("no questions are in no bytes"));

/// [`MessageResponse`] over the records of a [`Reply`].
type Response<'a> = MessageResponse<
    'a,
    'a,
    slice::Iter<'a, Record>,
    slice::Iter<'a, Record>,
    slice::Iter<'a, Record>,
    slice::Iter<'a, Record>,
>;

impl Reply {
    /// A reply without a question, for a request of which no more than the header is understood.
    pub(crate) fn bare(metadata: &Metadata, code: ResponseCode) -> Self {
        let mut metadata = Metadata::response_from_request(metadata);
        metadata.recursion_available = true;
        metadata.response_code = code;
        Self {
            metadata,
            echo: Echo::Nothing,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            edns: None,
        }
    }

    /// A reply with a code and no records.
    pub(crate) fn failure(question: &Question<'_>, code: ResponseCode) -> Self {
        let mut reply = Self::to(question);
        reply.metadata.response_code = code;
        if reply.edns.is_none() && code.high() > 0 {
            reply.edns = Some(our_edns(question));
        }
        reply
    }

    /// An authoritative reply. `zone` is the owner of the SOA record that negative answers carry: the name that
    /// is asked, or an ancestor.
    pub(crate) fn local(question: &Question<'_>, local: Local<'_>, zone: &Name) -> Self {
        let mut reply = Self::to(question);
        reply.metadata.authoritative = true;
        let answer = |data| record(question.query.name().clone(), data);
        match local {
            Local::Addresses(addresses) => {
                reply.answers = addresses.into_iter().map(address_data).map(answer).collect();
            }
            Local::Servers(servers) => {
                for (server, addresses) in servers {
                    let data = SRV::new(0, 1, server.port, server.target.clone());
                    reply.answers.push(answer(RData::SRV(data)));
                    reply.add_addresses(&server.target, addresses);
                }
            }
            Local::Texts(texts) => {
                let data = |text: &String| RData::TXT(TXT::new(vec![text.clone()]));
                reply.answers = texts.iter().map(data).map(answer).collect();
            }
            Local::NameServer(addresses) => {
                let name = server_name(zone).unwrap_or_else(|| zone.clone());
                reply.answers.push(answer(RData::NS(NS(name.clone()))));
                reply.add_addresses(&name, addresses);
            }
            Local::Pointer(name) => reply.answers.push(answer(RData::PTR(PTR(name.clone())))),
            Local::Authority => reply.answers.push(answer(authority(zone))),
            Local::NoData => reply.authorities.push(record(zone.clone(), authority(zone))),
            Local::NoName => {
                reply.metadata.response_code = ResponseCode::NXDomain;
                reply.authorities.push(record(zone.clone(), authority(zone)));
            }
        }
        reply
    }

    /// Adds the addresses of a name that the answers speak of; of one that they speak of twice, once.
    fn add_addresses(&mut self, name: &Name, addresses: &[IpAddr]) {
        if self.additionals.iter().all(|record| record.name != *name) {
            let records = addresses.iter().map(|address| record(name.clone(), address_data(*address)));
            self.additionals.extend(records);
        }
    }

    /// An upstream's answer for one client: its id and spelling, its flags, TTLs of at most `ttl_max` seconds.
    pub(crate) fn relayed(question: &Question<'_>, mut answer: Message, ttl_max: u32) -> Self {
        for record in answer.answers.iter_mut().chain(&mut answer.authorities).chain(&mut answer.additionals)
        {
            record.ttl = record.ttl.min(ttl_max);
        }
        let mut reply = Self::to(question);
        reply.metadata.response_code = answer.metadata.response_code;
        // "Authentic data" goes only to who asked for it (RFC 6840 section 5.8).
        reply.metadata.authentic_data = answer.metadata.authentic_data
            && (question.metadata.authentic_data || question.edns.is_some_and(|edns| edns.dnssec_ok));
        reply.answers = answer.answers;
        reply.authorities = answer.authorities;
        reply.additionals = answer.additionals;
        reply
    }

    fn to(question: &Question<'_>) -> Self {
        Self {
            echo: Echo::Question,
            edns: question.edns.map(|_| our_edns(question)),
            ..Self::bare(question.metadata, ResponseCode::NoError)
        }
    }

    /// Shortens the reply to `bytes_max`, if it is longer: first the additional records go, then all but the
    /// answers that fit, with the sign that there are more, upon which the client asks over TCP. Left to itself,
    /// hickory-server would fill the last byte with answers and lose the OPT record after them, without which
    /// the client takes us for a server that does not speak EDNS.
    ///
    /// # Errors
    /// A record cannot be written; the reply is as it was.
    pub(crate) fn fit(&mut self, queries: &Queries, bytes_max: u16) -> Result<(), ProtoError> {
        if self.answers.is_empty() && self.authorities.is_empty() && self.additionals.is_empty() {
            return Ok(());
        }
        let reserved = if self.edns.is_some() { OPT_BYTES } else { 0 };
        let (written, _) = encode(self.response_with(queries, None), bytes_max.saturating_sub(reserved))?;
        if !written.truncation {
            return Ok(());
        }
        let fitting = written.counts();
        self.additionals.clear();
        let rest_is_whole = usize::from(fitting.answers) == self.answers.len()
            && usize::from(fitting.authorities) == self.authorities.len();
        if !rest_is_whole {
            self.answers.truncate(fitting.answers.into());
            self.authorities.clear();
            self.metadata.truncation = true;
        }
        Ok(())
    }

    /// What hickory-server sends; `queries` are those of the request.
    pub(crate) fn response<'a>(&'a self, queries: &'a Queries) -> Response<'a> {
        self.response_with(queries, self.edns.as_ref())
    }

    fn response_with<'a>(&'a self, queries: &'a Queries, edns: Option<&'a Edns>) -> Response<'a> {
        let queries = match self.echo {
            Echo::Question => queries,
            Echo::Nothing => &NO_QUESTION,
        };
        MessageResponseBuilder::new(queries, edns).build(
            self.metadata,
            &self.answers,
            &self.authorities,
            &[],
            &self.additionals,
        )
    }
}

/// Writes `response` as far as it fits; tells what of it did.
fn encode(response: Response<'_>, bytes_max: u16) -> Result<(ResponseInfo, Vec<u8>), ProtoError> {
    let mut bytes = Vec::with_capacity(usize::from(bytes_max.min(UDP_PAYLOAD_BYTES_MAX)));
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(bytes_max);
    let written = response.destructive_emit(&mut encoder)?;
    Ok((written, bytes))
}

fn our_edns(question: &Question<'_>) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD_BYTES_MAX);
    edns.set_dnssec_ok(question.edns.is_some_and(|edns| edns.dnssec_ok));
    edns
}

fn record(name: Name, data: RData) -> Record {
    Record::from_rdata(name, ttl_seconds(), data)
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// What we call ourselves in a zone of ours: `dns` in it.
pub(crate) fn server_name(zone: &Name) -> Option<Name> {
    zone.prepend_label("dns").ok()
}

/// The SOA record of a local zone. Its serial never changes, since there are no transfers; the last number is
/// how long a resolver keeps "no" (RFC 2308).
fn authority(zone: &Name) -> RData {
    let below = |label: &str| zone.prepend_label(label).unwrap_or_else(|_| zone.clone());
    RData::SOA(SOA::new(below("dns"), below("hostmaster"), 1, 60, 60, 3600, ttl_seconds()))
}

fn ttl_seconds() -> u32 {
    u32::try_from(LOCAL_TTL.as_secs()).expect("the local TTL is seconds, not centuries")
}

#[cfg(test)]
impl Reply {
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    pub(crate) fn encode(&self, queries: &Queries, bytes_max: u16) -> Result<Vec<u8>, ProtoError> {
        encode(self.response(queries), bytes_max).map(|(_, bytes)| bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{MessageType, OpCode, Query};
    use hickory_proto::rr::RecordType;
    use hickory_server::net::xfer::Protocol;
    use hickory_server::server::Request;
    use proptest::prelude::*;

    fn request(edns: bool) -> Request {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii("a.example.").unwrap(), RecordType::A));
        if edns {
            message.set_edns(Edns::new());
        }
        let client = "127.0.0.1:5353".parse().unwrap();
        Request::from_bytes(message.to_vec().unwrap(), client, Protocol::Udp).unwrap()
    }

    fn answer(counts: [u8; 3]) -> Message {
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        let record = |name: &str, last| {
            Record::from_rdata(Name::from_ascii(name).unwrap(), 60, RData::A(A::new(10, 0, 0, last)))
        };
        message.answers = (0..counts[0]).map(|n| record("a.example.", n)).collect();
        message.authorities = (0..counts[1]).map(|n| record("example.", n)).collect();
        message.additionals = (0..counts[2]).map(|n| record("more.example.", n)).collect();
        message
    }

    fn fitted(counts: [u8; 3], edns: bool, bytes_max: u16) -> (Message, usize) {
        let request = request(edns);
        let question = Question::new(&request).unwrap();
        let mut reply = Reply::relayed(&question, answer(counts), 60);
        reply.fit(&request.queries, bytes_max).unwrap();
        let bytes = reply.encode(&request.queries, u16::MAX).unwrap();
        (Message::from_vec(&bytes).unwrap(), bytes.len())
    }

    #[test]
    fn what_is_too_long_without_its_additional_records_only_is_not_truncated() {
        let (message, _) = fitted([10, 2, 200], true, 512);
        assert!(!message.metadata.truncation);
        assert_eq!((message.answers.len(), message.authorities.len()), (10, 2));
        assert!(message.additionals.is_empty());
    }

    proptest! {
        #[test]
        fn a_reply_fits_and_keeps_edns_and_as_many_answers_as_there_is_room_for(
            counts in [0..120_u8, 0..40_u8, 0..40_u8], edns: bool, bytes_max in 512..1233_u16
        ) {
            let (message, length) = fitted(counts, edns, bytes_max);
            prop_assert!(length <= usize::from(bytes_max));
            prop_assert_eq!(message.edns.is_some(), edns);
            if message.metadata.truncation {
                let one_more = length + 16;
                prop_assert!(message.answers.len() == usize::from(counts[0]) || one_more > usize::from(bytes_max));
            } else {
                prop_assert_eq!(message.answers.len(), usize::from(counts[0]));
                prop_assert_eq!(message.authorities.len(), usize::from(counts[1]));
            }
        }
    }
}
