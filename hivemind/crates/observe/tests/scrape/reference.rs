//! The reference page is written from the families, and every family is told as it is described.

use std::{collections::BTreeSet, fmt::Write as _, sync::Arc};

use hivemind_common::policy::rule_number;
use hivemind_observe::*;

use crate::sample::{AT_ONCE, app, pair, round_trip, scrape, snapshot};

#[test]
fn the_reference_of_the_metrics_is_what_the_program_tells() {
    let bounds = Bounds::default();
    let mut page = format!(
        "# Metrics\n\n\
         What `GET /metrics` tells; see [the guide](../guide/metrics.md) for how to scrape it and what to ask.\n\n\
         A series is there as long as the apps and the policy that its labels name, and 2 minutes longer\n\
         (`--metrics-keep-gone`) if it is of traffic. Ends of connections that are no apps have an empty\n\
         namespace: `host` (the machine's own processes), `world`, `dns`, `unknown`, and `other` for what found no room:\n\
         at most {} label sets of flows (`--metrics-flow-series`), {} pairs of apps and {} rules of policies are told singly, and\n\
         {PORTS_MAX} ports of the same ends.\n\n\
         | family | type | labels | what it is, and what a rise means |\n|---|---|---|---|\n",
        bounds.flow_label_sets, bounds.round_trip_pairs, bounds.rules
    );
    for family in FAMILIES {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind) = (family.name(), family.kind.name());
        writeln!(page, "| `{name}` | {kind} | {} | {} |", labels.join(", "), family.help).unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/reference/metrics.md");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == page,
        "docs/reference/metrics.md is out of date: run this test with UPDATE_REFERENCE=1"
    );
}

/// A snapshot in which nothing is empty.
pub(crate) fn full() -> Snapshot {
    let web = app("default", "web");
    let mut now = snapshot(&[&web]);
    now.traffic.pairs = vec![pair(256, 2, 80, true, 1)];
    now.traffic.round_trips = vec![round_trip(256, 2, 1)];
    let figure = |name| vec![Figure { name, value: 1 }];
    now.drops = figure("no_policy");
    now.end_drops =
        vec![EndDropSample { end: "a".to_owned(), app: web.clone(), reason: "no_policy", packets: 1 }];
    now.dns.queries = vec![DnsQueries { record_type: "A", protocol: "udp", outcome: "local", count: 1 }];
    now.dns.upstreams = vec![DnsUpstream {
        address: "192.0.2.53:53".to_owned(),
        is_up: true,
        failed: 1,
        answers: Durations { buckets: vec![(0.01, 2), (f64::INFINITY, 1)], sum_s: 1.5 },
    }];
    now.dns.caches = vec![(Figure { name: "forwarded", value: 1 }, 2)];
    now.dns.lost = figure("datagrams");
    now.maps = vec![MapSample { name: "pair", entries: 1, capacity: 2 }];
    now.events = vec![EventSample { class: "new", told: 1, lost: 2 }];
    now.policy_names =
        [(7, Arc::new(PolicyName { namespace: "shop".into(), name: "web".into(), is_audit: false }))].into();
    now.verdicts =
        vec![VerdictSample { rule: Some(rule_number(7, 0, Some(0))), allowed: true, connections: 1 }];
    now.problems = figure("HM0512");
    now.nodes = vec![NodeSample { name: "node-1".to_owned(), up: true }];
    now.certificates = vec![CertificateSample { name: "web", expires_s: 1 }];
    now.flow_log = Some(FlowLogSample { size_bytes: 1, records: 2, writes_failed: 3, oldest_s: Some(4) });
    now.disk = Some(DiskSample { free_bytes: 1, size_bytes: 2 });
    now.process = Some(Process::default());
    now
}

#[test]
fn every_family_is_told_with_its_type_its_help_and_its_labels() {
    let read = scrape(&Metrics::new(AT_ONCE), full());
    assert_eq!(read.families.len(), FAMILIES.len());
    for family in FAMILIES {
        let name = family.name();
        let described = match family.kind {
            Kind::Counter => name.trim_end_matches("_total"),
            Kind::Info => name.trim_end_matches("_info"),
            Kind::Gauge | Kind::Histogram => &name,
        };
        let told = &read.families[described];
        assert_eq!(told.kind.as_deref(), Some(family.kind.name()), "{name}");
        assert_eq!(told.help.as_deref(), Some(family.help), "{name}");
        let series = if family.kind == Kind::Histogram { format!("{name}_count") } else { name };
        let (labels, _) =
            read.matching(&series, &[]).next().unwrap_or_else(|| panic!("{series} is not told"));
        let (told, described): (BTreeSet<_>, BTreeSet<_>) =
            (labels.keys().map(String::as_str).collect(), family.labels.iter().copied().collect());
        assert_eq!(told, described, "{series}");
    }
}

#[test]
fn names_and_helps_are_fit_for_both_formats() {
    for family in FAMILIES {
        let name = family.name();
        assert!(name.starts_with("hivemind_") || name.starts_with("process_"), "{name}");
        assert!(!family.help.contains(['"', '\\', '\n']), "{name}: the formats escape this differently");
        assert!(family.help.ends_with('.'), "{name}: the help is no sentence");
    }
}
