//! Which series there are, and for how long.

use std::{sync::Arc, time::Duration};

use hivemind_common::policy::{EGRESS, RULE_HOST, rule_number};
use hivemind_observe::*;

use crate::{
    document::Document,
    sample::{AT_ONCE, app, flow, pair, round_trip, scrape, snapshot},
};

const CONNECTIONS: &str = "hivemind_flow_connections_total";

#[test]
fn a_flow_is_told_with_its_ends_and_both_directions() {
    let metrics = Metrics::new(AT_ONCE);
    let mut now = snapshot(&[&app("shop", "web"), &app("shop", "db")]);
    now.traffic.pairs =
        vec![pair(256, 257, 5432, true, 3), pair(2, 256, 80, false, 1), pair(256, 3, 53, true, 2)];
    let read = scrape(&metrics, now);
    let labels = [
        ("source_namespace", "shop"),
        ("source_app", "web"),
        ("destination_namespace", "shop"),
        ("destination_app", "db"),
        ("port", "5432"),
        ("protocol", "tcp"),
        ("verdict", "allowed"),
    ];
    assert_eq!(read.value(CONNECTIONS, &labels), Some(3.0));
    for (direction, bytes, packets) in [("sent", 3000.0, 30.0), ("received", 1500.0, 15.0)] {
        let labels = [&labels[..], &[("direction", direction)]].concat();
        assert_eq!(read.value("hivemind_flow_bytes_total", &labels), Some(bytes));
        assert_eq!(read.value("hivemind_flow_packets_total", &labels), Some(packets));
    }
    let world = [("source_namespace", ""), ("source_app", "world"), ("verdict", "denied")];
    assert_eq!(read.value(CONNECTIONS, &world), Some(1.0));
    assert_eq!(read.value(CONNECTIONS, &flow("web", "dns")), Some(2.0));
    assert_eq!(read.value("hivemind_flow_label_sets", &[]), Some(3.0));
}

#[test]
fn label_sets_of_one_app_are_one_series_and_stay_when_one_of_them_goes() {
    let metrics = Metrics::new(AT_ONCE);
    let (web, db) = (app("default", "web"), app("default", "db"));
    let mut now = snapshot(&[&web, &db]);
    now.traffic.identities.insert(300, Arc::clone(&web));
    let mut later = now.clone();
    now.traffic.pairs = vec![pair(256, 257, 80, true, 5), pair(300, 257, 80, true, 7)];
    assert_eq!(scrape(&metrics, now).value(CONNECTIONS, &flow("web", "db")), Some(12.0));
    later.traffic.identities.remove(&256);
    later.traffic.pairs = vec![pair(300, 257, 80, true, 8)];
    assert_eq!(scrape(&metrics, later).value(CONNECTIONS, &flow("web", "db")), Some(13.0));
}

#[test]
fn what_was_counted_since_the_last_scrape_for_an_app_that_goes_stays_in_the_node_s_totals() {
    let metrics = Metrics::new(AT_ONCE);
    let (web, db) = (app("default", "web"), app("default", "db"));
    let all =
        |read: &Document, verdict| read.value("hivemind_traffic_connections_total", &[("verdict", verdict)]);
    let mut before = snapshot(&[&web, &db]);
    before.traffic.pairs = vec![pair(256, 257, 80, true, 5), pair(257, 256, 80, false, 2)];
    let after = snapshot(&[&web]);
    // The kernel has counted on when it is about to forget: one that nobody has scraped, and a relabelled one.
    let mut last = before.traffic.clone();
    last.pairs = vec![pair(256, 257, 80, true, 9), pair(257, 256, 80, false, 3), pair(300, 2, 80, true, 1)];
    last.identities.insert(300, Arc::clone(&web));
    let read = scrape(&metrics, before);
    assert_eq!((all(&read, "allowed"), all(&read, "denied")), (Some(5.0), Some(2.0)));
    metrics.observe_traffic(&after.apps, last);
    let read = scrape(&metrics, after);
    assert_eq!((all(&read, "allowed"), all(&read, "denied")), (Some(10.0), Some(3.0)));
    let bytes = [("verdict", "allowed"), ("direction", "received")];
    assert_eq!(read.value("hivemind_traffic_bytes_total", &bytes), Some(5_000.0));
    assert_eq!(
        read.value(CONNECTIONS, &flow("web", "world")),
        Some(1.0),
        "of an identity between two scrapes"
    );
    assert_eq!(read.sum(CONNECTIONS, &[]), 1.0, "the series of an app that is gone");
}

#[test]
fn an_app_that_is_gone_has_no_series() {
    let metrics = Metrics::new(AT_ONCE);
    let (web, db) = (app("default", "web"), app("default", "db"));
    let mut before = snapshot(&[&web, &db]);
    before.traffic.pairs =
        vec![pair(256, 257, 80, true, 5), pair(2, 256, 80, true, 5), pair(257, 2, 80, true, 5)];
    before.traffic.round_trips = vec![round_trip(256, 257, 1), round_trip(257, 256, 1)];
    before.replicas = vec![ReplicaSample { uid: 1, app: Arc::clone(&web), restarts: 2 }];
    let mut after = before.clone();
    let names = |read: &Document| {
        let mut values = read.samples.iter().flat_map(|(_, labels, _)| labels.values());
        values.any(|value| value == "web")
    };
    let read = scrape(&metrics, before);
    assert!(names(&read));
    assert_eq!(read.value("hivemind_app_restarts_total", &[("app", "web")]), Some(2.0));
    // The kernel still counts, and may do so for a while after the identity is gone as well.
    after.apps.remove(0);
    let mut unnamed = after.clone();
    unnamed.traffic.identities.remove(&256);
    for snapshot in [after, unnamed.clone(), unnamed] {
        let read = scrape(&metrics, snapshot);
        assert!(!names(&read));
        assert_eq!(read.sum(CONNECTIONS, &[]), 5.0, "only what the other app did is left");
        assert_eq!(read.matching("hivemind_tcp_retransmits_total", &[]).count(), 0);
    }
}

#[test]
fn an_identity_that_never_had_a_name_is_unknown() {
    let mut now = snapshot(&[&app("default", "web")]);
    now.traffic.pairs = vec![pair(256, 9_999, 80, true, 4), pair(9_998, 256, 80, true, 1)];
    let read = scrape(&Metrics::new(AT_ONCE), now);
    assert_eq!(read.value(CONNECTIONS, &flow("web", "unknown")), Some(4.0));
    assert_eq!(read.value(CONNECTIONS, &flow("unknown", "web")), Some(1.0));
}

#[test]
fn ports_of_clients_and_of_scans_are_told_together_and_published_ones_singly() {
    let (client, web) = (app("default", "client"), app("default", "web"));
    let mut now = snapshot(&[&client, &web]);
    now.apps[1].ports = vec![(Transport::TCP, 40_000), (Transport::TCP, 443)];
    now.traffic.pairs = (1..=1_000).map(|port| pair(256, 257, port, false, 1)).collect();
    now.traffic.pairs.extend([pair(256, 257, 40_000, true, 1), pair(256, 257, 50_000, true, 1)]);
    now.traffic.pairs.push(PairSample { protocol: Transport(1), ..pair(256, 257, 0, true, 1) });
    let read = scrape(&Metrics::new(AT_ONCE), now);
    let value = |port, verdict| read.value(CONNECTIONS, &[("port", port), ("verdict", verdict)]);
    assert_eq!(value("40000", "allowed"), Some(1.0));
    assert_eq!(value("other", "allowed"), Some(1.0));
    assert_eq!(read.value(CONNECTIONS, &[("port", "none"), ("protocol", "icmp")]), Some(1.0));
    assert_eq!(value("443", "denied"), Some(1.0), "a published port is beyond the bound");
    let denied = read.matching(CONNECTIONS, &[("verdict", "denied")]).count();
    assert_eq!(denied, PORTS_MAX + 2, "the first ports, the published one, the others");
    assert_eq!(read.sum(CONNECTIONS, &[("verdict", "denied")]), 1_000.0);
}

#[test]
fn the_largest_are_told_singly_and_what_finds_no_room_counts_together_by_verdict() {
    let metrics = Metrics::new(Bounds { flow_label_sets: 2, round_trip_pairs: 1, ..AT_ONCE });
    let mut now = snapshot(&[&app("default", "web")]);
    now.traffic.pairs = vec![
        pair(256, 2, 1, true, 1),
        pair(256, 2, 2, true, 2),
        pair(256, 2, 3, true, 4),
        pair(256, 2, 4, false, 8),
        pair(256, 2, 5, false, 3),
    ];
    now.traffic.collective.connections = 16;
    now.traffic.round_trips = vec![round_trip(256, 2, 1), round_trip(256, 1, 2), round_trip(256, 3, 3)];
    let read = scrape(&metrics, now);
    let other = |verdict| read.value(CONNECTIONS, &[("source_app", "other"), ("verdict", verdict)]);
    assert_eq!((other("allowed"), other("denied"), other("unknown")), (Some(3.0), Some(3.0), Some(16.0)));
    let port = |port| read.value(CONNECTIONS, &[("source_app", "web"), ("port", port)]);
    assert_eq!((port("3"), port("4"), port("5")), (Some(4.0), Some(8.0), None));
    assert_eq!(read.sum(CONNECTIONS, &[]), 34.0);
    let figure = |name: &str| read.value(&format!("hivemind_flow_label_sets{name}"), &[]);
    assert_eq!((figure(""), figure("_capacity"), figure("_folded")), (Some(2.0), Some(2.0), Some(3.0)));
    assert_eq!(read.value("hivemind_tcp_retransmits_total", &[("app", "other")]), Some(5.0));
    assert_eq!(read.value("hivemind_tcp_round_trip_seconds_sum", &[("app", "other")]), Some(5.0));
}

#[test]
fn labels_are_escaped() {
    let strange = "a\\b\"c\nd{},= ü";
    let mut now = snapshot(&[&app(strange, "\\"), &app("\"", "\n")]);
    now.traffic.pairs = vec![pair(256, 257, 80, true, 1)];
    let read = scrape(&Metrics::new(AT_ONCE), now);
    let labels = [
        ("source_namespace", strange),
        ("source_app", "\\"),
        ("destination_namespace", "\""),
        ("destination_app", "\n"),
    ];
    assert_eq!(read.value(CONNECTIONS, &labels), Some(1.0));
}

#[test]
fn what_grows_to_twice_the_smallest_takes_its_place_and_begins_at_zero() {
    let metrics = Metrics::new(Bounds { flow_label_sets: 1, ..AT_ONCE });
    let told = |connections: [u64; 2]| {
        let mut now = snapshot(&[&app("default", "web")]);
        now.traffic.pairs =
            vec![pair(256, 2, 1, true, connections[0]), pair(256, 2, 2, true, connections[1])];
        let read = scrape(&metrics, now);
        assert_eq!(read.sum(CONNECTIONS, &[]), connections.iter().sum::<u64>() as f64);
        let value = |port| read.value(CONNECTIONS, &[("port", port)]);
        let exchanged = read.value("hivemind_flow_label_sets_exchanged_total", &[]);
        (value("1"), value("2"), value("other"), exchanged)
    };
    assert_eq!(told([10, 5]), (Some(10.0), None, Some(5.0), Some(0.0)));
    assert_eq!(told([10, 20]), (Some(10.0), None, Some(20.0), Some(0.0)), "not more than twice as large");
    assert_eq!(told([10, 21]), (None, Some(0.0), Some(31.0), Some(1.0)));
    assert_eq!(
        told([42, 25]),
        (None, Some(4.0), Some(63.0), Some(1.0)),
        "what it was before counts for its size"
    );
    assert_eq!(told([51, 25]), (Some(0.0), None, Some(76.0), Some(2.0)));
    assert_eq!(told([53, 26]), (Some(2.0), None, Some(77.0), Some(2.0)));
}

#[test]
fn series_of_an_app_that_is_gone_are_told_a_while_longer_with_what_came_last() {
    let metrics = Metrics::new(Bounds { told_when_gone: Duration::from_secs(60), ..AT_ONCE });
    let (web, db) = (app("default", "web"), app("default", "db"));
    let at = |second, apps: &[&Arc<AppName>], connections| {
        let mut now = snapshot(apps);
        now.traffic.at = Duration::from_secs(second);
        now.traffic.identities = [(256, Arc::clone(&web)), (257, Arc::clone(&db))].into();
        now.traffic.pairs = vec![pair(256, 257, 80, true, connections)];
        let read = scrape(&metrics, now);
        let gauge = read.value("hivemind_app_replicas_wanted", &[("app", "web")]);
        (read.value(CONNECTIONS, &flow("web", "db")), gauge)
    };
    assert_eq!(at(1_000, &[&web, &db], 5), (Some(5.0), Some(3.0)));
    assert_eq!(at(1_010, &[&db], 7), (Some(7.0), None), "what is, is told of what is");
    assert_eq!(at(1_069, &[&db], 7).0, Some(7.0));
    assert_eq!(at(1_070, &[&db], 7).0, None);
    assert_eq!(at(1_080, &[&web, &db], 9).0, Some(2.0), "it begins again");
    assert_eq!(at(1_090, &[&db], 9).0, Some(2.0));
    assert_eq!(at(1_100, &[&web, &db], 9).0, Some(2.0));
    assert_eq!(at(1_160, &[&db], 9).0, Some(2.0), "it was there in between");
}

#[test]
fn where_nobody_tells_of_apps_they_exist_as_long_as_their_identities() {
    let metrics = Metrics::new(Bounds { told_when_gone: Duration::from_secs(60), ..AT_ONCE });
    let (web, db) = (app("default", "web"), app("default", "db"));
    let at = |second, identities: &[(u32, &Arc<AppName>)]| {
        let mut now = snapshot(&[]);
        now.traffic.at = Duration::from_secs(second);
        now.traffic.apps_by_identity = true;
        now.traffic.identities = identities.iter().map(|(number, app)| (*number, Arc::clone(app))).collect();
        now.traffic.pairs = vec![pair(256, 257, 80, true, 5)];
        scrape(&metrics, now).value(CONNECTIONS, &flow("web", "db"))
    };
    assert_eq!(at(1_000, &[(256, &web), (257, &db)]), Some(5.0));
    assert_eq!(at(1_010, &[(257, &db)]), Some(5.0));
    assert_eq!(at(1_070, &[(257, &db)]), None);
}

fn policy(namespace: &str, name: &str) -> Arc<PolicyName> {
    Arc::new(PolicyName { namespace: namespace.into(), name: name.into(), is_audit: false })
}

fn verdict(rule: Option<u32>, allowed: bool, connections: u64) -> VerdictSample {
    VerdictSample { rule, allowed, connections }
}

const VERDICTS: &str = "hivemind_policy_verdicts_total";

#[test]
fn verdicts_are_told_by_policy_direction_and_rule() {
    let mut now = snapshot(&[]);
    now.policy_names = [(7, policy("shop", "only-web")), (9, policy("shop", "out"))].into();
    now.verdicts = vec![
        verdict(Some(RULE_HOST), true, 1),
        verdict(Some(rule_number(7, 0, Some(0))), true, 2),
        verdict(Some(rule_number(7, 0, None)), false, 3),
        verdict(Some(rule_number(9, EGRESS, Some(12))), true, 4),
        verdict(Some(rule_number(8, 0, None)), false, 5),
        verdict(None, false, 6),
    ];
    let read = scrape(&Metrics::new(AT_ONCE), now);
    let told = |policy, direction, rule, verdict| {
        let labels = [("policy", policy), ("direction", direction), ("rule", rule), ("verdict", verdict)];
        read.value(VERDICTS, &labels)
    };
    assert_eq!(told("node-to-replicas", "ingress", "default", "allowed"), Some(1.0));
    assert_eq!(told("only-web", "ingress", "0", "allowed"), Some(2.0));
    assert_eq!(told("only-web", "ingress", "default", "denied"), Some(3.0));
    assert_eq!(told("out", "egress", "12", "allowed"), Some(4.0));
    assert_eq!(told("other", "other", "other", "denied"), Some(6.0));
    assert_eq!(read.matching(VERDICTS, &[]).count(), 5, "the policy 8 is gone");
}

#[test]
fn what_a_policy_only_tells_is_audited_and_begins_at_zero_when_it_is_denied() {
    let metrics = Metrics::new(AT_ONCE);
    let told = |is_audit, verdicts: Vec<VerdictSample>| {
        let mut now = snapshot(&[]);
        let name = PolicyName { is_audit, ..PolicyName::clone(&policy("shop", "trial")) };
        now.policy_names = [(7, Arc::new(name))].into();
        now.verdicts = verdicts;
        let read = scrape(&metrics, now);
        ["audited", "denied"]
            .map(|verdict| read.value(VERDICTS, &[("policy", "trial"), ("verdict", verdict)]))
    };
    let default = rule_number(7, 0, None);
    assert_eq!(told(true, vec![verdict(Some(default), true, 4)]), [Some(4.0), None]);
    let both = vec![verdict(Some(default), true, 4), verdict(Some(default), false, 1)];
    assert_eq!(told(false, both)[1], Some(1.0));
}

#[test]
fn rules_that_decided_nothing_yet_are_told_as_far_as_there_is_room() {
    let metrics = Metrics::new(Bounds { rules: 3, ..AT_ONCE });
    let told = |connections: [u64; 4]| {
        let mut now = snapshot(&[]);
        now.policy_names = [(7, policy("shop", "web"))].into();
        let of = |(index, connections)| verdict(Some(rule_number(7, 0, Some(index))), true, connections);
        now.verdicts = (0..).zip(connections).map(of).collect();
        let read = scrape(&metrics, now);
        ["0", "1", "2", "3", "other"].map(|rule| read.value(VERDICTS, &[("rule", rule)]))
    };
    assert_eq!(told([0, 0, 0, 0]), [Some(0.0), Some(0.0), Some(0.0), None, None]);
    assert_eq!(told([0, 0, 0, 5]), [Some(0.0), Some(0.0), None, Some(5.0), None]);
    assert_eq!(told([1, 2, 0, 5]), [Some(1.0), Some(2.0), None, Some(5.0), None]);
    assert_eq!(told([1, 2, 4, 6]), [Some(1.0), Some(2.0), None, Some(6.0), Some(4.0)]);
}

#[test]
fn a_policy_that_is_made_anew_under_its_name_begins_at_zero() {
    let metrics = Metrics::new(AT_ONCE);
    let told = |number, verdicts: Vec<VerdictSample>| {
        let mut now = snapshot(&[]);
        now.policy_names = [(number, policy("shop", "web"))].into();
        now.verdicts = verdicts;
        scrape(&metrics, now).value(VERDICTS, &[("policy", "web")])
    };
    let of = |number, connections| verdict(Some(rule_number(number, 0, Some(1))), true, connections);
    assert_eq!(told(7, vec![of(7, 100)]), Some(100.0));
    // The kernel has not forgotten the old one yet, and the new one has decided something already.
    assert_eq!(told(8, vec![of(7, 100), of(8, 2)]), Some(2.0));
    assert_eq!(told(8, vec![of(8, 3)]), Some(3.0));
}
