//! What to do with a query: answer it from the records or the cache, or hand it to the upstreams.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{LowerName, Name, RecordType};
use tracing::debug;

use crate::cache::{Answer, Key};
use crate::forwarder::Forwarder;
use crate::limits::ADDRESSES_PER_ANSWER_MAX;
use crate::records::{Found, Records};
use crate::reply::{self, Local};
use crate::request::{Rejection, Request, Transport};
use crate::statistics::{Counters, Outcome, Statistics};

#[derive(Debug)]
pub(crate) struct Responder {
    domain: LowerName,
    records: RwLock<Arc<Records>>,
    forwarder: Forwarder,
    counters: Counters,
}

/// What the socket that received a query has to do.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send this back.
    Reply(Vec<u8>),
    /// Wait for [`Responder::forward`], or send [`Responder::overload`].
    Forward(Box<Request>),
    /// Nothing: it must not be answered.
    Ignore,
}

impl Responder {
    pub(crate) fn new(domain: &Name, records: Records, forwarder: Forwarder) -> Self {
        Self {
            domain: LowerName::new(domain),
            records: RwLock::new(Arc::new(records)),
            forwarder,
            counters: Counters::default(),
        }
    }

    pub(crate) fn publish(&self, records: Records) {
        let records = Arc::new(records);
        let mut current = self.records.write().unwrap_or_else(PoisonError::into_inner);
        let previous = std::mem::replace(&mut *current, records);
        drop(current);
        // Freeing a large table takes a while; queries need not wait for it.
        drop(previous);
    }

    pub(crate) fn set_upstreams(&self, upstreams: &[SocketAddr]) {
        self.forwarder.set_upstreams(upstreams);
    }

    pub(crate) fn statistics(&self) -> Statistics {
        self.counters.read()
    }

    /// Answers at once what can be; does not block and does not wait.
    pub(crate) fn receive(&self, packet: &[u8], transport: Transport) -> Step {
        let request = match Request::parse(packet, transport) {
            Ok(request) => request,
            Err(Rejection::Silent) => {
                self.counters.count(Outcome::Malformed);
                return Step::Ignore;
            }
            Err(Rejection::Malformed(reply)) => return self.reply(Outcome::Malformed, reply),
            Err(Rejection::Refused(reply)) => return self.reply(Outcome::Refused, reply),
        };
        let records = Arc::clone(&self.records.read().unwrap_or_else(PoisonError::into_inner));
        if let Some(local) = self.local(&records, &request) {
            let own_zone = Name::from(&request.name);
            let zone = if self.domain.zone_of(&request.name) { &self.domain } else { &own_zone };
            return self.reply(Outcome::Local, reply::local(&request, local, zone));
        }
        if !request.metadata.recursion_desired {
            return self.reply(Outcome::Refused, reply::failure(&request, ResponseCode::Refused));
        }
        match self.forwarder.cached(&key(&request), Instant::now()) {
            Some((answer, age)) => {
                let ttl = answer.lifetime.as_secs().saturating_sub(age.as_secs());
                self.relay(Outcome::Cached, &request, &answer, u32::try_from(ttl).unwrap_or(u32::MAX))
            }
            None => Step::Forward(Box::new(request)),
        }
    }

    /// The reply that the upstreams give, or SERVFAIL.
    pub(crate) async fn forward(&self, request: &Request) -> Vec<u8> {
        let step = match self.forwarder.forward(key(request)).await {
            Ok(answer) => self.relay(Outcome::Forwarded, request, &answer, u32::MAX),
            Err(error) => {
                debug!(name = %request.name, %error, "A query failed.");
                self.failed(request)
            }
        };
        match step {
            Step::Reply(reply) => reply,
            Step::Forward(_) | Step::Ignore => reply::failure(request, ResponseCode::ServFail),
        }
    }

    /// The reply to a query that there is no room to wait for.
    pub(crate) fn overload(&self, request: &Request) -> Vec<u8> {
        self.counters.count(Outcome::Failed);
        reply::failure(request, ResponseCode::ServFail)
    }

    /// What we are the authority for; none if it is the upstreams' matter.
    fn local<'a>(&self, records: &'a Records, request: &Request) -> Option<Local<'a>> {
        let ours = self.domain.zone_of(&request.name);
        let apex = ours && request.name == self.domain;
        let asked = request.query.query_type();
        match records.find(&request.name) {
            _ if apex && asked == RecordType::SOA => Some(Local::Authority),
            Found::Addresses(addresses) => {
                let wanted = addresses.iter().filter(|address| match asked {
                    RecordType::A => address.is_ipv4(),
                    RecordType::AAAA => address.is_ipv6(),
                    _ => false,
                });
                let wanted: Vec<_> = wanted.copied().take(ADDRESSES_PER_ANSWER_MAX).collect();
                Some(if wanted.is_empty() { Local::NoData } else { Local::Addresses(wanted) })
            }
            Found::Pointer(name) if asked == RecordType::PTR => Some(Local::Pointer(name)),
            Found::Pointer(_) => Some(Local::NoData),
            Found::Ancestor if ours => Some(Local::NoData),
            Found::Nothing if apex => Some(Local::NoData),
            Found::Nothing if ours => Some(Local::NoName),
            Found::Ancestor | Found::Nothing => None,
        }
    }

    fn relay(&self, outcome: Outcome, request: &Request, answer: &Answer, ttl_max: u32) -> Step {
        match Message::from_vec(&answer.wire) {
            Ok(message) => self.reply(outcome, reply::relayed(request, message, ttl_max)),
            Err(error) => {
                debug!(name = %request.name, %error, "A kept answer could not be read.");
                self.failed(request)
            }
        }
    }

    fn failed(&self, request: &Request) -> Step {
        self.reply(Outcome::Failed, reply::failure(request, ResponseCode::ServFail))
    }

    fn reply(&self, outcome: Outcome, reply: Vec<u8>) -> Step {
        self.counters.count(outcome);
        Step::Reply(reply)
    }
}

fn key(request: &Request) -> Key {
    Key {
        name: request.name.clone(),
        record_type: request.query.query_type(),
        dnssec_ok: request.edns.is_some_and(|edns| edns.dnssec_ok),
        checking_disabled: request.metadata.checking_disabled,
    }
}
