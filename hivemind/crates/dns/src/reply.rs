//! Replies: what is said, and how much of it fits what the client takes.

use std::net::IpAddr;

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Header, Message, Metadata, ResponseCode, emit_message_parts};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::BinEncoder;

use crate::limits::{LOCAL_TTL, UDP_PAYLOAD_BYTES_MAX};
use crate::question::Question;
use crate::records::Server;
use crate::wire::OPT_BYTES;

/// What the published records say to a question.
#[derive(Clone, Debug)]
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

/// A reply, not yet fitted to what its client takes.
#[derive(Debug)]
pub(crate) struct Reply(Message);

impl Reply {
    /// A reply without a question, for a request of which no more than the header is understood.
    pub(crate) fn bare(metadata: &Metadata, code: ResponseCode) -> Self {
        let mut message = Message::response(metadata.id, metadata.op_code);
        message.metadata = Metadata::response_from_request(metadata);
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        Self(message)
    }

    /// A reply with a code and no records.
    pub(crate) fn failure(question: &Question, code: ResponseCode) -> Self {
        let mut reply = Self::to(question);
        reply.0.metadata.response_code = code;
        if reply.0.edns.is_none() && code.high() > 0 {
            reply.0.set_edns(our_edns(question));
        }
        reply
    }

    /// An authoritative reply. `zone` is the owner of the SOA record that negative answers carry: the name that
    /// is asked, or an ancestor.
    pub(crate) fn local(question: &Question, local: Local<'_>, zone: &Name) -> Self {
        let mut reply = Self::to(question);
        reply.0.metadata.authoritative = true;
        let answer = |data| record(question.query.name().clone(), data);
        match local {
            Local::Addresses(addresses) => {
                reply.0.answers = addresses.into_iter().map(address_data).map(answer).collect();
            }
            Local::Servers(servers) => {
                for (server, addresses) in servers {
                    let data = SRV::new(0, 1, server.port, server.target.clone());
                    reply.0.answers.push(answer(RData::SRV(data)));
                    reply.add_addresses(&server.target, addresses);
                }
            }
            Local::Texts(texts) => {
                let data = |text: &String| RData::TXT(TXT::new(vec![text.clone()]));
                reply.0.answers = texts.iter().map(data).map(answer).collect();
            }
            Local::NameServer(addresses) => {
                let name = server_name(zone).unwrap_or_else(|| zone.clone());
                reply.0.answers.push(answer(RData::NS(NS(name.clone()))));
                reply.add_addresses(&name, addresses);
            }
            Local::Pointer(name) => reply.0.answers.push(answer(RData::PTR(PTR(name.clone())))),
            Local::Authority => reply.0.answers.push(answer(authority(zone))),
            Local::NoData => reply.0.authorities.push(record(zone.clone(), authority(zone))),
            Local::NoName => {
                reply.0.metadata.response_code = ResponseCode::NXDomain;
                reply.0.authorities.push(record(zone.clone(), authority(zone)));
            }
        }
        reply
    }

    /// Puts aliases before the answers, which are of what the last one stands for. Of `aliases` each is what the one
    /// before it stands for, the first what the name does that is asked.
    pub(crate) fn behind(mut self, question: &Question, aliases: &[Name]) -> Self {
        let owners = std::iter::once(question.query.name()).chain(aliases);
        let links = owners
            .zip(aliases)
            .map(|(owner, target)| record(owner.clone(), RData::CNAME(CNAME(target.clone()))));
        self.0.answers.splice(0..0, links);
        self
    }

    /// Adds the addresses of a name that the answers speak of; of one that they speak of twice, once.
    fn add_addresses(&mut self, name: &Name, addresses: &[IpAddr]) {
        if self.0.additionals.iter().all(|record| record.name != *name) {
            let records = addresses.iter().map(|address| record(name.clone(), address_data(*address)));
            self.0.additionals.extend(records);
        }
    }

    /// An upstream's answer for one client: its id and spelling, its flags, TTLs of at most `ttl_max` seconds.
    pub(crate) fn relayed(question: &Question, mut answer: Message, ttl_max: u32) -> Self {
        for record in answer.answers.iter_mut().chain(&mut answer.authorities).chain(&mut answer.additionals)
        {
            record.ttl = record.ttl.min(ttl_max);
        }
        let Self(mut reply) = Self::to(question);
        reply.metadata.response_code = answer.metadata.response_code;
        // "Authentic data" goes only to who asked for it (RFC 6840 section 5.8).
        reply.metadata.authentic_data =
            answer.metadata.authentic_data && (question.metadata.authentic_data || question.dnssec_ok());
        reply.answers = answer.answers;
        reply.authorities = answer.authorities;
        reply.additionals = answer.additionals;
        Self(reply)
    }

    /// The same, said by whom the name belongs to.
    pub(crate) fn authoritative(mut self) -> Self {
        self.0.metadata.authoritative = true;
        self
    }

    /// The same, as the reply to another question, whose name stands for the one that was answered.
    pub(crate) fn asked_as(mut self, question: &Question) -> Self {
        self.0.queries = vec![question.query.clone()];
        self
    }

    /// A reply without records.
    pub(crate) fn to(question: &Question) -> Self {
        let Self(mut message) = Self::bare(&question.metadata, ResponseCode::NoError);
        message.add_query(question.query.clone());
        message.edns = question.edns.map(|_| our_edns(question));
        Self(message)
    }

    /// How many records it carries.
    pub(crate) fn records(&self) -> usize {
        self.0.answers.len() + self.0.authorities.len() + self.0.additionals.len()
    }

    /// The message as it is, not fitted to a client.
    pub(crate) fn message(&self) -> &Message {
        &self.0
    }

    /// Writes the reply in at most `bytes_max`. If it is longer, first the additional records go, then all but the
    /// answers that fit, with the sign that there are more, upon which the client asks over TCP. The OPT record stays,
    /// without which the client would take us for a server that does not speak EDNS.
    ///
    /// # Errors
    /// A record cannot be written.
    pub(crate) fn encode(mut self, bytes_max: u16) -> Result<Vec<u8>, ProtoError> {
        let reserved = if self.0.edns.is_some() { OPT_BYTES } else { 0 };
        if self.records() > 0 {
            let fitting = self.write(None, bytes_max.saturating_sub(reserved))?.0;
            if fitting.metadata.truncation {
                self.shorten(&fitting);
            }
        }
        self.write(self.0.edns.as_ref(), bytes_max).map(|(_, bytes)| bytes)
    }

    /// Leaves of the records what was found to fit.
    fn shorten(&mut self, fitting: &Header) {
        let message = &mut self.0;
        message.additionals.clear();
        let rest_is_whole = usize::from(fitting.counts.answers) == message.answers.len()
            && usize::from(fitting.counts.authorities) == message.authorities.len();
        if !rest_is_whole {
            message.answers.truncate(fitting.counts.answers.into());
            message.authorities.clear();
            message.metadata.truncation = true;
        }
    }

    /// Writes as much as fits; the header tells what of it did.
    fn write(&self, edns: Option<&Edns>, bytes_max: u16) -> Result<(Header, Vec<u8>), ProtoError> {
        let message = &self.0;
        let mut bytes = Vec::with_capacity(usize::from(bytes_max.min(UDP_PAYLOAD_BYTES_MAX)));
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(bytes_max);
        let header = emit_message_parts(
            &message.metadata,
            &mut message.queries.iter(),
            &mut message.answers.iter(),
            &mut message.authorities.iter(),
            &mut message.additionals.iter(),
            edns,
            None,
            &mut encoder,
        )?;
        Ok((header, bytes))
    }
}

fn our_edns(question: &Question) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD_BYTES_MAX);
    edns.set_dnssec_ok(question.dnssec_ok());
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
        &self.0.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{MessageType, OpCode, Query};
    use hickory_proto::rr::RecordType;
    use proptest::prelude::*;

    use crate::server::Protocol;

    fn question(edns: bool) -> Question {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii("a.example.").unwrap(), RecordType::A));
        if edns {
            message.set_edns(Edns::new());
        }
        Question::read(&message.to_vec().unwrap(), Protocol::Udp).unwrap()
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
        let reply = Reply::relayed(&question(edns), answer(counts), 60);
        let bytes = reply.encode(bytes_max).unwrap();
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
