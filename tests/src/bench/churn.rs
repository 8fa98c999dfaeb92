//! The bench `churn`: replicas with identities of their own come and go for minutes, while two real replicas talk; afterwards the node
//! has to be as it was before.
//!
//! Before it is looked what stands there is a short churn, after which tables and caches are as full as they are meant to be. What
//! the daemon's memory has grown by then is what the longer one left, besides what the allocator did not give back.

use std::time::Duration;

use anyhow::Result;

use super::figure::Figure;
use super::memory;
use crate::churn::{Churn, ChurnNode, Standing, end_traffic};

/// Replicas that have to come and go a second.
const PER_S_MIN: f64 = 40.0;

/// How many are deployed: a little more, since the last ones have to go too before the time is over.
const PACE: f64 = 41.0;

/// How long each runs at least.
const LIVES: Duration = Duration::from_millis(500);

const WARM_UP: Duration = Duration::from_secs(60);
const LASTS: Duration = Duration::from_secs(300);

/// The daemon may have grown by this much, which the allocator may hold back: spread over the 12,300 replicas that came and went,
/// each with an identity, an app and a service, it is 650 bytes.
const GROWTH_MB_MAX: f64 = 8.0;

const MEGABYTE: f64 = 1e6;

pub(super) fn run(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    progress("churn: a node with two replicas, and nodes without containers");
    let mut node = ChurnNode::start()?;
    progress(&format!("churn: {} s beforehand", WARM_UP.as_secs()));
    let traffic = node.talk()?;
    node.churn(Churn { per_s: PACE, lasts: WARM_UP, lives: LIVES })?;
    end_traffic(traffic)?;
    let before = node.settled()?;
    let pid = node.node().daemon_pid()?;
    let memory_before = memory::settled(pid)?;
    progress(&format!("churn: {} s", LASTS.as_secs()));
    let traffic = node.talk()?;
    let churned = node.churn(Churn { per_s: PACE, lasts: LASTS, lives: LIVES })?;
    let talked = traffic.stop()?;
    progress("churn: until the node is as it was");
    let after = match node.until_as(&before) {
        Ok(after) => after,
        Err(error) => {
            progress(&format!("churn: {error:#}"));
            node.standing()?
        }
    };
    let memory_after = memory::settled(pid)?;
    let megabytes = |bytes: u64| bytes as f64 / MEGABYTE;
    let count = |metric: &str, unit, number: u64| Figure::new(metric, unit, vec![number as f64]);
    Ok(vec![
        Figure::new("churn_replicas_per_s", "1/s", vec![churned.per_s()]).at_least(PER_S_MIN),
        count("churn_replicas", "replicas", churned.replicas),
        count("churn_addresses_max", "entries", churned.addresses_max),
        count("churn_entries_left", "entries", entries_between(&before, &after)).at_most(0.0),
        count("churn_descriptors_left", "descriptors", after.descriptors.abs_diff(before.descriptors))
            .at_most(0.0),
        count("churn_identities_left", "identities", after.objects[0].abs_diff(before.objects[0]))
            .at_most(0.0),
        Figure::new("churn_memory_before", "MB", vec![megabytes(memory_before)]),
        Figure::new("churn_memory_max", "MB", vec![megabytes(churned.memory_max)]),
        Figure::new("churn_memory_growth", "MB", vec![megabytes(memory_after) - megabytes(memory_before)])
            .at_most(GROWTH_MB_MAX),
        count("churn_requests", "requests", talked.long_requests + talked.new_connections),
        count("churn_requests_failed", "requests", talked.failures.len() as u64).at_most(0.0),
        Figure::of_times("churn_longest_wait", &[talked.longest_wait]),
    ])
}

/// By how many entries the maps differ, each by itself.
fn entries_between(before: &Standing, after: &Standing) -> u64 {
    after.entries.iter().map(|(map, entries)| entries.abs_diff(before.entries[map])).sum()
}
