//! What to do with a query: answer it from the records or the cache, or hand it to the upstreams.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hickory_proto::op::{Metadata, ResponseCode};
use hickory_proto::rr::{LowerName, Name, RecordType};
use tracing::debug;

use crate::answer::Answer;
use crate::cache::Cache;
use crate::forwarder::{ForwardError, Forwarder, Key};
use crate::limits::{
    ADDRESSES_PER_ANSWER_MAX, LOCAL_ANSWER_BYTES_MAX, LOCAL_ANSWERS_MAX, SERVERS_PER_ANSWER_MAX,
};
use crate::losses::{Loss, Losses};
use crate::observer::Observer;
use crate::question::{Question, Rejection};
use crate::records::{EndlessAlias, Entry, Found, Records, Server};
use crate::reply::{Local, Reply, server_name};
use crate::server::Protocol;
use crate::statistics::{Caches, Class, Counters, Fill, Outcome, Outcomes, Statistics};
use crate::wire::Usual;

#[derive(Debug)]
pub(crate) struct Responder {
    domain: LowerName,
    published: RwLock<Arc<Published>>,
    forwarder: Forwarder,
    counters: Counters,
    pub(crate) losses: Losses,
}

/// A table of local names, with the answers that were made of it.
#[derive(Debug)]
struct Published {
    /// Counts the tables from 1.
    number: u64,
    records: Records,
    answers: Mutex<Cache<Arc<Answer>>>,
}

impl Published {
    fn new(number: u64, records: Records) -> Arc<Self> {
        Arc::new(Self { number, records, answers: Mutex::new(Cache::new(LOCAL_ANSWERS_MAX)) })
    }

    fn answer(&self, asked: &Usual<'_>, now: Instant) -> Option<Arc<Answer>> {
        let key = asked.local_key();
        self.answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key.bytes(), now)
            .map(|(answer, _)| answer)
    }

    /// Keeps an answer until the next table comes.
    fn keep(&self, asked: &Usual<'_>, answer: Answer, now: Instant) {
        if answer.len() <= LOCAL_ANSWER_BYTES_MAX {
            let (key, lifetime) = (asked.local_key(), answer.lifetime);
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.insert(key.bytes(), Arc::new(answer), lifetime, now);
        }
    }
}

/// How long an answer of a table is kept at a time; it does not change before the table does.
const LOCAL_ANSWER_LIFETIME: Duration = Duration::from_secs(3600);

/// What is to be done with a packet.
#[derive(Debug)]
pub(crate) enum Step {
    /// The reply has been written.
    Reply,
    /// There is nothing to say.
    Nothing,
    /// Wait for [`Responder::forward`], or send what [`Responder::overload`] gives.
    Forward(Box<Pending>),
}

/// A query for upstreams.
#[derive(Debug)]
pub(crate) struct Pending {
    question: Question,
    /// What the name stands for, link by link; the last is what is asked of upstreams.
    aliases: Vec<Name>,
    class: Class,
    began: Instant,
}

impl Responder {
    pub(crate) fn new(domain: &Name, records: Records, forwarder: Forwarder) -> Self {
        Self {
            domain: LowerName::new(domain),
            published: RwLock::new(Published::new(1, records)),
            forwarder,
            counters: Counters::default(),
            losses: Losses::default(),
        }
    }

    pub(crate) fn publish(&self, records: Records) {
        let mut current = self.published.write().unwrap_or_else(PoisonError::into_inner);
        let next = Published::new(current.number + 1, records);
        let previous = std::mem::replace(&mut *current, next);
        drop(current);
        // Freeing a large table takes a while; queries need not wait for it.
        drop(previous);
    }

    pub(crate) fn set_upstreams(&self, upstreams: &[SocketAddr]) {
        self.forwarder.set_upstreams(upstreams);
    }

    pub(crate) fn observe_by(&self, observer: Arc<dyn Observer>) {
        self.forwarder.observe_by(observer);
    }

    pub(crate) fn forget_answers(&self) {
        self.forwarder.forget_answers();
    }

    /// Looks after upstreams that do not answer; never ends.
    pub(crate) async fn probe(&self) {
        self.forwarder.probe().await;
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let queries = self.counters.queries();
        let published = self.published();
        let answers = published.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let local = Fill { entries: answers.len(), capacity: answers.capacity() };
        drop(answers);
        Statistics {
            outcomes: Outcomes::sum(&queries),
            queries,
            at_once: self.counters.at_once.read(),
            waited: self.counters.waited.read(),
            upstreams: self.forwarder.upstreams(),
            caches: Caches { local, ..self.forwarder.caches() },
            lost: self.losses.read(),
        }
    }

    fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts that `count` queries that were read at `began` have been answered at once.
    pub(crate) fn count_at_once(&self, began: Instant, count: u64) {
        self.counters.at_once.count(began.elapsed(), count);
    }

    /// Answers a packet that was read at `now` if that can be done at once, and appends the reply to `out`. Does not
    /// block and does not wait.
    pub(crate) fn receive(&self, packet: &[u8], protocol: Protocol, now: Instant, out: &mut Vec<u8>) -> Step {
        let published = self.published();
        let usual = Usual::read(packet, protocol);
        if let Some(asked) = &usual
            && let Some(outcome) = self.repeat(&published, asked, now, out)
        {
            self.counters.count(Class::new(asked.record_type, protocol), outcome);
            return Step::Reply;
        }
        let question = match Question::read(packet, protocol) {
            Ok(question) => question,
            Err(Rejection::Ignored) => return Step::Nothing,
            Err(Rejection::Malformed(reply)) => {
                return self.send(Class::other(protocol), Outcome::Malformed, *reply, u16::MAX, out);
            }
            Err(Rejection::Refused(reply)) => {
                return self.send(Class::other(protocol), Outcome::Refused, *reply, u16::MAX, out);
            }
        };
        self.answer(&published, question, usual.as_ref(), protocol, now, out)
    }

    /// Answers with what was answered before, of the records or of an upstream, if it is still good.
    fn repeat(
        &self,
        published: &Published,
        asked: &Usual<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        if let Some(answer) = published.answer(asked, now) {
            return answer.write(asked, u32::MAX, out).then_some(Outcome::Local);
        }
        if !asked.recursion_desired() {
            return None;
        }
        let (answer, age) = self.forwarder.cached(&asked.foreign_key(), now)?;
        // The name may have become ours since.
        let is_good =
            answer.is_foreign_to(published.number) && answer.write(asked, ttl_max(&answer, age), out);
        is_good.then_some(Outcome::Cached)
    }

    fn answer(
        &self,
        published: &Published,
        question: Question,
        usual: Option<&Usual<'_>>,
        protocol: Protocol,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Step {
        let class = Class::new(question.query.query_type().into(), protocol);
        let bytes_max = question.answer_bytes_max;
        match published.records.aliases(&question.name) {
            Ok(aliases) if aliases.is_empty() => {}
            Ok(aliases) => {
                let aliases: Vec<Name> = aliases.into_iter().cloned().collect();
                return self.answer_alias(published, question, aliases, class, now, out);
            }
            Err(EndlessAlias) => {
                debug!(name = %question.name, "A name stands for others without an end.");
                return self.send(class, Outcome::Failed, failed(&question).1, bytes_max, out);
            }
        }
        if let Some((local, zone)) = self.local(&published.records, &question) {
            if let Some(asked) = usual {
                let canonical = Reply::local(&question.canonical(), local.clone(), zone);
                if canonical.records() <= RECORDS_KEPT_MAX
                    && let Some(answer) = Answer::new(canonical.message(), LOCAL_ANSWER_LIFETIME)
                {
                    published.keep(asked, answer, now);
                }
            }
            return self.send(class, Outcome::Local, Reply::local(&question, local, zone), bytes_max, out);
        }
        if !question.metadata.recursion_desired {
            let reply = Reply::failure(&question, ResponseCode::Refused);
            return self.send(class, Outcome::Refused, reply, bytes_max, out);
        }
        let Some((answer, age)) = self.forwarder.cached(&question.foreign_key(), now) else {
            return Step::Forward(Box::new(Pending { question, aliases: Vec::new(), class, began: now }));
        };
        answer.set_foreign_to(published.number);
        let (outcome, reply) = relay(Outcome::Cached, &question, &answer, ttl_max(&answer, age));
        self.send(class, outcome, reply, bytes_max, out)
    }

    /// Answers what stands for another name: with the aliases, and what the last of them stands for has, be it ours or not.
    fn answer_alias(
        &self,
        published: &Published,
        question: Question,
        mut aliases: Vec<Name>,
        class: Class,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Step {
        let bytes_max = question.answer_bytes_max;
        let asked = question.query.query_type();
        if asked == RecordType::CNAME {
            aliases.truncate(1);
        }
        let target = question.about(aliases.last().unwrap_or(question.query.name()).clone());
        let local = match asked {
            RecordType::CNAME => Some(Reply::to(&question).authoritative()),
            _ => self
                .local(&published.records, &target)
                .map(|(local, zone)| Reply::local(&target, local, zone).asked_as(&question)),
        };
        // Without a wish for recursion we say what is ours to say, and that is where it goes.
        let local = local
            .or_else(|| (!question.metadata.recursion_desired).then(|| Reply::to(&question).authoritative()));
        if let Some(reply) = local {
            return self.send(class, Outcome::Local, reply.behind(&question, &aliases), bytes_max, out);
        }
        let Some((answer, age)) = self.forwarder.cached(&target.foreign_key(), now) else {
            return Step::Forward(Box::new(Pending { question, aliases, class, began: now }));
        };
        let (outcome, reply) = relay(Outcome::Cached, &question, &answer, ttl_max(&answer, age));
        let reply = if outcome == Outcome::Failed { reply } else { reply.behind(&question, &aliases) };
        self.send(class, outcome, reply, bytes_max, out)
    }

    /// The reply that the upstreams give, or SERVFAIL. `is_modest`: the client has few queries waiting.
    pub(crate) async fn forward(&self, pending: &Pending, is_modest: bool) -> Vec<u8> {
        let question = &pending.question;
        let asked = match pending.aliases.last() {
            Some(target) => key(&question.about(target.clone())),
            None => key(question),
        };
        let (outcome, reply) = match self.forwarder.forward(asked, is_modest).await {
            Ok(answer) => {
                let (outcome, reply) = relay(Outcome::Forwarded, question, &answer, u32::MAX);
                let is_answered = outcome != Outcome::Failed;
                (outcome, if is_answered { reply.behind(question, &pending.aliases) } else { reply })
            }
            Err(error) => {
                debug!(name = %question.name, %error, "A query failed.");
                if error == ForwardError::Overload {
                    self.losses.count(Loss::Queries, 1);
                }
                failed(question)
            }
        };
        self.counters.waited.count(pending.began.elapsed(), 1);
        self.finish(pending, outcome, reply)
    }

    /// The reply to a query that there is no room to wait for.
    pub(crate) fn overload(&self, pending: &Pending) -> Vec<u8> {
        debug!(name = %pending.question.name, "A query found too many others waiting.");
        self.losses.count(Loss::Queries, 1);
        let (outcome, reply) = failed(&pending.question);
        self.finish(pending, outcome, reply)
    }

    fn finish(&self, pending: &Pending, outcome: Outcome, reply: Reply) -> Vec<u8> {
        let mut out = Vec::new();
        self.send(pending.class, outcome, reply, pending.question.answer_bytes_max, &mut out);
        out
    }

    /// Counts a query, and appends its reply to `out`.
    fn send(&self, class: Class, outcome: Outcome, reply: Reply, bytes_max: u16, out: &mut Vec<u8>) -> Step {
        self.counters.count(class, outcome);
        let request = reply.message().metadata;
        let written = reply.encode(bytes_max).or_else(|error| {
            debug!(%error, "A DNS reply could not be written.");
            servfail(&request).encode(bytes_max)
        });
        match written {
            Ok(bytes) => {
                out.extend_from_slice(&bytes);
                Step::Reply
            }
            Err(_) => Step::Nothing,
        }
    }

    /// What we are the authority for, with the zone that it is in; none if it is the upstreams' matter.
    fn local<'a>(&'a self, records: &'a Records, question: &'a Question) -> Option<(Local<'a>, &'a Name)> {
        let ours = self.domain.zone_of(&question.name);
        let apex = ours && question.name == self.domain;
        let asked = question.query.query_type();
        let zone: &Name = if ours { &self.domain } else { &question.name };
        let local = match records.find(&question.name) {
            _ if apex && asked == RecordType::SOA => Local::Authority,
            _ if apex && asked == RecordType::NS => {
                Local::NameServer(addresses_of_server(records, &self.domain))
            }
            Found::Entry(entry) => of_entry(entry, asked, records),
            Found::Pointer(name) if asked == RecordType::PTR => Local::Pointer(name),
            Found::Pointer(_) => Local::NoData,
            Found::NoPointer(zone) => return Some((Local::NoName, zone)),
            Found::ReverseZone(zone) if question.name == *zone && asked == RecordType::SOA => {
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
}

/// Answers with more records are not kept in wire format.
const RECORDS_KEPT_MAX: usize = 20;

/// The most that a kept answer of this age may still live, in seconds.
fn ttl_max(answer: &Answer, age: Duration) -> u32 {
    let left = answer.lifetime.as_secs().saturating_sub(age.as_secs());
    u32::try_from(left).unwrap_or(u32::MAX)
}

fn relay(outcome: Outcome, question: &Question, answer: &Answer, ttl_max: u32) -> (Outcome, Reply) {
    match answer.message() {
        Some(message) => (outcome, Reply::relayed(question, message, ttl_max)),
        None => {
            debug!(name = %question.name, "A kept answer could not be read.");
            failed(question)
        }
    }
}

fn failed(question: &Question) -> (Outcome, Reply) {
    (Outcome::Failed, Reply::failure(question, ResponseCode::ServFail))
}

fn servfail(request: &Metadata) -> Reply {
    Reply::bare(request, ResponseCode::ServFail)
}

/// What a name of ours has of the type that is asked.
fn of_entry<'a>(entry: &'a Entry, asked: RecordType, records: &'a Records) -> Local<'a> {
    let local = match asked {
        RecordType::SRV => {
            let with_addresses = |server: &'a Server| (server, records.addresses(&server.target));
            Local::Servers(entry.servers.iter().take(SERVERS_PER_ANSWER_MAX).map(with_addresses).collect())
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

fn key(question: &Question) -> Key {
    Key {
        name: question.name.clone(),
        record_type: question.query.query_type(),
        dnssec_ok: question.dnssec_ok(),
        checking_disabled: question.metadata.checking_disabled,
    }
}
