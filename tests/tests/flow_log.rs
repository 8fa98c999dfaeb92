//! Flows on disk: exact, kept over a SIGKILL, and told by `hivemind flows --since` with every filter and in every format.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Cluster, Node, Place, Sandbox, both_addresses, eventually, policy_only};
use jiff::Timestamp;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

/// A minute's end is at most this far away.
const MINUTE: Duration = Duration::from_secs(75);

const PORT: u16 = 5000;

/// Long before any test.
const LONG_AGO: &str = "2001-01-01T00:00:00Z";

/// What is sent over TCP: much more than a packet.
const STREAM_BYTES: usize = 3 << 20;

const DATAGRAMS: u64 = 40;
const DATAGRAM_BYTES: usize = 700;

/// Counts what IP packets an end sends and gets on its port, by nftables: packets that are one segment.
const COUNTING: &str = "\
add table inet counted
add counter inet counted out
add counter inet counted in
add chain inet counted post { type filter hook output priority 300; }
add chain inet counted pre { type filter hook input priority -300; }
";

fn addresses(node: &Node, app: &str) -> Result<[IpAddr; 2]> {
    let replica = node.replica(app)?;
    let of = |family: &str| -> Result<IpAddr> {
        replica["status"][family].as_str().context("no address")?.parse().context("no address")
    };
    Ok([of("ipv4")?, of("ipv6")?])
}

/// Runs `nft` in the network of an app's replica.
fn nft(sandbox: &Sandbox, network: &str, words: &[&str]) -> Result<String> {
    sandbox.check(&[&["nsenter", network, "nft"], words].concat())
}

/// Bytes and packets that the counter has.
fn counted(sandbox: &Sandbox, network: &str, counter: &str) -> Result<[u64; 2]> {
    let text = nft(sandbox, network, &["-j", "list", "counter", "inet", "counted", counter])?;
    let list: Value = serde_json::from_str(&text)?;
    let counter = list["nftables"].as_array().and_then(|list| list.last()).context("no counter")?;
    let number = |name: &str| counter["counter"][name].as_u64().context("no number");
    Ok([number("bytes")?, number("packets")?])
}

/// The records of minutes that `flows` tells with these flags.
fn minutes(node: &Node, words: &[&str]) -> Result<Vec<Value>> {
    let text = node.hivemind_ok(&[&["flows", "--since", LONG_AGO, "-o", "json"], words].concat())?;
    let lines = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let minutes = lines.into_iter().filter(|line| line["type"] == "minute");
    Ok(minutes.map(|line| line["object"].clone()).collect())
}

fn sum(minutes: &[Value], field: &str) -> u64 {
    minutes.iter().map(|minute| minute[field].as_u64().unwrap_or(0)).sum()
}

/// Has the daemon write what was counted: a SIGTERM does, and so does the end of each minute.
fn restart(node: &Node, flags: &[&str]) -> Result<()> {
    node.daemon_term()?;
    node.daemon_start_with(flags)
}

#[test]
fn totals_on_disk_are_those_of_the_replicas_own_kernel_in_both_families() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for app in ["server", "client"] {
        node.deploy_waiting(app, &[])?;
    }
    let sandbox = node.sandbox();
    let [server, client] = ["server", "client"].map(|app| -> Result<String> {
        let network = format!("--net={}", node.network_of_replica(&node.replica(app)?)?.display());
        // Packets of one segment each, which is what nftables counts.
        sandbox.check(&["nsenter", &network, "ip", "link", "set", "dev", "eth0", "gso_max_segs", "1"])?;
        Ok(network)
    });
    let (_, client) = (server?, client?);
    let rules = sandbox.directory().join("counting");
    std::fs::write(sandbox.outside(&rules), COUNTING)?;
    nft(sandbox, &client, &["-f", &rules.display().to_string()])?;
    for (chain, match_port, counter) in [("post", "dport", "out"), ("pre", "sport", "in")] {
        for protocol in ["tcp", "udp"] {
            let port = PORT.to_string();
            let rule = [protocol, match_port, &port, "counter", "name", counter];
            nft(sandbox, &client, &[&["add", "rule", "inet", "counted", chain], &rule[..]].concat())?;
        }
    }
    for address in addresses(&node, "server")? {
        let to = SocketAddr::new(address, PORT);
        let listener = node.in_network_of("server", || TcpListener::bind(to))??;
        let socket = node.in_network_of("server", || UdpSocket::bind(to))??;
        let served = std::thread::spawn(move || -> Result<usize> {
            let (mut stream, _) = listener.accept()?;
            let mut got = Vec::new();
            stream.read_to_end(&mut got)?;
            stream.write_all(&got[..1000])?;
            Ok(got.len())
        });
        node.in_network_of("client", || -> Result<()> {
            let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
            stream.write_all(&vec![7; STREAM_BYTES])?;
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            ensure!(answer.len() == 1000, "{} bytes came back", answer.len());
            Ok(())
        })??;
        let got = served.join().map_err(|_| anyhow::anyhow!("the server failed"))??;
        ensure!(got == STREAM_BYTES, "{got} bytes arrived");
        let unspecified = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        node.in_network_of("client", || -> Result<()> {
            let client = UdpSocket::bind(unspecified)?;
            client.connect(to)?;
            (0..DATAGRAMS).try_for_each(|_| client.send(&[7; DATAGRAM_BYTES]).map(drop))?;
            Ok(())
        })??;
        socket.set_read_timeout(Some(LIMIT))?;
        let mut buffer = [0; 2048];
        for _ in 0..DATAGRAMS {
            ensure!(socket.recv(&mut buffer)? == DATAGRAM_BYTES);
        }
    }
    restart(&node, &[])?;

    let to_server = ["--from", "client", "--to", "server"];
    let told = minutes(&node, &to_server)?;
    ensure!(told.iter().all(|minute| minute["exact"] == true), "{told:?}");
    let tcp = minutes(&node, &[&to_server[..], &["--protocol", "tcp"]].concat())?;
    let udp = minutes(&node, &[&to_server[..], &["--port", "5000/udp"]].concat())?;
    ensure!(sum(&tcp, "connections") == 2 && sum(&udp, "connections") == 2, "{told:?}");
    ensure!(sum(&udp, "packetsSent") == 2 * DATAGRAMS, "{udp:?}");
    let datagrams = 2 * DATAGRAMS * (DATAGRAM_BYTES as u64 + 8) + DATAGRAMS * (20 + 40);
    ensure!(sum(&udp, "bytesSent") == datagrams, "{} and not {datagrams}", sum(&udp, "bytesSent"));
    for (counter, bytes, packets) in
        [("out", "bytesSent", "packetsSent"), ("in", "bytesReceived", "packetsReceived")]
    {
        let [kernel_bytes, kernel_packets] = counted(sandbox, &client, counter)?;
        ensure!(sum(&told, bytes) == kernel_bytes, "{counter}: {} and not {kernel_bytes}", sum(&told, bytes));
        let packets = sum(&told, packets);
        ensure!(packets == kernel_packets, "{counter}: {packets} and not {kernel_packets}");
    }
    Ok(())
}

#[test]
fn a_sigkill_in_mid_minute_loses_and_doubles_nothing_and_filters_and_formats_fit() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for app in ["web", "client", "stranger"] {
        node.deploy_waiting(app, &[])?;
    }
    node.apply(&policy_only("only-client", "client", "web", ""))?;
    let [web, _] = addresses(&node, "web")?;
    let send = |app: &str, count: u64| -> Result<()> {
        node.in_network_of(app, || -> Result<()> {
            (0..count)
                .try_for_each(|_| UdpSocket::bind("0.0.0.0:0")?.send_to(b"who?", (web, PORT)).map(drop))?;
            Ok(())
        })?
    };
    let of_client = ["--from", "client", "--to", "web"];
    send("client", 3)?;
    let before_it_counts = Instant::now();
    restart(&node, &[])?;
    let first = minutes(&node, &of_client)?;
    ensure!(sum(&first, "connections") == 3, "{first:?}");
    send("client", 4)?;
    send("stranger", 5)?;
    let network = format!("--net={}", node.network_of_replica(&node.replica("client")?)?.display());
    node.daemon_kill9()?;
    // Without a daemon, too.
    let tell = format!("for i in 1 2; do echo -n who? > /dev/udp/{web}/{PORT}; done");
    node.sandbox().check(&["nsenter", &network, "bash", "-c", &tell])?;
    node.daemon_start()?;
    restart(&node, &[])?;
    let all = minutes(&node, &of_client)?;
    ensure!(sum(&all, "connections") == 9 && sum(&all, "packetsSent") == 9, "{all:?}");
    ensure!(sum(&all, "bytesSent") == 9 * 32, "{all:?}");
    // Each says how long it covers, also the first of a daemon: since the one that the daemon before it made last.
    let at_most = before_it_counts.elapsed().as_secs() + 1;
    let covers = |minute: &Value| minute["seconds"].as_u64().is_some_and(|s| (1..=at_most).contains(&s));
    ensure!(
        all.iter().filter(|minute| !first.contains(minute)).all(covers),
        "more than {at_most} s: {all:?}"
    );

    // Every filter, alone and with others; what is denied has its policy by name, also when that is gone.
    send("stranger", 1)?;
    eventually(LIMIT, "the refusal to be told", || {
        node.hivemind_ok(&["flows", "--from", "stranger"])?
            .contains("denied")
            .then_some(())
            .context("not yet")
    })?;
    node.hivemind_ok(&["policy", "delete", "only-client"])?;
    restart(&node, &[])?;
    let denied = minutes(&node, &["--verdict", "denied"])?;
    ensure!(
        sum(&denied, "connections") == 6 && denied.iter().all(|m| m["source"]["app"] == "stranger"),
        "{denied:?}"
    );
    let share = denied.iter().flat_map(|m| m["shares"].as_array().into_iter().flatten()).next();
    let share = share.context("no share is told")?;
    ensure!(
        share["reason"] == "policy_ingress" && share["ingressRule"]["policy"] == "only-client",
        "{share}"
    );
    for (words, some) in [
        (&["--reason", "policy_ingress"][..], true),
        (&["--reason", "policy_egress"], false),
        (&["--port", "4999-5001/udp", "--to", "default/*"], true),
        (&["--port", "5000/tcp"], false),
        (&["--protocol", "17", "--from", "default/stranger"], true),
        (&["--from", "node/nobody"], false),
    ] {
        ensure!(minutes(&node, words)?.is_empty() != some, "{words:?}");
    }
    let output = node.hivemind(&["flows", "--since", LONG_AGO, "--from", "stranger", "-o", "wide"])?;
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(
        text.contains("denied") && text.contains("only-client/ingress") && text.contains(node.name()),
        "{text}"
    );
    ensure!(said.contains("records of minutes that are on disk"), "{said}");
    let compact = node.hivemind_ok(&["flows", "--since", "1h", "--from", "client"])?;
    ensure!(compact.contains("9 packets 288 B") || compact.contains(" connections"), "{compact}");

    let wrong = ["flows", "--since", "soon", "--port", "http", "--reason", "policy", "--protocol", "x"];
    let said = node.refused(&wrong, "HM0100", 2)?;
    for flag in ["at: --since", "at: --port", "at: --reason", "at: --protocol", "did you mean policy_egress"]
    {
        ensure!(said.contains(flag), "no {flag:?}: {said}");
    }
    Ok(())
}

#[test]
fn since_a_moment_that_is_remembered_events_are_told_from_then_on_and_none_from_before() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for app in ["web", "client", "stranger"] {
        node.deploy_waiting(app, &[])?;
    }
    node.apply(&policy_only("only-client", "client", "web", ""))?;
    let [web, _] = addresses(&node, "web")?;
    // A refusal is told once, at its time.
    let told = |since: &str| -> Result<Vec<u64>> {
        let words = ["flows", "--since", since, "--from", "stranger", "--verdict", "denied", "-o", "json"];
        let output = node.hivemind(&words)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() && said.contains("the nodes remember their events that far back"),
            "{said}"
        );
        let text = String::from_utf8_lossy(&output.stdout);
        let lines = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
        ensure!(lines.iter().all(|line| line["type"] == "flow"), "{text}");
        Ok(lines.iter().filter_map(|line| line["object"]["destination"]["port"].as_u64()).collect())
    };
    let knock = |port: u16, told_since: &str| -> Result<()> {
        node.in_network_of("stranger", || UdpSocket::bind("0.0.0.0:0")?.send_to(b"who?", (web, port)))??;
        eventually(LIMIT, "the refusal to be told", || {
            told(told_since)?.contains(&u64::from(port)).then_some(()).context("not yet")
        })
    };
    let began = Timestamp::now().to_string();
    knock(PORT, &began)?;
    let between = Timestamp::now().to_string();
    knock(PORT + 1, &between)?;
    let [first, second] = [u64::from(PORT), u64::from(PORT) + 1];
    ensure!(told(&began)? == [first, second], "{:?}", told(&began)?);
    ensure!(told(&between)? == [second], "{:?}", told(&between)?);
    eventually(LIMIT, "both to be longer ago than a second", || {
        let recent = told("1s")?;
        ensure!(recent.is_empty(), "{recent:?}");
        Ok(())
    })?;
    ensure!(told(&began)? == [first, second], "they are forgotten");
    Ok(())
}

#[test]
fn records_come_from_both_nodes_and_the_processes_of_a_node_are_found_in_them() -> Result<()> {
    let cluster = Cluster::start(2)?;
    cluster.start_daemons()?;
    cluster.deploy_on(1, "web", "nginx", &[])?;
    cluster.deploy_waiting_on(0, "client", &[])?;
    let server = cluster.server();
    let (web, client) = (server.replica("web")?, server.replica("client")?);
    let [address, _] = both_addresses(&web["status"])?;
    let to = SocketAddr::new(address, 80);
    for _ in 0..3 {
        cluster.get_from(&client, to, "/")?;
    }
    let dialled = Place::machine(cluster.node(1).sandbox()).dial(to)?;
    ensure!(dialled["peer"].is_string(), "{dialled}");
    for number in [1, 0] {
        cluster.node(number).daemon_term()?;
        cluster.node(number).daemon_start()?;
    }
    cluster.until_ready(2)?;
    let names = [0, 1].map(|number| cluster.node(number).name());
    // A server asks the other nodes, once it hears them again.
    eventually(LIMIT, "the records of both nodes", || {
        let all = minutes(server, &["--from", "client", "--to", "web", "--port", "80/tcp"])?;
        for name in names {
            let of_one: Vec<_> = all.iter().filter(|minute| minute["node"] == name).cloned().collect();
            ensure!(sum(&of_one, "connections") == 3, "{name}: {all:?}");
        }
        Ok(())
    })?;
    let from_node =
        |name: &str| minutes(server, &["--from", &format!("node/{name}"), "--to", "web", "--port", "80"]);
    let own = from_node(names[1])?;
    let is_own = |minute: &Value| minute["source"]["kind"] == "host" && minute["node"] == names[1];
    ensure!(sum(&own, "connections") >= 1 && own.iter().all(is_own), "{own:?}");
    ensure!(from_node(names[0])?.is_empty(), "{:?}", from_node(names[0])?);
    Ok(())
}

#[test]
fn the_round_trip_of_a_connection_is_told_as_the_kernels_tcp_measured_it() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&["app", "deploy", "web", "--image", "nginx"])?;
    node.deploy_waiting("client", &[])?;
    let [web, _] = addresses(&node, "web")?;
    node.in_replica("client", &format!("wget -q -O /dev/null http://{web}/"))?;
    let of_client = ["--from", "client", "--to", "web", "--protocol", "tcp"];
    let has_round_trip =
        |flow: &Value| flow["rttUs"].as_u64().is_some_and(|rtt| (1..1_000_000).contains(&rtt));
    eventually(LIMIT, "the round trip to be told", || {
        let text = node.hivemind_ok(&[&["flows", "-o", "json"], &of_client[..]].concat())?;
        let flow: Value = serde_json::from_str(text.lines().next().context("no flow")?)?;
        ensure!(has_round_trip(&flow["object"]), "{flow}");
        Ok(())
    })?;
    ensure!(node.hivemind_ok(&[&["flows", "-o", "wide"], &of_client[..]].concat())?.contains("  rtt 0."));
    restart(&node, &[])?;
    let told = minutes(&node, &of_client)?;
    ensure!(told.iter().any(has_round_trip), "{told:?}");
    Ok(())
}

#[test]
fn a_minute_is_written_at_its_end_without_being_asked() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for app in ["web", "client"] {
        node.deploy_waiting(app, &[])?;
    }
    let [web, _] = addresses(&node, "web")?;
    node.in_network_of("client", || UdpSocket::bind("0.0.0.0:0")?.send_to(b"who?", (web, PORT)))??;
    eventually(MINUTE, "the minute to be written", || {
        let told = minutes(&node, &["--from", "client", "--to", "web"])?;
        ensure!(sum(&told, "connections") == 1, "{told:?}");
        let minute = &told[0];
        ensure!(minute["minute"].as_str().is_some_and(|minute| minute.ends_with(":00Z")), "{minute}");
        Ok(())
    })
}
