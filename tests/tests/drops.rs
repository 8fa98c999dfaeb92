//! Whose packets are dropped, and who makes the tables full, as the metrics, the API and the command line tell it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Node, eventually, get, policy_only};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);
const METRICS_PORT: u16 = 9464;
/// Nobody answers there.
const PORT: u16 = 5000;
/// Time for the first packet of a connection, and for the second a second later.
const TWO_ATTEMPTS: Duration = Duration::from_millis(1_500);

/// The addresses of an app's replica, IPv4 and IPv6.
fn addresses(node: &Node, app: &str) -> Result<[IpAddr; 2]> {
    let status = node.replica(app)?["status"].clone();
    let of = |family: &str| -> Result<IpAddr> { Ok(status[family].as_str().context("no address")?.parse()?) };
    Ok([of("ipv4")?, of("ipv6")?])
}

/// What `net drops` tells of what policies denied, but for its explanations: app, reason, packets.
fn denied(node: &Node) -> Result<Vec<(String, String, u64)>> {
    let told: Vec<Value> =
        serde_json::from_str(&node.hivemind_ok(&["net", "drops", "-o", "json"])?).context("no JSON")?;
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = told.iter().map(|row| {
        (word(&row["end"]["app"]), word(&row["reason"]), row["packets"].as_u64().unwrap_or_default())
    });
    let mut rows: Vec<_> = rows.filter(|(_, reason, _)| reason.starts_with("policy_")).collect();
    rows.sort();
    Ok(rows)
}

/// What the metrics tell of the same.
fn denied_in_metrics(node: &Node) -> Result<Vec<(String, String, u64)>> {
    let address = SocketAddr::from(([127, 0, 0, 1], METRICS_PORT));
    let text = node.sandbox().in_network(|| get(address, "/metrics", LIMIT))??.body;
    let label = |line: &str, name: &str| {
        let rest = line.split_once(&format!("{name}=\""))?.1;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let of_family = text.lines().filter(|line| line.starts_with("hivemind_datapath_end_drops_total{"));
    let mut rows: Vec<_> = of_family
        .filter_map(|line| {
            let packets: f64 = line.rsplit(' ').next()?.parse().ok()?;
            Some((label(line, "app")?, label(line, "reason")?, packets as u64))
        })
        .filter(|(_, reason, _)| reason.starts_with("policy_"))
        .collect();
    rows.sort();
    Ok(rows)
}

/// TCP segments that the kernel in an app's network has sent.
fn segments_sent(node: &Node, app: &str) -> Result<u64> {
    let read = || fs::read_to_string("/proc/thread-self/net/snmp");
    let text = node.in_network_of(app, read)?.context("no counters")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
    let counted = names.split(' ').zip(values.split(' '));
    // The first does not count what is sent again.
    let sent = counted.filter(|(name, _)| ["OutSegs", "RetransSegs"].contains(name));
    sent.map(|(_, value)| Ok(value.parse::<u64>()?)).sum()
}

#[test]
fn a_denied_connection_counts_for_exactly_the_replica_that_asked_by_the_packets_it_sent() -> Result<()> {
    let (node, _registry) =
        Node::with_daemon_flags(&["--metrics-address", &format!("127.0.0.1:{METRICS_PORT}")])?;
    for app in ["web", "client", "stranger", "outsider"] {
        node.deploy_waiting(app, &[])?;
    }
    node.apply(&policy_only("only-client", "client", "web", ""))?;
    ensure!(denied(&node)?.is_empty(), "{:?}", denied(&node)?);

    // Datagrams, of both families, and more from the one than from the other.
    let web = addresses(&node, "web")?;
    let send = |app: &str, count: usize| -> Result<()> {
        let sent = node.in_network_of(app, || {
            let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
            any.into_iter().zip(web).try_for_each(|(any, to)| {
                let socket = UdpSocket::bind((any, 0))?;
                (0..count).try_for_each(|_| socket.send_to(b"who?", (to, PORT)).map(drop))
            })
        })?;
        sent.context("cannot send")
    };
    send("stranger", 7)?;
    send("outsider", 2)?;
    send("client", 5)?;
    let row = |app: &str, packets| (app.to_owned(), "policy_ingress".to_owned(), packets);
    let expected = vec![row("outsider", 4), row("stranger", 14)];
    ensure!(denied(&node)? == expected, "{:?}", denied(&node)?);

    // A connection: as many as its kernel sent.
    let before = segments_sent(&node, "stranger")?;
    let address = SocketAddr::new(web[0], 80);
    let refused = node.in_network_of("stranger", || TcpStream::connect_timeout(&address, TWO_ATTEMPTS))?;
    ensure!(refused.is_err(), "the stranger is let in");
    let sent = segments_sent(&node, "stranger")? - before;
    ensure!(sent >= 2, "{sent} segments");
    let expected = vec![row("outsider", 4), row("stranger", 14 + sent)];
    ensure!(denied(&node)? == expected, "{:?}, not {expected:?}", denied(&node)?);
    eventually(LIMIT, "the metrics to say the same", || {
        let told = denied_in_metrics(&node)?;
        ensure!(told == expected, "{told:?}, not {expected:?}");
        Ok(())
    })?;

    let told = node.hivemind_ok(&["net", "drops", "--app", "stranger", "--reason", "policy_ingress"])?;
    let line = told.lines().nth(1).context("no row")?;
    for part in ["default", "stranger-", &(14 + sent).to_string(), "no policy lets it enter its destination"]
    {
        ensure!(line.contains(part), "no {part:?}: {line}");
    }
    ensure!(node.hivemind_ok(&["net", "drops", "--app", "client", "--reason", "policy_ingress"])?.is_empty());
    Ok(())
}

#[test]
fn who_fills_the_table_of_connections_is_named_in_the_status_and_in_the_log() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.deploy_waiting("web", &[])?;
    node.deploy_waiting("scanner", &[])?;
    let web = addresses(&node, "web")?[0];
    let status = node.json(&["status"])?;
    ensure!(status["heaviest"].as_array().context("no list")?.is_empty(), "{status}");
    // One datagram to each port, from two ports: more than fit.
    let sent = node.in_network_of("scanner", || {
        (0..2).try_for_each(|_| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            (1..=u16::MAX).try_for_each(|port| socket.send_to(b"who?", (web, port)).map(drop))
        })
    })?;
    sent.context("cannot send")?;
    let status = node.json(&["status"])?;
    let heaviest = status["heaviest"].as_array().context("no list")?;
    let apps: Vec<_> = heaviest.iter().filter_map(|user| user["end"]["app"].as_str()).collect();
    ensure!(apps.starts_with(&["scanner", "web"]), "{apps:?}");
    let most = heaviest[0]["connections"].as_u64().context("no number")?;
    ensure!(most > 60_000, "{heaviest:?}");
    let problems = status["problems"].as_array().context("no problems")?;
    let told = problems.iter().filter_map(|problem| problem["message"].as_str());
    ensure!(
        told.clone().any(|message| message.contains("; most connections have default/scanner/scanner-")),
        "{problems:?}"
    );
    eventually(LIMIT, "the log to name it", || {
        let log = node.daemon_log_end();
        let line = log.lines().find(|line| line.contains("The table of connections is full"));
        let line = line.with_context(|| log.clone())?;
        ensure!(line.contains("default/scanner/scanner-"), "{line}");
        Ok(())
    })?;
    let told = node.hivemind_ok(&["net", "drops", "--app", "scanner", "--reason", "conntrack_full"])?;
    ensure!(told.lines().count() == 2, "what was refused is not the scanner's:\n{told}");
    Ok(())
}
