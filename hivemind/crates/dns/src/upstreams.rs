//! The upstreams, and which of them answer.
//!
//! An upstream that leaves a question without an answer is suspected: it is asked after the others, and a probe, the
//! question for the root's servers, shows whether it is the upstream that is silent or whoever the upstream asked. One
//! that cannot be reached, or does not answer the probe, is down: it is not asked at all until a probe is answered, of
//! which there is one every few seconds. While all are down, questions fail at once.

mod health;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::exchange::{self, ExchangeError};
use crate::limits::{PROBE_PATIENCE, PROBE_PAUSE_MAX, PROBE_PAUSE_MIN, UPSTREAMS_MAX};
use crate::statistics::{Timer, UpstreamStatistics};

use health::{Health, State};

/// One server that is asked.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    health: Mutex<Health>,
    sent: AtomicU64,
    failed: AtomicU64,
    latency: Timer,
}

impl Upstream {
    fn new(address: SocketAddr) -> Self {
        let health = Mutex::new(Health::default());
        Self {
            address,
            health,
            sent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            latency: Timer::default(),
        }
    }

    /// Whether it is to be asked without EDNS, as it has shown not to understand it.
    pub(crate) fn is_plain(&self, now: Instant) -> bool {
        self.health().is_plain(now)
    }

    pub(crate) fn set_plain(&self, now: Instant) {
        self.health().set_plain(now);
    }

    fn statistics(&self) -> UpstreamStatistics {
        UpstreamStatistics {
            address: self.address,
            is_up: self.health().state() != State::Down,
            sent: self.sent.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            latency: self.latency.read(),
        }
    }

    /// What is guarded is whole between calls, so that a panic elsewhere does not spoil it.
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All of them, in the order in which they are asked.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    list: RwLock<Arc<[Arc<Upstream>]>>,
    /// Told when one is suspected.
    suspicion: Notify,
    /// That all are down has been told.
    all_down: AtomicBool,
    /// Rises when something may be answered that was not before.
    hopes: AtomicU64,
}

/// Whom to ask.
#[derive(Debug)]
pub(crate) enum Choice {
    /// These, one after another.
    Ask(Vec<Arc<Upstream>>),
    /// Nobody, as all are down.
    AllDown,
    /// Nobody, as there are none.
    None,
}

impl Upstreams {
    /// Uses the first of `addresses`. What is known of those that were used before stays.
    pub(crate) fn set(&self, addresses: &[SocketAddr]) {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        let known = |address: &SocketAddr| list.iter().find(|upstream| upstream.address == *address).cloned();
        let new = |address: &SocketAddr| known(address).unwrap_or_else(|| Arc::new(Upstream::new(*address)));
        let next = addresses.iter().take(UPSTREAMS_MAX).map(new).collect();
        *list = next;
        self.all_down.store(false, Ordering::Relaxed);
        self.hopes.fetch_add(1, Ordering::Relaxed);
    }

    /// Rises when other upstreams are used, or one is up again: what failed before may be tried again.
    pub(crate) fn hopes(&self) -> u64 {
        self.hopes.load(Ordering::Relaxed)
    }

    fn list(&self) -> Arc<[Arc<Upstream>]> {
        Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Those that are up, then those that are suspected.
    pub(crate) fn choose(&self) -> Choice {
        let list = self.list();
        if list.is_empty() {
            return Choice::None;
        }
        let in_state =
            |state| list.iter().filter(move |upstream| upstream.health().state() == state).cloned();
        let chosen: Vec<_> = in_state(State::Up).chain(in_state(State::Suspected)).collect();
        if chosen.is_empty() { Choice::AllDown } else { Choice::Ask(chosen) }
    }

    /// A question is put to `upstream`, which is expected to answer within `usual_time`.
    pub(crate) fn attempt<'a>(&'a self, upstream: &'a Upstream, usual_time: Duration) -> Attempt<'a> {
        upstream.sent.fetch_add(1, Ordering::Relaxed);
        Attempt { upstreams: self, upstream, began: Instant::now(), usual_time, is_open: true }
    }

    fn unanswered(&self, upstream: &Upstream, began: Instant) {
        if upstream.health().unanswered(began) {
            self.suspicion.notify_one();
        }
    }

    fn answered(&self, upstream: &Upstream, now: Instant) {
        if upstream.health().answered(now) {
            self.all_down.store(false, Ordering::Relaxed);
            self.hopes.fetch_add(1, Ordering::Relaxed);
            info!(upstream = %upstream.address, "An upstream of the DNS server answers again.");
        }
    }

    fn unreachable(&self, upstream: &Upstream) {
        let is_new = upstream.health().unreachable();
        if !is_new {
            return;
        }
        self.suspicion.notify_one();
        let is_all = self.list().iter().all(|upstream| upstream.health().state() == State::Down);
        if !is_all {
            warn!(upstream = %upstream.address, "An upstream of the DNS server does not answer; others are asked.");
        } else if !self.all_down.swap(true, Ordering::Relaxed) {
            warn!(
                upstream = %upstream.address,
                "No upstream of the DNS server answers; names that are not ours fail until one does."
            );
        }
    }

    /// Asks those that do not answer whether they do again; never ends. To be run once.
    pub(crate) async fn probe(&self) {
        loop {
            self.suspicion.notified().await;
            let mut pause = PROBE_PAUSE_MIN;
            loop {
                self.probe_once().await;
                let list = self.list();
                let down = list.iter().filter(|upstream| upstream.health().state() != State::Up).count();
                if down == 0 {
                    break;
                }
                let all_down = down == list.len();
                // One that is suspected meanwhile is probed without delay.
                let _ = tokio::time::timeout(pause, self.suspicion.notified()).await;
                pause = if all_down { PROBE_PAUSE_MIN } else { PROBE_PAUSE_MAX.min(pause * 2) };
            }
        }
    }

    async fn probe_once(&self) {
        let list = self.list();
        let silent = list.iter().filter(|upstream| upstream.health().state() != State::Up);
        let probes =
            silent.map(async |upstream| match exchange::probe(upstream.address, PROBE_PATIENCE).await {
                Ok(()) => self.answered(upstream, Instant::now()),
                Err(_) => self.unreachable(upstream),
            });
        join_all(probes).await;
    }

    pub(crate) fn statistics(&self) -> Vec<UpstreamStatistics> {
        self.list().iter().map(|upstream| upstream.statistics()).collect()
    }
}

/// A question that is with an upstream. Dropped without an end, it was not waited for any longer, which counts against
/// the upstream if its usual time was over.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    upstreams: &'a Upstreams,
    upstream: &'a Upstream,
    began: Instant,
    usual_time: Duration,
    is_open: bool,
}

impl Attempt<'_> {
    /// Counts what came of it.
    pub(crate) fn end<T>(mut self, result: &Result<T, ExchangeError>) {
        self.is_open = false;
        let (upstream, now) = (self.upstream, Instant::now());
        match result {
            Ok(_) => upstream.latency.count(now.saturating_duration_since(self.began), 1),
            Err(_) => drop(upstream.failed.fetch_add(1, Ordering::Relaxed)),
        }
        match result {
            Ok(_) | Err(ExchangeError::Code(_)) => self.upstreams.answered(upstream, now),
            // Nothing that the upstream did.
            Err(ExchangeError::Encode(_) | ExchangeError::Socket(_)) => {}
            Err(ExchangeError::Unreachable(_)) => self.upstreams.unreachable(upstream),
            Err(ExchangeError::Timeout(_) | ExchangeError::Mismatch) => {
                self.upstreams.unanswered(upstream, self.began);
            }
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.is_open && self.began.elapsed() >= self.usual_time {
            self.upstream.failed.fetch_add(1, Ordering::Relaxed);
            self.upstreams.unanswered(self.upstream, self.began);
        }
    }
}
