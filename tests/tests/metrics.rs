//! What a real Prometheus learns of a node: the numbers of traffic that the test made.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    process::{Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{
    Node, Place, Prometheus, Registry, eventually, get, get_accepting, policy, policy_only, tool,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

/// Where the node is scraped.
const PORT: u16 = 9464;

/// Requests that the client makes.
const REQUESTS: u32 = 50;

/// Datagrams that are sent, each from a socket of its own: so many let through, so many refused.
const DATAGRAMS: usize = 20;
const REFUSED: usize = 4;

/// A node that is scraped without a token, with the apps `web` and `client`.
fn node() -> Result<(Node, Registry)> {
    node_with(&[])
}

/// The same with further flags of the daemon.
fn node_with(flags: &[&str]) -> Result<(Node, Registry)> {
    let address = format!("0.0.0.0:{PORT}");
    let flags = [&["--metrics-address", &address], flags].concat();
    let (node, registry) = Node::with_daemon_flags(&flags)?;
    node.hivemind_ok(&["app", "deploy", "web", "--image", "nginx:latest"])?;
    node.deploy_waiting("client", &[])?;
    Ok((node, registry))
}

fn ipv4(node: &Node, app: &str) -> Result<IpAddr> {
    let replica = node.replica(app)?;
    replica["status"]["ipv4"].as_str().context("no address")?.parse().context("no address")
}

/// Requests `count` pages of the app `web`, each over a connection of its own.
fn request(node: &Node, app: &str, count: u32) -> Result<()> {
    let script = format!(
        "i=0; while [ $i -lt {count} ]; do wget -q -O /dev/null http://{}/ || exit 1; i=$((i+1)); done",
        ipv4(node, "web")?
    );
    node.in_replica(app, &script).map(drop)
}

/// Sends datagrams from an app's network to port 5000 of `web`; returns how many were answered.
fn send(node: &Node, app: &str, count: usize) -> Result<usize> {
    let network = node.network_of_replica(&node.replica(app)?)?;
    let place = Place::network(node.sandbox(), &network);
    let said = place.ask(SocketAddr::new(ipv4(node, "web")?, 5000), count, true)?;
    Ok(said["answers"].as_array().map_or(0, Vec::len))
}

/// A selector of the flows of `app` to `web`.
fn flows(app: &str, port: u16, protocol: &str, verdict: &str) -> String {
    format!(
        "source_namespace=\"default\",source_app=\"{app}\",destination_namespace=\"default\",\
         destination_app=\"web\",port=\"{port}\",protocol=\"{protocol}\",verdict=\"{verdict}\""
    )
}

fn connections(app: &str, port: u16, protocol: &str, verdict: &str) -> String {
    format!("hivemind_flow_connections_total{{{}}}", flows(app, port, protocol, verdict))
}

/// How many entries `hivemind status` counts in a map.
fn status_entries(maps: &[Value], name: &str) -> Result<f64> {
    let map = maps.iter().find(|map| map["name"] == name).with_context(|| format!("no map {name}"))?;
    map["entries"].as_f64().context("no entries")
}

/// A scrape in the text format 0.0.4.
fn scrape(node: &Node) -> Result<String> {
    let address = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), PORT);
    let ask = || get_accepting(address, "/metrics", "text/plain;version=0.0.4", Duration::from_secs(5));
    let response = node.sandbox().in_network(ask)??;
    ensure!(response.status == 200, "the scrape was answered {}: {}", response.status, response.body);
    Ok(response.body)
}

#[test]
fn prometheus_counts_the_connections_that_were_made_and_those_that_were_refused() -> Result<()> {
    let (node, _registry) = node()?;
    node.deploy_waiting("stranger", &[])?;
    let prometheus = Prometheus::start(node.sandbox(), &format!("127.0.0.1:{PORT}"))?;
    request(&node, "client", REQUESTS)?;
    prometheus.expect(&connections("client", 80, "tcp", "allowed"), REQUESTS.into())?;

    let network = node.network_of_replica(&node.replica("web")?)?;
    let _server = Place::network(node.sandbox(), &network).answer(5000, "web")?;
    assert_eq!(send(&node, "client", DATAGRAMS)?, DATAGRAMS);
    prometheus.expect(&connections("client", 5000, "udp", "allowed"), DATAGRAMS as f64)?;
    let selector = flows("client", 5000, "udp", "allowed");
    for direction in ["sent", "received"] {
        let of = |what: &str| format!("hivemind_flow_{what}_total{{{selector},direction=\"{direction}\"}}");
        prometheus.expect(&of("packets"), DATAGRAMS as f64)?;
        // 20 bytes of IP, 8 of UDP, 4 of `name` or 3 of `web`.
        let bytes = DATAGRAMS * if direction == "sent" { 32 } else { 31 };
        prometheus.expect(&of("bytes"), bytes as f64)?;
    }

    node.apply(&policy_only("only-client", "client", "web", ""))?;
    prometheus.expect("hivemind_policies{state=\"enforced\"}", 1.0)?;
    let drops = "hivemind_datapath_drops_total{reason=\"policy_ingress\"}";
    let dropped = prometheus.query(drops)?.first().context("no drops are told")?.1;
    assert_eq!(send(&node, "stranger", REFUSED)?, 0, "the policy lets the stranger in");
    assert_eq!(send(&node, "client", 1)?, 1, "the policy refuses the client");
    prometheus.expect(&connections("stranger", 5000, "udp", "denied"), REFUSED as f64)?;
    prometheus.expect_nothing(&connections("stranger", 5000, "udp", "allowed"))?;
    prometheus.expect(drops, dropped + REFUSED as f64)?;
    prometheus.expect(&connections("client", 5000, "udp", "allowed"), DATAGRAMS as f64 + 1.0)?;
    prometheus.expect(
        "sum by (verdict) (hivemind_flow_connections_total{source_app=\"stranger\",destination_app=\"web\"})",
        REFUSED as f64,
    )?;
    assert_eq!(prometheus.last_error()?, "");
    Ok(())
}

#[test]
fn prometheus_sees_round_trips_maps_names_and_apps() -> Result<()> {
    let (node, _registry) = node()?;
    let prometheus = Prometheus::start(node.sandbox(), &format!("127.0.0.1:{PORT}"))?;
    request(&node, "client", REQUESTS)?;
    let pair = "namespace=\"default\",app=\"client\",peer_namespace=\"default\",peer_app=\"web\"";
    let round_trips = format!("hivemind_tcp_round_trip_seconds_count{{{pair}}} > 0");
    eventually(LIMIT, "round trips of the client", || {
        let found = prometheus.query(&round_trips)?;
        ensure!(found.len() == 1, "{found:?}");
        Ok::<_, anyhow::Error>(())
    })?;
    let quantile = format!("histogram_quantile(0.5, hivemind_tcp_round_trip_seconds_bucket{{{pair}}})");
    let median_s = prometheus.query(&quantile)?.first().context("no median")?.1;
    assert!(median_s > 0.0 && median_s < 1.0, "a round trip on one machine takes {median_s} s");

    let status = node.json(&["status"])?;
    let maps = status["maps"].as_array().context("no maps")?;
    assert!(maps.len() > 5, "{maps:?}");
    for map in maps {
        let name = map["name"].as_str().context("a map without a name")?;
        let capacity = map["capacity"].as_f64().context("no capacity")?;
        prometheus.expect(&format!("hivemind_datapath_map_capacity{{map=\"{name}\"}}"), capacity)?;
    }
    for (map, replicas) in [("ep_by_interface", 2.0), ("addr_exact_v4", 2.0), ("addr_exact_v6", 2.0)] {
        let entries = status_entries(maps, map)?;
        assert!(entries >= replicas, "{map} has {entries} entries for {replicas} replicas");
        prometheus.expect(&format!("hivemind_datapath_map_entries{{map=\"{map}\"}}"), entries)?;
    }

    let answered = |prometheus: &Prometheus<'_>| -> Result<f64> {
        let found = prometheus.query("sum(hivemind_dns_queries_total{outcome=\"local\"}) or vector(0)")?;
        Ok(found.first().context("no queries are told")?.1)
    };
    let before = answered(&prometheus)?;
    node.in_replica("client", "nslookup -type=a web.default.svc.hivemind.internal")?;
    eventually(LIMIT, "the query to be counted", || {
        let now = answered(&prometheus)?;
        ensure!(now > before, "{now} after {before}");
        Ok::<_, anyhow::Error>(())
    })?;

    node.hivemind_ok(&["app", "scale", "web", "--replicas", "3"])?;
    for family in ["wanted", "ready"] {
        prometheus.expect(&format!("hivemind_app_replicas_{family}{{app=\"web\"}}"), 3.0)?;
    }
    prometheus.expect("hivemind_app_restarts_total{app=\"web\"}", 0.0)?;
    prometheus.expect("hivemind_containerd_up", 1.0)?;
    prometheus.expect("hivemind_flow_label_sets > bool 0", 1.0)?;
    prometheus.expect("process_resident_memory_bytes > bool 1e6", 1.0)?;
    prometheus.expect("time() - process_start_time_seconds < bool 3600", 1.0)?;
    assert_eq!(prometheus.metadata("hivemind_flow_bytes")?["type"], "counter");
    assert_eq!(prometheus.metadata("hivemind_flow_bytes")?["unit"], "bytes", "OpenMetrics was not asked for");
    Ok(())
}

#[test]
fn totals_go_on_over_a_restart_of_the_daemon_and_series_go_with_their_app() -> Result<()> {
    let (node, _registry) = node_with(&["--metrics-keep-gone", "1"])?;
    let prometheus = Prometheus::start(node.sandbox(), &format!("127.0.0.1:{PORT}"))?;
    request(&node, "client", REQUESTS)?;
    let told = connections("client", 80, "tcp", "allowed");
    prometheus.expect(&told, REQUESTS.into())?;
    node.daemon_term()?;
    prometheus.expect("up", 0.0)?;
    node.daemon_start()?;
    prometheus.expect("up", 1.0)?;
    request(&node, "client", 5)?;
    prometheus.expect(&told, f64::from(REQUESTS) + 5.0)?;
    prometheus.expect(&format!("resets({told}[10m])"), 0.0)?;

    node.hivemind_ok(&["app", "restart", "web"])?;
    eventually(LIMIT, "the restarted app to be up", || {
        ensure!(node.ready_replicas("web")? == 1);
        Ok::<_, anyhow::Error>(())
    })?;
    request(&node, "client", 5)?;
    prometheus.expect(&told, f64::from(REQUESTS) + 10.0)?;

    node.hivemind_ok(&["app", "delete", "web"])?;
    prometheus.expect_nothing("{job=\"hivemind\",destination_app=\"web\"} or {job=\"hivemind\",app=\"web\"} or {job=\"hivemind\",peer_app=\"web\"}")?;
    prometheus.expect("hivemind_app_replicas{app=\"client\"}", 1.0)?;
    Ok(())
}

#[test]
fn flows_beyond_the_limit_count_together_and_no_connection_is_lost_to_the_sum() -> Result<()> {
    // Five series for each label set of flows: two of them.
    let (node, _registry) = node_with(&["--metrics-flow-series", "10"])?;
    let prometheus = Prometheus::start(node.sandbox(), &format!("127.0.0.1:{PORT}"))?;
    prometheus.expect("hivemind_flow_label_sets_capacity", 2.0)?;
    let web = ipv4(&node, "web")?;
    // Each from a port of its own: of two that the kernel happens to give out twice it would be one connection.
    let source = AtomicU16::new(20_000);
    let send = |port: u16, count: u16| {
        node.in_network_of("client", || -> Result<()> {
            (0..count).try_for_each(|_| {
                let from = ("0.0.0.0", source.fetch_add(1, Ordering::Relaxed));
                UdpSocket::bind(from)?.send_to(b"name", (web, port))?;
                Ok(())
            })
        })?
    };
    let told = |port| connections("client", port, "udp", "allowed");
    for (port, count) in [(5000, 20), (5001, 10)] {
        send(port, count)?;
        prometheus.expect(&told(port), count.into())?;
    }
    let to_web = "sum(hivemind_flow_connections_total{destination_app=~\"web|other\",protocol!=\"icmp\"})";
    prometheus.expect(to_web, 30.0)?;
    // Smaller than those, so without room.
    for port in [5002, 5003, 5004] {
        send(port, 3)?;
    }
    prometheus.expect("hivemind_flow_label_sets", 2.0)?;
    prometheus.expect("hivemind_flow_label_sets_folded", 3.0)?;
    prometheus
        .expect("hivemind_flow_connections_total{source_app=\"other\",destination_app=\"other\"}", 9.0)?;
    prometheus.expect_nothing(&told(5002))?;
    // One that becomes the largest is told by its name from then on; what it had brought stays where it was.
    send(5004, 60)?;
    prometheus.expect("hivemind_flow_label_sets_exchanged_total", 1.0)?;
    prometheus.expect_nothing(&told(5001))?;
    send(5004, 5)?;
    prometheus.expect(to_web, 104.0)?;
    prometheus.expect("hivemind_traffic_connections_total{verdict=\"allowed\"}", 104.0)?;
    prometheus.expect("max(resets(hivemind_traffic_connections_total[10m]))", 0.0)?;
    prometheus.expect("max(resets(hivemind_flow_connections_total[10m]))", 0.0)?;
    Ok(())
}

#[test]
fn of_an_app_that_is_deleted_and_made_again_prometheus_still_adds_up_right() -> Result<()> {
    let (node, _registry) = node()?;
    let prometheus = Prometheus::start(node.sandbox(), &format!("127.0.0.1:{PORT}"))?;
    let told = connections("client", 80, "tcp", "allowed");
    let mut sum = 0;
    for turn in 1..=3 {
        request(&node, "client", REQUESTS)?;
        sum += REQUESTS;
        prometheus.expect(&told, sum.into())?;
        if turn < 3 {
            node.hivemind_ok(&["app", "delete", "web"])?;
            node.hivemind_ok(&["app", "deploy", "web", "--image", "nginx:latest"])?;
        }
    }
    // What it was before and what it is now are one series, since it was not gone for long.
    prometheus.expect(&format!("resets({told}[10m])"), 0.0)?;
    prometheus.expect(&format!("count({told})"), 1.0)?;
    prometheus.expect("max(resets(hivemind_traffic_connections_total[10m]))", 0.0)?;
    prometheus.expect(&format!("increase({told}[10m]) > bool 0"), 1.0)?;
    assert_eq!(prometheus.last_error()?, "");
    Ok(())
}

#[test]
fn prometheus_scrapes_the_web_port_with_a_token_until_it_is_revoked() -> Result<()> {
    let (node, _registry) = Node::with_daemon_flags(&["--metrics-flow-series", "19"])?;
    let token = node.hivemind_ok(&["token", "create", "prometheus", "--role", "read-only"])?;
    let prometheus = Prometheus::start_with_token(node.sandbox(), "127.0.0.1:4483", &token)?;
    assert_eq!(prometheus.last_error()?, "");
    node.deploy_waiting("client", &[])?;
    prometheus.expect("hivemind_app_replicas_ready{app=\"client\"}", 1.0)?;
    assert_eq!(
        prometheus.metadata("hivemind_store_written_bytes")?["unit"],
        "bytes",
        "OpenMetrics was not asked for"
    );
    // Each scrape is a request, and what the API does for it is told by the next.
    prometheus.expect("hivemind_api_requests_total{status=\"2xx\"} > bool 3", 1.0)?;
    prometheus.expect("hivemind_api_access_failures_total", 0.0)?;
    let writes = prometheus.query("hivemind_store_writes_total")?.first().context("no writes")?.1;
    let commits = prometheus.query("hivemind_store_commit_seconds_count")?.first().context("no commits")?.1;
    assert!(commits > 0.0 && commits <= writes, "{commits} commits of {writes} transactions");
    assert!(prometheus.query("hivemind_store_commit_seconds_sum")?.first().context("no sum")?.1 > 0.0);

    // Five series for each label set of flows.
    prometheus.expect("hivemind_flow_label_sets_capacity", 3.0)?;

    node.hivemind_ok(&["token", "revoke", "prometheus"])?;
    prometheus.expect("up", 0.0)?;
    assert!(prometheus.last_error()?.contains("401"), "{}", prometheus.last_error()?);
    Ok(())
}

#[test]
fn prometheus_scrapes_the_web_port_over_tls_by_the_daemon_s_own_authority() -> Result<()> {
    let (node, _registry) = Node::with_daemon_flags(&["--web-address", "0.0.0.0"])?;
    let token = node.hivemind_ok(&["token", "create", "prometheus", "--role", "read-only"])?;
    let target = SocketAddr::new(node.addresses().ipv4.into(), 4483).to_string();
    let authority = node.sandbox().directory().join("data/tls/ca.crt");
    let prometheus = Prometheus::start_over_tls(node.sandbox(), &target, &token, &authority)?;
    assert_eq!(prometheus.last_error()?, "");
    prometheus.expect("hivemind_api_requests_total{status=\"2xx\"} > bool 1", 1.0)?;
    let left = "hivemind_certificate_expiry_timestamp_seconds{certificate=\"web\"} - time()";
    prometheus.expect(&format!("{left} > bool 86400"), 1.0)?;

    // The token counts there, too, and nothing is answered without TLS.
    node.hivemind_ok(&["token", "revoke", "prometheus"])?;
    prometheus.expect("up", 0.0)?;
    assert!(prometheus.last_error()?.contains("401"), "{}", prometheus.last_error()?);
    let at: SocketAddr = target.parse()?;
    let plain = node.sandbox().in_network(|| get(at, "/metrics", Duration::from_secs(5)))?;
    assert!(plain.is_err() || plain.is_ok_and(|answer| answer.status != 200), "it answers without TLS");
    Ok(())
}

#[test]
fn what_an_app_sent_last_is_in_the_node_s_totals_when_it_is_gone() -> Result<()> {
    let (node, _registry) = node()?;
    let all = |verdict: &str| format!("hivemind_traffic_connections_total{{verdict=\"{verdict}\"}}");
    let told = |query: &str| -> Result<f64> {
        let text = scrape(&node)?;
        let line = text.lines().find_map(|line| line.strip_prefix(query)).context("no totals")?;
        line.trim().parse().context("no number")
    };
    let before = told(&all("allowed"))?;
    // Nobody scrapes between this and the end of the app.
    request(&node, "client", REQUESTS)?;
    node.hivemind_ok(&["app", "delete", "client"])?;
    eventually(LIMIT, "the client's identity to be gone", || {
        let maps = node.json(&["status"])?;
        let pairs = status_entries(maps["maps"].as_array().context("no maps")?, "addr_exact_v4")?;
        ensure!(pairs == 2.0, "{pairs} addresses");
        Ok::<_, anyhow::Error>(())
    })?;
    assert!(told(&all("allowed"))? >= before + f64::from(REQUESTS));
    // For a while its own series tell it, too.
    assert_eq!(told(&connections("client", 80, "tcp", "allowed"))?, f64::from(REQUESTS));
    assert!(!scrape(&node)?.contains("{namespace=\"default\",app=\"client\"}"), "an app that is gone");
    Ok(())
}

#[test]
fn a_scrape_is_fit_for_promtool_and_can_be_made_from_a_replica() -> Result<()> {
    let (node, _registry) = node()?;
    request(&node, "client", 3)?;
    let text = scrape(&node)?;
    let mut checker = Command::new(tool("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool is missing; run `cargo xtask setup`")?;
    let input = checker.stdin.take().context("no input")?;
    std::io::Write::write_all(&mut { input }, text.as_bytes())?;
    let said = checker.wait_with_output()?;
    let complaints = [&said.stdout[..], &said.stderr[..]].concat();
    assert!(said.status.success() && complaints.is_empty(), "{}", String::from_utf8_lossy(&complaints));

    // The node's own servers are no replica's business, unless a policy says so.
    let address = node.addresses().ipv4;
    let ask = format!("wget -q -O - http://{address}:{PORT}/metrics");
    assert!(
        node.in_replica("client", &format!("timeout 1 {ask}")).is_err(),
        "the node's own port is open to replicas"
    );
    let spec = format!(
        "{{podSelector: {{matchLabels: {{app: client}}}}, policyTypes: [Egress], egress: [{{to: [{{ipBlock: {{cidr: {address}/32}}}}]}}]}}"
    );
    node.apply(&policy("scrape", &spec))?;
    let seen = node.in_replica("client", &ask)?;
    assert!(seen.contains("\nhivemind_flow_connections_total{"), "{seen}");
    let status: Value = node.json(&["status"])?;
    assert!(seen.contains(&format!("node=\"{}\"", status["node"].as_str().context("no node")?)), "{seen}");
    Ok(())
}

/// A selector of what a rule of the policy `only-client` decided about connections that enter.
fn verdicts(rule: &str, verdict: &str) -> String {
    format!(
        "hivemind_policy_verdicts_total{{namespace=\"default\",policy=\"only-client\",direction=\"ingress\",\
         rule=\"{rule}\",verdict=\"{verdict}\"}}"
    )
}

#[test]
fn prometheus_counts_what_each_rule_of_a_policy_decided_and_the_rules_work_it_out() -> Result<()> {
    let (node, _registry) = node()?;
    node.deploy_waiting("stranger", &[])?;
    let network = node.network_of_replica(&node.replica("web")?)?;
    let _server = Place::network(node.sandbox(), &network).answer(5000, "web")?;
    let prometheus = Prometheus::start(node.sandbox(), &format!("127.0.0.1:{PORT}"))?;
    assert_eq!(prometheus.broken_rules()?, Vec::<Value>::new());
    assert_eq!(send(&node, "client", 3)?, 3);
    prometheus.expect("hivemind_policy_propagation_seconds_count{from=\"policy\"}", 0.0)?;
    prometheus.expect("hivemind_policy_propagation_seconds_count{from=\"replica\"} >= bool 3", 1.0)?;
    prometheus.expect_nothing("hivemind_policy_verdicts_total{policy=\"only-client\"}")?;

    node.apply(&policy_only("only-client", "client", "web", ""))?;
    // Before there is anything to tell: so the first connection is a rise.
    prometheus.expect(&verdicts("0", "allowed"), 0.0)?;
    prometheus.expect(&verdicts("default", "denied"), 0.0)?;
    assert_eq!(send(&node, "client", DATAGRAMS)?, DATAGRAMS);
    assert_eq!(send(&node, "stranger", REFUSED)?, 0, "the policy lets the stranger in");
    prometheus.expect(&verdicts("0", "allowed"), DATAGRAMS as f64)?;
    prometheus.expect(&verdicts("default", "denied"), REFUSED as f64)?;
    prometheus.expect(
        "sum(hivemind_policy_verdicts_total{policy=\"only-client\"})",
        (DATAGRAMS + REFUSED) as f64,
    )?;
    // The node's own processes, which every policy lets in.
    let page = SocketAddr::new(ipv4(&node, "web")?, 80);
    assert_eq!(node.sandbox().in_network(|| get(page, "/", Duration::from_secs(5)))??.status, 200);
    prometheus
        .expect("hivemind_policy_verdicts_total{policy=\"node-to-replicas\",verdict=\"allowed\"}", 1.0)?;
    prometheus.expect("hivemind_policy_propagation_seconds_count{from=\"policy\"}", 1.0)?;
    prometheus.expect("hivemind_policy_propagation_seconds_sum{from=\"policy\"} < bool 10", 1.0)?;
    prometheus.expect("hivemind_policy_propagation_seconds_sum{from=\"policy\"} > bool 0", 1.0)?;

    // A rule in front of the others makes of the first the second.
    let app = |name: &str| format!("{{podSelector: {{matchLabels: {{app: {name}}}}}}}");
    let spec = "podSelector: {matchLabels: {app: web}}";
    let both =
        format!("{{{spec}, ingress: [{{from: [{}]}}, {{from: [{}]}}]}}", app("stranger"), app("client"));
    node.apply(&policy("only-client", &both))?;
    prometheus.expect(&verdicts("1", "allowed"), 0.0)?;
    assert_eq!((send(&node, "stranger", 2)?, send(&node, "client", 1)?), (2, 1));
    prometheus.expect(&verdicts("0", "allowed"), DATAGRAMS as f64 + 2.0)?;
    prometheus.expect(&verdicts("1", "allowed"), 1.0)?;
    prometheus.expect("hivemind_policy_propagation_seconds_count{from=\"policy\"}", 2.0)?;

    // Through the recording rules.
    let rate = |rule: &str| {
        format!("{rule}:hivemind_policy_verdicts:rate5m{{policy=\"only-client\",verdict=\"allowed\"}}")
    };
    prometheus.expect(&format!("count({} > 0)", rate("rule")), 2.0)?;
    prometheus.expect(&format!("abs(sum({}) - sum({})) < bool 1", rate("rule"), rate("policy")), 1.0)?;
    prometheus.expect("app:hivemind_app_replicas_ready:ratio{app=\"web\"}", 1.0)?;
    let entries =
        prometheus.query("hivemind_datapath_map_entries{map=\"verdicts\"}")?.first().context("no map")?.1;
    // Three of the policy, the probes', and two of all others together.
    assert_eq!(entries, 6.0);
    prometheus.expect("map:hivemind_datapath_map_fill:ratio{map=\"verdicts\"} * 8194", entries)?;

    // The daemon goes, the kernel counts on, and a policy of the same name begins anew.
    let client = node.network_of_replica(&node.replica("client")?)?;
    let (client, web) = (Place::network(node.sandbox(), &client), SocketAddr::new(ipv4(&node, "web")?, 5000));
    node.daemon_term()?;
    let said = client.ask(web, 4, true)?;
    assert_eq!(said["answers"].as_array().map(Vec::len), Some(4));
    node.daemon_start()?;
    prometheus.expect(&verdicts("1", "allowed"), 5.0)?;
    node.hivemind_ok(&["policy", "delete", "only-client"])?;
    prometheus.expect_nothing("hivemind_policy_verdicts_total{policy=\"only-client\"}")?;
    eventually(LIMIT, "what was counted for the policy to be forgotten", || {
        let status = node.json(&["status"])?;
        let entries = status_entries(status["maps"].as_array().context("no maps")?, "verdicts")?;
        ensure!(entries == 3.0, "{entries} entries");
        Ok::<_, anyhow::Error>(())
    })?;
    node.apply(&policy_only("only-client", "client", "web", ""))?;
    assert_eq!((send(&node, "client", 1)?, send(&node, "stranger", 1)?), (1, 0));
    prometheus.expect(&verdicts("0", "allowed"), 1.0)?;
    prometheus.expect(&verdicts("default", "denied"), 1.0)?;
    Ok(())
}

#[test]
fn a_node_tells_of_itself_and_of_its_certificates_and_its_disk() -> Result<()> {
    let (node, _registry) = node()?;
    let prometheus = Prometheus::start(node.sandbox(), &format!("127.0.0.1:{PORT}"))?;
    let name = node.json(&["status"])?["node"].as_str().context("no node")?.to_owned();
    prometheus.expect(&format!("hivemind_node_up{{node=\"{name}\"}}"), 1.0)?;
    prometheus.expect("hivemind_cluster_connected", 1.0)?;
    for certificate in ["node", "authority"] {
        let left = format!(
            "hivemind_certificate_expiry_timestamp_seconds{{certificate=\"{certificate}\"}} - time()"
        );
        prometheus.expect(&format!("{left} > bool 86400"), 1.0)?;
    }
    // The web port is on loopback, without TLS.
    prometheus.expect_nothing("hivemind_certificate_expiry_timestamp_seconds{certificate=\"web\"}")?;
    prometheus.expect("hivemind_data_free_bytes > bool 0", 1.0)?;
    prometheus.expect("instance:hivemind_data_free:ratio < bool 1", 1.0)?;
    prometheus.expect("hivemind_store_size_bytes > bool 0", 1.0)?;

    // What `hivemind status` says is wrong: an app that no node has room for.
    prometheus.expect_nothing("hivemind_problems{code=\"HM0410\"}")?;
    node.hivemind_ok(&[
        "app",
        "deploy",
        "huge",
        "--image",
        "busybox:latest",
        "--memory",
        "900Gi",
        "--detach",
    ])?;
    prometheus.expect("hivemind_problems{code=\"HM0410\"}", 1.0)?;
    node.hivemind_ok(&["app", "delete", "huge"])?;
    prometheus.expect_nothing("hivemind_problems{code=\"HM0410\"}")?;
    Ok(())
}
