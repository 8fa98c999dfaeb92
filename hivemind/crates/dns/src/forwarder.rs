//! Names that are not ours: cached, or asked of the upstreams.
//!
//! A question that is already with the upstreams is not asked again: the later clients wait for the same
//! answer. So a forwarding loop through another resolver ends at its second turn, and the number of sockets is
//! that of different questions, which is bounded.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hickory_proto::op::Message;
use hickory_proto::rr::{RData, Record, RecordType};
use thiserror::Error;
use tokio::sync::watch;
use tracing::debug;

use crate::cache::{Answer, Cache, Key};
use crate::exchange;
use crate::limits::{ATTEMPTS_MAX, CACHED_ANSWER_BYTES_MAX, CACHED_TTL_MAX, EXCHANGES_MAX, UPSTREAMS_MAX};

/// Why there is no answer; the client gets SERVFAIL and may ask again.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum ForwardError {
    /// There is no upstream. Configure one.
    #[error("there is no upstream")]
    NoUpstream,
    /// All upstreams were asked and none answered.
    #[error("no upstream answered")]
    NoAnswer,
    /// Too many different questions are with the upstreams.
    #[error("too many questions are waiting for upstreams")]
    Overload,
    /// The client that asked first has gone, as it does when the server stops.
    #[error("the question was abandoned")]
    Abandoned,
}

type Outcome = Result<Arc<Answer>, ForwardError>;

#[derive(Debug)]
pub(crate) struct Forwarder {
    upstreams: RwLock<Arc<[SocketAddr]>>,
    /// Which upstream is asked first: the one that answered last, so that a dead one costs its timeout once.
    preferred: AtomicUsize,
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    cache: Cache,
    /// The questions that are with upstreams, at most `EXCHANGES_MAX`.
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
    pub(crate) fn new(upstreams: &[SocketAddr], cache_entries: usize, patience: Duration) -> Self {
        let state = State { cache: Cache::new(cache_entries), flights: HashMap::new() };
        let forwarder = Self {
            upstreams: RwLock::new(Arc::new([])),
            preferred: AtomicUsize::new(0),
            patience,
            state: Mutex::new(state),
        };
        forwarder.set_upstreams(upstreams);
        forwarder
    }

    /// Uses the first of `upstreams` from the next question on.
    pub(crate) fn set_upstreams(&self, upstreams: &[SocketAddr]) {
        let upstreams = upstreams.iter().copied().take(UPSTREAMS_MAX).collect();
        *self.upstreams.write().unwrap_or_else(PoisonError::into_inner) = upstreams;
        self.preferred.store(0, Ordering::Relaxed);
    }

    /// A cached answer and its age.
    pub(crate) fn cached(&self, key: &Key, now: Instant) -> Option<(Arc<Answer>, Duration)> {
        self.state().cache.get(key, now)
    }

    /// Asks the upstreams, or waits for whoever is asking them the same already.
    pub(crate) async fn forward(&self, key: Key) -> Outcome {
        let key = Arc::new(key);
        match self.take_off(&key)? {
            Role::Leader(sender) => {
                // Ends the flight also when this future is dropped half-way.
                let _landing = Landing { forwarder: self, key: &key };
                let outcome = self.ask_upstreams(&key).await;
                if let Ok(answer) = &outcome {
                    self.state().cache.insert(Arc::clone(&key), Arc::clone(answer), Instant::now());
                }
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

    fn take_off(&self, key: &Arc<Key>) -> Result<Role, ForwardError> {
        let mut state = self.state();
        if let Some(receiver) = state.flights.get(key) {
            return Ok(Role::Follower(receiver.clone()));
        }
        // The cache was looked at before, but without the lock in between.
        if let Some((answer, _)) = state.cache.get(key, Instant::now()) {
            return Ok(Role::Late(answer));
        }
        if state.flights.len() >= EXCHANGES_MAX {
            return Err(ForwardError::Overload);
        }
        let (sender, receiver) = watch::channel(None);
        state.flights.insert(Arc::clone(key), receiver);
        Ok(Role::Leader(sender))
    }

    async fn ask_upstreams(&self, key: &Key) -> Outcome {
        let upstreams = Arc::clone(&self.upstreams.read().unwrap_or_else(PoisonError::into_inner));
        if upstreams.is_empty() {
            return Err(ForwardError::NoUpstream);
        }
        let first = self.preferred.load(Ordering::Relaxed);
        for attempt in 0..ATTEMPTS_MAX.min(upstreams.len() + 1) {
            let position = (first + attempt) % upstreams.len();
            let upstream = upstreams[position];
            match exchange::ask(upstream, key, self.patience).await {
                Ok(message) => {
                    self.preferred.store(position, Ordering::Relaxed);
                    match keep(message, key.record_type) {
                        Some(answer) => return Ok(Arc::new(answer)),
                        None => debug!(%upstream, name = %key.name, "An answer could not be written."),
                    }
                }
                Err(error) => debug!(%upstream, name = %key.name, %error, "An upstream did not answer."),
            }
        }
        Err(ForwardError::NoAnswer)
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

/// The answer as it is kept and handed on: TTLs within bounds, nothing that concerns one exchange only.
fn keep(mut message: Message, asked: RecordType) -> Option<Answer> {
    let ttl_max = u32::try_from(CACHED_TTL_MAX.as_secs()).unwrap_or(u32::MAX);
    for record in message.answers.iter_mut().chain(&mut message.authorities).chain(&mut message.additionals) {
        // A TTL with the highest bit set counts as zero (RFC 2181 section 8).
        record.ttl = if i32::try_from(record.ttl).is_ok() { record.ttl.min(ttl_max) } else { 0 };
    }
    let lifetime = lifetime_seconds(&message, asked);
    message.metadata.id = 0;
    message.edns = None;
    message.signature = None;
    let wire = message.to_vec().ok()?.into_boxed_slice();
    let keepable = wire.len() <= CACHED_ANSWER_BYTES_MAX;
    Some(Answer { wire, lifetime: Duration::from_secs(if keepable { lifetime.into() } else { 0 }) })
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
    use hickory_proto::op::{MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::rdata::{A, CNAME, SOA};
    use hickory_proto::rr::{LowerName, Name};

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

    fn lifetime(message: Message) -> u64 {
        keep(message, RecordType::A).unwrap().lifetime.as_secs()
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
        let answer = keep(message(&many, &[]), RecordType::A).unwrap();
        assert!(answer.wire.len() > CACHED_ANSWER_BYTES_MAX && answer.lifetime.is_zero());
    }

    #[tokio::test]
    async fn a_question_above_the_limit_is_an_overload_and_a_known_one_still_joins() {
        let forwarder = Forwarder::new(&["127.0.0.1:9".parse().unwrap()], 0, Duration::from_secs(1));
        let key = |number: usize| {
            Arc::new(Key {
                name: LowerName::new(&name(&format!("n{number}.example."))),
                record_type: RecordType::A,
                dnssec_ok: false,
                checking_disabled: false,
            })
        };
        let leaders: Vec<_> = (0..EXCHANGES_MAX).map(|n| forwarder.take_off(&key(n)).unwrap()).collect();
        assert!(matches!(forwarder.take_off(&key(0)), Ok(Role::Follower(_))));
        assert!(matches!(forwarder.take_off(&key(EXCHANGES_MAX)), Err(ForwardError::Overload)));
        drop(leaders);
        let abandoned = forwarder.forward(Key::clone(&key(1))).await;
        assert_eq!(abandoned, Err(ForwardError::Abandoned));
    }
}
