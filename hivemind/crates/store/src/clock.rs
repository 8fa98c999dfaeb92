//! The time that leases run on: monotonic, and set by hand in tests.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::sync::watch;

/// A monotonic clock.
#[async_trait]
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time since some fixed point.
    fn now(&self) -> Duration;
    /// Waits until [`Clock::now`] is at least `deadline`.
    async fn sleep_until(&self, deadline: Duration);
}

/// The system's monotonic clock, on tokio's timer.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl SystemClock {
    /// A clock that starts at zero now.
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    async fn sleep_until(&self, deadline: Duration) {
        tokio::time::sleep_until((self.0 + deadline).into()).await;
    }
}

/// A clock that stands still until it is told to go on.
#[derive(Debug)]
pub struct ManualClock(watch::Sender<Duration>);

impl ManualClock {
    /// A clock that stands at zero.
    pub fn new() -> Self {
        Self(watch::Sender::new(Duration::ZERO))
    }

    /// Moves the time forward and wakes whoever waited for it.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now += by);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Duration {
        *self.0.borrow()
    }

    async fn sleep_until(&self, deadline: Duration) {
        let mut now = self.0.subscribe();
        now.wait_for(|now| *now >= deadline).await.expect("the sender lives in self");
    }
}
