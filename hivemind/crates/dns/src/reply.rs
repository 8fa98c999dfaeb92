//! Writing replies: the client's question back in its own spelling, within the size that it takes.

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SOA};
use hickory_proto::rr::{Name, RData, Record};
use std::net::IpAddr;
use tracing::debug;

use crate::limits::{LOCAL_TTL, UDP_PAYLOAD_BYTES_MAX};
use crate::request::Request;

/// Length of a message's header.
const HEADER_BYTES: usize = 12;

/// What the published records say to a question.
#[derive(Debug)]
pub(crate) enum Local<'a> {
    /// The addresses of the type that was asked.
    Addresses(Vec<IpAddr>),
    /// The name of an address.
    Pointer(&'a Name),
    /// The start of authority that was asked for.
    Authority,
    /// The name exists, the type does not.
    NoData,
    /// There is no such name.
    NoName,
}

/// A reply without a question, for a packet of which no more than the header is understood.
pub(crate) fn bare(metadata: &Metadata, code: ResponseCode) -> Vec<u8> {
    let mut header = vec![0; HEADER_BYTES];
    header[..2].copy_from_slice(&metadata.id.to_be_bytes());
    header[2] = 0x80 | (u8::from(metadata.op_code) << 3) | u8::from(metadata.recursion_desired);
    header[3] = 0x80 | code.low();
    header
}

/// A reply with a code and no records.
pub(crate) fn failure(request: &Request, code: ResponseCode) -> Vec<u8> {
    let mut message = start(request);
    message.metadata.response_code = code;
    if message.edns.is_none() && code.high() > 0 {
        message.set_edns(our_edns(request));
    }
    encode(&message, request)
}

/// An authoritative reply. `zone` is the owner of the SOA record that negative answers carry: the name that is
/// asked, or an ancestor.
pub(crate) fn local(request: &Request, local: Local<'_>, zone: &Name) -> Vec<u8> {
    let mut message = start(request);
    message.metadata.authoritative = true;
    let mut answer = |data| {
        message.add_answer(record(request.query.name().clone(), data));
    };
    match local {
        Local::Addresses(addresses) => {
            for address in addresses {
                answer(match address {
                    IpAddr::V4(address) => RData::A(A(address)),
                    IpAddr::V6(address) => RData::AAAA(AAAA(address)),
                });
            }
        }
        Local::Pointer(name) => answer(RData::PTR(PTR(name.clone()))),
        Local::Authority => answer(authority(zone)),
        Local::NoData => {
            message.add_authority(record(zone.clone(), authority(zone)));
        }
        Local::NoName => {
            message.metadata.response_code = ResponseCode::NXDomain;
            message.add_authority(record(zone.clone(), authority(zone)));
        }
    }
    encode(&message, request)
}

/// An upstream's answer for one client: its id and spelling, its flags, TTLs of at most `ttl_max` seconds.
pub(crate) fn relayed(request: &Request, mut answer: Message, ttl_max: u32) -> Vec<u8> {
    for record in answer.answers.iter_mut().chain(&mut answer.authorities).chain(&mut answer.additionals) {
        record.ttl = record.ttl.min(ttl_max);
    }
    let mut message = start(request);
    message.metadata.response_code = answer.metadata.response_code;
    // "Authentic data" goes only to who asked for it (RFC 6840 section 5.8).
    message.metadata.authentic_data = answer.metadata.authentic_data
        && (request.metadata.authentic_data || request.edns.is_some_and(|edns| edns.dnssec_ok));
    message.answers = answer.answers;
    message.authorities = answer.authorities;
    message.additionals = answer.additionals;
    encode(&message, request)
}

fn start(request: &Request) -> Message {
    let mut message = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
    message.metadata.recursion_desired = request.metadata.recursion_desired;
    message.metadata.checking_disabled = request.metadata.checking_disabled;
    message.metadata.recursion_available = true;
    message.add_query(request.query.clone());
    if request.edns.is_some() {
        message.set_edns(our_edns(request));
    }
    message
}

fn our_edns(request: &Request) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD_BYTES_MAX);
    edns.set_dnssec_ok(request.edns.is_some_and(|edns| edns.dnssec_ok));
    edns
}

fn record(name: Name, data: RData) -> Record {
    Record::from_rdata(name, ttl_seconds(), data)
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

/// Writes `message`, or a truncated one where it exceeds what the client takes, which then asks over TCP.
fn encode(message: &Message, request: &Request) -> Vec<u8> {
    match message.to_vec() {
        Ok(bytes) if bytes.len() <= request.answer_bytes_max => return bytes,
        Ok(_) => {
            if let Ok(bytes) = message.truncate().to_vec() {
                return bytes;
            }
        }
        Err(error) => debug!(%error, name = %request.name, "A reply could not be written."),
    }
    bare(&request.metadata, ResponseCode::ServFail)
}
