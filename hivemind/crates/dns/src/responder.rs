//! What to do with a query: answer it from the records or the cache, or hand it to the upstreams.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{LowerName, Name, RecordType};
use hickory_server::server::Request;
use tracing::debug;

use crate::cache::{Answer, Key};
use crate::forwarder::Forwarder;
use crate::limits::ADDRESSES_PER_ANSWER_MAX;
use crate::question::{Question, Rejection};
use crate::records::{Entry, Found, Records, Server};
use crate::reply::{Local, Reply, server_name};
use crate::statistics::{Counters, Outcome, Statistics};

#[derive(Debug)]
pub(crate) struct Responder {
    domain: LowerName,
    records: RwLock<Arc<Records>>,
    forwarder: Forwarder,
    counters: Counters,
}

/// What is to be done with a request.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// Send this back.
    Reply(Reply),
    /// Wait for [`Responder::forward`], or send what [`Responder::overload`] gives.
    Forward(Question<'a>),
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
    pub(crate) fn receive<'a>(&self, request: &'a Request) -> Step<'a> {
        let question = match Question::new(request) {
            Ok(question) => question,
            Err(Rejection::Malformed(reply)) => return Step::Reply(self.count(Outcome::Malformed, *reply)),
            Err(Rejection::Refused(reply)) => return Step::Reply(self.count(Outcome::Refused, *reply)),
        };
        let records = Arc::clone(&self.records.read().unwrap_or_else(PoisonError::into_inner));
        if let Some((local, zone)) = self.local(&records, &question) {
            return Step::Reply(self.count(Outcome::Local, Reply::local(&question, local, zone)));
        }
        if !question.metadata.recursion_desired {
            let reply = Reply::failure(&question, ResponseCode::Refused);
            return Step::Reply(self.count(Outcome::Refused, reply));
        }
        match self.forwarder.cached(&key(&question), Instant::now()) {
            Some((answer, age)) => {
                let ttl = answer.lifetime.as_secs().saturating_sub(age.as_secs());
                let ttl_max = u32::try_from(ttl).unwrap_or(u32::MAX);
                Step::Reply(self.relay(Outcome::Cached, &question, &answer, ttl_max))
            }
            None => Step::Forward(question),
        }
    }

    /// The reply that the upstreams give, or SERVFAIL.
    pub(crate) async fn forward(&self, question: &Question<'_>) -> Reply {
        match self.forwarder.forward(key(question)).await {
            Ok(answer) => self.relay(Outcome::Forwarded, question, &answer, u32::MAX),
            Err(error) => {
                debug!(name = %question.name, %error, "A query failed.");
                self.failed(question)
            }
        }
    }

    /// The reply to a query that there is no room to wait for.
    pub(crate) fn overload(&self, question: &Question<'_>) -> Reply {
        debug!(name = %question.name, "A query found too many others waiting.");
        self.failed(question)
    }

    /// What we are the authority for, with the zone that it is in; none if it is the upstreams' matter.
    fn local<'a>(&'a self, records: &'a Records, question: &Question<'a>) -> Option<(Local<'a>, &'a Name)> {
        let ours = self.domain.zone_of(question.name);
        let apex = ours && *question.name == self.domain;
        let asked = question.query.query_type();
        let zone: &Name = if ours { &self.domain } else { question.name };
        let local = match records.find(question.name) {
            _ if apex && asked == RecordType::SOA => Local::Authority,
            _ if apex && asked == RecordType::NS => {
                Local::NameServer(addresses_of_server(records, &self.domain))
            }
            Found::Entry(entry) => of_entry(entry, asked, records),
            Found::Pointer(name) if asked == RecordType::PTR => Local::Pointer(name),
            Found::Pointer(_) => Local::NoData,
            Found::NoPointer(zone) => return Some((Local::NoName, zone)),
            Found::ReverseZone(zone) if *question.name == *zone && asked == RecordType::SOA => {
                return Some((Local::Authority, zone));
            }
            Found::ReverseZone(zone) => return Some((Local::NoData, zone)),
            Found::Ancestor if ours => Local::NoData,
            Found::Nothing if apex => Local::NoData,
            Found::Nothing if ours => Local::NoName,
            Found::Ancestor | Found::Nothing => return None,
        };
        Some((local, zone))
    }

    fn relay(&self, outcome: Outcome, question: &Question<'_>, answer: &Answer, ttl_max: u32) -> Reply {
        match Message::from_vec(&answer.wire) {
            Ok(message) => self.count(outcome, Reply::relayed(question, message, ttl_max)),
            Err(error) => {
                debug!(name = %question.name, %error, "A kept answer could not be read.");
                self.failed(question)
            }
        }
    }

    fn failed(&self, question: &Question<'_>) -> Reply {
        self.count(Outcome::Failed, Reply::failure(question, ResponseCode::ServFail))
    }

    fn count(&self, outcome: Outcome, reply: Reply) -> Reply {
        self.counters.count(outcome);
        reply
    }
}

/// What a name of ours has of the type that is asked.
fn of_entry<'a>(entry: &'a Entry, asked: RecordType, records: &'a Records) -> Local<'a> {
    let local = match asked {
        RecordType::SRV => {
            let with_addresses = |server: &'a Server| (server, records.addresses(&server.target));
            Local::Servers(entry.servers.iter().map(with_addresses).collect())
        }
        RecordType::TXT => Local::Texts(&entry.texts),
        RecordType::A | RecordType::AAAA => {
            let is_asked = |address: &&IpAddr| address.is_ipv4() == (asked == RecordType::A);
            let wanted = entry.addresses.iter().filter(is_asked).copied();
            Local::Addresses(wanted.take(ADDRESSES_PER_ANSWER_MAX).collect())
        }
        _ => Local::NoData,
    };
    if local.is_empty() { Local::NoData } else { local }
}

/// The addresses of the name by which we call ourselves in NS and SOA records.
fn addresses_of_server<'a>(records: &'a Records, domain: &Name) -> &'a [IpAddr] {
    server_name(domain).map_or(&[], |name| records.addresses(&name))
}

fn key(question: &Question<'_>) -> Key {
    Key {
        name: question.name.clone(),
        record_type: question.query.query_type(),
        dnssec_ok: question.edns.is_some_and(|edns| edns.dnssec_ok),
        checking_disabled: question.metadata.checking_disabled,
    }
}
