//! What to do with a query: answer it from the records or the cache, or hand it to the upstreams.

use std::net::SocketAddr;
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
use crate::records::{Found, Records};
use crate::reply::{Local, Reply};
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
        if let Some(local) = self.local(&records, &question) {
            let zone = if self.domain.zone_of(question.name) { &self.domain } else { question.name };
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

    /// What we are the authority for; none if it is the upstreams' matter.
    fn local<'a>(&self, records: &'a Records, question: &Question<'_>) -> Option<Local<'a>> {
        let ours = self.domain.zone_of(question.name);
        let apex = ours && *question.name == self.domain;
        let asked = question.query.query_type();
        match records.find(question.name) {
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

fn key(question: &Question<'_>) -> Key {
    Key {
        name: question.name.clone(),
        record_type: question.query.query_type(),
        dnssec_ok: question.edns.is_some_and(|edns| edns.dnssec_ok),
        checking_disabled: question.metadata.checking_disabled,
    }
}
