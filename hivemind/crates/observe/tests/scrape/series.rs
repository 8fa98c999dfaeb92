//! Which series there are, and for how long.

use std::sync::Arc;

use hivemind_observe::*;

use crate::{
    document::Document,
    sample::{app, flow, pair, round_trip, scrape, snapshot},
};

const CONNECTIONS: &str = "hivemind_flow_connections_total";

#[test]
fn a_flow_is_told_with_its_ends_and_both_directions() {
    let metrics = Metrics::new();
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
    let metrics = Metrics::new();
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
    let metrics = Metrics::new();
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
    let metrics = Metrics::new();
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
    let read = scrape(&Metrics::new(), now);
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
    let read = scrape(&Metrics::new(), now);
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
fn what_finds_no_room_counts_together_by_verdict() {
    let metrics = Metrics::with_bounds(2, 1);
    let mut now = snapshot(&[&app("default", "web")]);
    now.traffic.pairs = vec![
        pair(256, 2, 1, true, 1),
        pair(256, 2, 2, true, 2),
        pair(256, 2, 3, true, 4),
        pair(256, 2, 4, false, 8),
    ];
    now.traffic.collective.connections = 16;
    now.traffic.round_trips = vec![round_trip(256, 2, 1), round_trip(256, 1, 2), round_trip(256, 3, 3)];
    let read = scrape(&metrics, now);
    let other = |verdict| read.value(CONNECTIONS, &[("source_app", "other"), ("verdict", verdict)]);
    assert_eq!((other("allowed"), other("denied"), other("unknown")), (Some(4.0), Some(8.0), Some(16.0)));
    assert_eq!(read.sum(CONNECTIONS, &[]), 31.0);
    assert_eq!(read.value("hivemind_tcp_retransmits_total", &[("app", "other")]), Some(5.0));
    assert_eq!(read.value("hivemind_tcp_round_trip_seconds_sum", &[("app", "other")]), Some(5.0));
}

#[test]
fn labels_are_escaped() {
    let strange = "a\\b\"c\nd{},= ü";
    let mut now = snapshot(&[&app(strange, "\\"), &app("\"", "\n")]);
    now.traffic.pairs = vec![pair(256, 257, 80, true, 1)];
    let read = scrape(&Metrics::new(), now);
    let labels = [
        ("source_namespace", strange),
        ("source_app", "\\"),
        ("destination_namespace", "\""),
        ("destination_app", "\n"),
    ];
    assert_eq!(read.value(CONNECTIONS, &labels), Some(1.0));
}
