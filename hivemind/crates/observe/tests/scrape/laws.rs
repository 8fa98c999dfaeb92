//! Laws that hold whatever is observed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hivemind_common::policy::{EGRESS, rule_number};
use hivemind_observe::*;
use proptest::prelude::*;

use crate::sample::{AT_ONCE, app, pair, round_trip, scrape, snapshot};

/// What happens between two scrapes.
#[derive(Clone, Debug)]
enum Change {
    /// So many connections of an identity to another, to a port.
    Connect { source: u32, destination: u32, port: u16, allowed: bool, count: u64 },
    /// An app goes, with the identities it has; the kernel frees what it counted for them.
    Delete { app: usize },
    /// An app that is gone is there again, with identities of its own.
    Create { app: usize },
    /// The replicas of an app get other labels: it has a new identity, the old one is freed.
    Relabel { app: usize },
}

const APPS: usize = 4;

fn change() -> impl Strategy<Value = Change> {
    let port = prop_oneof![Just(80_u16), Just(0), 1..100_u16, any::<u16>()];
    prop_oneof![
        8 => (0..8_u32, 0..8_u32, port, any::<bool>(), 1..1_000_u64).prop_map(
            |(source, destination, port, allowed, count)| Change::Connect { source, destination, port, allowed, count }
        ),
        1 => (0..APPS).prop_map(|app| Change::Delete { app }),
        1 => (0..APPS).prop_map(|app| Change::Create { app }),
        1 => (0..APPS).prop_map(|app| Change::Relabel { app }),
    ]
}

/// A node as the kernel and the store see it.
struct World {
    names: Vec<Arc<AppName>>,
    /// The identity of each app that exists.
    identities: BTreeMap<usize, u32>,
    next: u32,
    pairs: BTreeMap<(u32, u32, u16, bool), u64>,
    /// All connections to and from apps, by the app's pair, as long as both exist.
    expected: BTreeMap<(String, String), u64>,
}

impl World {
    fn new() -> Self {
        let names = (0..APPS).map(|i| app("default", &format!("app-{i}"))).collect();
        let identities = (0..APPS).zip(256..).collect();
        World { names, identities, next: 1_000, pairs: BTreeMap::new(), expected: BTreeMap::new() }
    }

    /// An end: the host, the world, or an app if it exists.
    fn end(&self, number: u32) -> Option<(u32, String)> {
        match number {
            0 | 1 => Some((number + 1, ["host", "world"][number as usize].to_owned())),
            _ => {
                let app = number as usize % APPS;
                Some((*self.identities.get(&app)?, self.names[app].name.clone()))
            }
        }
    }

    fn free(&mut self, app: usize) {
        if let Some(gone) = self.identities.remove(&app) {
            self.pairs.retain(|(source, destination, ..), _| *source != gone && *destination != gone);
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Connect { source, destination, port, allowed, count } => {
                let (Some(source), Some(destination)) = (self.end(source), self.end(destination)) else {
                    return;
                };
                *self.pairs.entry((source.0, destination.0, port, allowed)).or_insert(0) += count;
                *self.expected.entry((source.1, destination.1)).or_insert(0) += count;
            }
            Change::Delete { app } => {
                self.free(app);
                let name = &self.names[app].name;
                self.expected.retain(|(source, destination), _| source != name && destination != name);
            }
            Change::Create { app } | Change::Relabel { app } => {
                if self.identities.contains_key(&app) != matches!(change, Change::Relabel { .. }) {
                    return;
                }
                self.free(app);
                self.identities.insert(app, self.next);
                self.next += 1;
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let existing: Vec<_> = self.identities.keys().map(|app| &self.names[*app]).collect();
        let mut now = snapshot(&existing);
        now.traffic.identities =
            self.identities.iter().map(|(app, id)| (*id, Arc::clone(&self.names[*app]))).collect();
        now.traffic.pairs =
            self.pairs.iter().map(|((s, d, port, allowed), n)| pair(*s, *d, *port, *allowed, *n)).collect();
        now.traffic.round_trips = self.pairs.iter().map(|((s, d, ..), n)| round_trip(*s, *d, *n)).collect();
        // One figure for each pair of identities.
        now.traffic.round_trips.sort_by_key(|sample| (sample.local, sample.peer));
        now.traffic.round_trips.dedup_by_key(|sample| (sample.local, sample.peer));
        now
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn totals_are_exact_and_never_go_back_and_series_go_with_their_app(
        changes in prop::collection::vec(change(), 1..40)
    ) {
        let (metrics, mut world) = (Metrics::new(AT_ONCE), World::new());
        let mut before = BTreeMap::new();
        for change in changes {
            let deleted = match change {
                Change::Delete { app } => Some(world.names[app].name.clone()),
                _ => None,
            };
            world.apply(change);
            let read = scrape(&metrics, world.snapshot());
            let connections = |s: &str, d: &str| read.sum(
                "hivemind_flow_connections_total", &[("source_app", s), ("destination_app", d)]
            );
            for ((source, destination), count) in &world.expected {
                prop_assert_eq!(connections(source, destination), *count as f64, "{} {}", source, destination);
            }
            prop_assert_eq!(
                read.sum("hivemind_flow_connections_total", &[]),
                world.expected.values().sum::<u64>() as f64
            );
            if let Some(app) = &deleted {
                let told: BTreeSet<_> = read.samples.iter().flat_map(|(_, labels, _)| labels.values()).collect();
                prop_assert!(!told.contains(app));
            }
            let now: BTreeMap<_, _> = read
                .samples
                .iter()
                .filter(|(name, ..)| name.ends_with("_total") || name.ends_with("_bucket"))
                .map(|(name, labels, value)| ((name.clone(), labels.clone()), *value))
                .collect();
            for (series, value) in &now {
                let was = before.get(series).copied().unwrap_or(0.0);
                prop_assert!(*value >= was, "{:?} went from {} to {}", series, was, value);
            }
            before = now;
        }
    }

    #[test]
    fn folding_keeps_all_totals_and_takes_nothing_back_and_never_tells_more_than_the_bound(
        rounds in prop::collection::vec(
            prop::collection::vec((1..5_u32, 1..5_u32, 1..6_u16, any::<bool>(), 0..200_u64), 0..30), 1..12
        ),
        bound in 0..12_usize,
    ) {
        let metrics = Metrics::new(Bounds { flow_label_sets: bound, round_trip_pairs: bound, ..AT_ONCE });
        let mut counted: BTreeMap<(u32, u32, u16, bool), u64> = BTreeMap::new();
        let mut before = BTreeMap::new();
        for round in rounds {
            for (source, destination, port, allowed, count) in round {
                *counted.entry((source, destination, port, allowed)).or_insert(0) += count;
            }
            let mut now = snapshot(&[]);
            now.traffic.pairs = counted.iter().map(|((s, d, port, allowed), n)| pair(*s, *d, *port, *allowed, *n)).collect();
            let read = scrape(&metrics, now);
            let told = read.matching("hivemind_flow_connections_total", &[]);
            let singly = told.filter(|(labels, _)| labels["source_app"] != "other").count();
            prop_assert!(singly <= bound);
            prop_assert_eq!(read.value("hivemind_flow_label_sets", &[]), Some(singly as f64));
            // Identities without a name are one end, so that label sets are fewer than pairs.
            let folded = read.value("hivemind_flow_label_sets_folded", &[]).unwrap();
            prop_assert!(singly as f64 + folded <= counted.len() as f64);
            prop_assert!(folded == 0.0 || singly == bound, "there was room");
            for (verdict, allowed) in [("allowed", true), ("denied", false)] {
                let of = [("verdict", verdict)];
                let expected: u64 = counted.iter().filter(|(key, _)| key.3 == allowed).map(|(_, n)| *n).sum();
                prop_assert_eq!(read.sum("hivemind_flow_connections_total", &of), expected as f64);
                prop_assert_eq!(read.sum("hivemind_flow_packets_total", &of), (expected * 15) as f64);
                prop_assert_eq!(read.sum("hivemind_flow_bytes_total", &of), (expected * 1_500) as f64);
                prop_assert_eq!(read.value("hivemind_traffic_connections_total", &of), Some(expected as f64));
            }
            let now: BTreeMap<_, _> = read
                .samples
                .into_iter()
                .filter(|(name, ..)| name.ends_with("_total"))
                .map(|(name, labels, value)| ((name, labels), value))
                .collect();
            for (series, was) in &before {
                let is = now.get(series).copied().unwrap_or(f64::INFINITY);
                prop_assert!(is >= *was, "{:?} went from {} to {}", series, was, is);
            }
            before = now;
        }
    }

    #[test]
    fn verdicts_keep_their_totals_and_their_bound(
        rounds in prop::collection::vec(
            prop::collection::vec((1..6_u32, any::<bool>(), prop::option::of(0..4_u32), any::<bool>(), 0..50_u64), 0..20),
            1..10
        ),
        bound in 0..10_usize,
    ) {
        let metrics = Metrics::new(Bounds { rules: bound, ..AT_ONCE });
        let mut counted: BTreeMap<(u32, bool), u64> = BTreeMap::new();
        let mut before = BTreeMap::new();
        for round in rounds {
            for (policy, egress, index, allowed, count) in round {
                let rule = rule_number(policy, if egress { EGRESS } else { 0 }, index);
                *counted.entry((rule, allowed)).or_insert(0) += count;
            }
            let mut now = snapshot(&[]);
            let name = |number: u32| Arc::new(PolicyName { namespace: "n".into(), name: format!("p{number}"), is_audit: false });
            now.policy_names = (1..6).map(|number| (number, name(number))).collect();
            now.verdicts = counted
                .iter()
                .map(|((rule, allowed), n)| VerdictSample { rule: Some(*rule), allowed: *allowed, connections: *n })
                .collect();
            let read = scrape(&metrics, now);
            for (verdict, allowed) in [("allowed", true), ("denied", false)] {
                let expected: u64 = counted.iter().filter(|((_, a), _)| *a == allowed).map(|(_, n)| *n).sum();
                let sum = read.sum("hivemind_policy_verdicts_total", &[("verdict", verdict)]);
                prop_assert_eq!(sum, expected as f64);
            }
            let told: BTreeMap<_, _> = read
                .matching("hivemind_policy_verdicts_total", &[])
                .map(|(labels, value)| (labels.clone(), value))
                .collect();
            prop_assert!(told.len() <= bound + 2);
            for (series, was) in before.iter().filter(|(_, was)| **was > 0.0) {
                prop_assert!(told.get(series).is_some_and(|is| is >= was), "{:?}", series);
            }
            before = told;
        }
    }

    #[test]
    fn however_much_is_counted_the_series_are_bounded_and_the_totals_right(
        pairs in prop::collection::btree_map(
            (1..40_u32, 1..40_u32, any::<u16>(), any::<bool>()), 1..1_000_000_u64, 1..400
        ),
        bound in 0..50_usize,
    ) {
        let metrics = Metrics::new(Bounds { flow_label_sets: bound, round_trip_pairs: bound, ..AT_ONCE });
        let mut now = snapshot(&[]);
        now.traffic.pairs = pairs.iter().map(|((s, d, port, allowed), n)| pair(*s, *d, *port, *allowed, *n)).collect();
        let read = scrape(&metrics, now);
        prop_assert!(read.matching("hivemind_flow_connections_total", &[]).count() <= bound + 2);
        for (verdict, allowed) in [("allowed", true), ("denied", false)] {
            let expected: u64 = pairs.iter().filter(|(key, _)| key.3 == allowed).map(|(_, n)| *n).sum();
            let sum = |name| read.sum(name, &[("verdict", verdict)]);
            prop_assert_eq!(sum("hivemind_flow_connections_total"), expected as f64);
            prop_assert_eq!(sum("hivemind_flow_packets_total"), (expected * 15) as f64);
            prop_assert_eq!(sum("hivemind_flow_bytes_total"), (expected * 1_500) as f64);
        }
    }
}
