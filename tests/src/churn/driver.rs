//! The churn itself: apps deployed and removed at a pace.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hivemind_client::Client;
use hivemind_common::name;
use hivemind_model::{ApiError, DEFAULT_NAMESPACE, ErrorCode};
use tokio::runtime::Builder;

use super::{ChurnNode, labels};
use crate::simulated::{SimulatedNodes, simulated_app};

/// At most this many apps are there at once: a pace that is too fast is not kept, and does not fill the nodes.
const LIVE_MAX: usize = 200;

/// How often it is looked which apps run.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How often it is looked what stands at the height of it.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// How long the last apps get to be gone.
const END_LIMIT: Duration = Duration::from_secs(60);

/// How much to churn.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    /// Apps of one replica that are deployed a second.
    pub per_s: f64,
    /// For how long.
    pub lasts: Duration,
    /// How long a replica runs at least, before its app is removed.
    pub lives: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Churned {
    /// Replicas that came and went.
    pub replicas: u64,
    /// From the first request until the last replica was gone.
    pub took: Duration,
    /// The most entries that the data path's table of addresses was seen to have.
    pub addresses_max: u64,
    /// The most resident memory of the daemon that was seen, in bytes.
    pub memory_max: u64,
}

impl Churned {
    /// Replicas a second that came and went.
    #[must_use]
    pub fn per_s(&self) -> f64 {
        self.replicas as f64 / self.took.as_secs_f64()
    }
}

/// Apps that were deployed and not removed yet.
#[derive(Default)]
struct Apps {
    live: Mutex<VecDeque<String>>,
    has_ended: AtomicBool,
}

impl Apps {
    fn live(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChurnNode {
    /// Churns, and returns when the last replica is gone.
    ///
    /// # Errors
    /// When an app is refused, or a replica does not go.
    pub fn churn(&mut self, churn: Churn) -> Result<Churned> {
        let before = self.simulated.seen();
        let (first, count) = (self.generation, (churn.per_s * churn.lasts.as_secs_f64()).ceil() as u64);
        self.generation += count;
        let apps = Apps::default();
        let began = Instant::now();
        let (mut addresses_max, mut memory_max) = (0, 0);
        let seen = thread::scope(|scope| {
            let (making, removing) = (self.client(), self.client());
            let (apps, simulated) = (&apps, &self.simulated);
            let maker = scope.spawn(move || {
                let made = make(&making, apps, first, count, churn, began);
                apps.has_ended.store(true, Ordering::Release);
                made
            });
            let remover = scope.spawn(move || remove(&removing, apps, simulated, churn.lives));
            let mut sampled = Instant::now();
            while !remover.is_finished() {
                thread::sleep(LOOK_EVERY);
                if sampled.elapsed() >= SAMPLE_EVERY {
                    sampled = Instant::now();
                    addresses_max = addresses_max.max(self.maps().entries()?[name::ADDRESS_EXACT_V4]);
                    memory_max = memory_max.max(self.node.daemon_memory_kb()? << 10);
                }
            }
            join(maker)?;
            join(remover)?;
            let ended = Instant::now();
            loop {
                let seen = self.simulated.seen();
                if seen.went - before.went >= count {
                    return anyhow::Ok(seen);
                }
                ensure!(ended.elapsed() < END_LIMIT, "{} replicas stay", seen.running.len());
                thread::sleep(LOOK_EVERY);
            }
        })?;
        let took = began.elapsed();
        ensure!(seen.faults == before.faults, "simulated nodes began anew: {:?}", seen.faults);
        let replicas = seen.went - before.went;
        ensure!(seen.came - before.came == replicas, "{} came and {replicas} went", seen.came - before.came);
        Ok(Churned { replicas, took, addresses_max, memory_max })
    }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Deploys an app at each beat, the ones that are late at once.
fn make(client: &Client, apps: &Apps, first: u64, count: u64, churn: Churn, began: Instant) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    for number in 0..count {
        let due = began + Duration::from_secs_f64(number as f64 / churn.per_s);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        while apps.live().len() >= LIVE_MAX {
            thread::sleep(LOOK_EVERY);
        }
        let generation = first + number;
        let app = simulated_app(&format!("g{generation}"), 1, labels(generation));
        runtime.block_on(client.create_app(&app)).with_context(|| format!("app g{generation}"))?;
        apps.live().push_back(app.metadata.name);
    }
    Ok(())
}

/// Removes each app once it has run for long enough.
fn remove(client: &Client, apps: &Apps, simulated: &SimulatedNodes, lives: Duration) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut running: VecDeque<(String, Instant)> = VecDeque::new();
    let mut last = Instant::now();
    loop {
        let has_ended = apps.has_ended.load(Ordering::Acquire);
        let known = running.len();
        let live: Vec<String> = apps.live().iter().skip(known).cloned().collect();
        // They come up in the order in which they were deployed, or nearly so.
        let fresh = {
            let seen = simulated.look();
            live.iter().take_while(|app| seen.runs(app)).count()
        };
        running.extend(live.into_iter().take(fresh).map(|app| (app, Instant::now())));
        while let Some((app, since)) = running.front()
            && since.elapsed() >= lives
        {
            match runtime.block_on(client.delete_app(DEFAULT_NAMESPACE, app)) {
                Err(ApiError { code: ErrorCode::Stale, .. }) => continue,
                done => done.with_context(|| format!("app {app}"))?,
            }
            running.pop_front();
            apps.live().pop_front();
            last = Instant::now();
        }
        if has_ended && apps.live().is_empty() {
            return Ok(());
        }
        ensure!(last.elapsed() < END_LIMIT + lives, "the next app does not run: {:?}", apps.live().front());
        thread::sleep(LOOK_EVERY);
    }
}
