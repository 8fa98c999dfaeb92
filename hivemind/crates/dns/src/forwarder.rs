//! Names that are not ours: cached, or asked of the upstreams.
//!
//! A question that is already with the upstreams is not asked again: the later clients wait for the same
//! answer. So a forwarding loop through another resolver ends at its second turn, and the number of sockets is
//! that of different questions, which is bounded.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hickory_proto::op::{Message, MessageType, Query};
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::answer::Answer;
use crate::cache::Cache;
use crate::config::Config;
use crate::exchange;
use crate::limits::{
    ATTEMPTS_MAX, CACHED_ANSWER_BYTES_MAX, CACHED_TTL_MAX, EXCHANGE_SOCKETS_MAX, EXCHANGES_MAX,
    FAILURE_LIFETIME, FAILURES_MAX, OBSERVER_PATIENCE, WAITING_RESERVE,
};
use crate::observer::{Observer, Seen};
use crate::statistics::{Caches, Fill, UpstreamStatistics};
use crate::upstreams::{Choice, Upstream, Upstreams};
use crate::wire::KeyBytes;

/// What makes two questions the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) name: LowerName,
    pub(crate) record_type: RecordType,
    /// The client wants DNSSEC records.
    pub(crate) dnssec_ok: bool,
    /// The client validates by itself.
    pub(crate) checking_disabled: bool,
}

impl Key {
    fn bytes(&self) -> KeyBytes {
        KeyBytes::of(&self.name, self.record_type, self.dnssec_ok, self.checking_disabled)
    }
}

/// Why there is no answer; the client gets SERVFAIL and may ask again.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum ForwardError {
    /// There is no upstream. Configure one.
    #[error("there is no upstream")]
    NoUpstream,
    /// None of the upstreams is up.
    #[error("all upstreams are down")]
    AllDown,
    /// All upstreams were asked and none answered.
    #[error("no upstream answered")]
    NoAnswer,
    /// All upstreams were asked a moment ago and none answered.
    #[error("no upstream answered the same question a moment ago")]
    Remembered,
    /// Too many different questions are with the upstreams.
    #[error("too many questions are waiting for upstreams")]
    Overload,
    /// Whoever has to know of it before could not take note in time.
    #[error("what the name stands for could not be noted")]
    Unnoted,
    /// The client that asked first has gone, as it does when the server stops.
    #[error("the question was abandoned")]
    Abandoned,
}

type Outcome = Result<Arc<Answer>, ForwardError>;

#[derive(Debug)]
pub(crate) struct Forwarder {
    upstreams: Upstreams,
    patience: Duration,
    second_try_after: Duration,
    /// A permit for each socket to an upstream.
    sockets: Semaphore,
    /// None as long as answers have to wait for one.
    observer: watch::Sender<Option<Arc<dyn Observer>>>,
    is_observed: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    cache: Cache<Arc<Answer>>,
    /// How often the cache was emptied: what was asked before is not kept after.
    emptied: u64,
    /// Questions that failed, each with the hopes of that time.
    failures: Cache<u64>,
    /// The questions that are with upstreams, at most `EXCHANGES_MAX` and the reserve.
    flights: HashMap<Arc<Key>, watch::Receiver<Option<Outcome>>>,
}

enum Role {
    /// Asks the upstreams and tells the others.
    Leader(watch::Sender<Option<Outcome>>),
    /// Waits for the leader.
    Follower(watch::Receiver<Option<Outcome>>),
    /// Comes just after the leader has its answer.
    Late(Arc<Answer>),
}

impl Forwarder {
    /// Forwards as `config` says, to `upstreams`.
    pub(crate) fn new(config: &Config, upstreams: &[SocketAddr]) -> Self {
        let state = State {
            cache: Cache::new(config.cache_entries),
            emptied: 0,
            failures: Cache::new(FAILURES_MAX),
            flights: HashMap::new(),
        };
        let forwarder = Self {
            upstreams: Upstreams::default(),
            patience: config.upstream_timeout,
            second_try_after: config.second_try_after,
            sockets: Semaphore::new(EXCHANGE_SOCKETS_MAX),
            observer: watch::Sender::new(None),
            is_observed: config.is_observed,
            state: Mutex::new(state),
        };
        forwarder.upstreams.set(upstreams);
        forwarder
    }

    /// Uses the first of `upstreams` from the next question on.
    pub(crate) fn set_upstreams(&self, upstreams: &[SocketAddr]) {
        self.upstreams.set(upstreams);
    }

    /// Tells `observer` of every answer before it is kept or handed on.
    pub(crate) fn observe_by(&self, observer: Arc<dyn Observer>) {
        self.observer.send_replace(Some(observer));
        self.forget_answers();
    }

    /// Empties the cache; what is asked just now is not kept.
    pub(crate) fn forget_answers(&self) {
        let mut state = self.state();
        state.cache = Cache::new(state.cache.capacity());
        state.emptied += 1;
    }

    /// Looks after upstreams that do not answer; never ends.
    pub(crate) async fn probe(&self) {
        self.upstreams.probe().await;
    }

    pub(crate) fn upstreams(&self) -> Vec<UpstreamStatistics> {
        self.upstreams.statistics()
    }

    /// The fill of the caches but the local one.
    pub(crate) fn caches(&self) -> Caches {
        let state = self.state();
        let fill = |entries, capacity| Fill { entries, capacity };
        Caches {
            forwarded: fill(state.cache.len(), state.cache.capacity()),
            failures: fill(state.failures.len(), state.failures.capacity()),
            local: Fill::default(),
        }
    }

    /// A cached answer and its age.
    pub(crate) fn cached(&self, key: &KeyBytes, now: Instant) -> Option<(Arc<Answer>, Duration)> {
        self.state().cache.get(key.bytes(), now)
    }

    /// Asks the upstreams, or waits for whoever is asking them the same already. `is_modest`: may use the reserve.
    pub(crate) async fn forward(&self, key: Key, is_modest: bool) -> Outcome {
        let key = Arc::new(key);
        match self.take_off(&key, is_modest)? {
            Role::Leader(sender) => {
                // Ends the flight also when this future is dropped half-way.
                let _landing = Landing { forwarder: self, key: &key };
                let emptied = self.state().emptied;
                let mut outcome = self.ask_upstreams(&key).await;
                if let Ok(answer) = &outcome
                    && !self.is_noted(&key, answer).await
                {
                    outcome = Err(ForwardError::Unnoted);
                }
                self.keep(&key, &outcome, emptied);
                sender.send_replace(Some(outcome.clone()));
                outcome
            }
            Role::Follower(mut receiver) => {
                let outcome =
                    receiver.wait_for(Option::is_some).await.map_err(|_| ForwardError::Abandoned)?;
                outcome.clone().unwrap_or(Err(ForwardError::Abandoned))
            }
            Role::Late(answer) => Ok(answer),
        }
    }

    fn take_off(&self, key: &Arc<Key>, is_modest: bool) -> Result<Role, ForwardError> {
        let (bytes, now) = (key.bytes(), Instant::now());
        let mut state = self.state();
        if let Some(receiver) = state.flights.get(key) {
            return Ok(Role::Follower(receiver.clone()));
        }
        // The cache was looked at before, but without the lock in between.
        if let Some((answer, _)) = state.cache.get(bytes.bytes(), now) {
            return Ok(Role::Late(answer));
        }
        let failed = state.failures.get(bytes.bytes(), now);
        if failed.is_some_and(|(hopes, _)| hopes == self.upstreams.hopes()) {
            return Err(ForwardError::Remembered);
        }
        let reserve = if is_modest { WAITING_RESERVE } else { 0 };
        if state.flights.len() >= EXCHANGES_MAX + reserve {
            return Err(ForwardError::Overload);
        }
        let (sender, receiver) = watch::channel(None);
        state.flights.insert(Arc::clone(key), receiver);
        Ok(Role::Leader(sender))
    }

    /// Whether the observer, if there is to be one, has taken note of an answer.
    async fn is_noted(&self, key: &Key, answer: &Answer) -> bool {
        let mut observer = self.observer.subscribe();
        let known = observer.borrow_and_update().clone();
        let known = match known {
            None if !self.is_observed => return true,
            None => {
                let wait = observer.wait_for(Option::is_some);
                match timeout(OBSERVER_PATIENCE, wait).await {
                    Ok(Ok(found)) => found.clone(),
                    _ => None,
                }
            }
            known => known,
        };
        let Some(observer) = known else { return false };
        let seen = answer.message().and_then(|message| Seen::of(&key.name, &message, answer.lifetime));
        match seen {
            Some(seen) => observer.observe(seen).await,
            None => true,
        }
    }

    fn keep(&self, key: &Key, outcome: &Outcome, emptied: u64) {
        let (bytes, now) = (key.bytes(), Instant::now());
        let mut state = self.state();
        match outcome {
            Ok(_) if state.emptied != emptied => {}
            Ok(answer) => state.cache.insert(bytes.bytes(), Arc::clone(answer), answer.lifetime, now),
            Err(ForwardError::NoAnswer) => {
                state.failures.insert(bytes.bytes(), self.upstreams.hopes(), FAILURE_LIFETIME, now);
            }
            Err(_) => {}
        }
    }

    /// Asks one upstream, and the next when it has failed or is slow, until one has answered.
    async fn ask_upstreams(&self, key: &Key) -> Outcome {
        let chosen = match self.upstreams.choose() {
            Choice::Ask(chosen) => chosen,
            Choice::AllDown => return Err(ForwardError::AllDown),
            Choice::None => return Err(ForwardError::NoUpstream),
        };
        // The first again after all, in case that a datagram was lost.
        let order = chosen.iter().chain(chosen.first()).take(ATTEMPTS_MAX);
        let mut waiting = order.enumerate().map(|(attempt, upstream)| (attempt == chosen.len(), upstream));
        let mut answered_badly = Vec::new();
        let mut tries = FuturesUnordered::new();
        loop {
            let is_first = tries.is_empty();
            let permit =
                if is_first { self.sockets.acquire().await.ok() } else { self.sockets.try_acquire().ok() };
            if let Some(permit) = permit {
                let next =
                    waiting.find(|(again, upstream)| !again || !answered_badly.contains(&upstream.address));
                if let Some((_, upstream)) = next {
                    tries.push(self.try_upstream(upstream, key, permit));
                }
            }
            // Waits for an answer; goes round for the next try if there is a failure, or none for a while.
            tokio::select! {
                done = tries.next() => match done {
                    Some(Ok(answer)) => return Ok(answer),
                    Some(Err((upstream, true))) => answered_badly.push(upstream),
                    Some(Err((_, false))) => {}
                    None => return Err(ForwardError::NoAnswer),
                },
                () = sleep(self.second_try_after) => {}
            }
        }
    }

    /// One exchange with one upstream. If there is no answer, says of whom, and whether it said that it has none.
    async fn try_upstream(
        &self,
        upstream: &Upstream,
        key: &Key,
        permit: tokio::sync::SemaphorePermit<'_>,
    ) -> Result<Arc<Answer>, (SocketAddr, bool)> {
        let attempt = self.upstreams.attempt(upstream, self.second_try_after);
        let result = exchange::ask(upstream, key, self.patience).await;
        drop(permit);
        attempt.end(&result);
        let address = upstream.address;
        let message = result.map_err(|error| {
            debug!(upstream = %address, name = %key.name, %error, "An upstream did not answer.");
            (address, matches!(error, exchange::ExchangeError::Code(_)))
        })?;
        let kept = keep(message, key).ok_or_else(|| {
            debug!(upstream = %address, name = %key.name, "An answer could not be written.");
            (address, true)
        })?;
        Ok(Arc::new(kept))
    }

    /// What is guarded is whole between calls, so that a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a question off the list of those in flight when it goes out of scope.
struct Landing<'a> {
    forwarder: &'a Forwarder,
    key: &'a Key,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.forwarder.state().flights.remove(self.key);
    }
}

/// The answer as it is kept and handed on: the question in small letters, TTLs within bounds, nothing that concerns one
/// exchange only.
fn keep(mut message: Message, key: &Key) -> Option<Answer> {
    let ttl_max = u32::try_from(CACHED_TTL_MAX.as_secs()).unwrap_or(u32::MAX);
    for record in message.answers.iter_mut().chain(&mut message.authorities).chain(&mut message.additionals) {
        // A TTL with the highest bit set counts as zero (RFC 2181 section 8).
        record.ttl = if i32::try_from(record.ttl).is_ok() { record.ttl.min(ttl_max) } else { 0 };
    }
    let lifetime = lifetime_seconds(&message, key.record_type);
    let (code, is_authentic) = (message.metadata.response_code, message.metadata.authentic_data);
    message.metadata = Message::new(0, MessageType::Response, message.metadata.op_code).metadata;
    (message.metadata.response_code, message.metadata.authentic_data) = (code, is_authentic);
    message.queries = vec![Query::query(Name::from(&key.name), key.record_type)];
    message.edns = None;
    message.signature = None;
    let answer = Answer::new(&message, Duration::from_secs(lifetime.into()))?;
    let keepable = answer.len() <= CACHED_ANSWER_BYTES_MAX;
    Some(if keepable { answer } else { answer.with_lifetime(Duration::ZERO) })
}

/// How long an answer may be cached: the least of its TTLs; for "no" as its SOA record says, and not at all
/// without one (RFC 2308 section 5).
fn lifetime_seconds(message: &Message, asked: RecordType) -> u32 {
    let least = message.all_sections().map(|record| record.ttl).min();
    if message.answers.iter().any(|record| record.record_type() == asked) {
        return least.unwrap_or(0);
    }
    let negative = message.authorities.iter().find_map(minimum_of);
    negative.map_or(0, |negative| negative.min(least.unwrap_or(0)))
}

fn minimum_of(record: &Record) -> Option<u32> {
    match &record.data {
        RData::SOA(authority) => Some(authority.minimum.min(record.ttl)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{OpCode, ResponseCode};
    use hickory_proto::rr::rdata::{A, CNAME, SOA};

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn message(answers: &[(u32, RData)], authorities: &[(u32, RData)]) -> Message {
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        message.add_query(Query::query(name("a.example."), RecordType::A));
        for (ttl, data) in answers {
            message.add_answer(Record::from_rdata(name("a.example."), *ttl, data.clone()));
        }
        for (ttl, data) in authorities {
            message.add_authority(Record::from_rdata(name("example."), *ttl, data.clone()));
        }
        message
    }

    fn soa(minimum: u32) -> RData {
        RData::SOA(SOA::new(name("ns.example."), name("root.example."), 1, 1, 1, 1, minimum))
    }

    fn key(text: &str) -> Key {
        Key {
            name: LowerName::new(&name(text)),
            record_type: RecordType::A,
            dnssec_ok: false,
            checking_disabled: false,
        }
    }

    fn lifetime(message: Message) -> u64 {
        keep(message, &key("a.example.")).unwrap().lifetime.as_secs()
    }

    #[test]
    fn an_answer_lives_as_long_as_its_shortest_record_and_an_hour_at_most() {
        let a = || RData::A(A::new(1, 2, 3, 4));
        assert_eq!(lifetime(message(&[(60, a()), (30, a())], &[])), 30);
        assert_eq!(lifetime(message(&[(90_000, a())], &[])), 3600);
        assert_eq!(lifetime(message(&[(0, a())], &[])), 0);
        assert_eq!(lifetime(message(&[(u32::MAX, a())], &[])), 0, "the highest bit means zero");
    }

    #[test]
    fn a_negative_answer_lives_as_its_soa_says_and_without_one_not_at_all() {
        let mut no_name = message(&[], &[(300, soa(20))]);
        no_name.metadata.response_code = ResponseCode::NXDomain;
        assert_eq!(lifetime(no_name), 20);
        assert_eq!(lifetime(message(&[], &[(10, soa(20))])), 10);
        assert_eq!(lifetime(message(&[], &[])), 0);
        let alias = || RData::CNAME(CNAME(name("b.example.")));
        assert_eq!(lifetime(message(&[(60, alias())], &[])), 0);
        assert_eq!(lifetime(message(&[(5, alias())], &[(300, soa(20))])), 5);
    }

    #[test]
    fn an_answer_that_is_too_large_is_handed_on_and_not_kept() {
        let many: Vec<_> = (0..300).map(|n| (60, RData::A(A::new(10, 0, 1, n as u8)))).collect();
        let answer = keep(message(&many, &[]), &key("a.example.")).unwrap();
        assert!(answer.len() > CACHED_ANSWER_BYTES_MAX && answer.lifetime.is_zero());
    }

    #[tokio::test]
    async fn a_question_above_the_limit_is_an_overload_and_a_known_one_or_a_modest_client_still_joins() {
        let config = Config { cache_entries: 0, ..Config::default() };
        let forwarder = Forwarder::new(&config, &["127.0.0.1:9".parse().unwrap()]);
        let key = |number: usize| Arc::new(key(&format!("n{number}.example.")));
        let take_off = |number, is_modest| forwarder.take_off(&key(number), is_modest);
        let mut leaders: Vec<_> = (0..EXCHANGES_MAX).map(|n| take_off(n, false).unwrap()).collect();
        assert!(matches!(take_off(0, false), Ok(Role::Follower(_))));
        assert!(matches!(take_off(EXCHANGES_MAX, false), Err(ForwardError::Overload)));
        let reserved = EXCHANGES_MAX..EXCHANGES_MAX + WAITING_RESERVE;
        leaders.extend(reserved.map(|n| take_off(n, true).unwrap()));
        assert!(matches!(take_off(EXCHANGES_MAX + WAITING_RESERVE, true), Err(ForwardError::Overload)));
        drop(leaders);
        let abandoned = forwarder.forward(Key::clone(&key(1)), false).await;
        assert!(matches!(abandoned, Err(ForwardError::Abandoned)));
    }
}
