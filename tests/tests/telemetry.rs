//! What the programs count between two nodes, against the kernel's own counters where it has cut everything into segments.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{
    Cluster, ClusterOptions, FabricOptions, Layout, Node, NodeOptions, both_addresses, eventually, get_unix,
};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

/// Of IPv4 and of IPv6, for TCP and UDP.
const PORTS: [u16; 2] = [5000, 5001];

/// What a stream carries there and back.
const THERE_BYTES: usize = 2 << 20;
const BACK_BYTES: usize = 1 << 20;

/// What of a stream may be on its way: fewer packets than wait at an interface, so that none is lost.
const ON_THE_WAY_BYTES: usize = 64 << 10;

/// What one call sends in datagrams of so many bytes, the last one shorter, and how often there and back.
const BURST_BYTES: usize = 20_300;
const DATAGRAM_BYTES: i32 = 1_000;
const BURSTS: [usize; 2] = [10, 4];

/// No segment of a stream is longer.
const MTU: usize = 1500;

/// Long before any test.
const LONG_AGO: &str = "2001-01-01T00:00:00Z";

/// Bytes and packets there, and back.
type Counts = [[u64; 2]; 2];

/// A replica, and the node that it is on.
struct End<'a> {
    node: &'a Node,
    replica: &'a Value,
}

impl End<'_> {
    fn nft(&self, words: &[&str]) -> Result<String> {
        let network = format!("--net={}", self.node.network_of_replica(self.replica)?.display());
        self.node.sandbox().check(&[&["nsenter", &network, "nft"], words].concat())
    }

    /// Has nftables count what comes in and what goes out by protocol and by the server's port, which stands at `port` in what
    /// comes in.
    fn count(&self, [port_in, port_out]: [&str; 2]) -> Result<()> {
        let mut rules = String::from("add table inet counted\n");
        for (hook, word, priority) in [("input", port_in, -300), ("output", port_out, 300)] {
            rules += &format!(
                "add chain inet counted {hook} {{ type filter hook {hook} priority {priority}; }}\n"
            );
            for (protocol, port) in connections() {
                let name = format!("{protocol}_{port}_{hook}");
                rules += &format!(
                    "add counter inet counted {name}\n\
                     add rule inet counted {hook} {protocol} {word} {port} counter name {name}\n"
                );
            }
        }
        let file = self.node.sandbox().directory().join("counting");
        fs::write(self.node.sandbox().outside(&file), rules)?;
        self.nft(&["-f", &file.display().to_string()]).map(drop)
    }

    /// Bytes and packets that came in, or went out.
    fn counted(&self, protocol: &str, port: u16, hook: &str) -> Result<[u64; 2]> {
        let name = format!("{protocol}_{port}_{hook}");
        let text = self.nft(&["-j", "list", "counter", "inet", "counted", &name])?;
        let list: Value = serde_json::from_str(&text)?;
        let counter = list["nftables"].as_array().and_then(|list| list.last()).context("no counter")?;
        let number = |name: &str| counter["counter"][name].as_u64().context("no number");
        Ok([number("bytes")?, number("packets")?])
    }
}

/// What is spoken between the client and the server.
fn connections() -> impl Iterator<Item = (&'static str, u16)> {
    ["tcp", "udp"].into_iter().flat_map(|protocol| PORTS.map(|port| (protocol, port)))
}

/// A stream there and one back, so that few packets are on their way at a time.
fn stream(cluster: &Cluster, server: &Value, client: &Value, to: SocketAddr) -> Result<()> {
    let listener = cluster.in_network_of(server, || TcpListener::bind(to))??;
    let mut client = cluster.in_network_of(client, || TcpStream::connect_timeout(&to, LIMIT))??;
    let (mut server, _) = listener.accept()?;
    for stream in [&client, &server] {
        setsockopt(stream, sockopt::SndBuf, &ON_THE_WAY_BYTES)?;
        stream.set_read_timeout(Some(LIMIT))?;
    }
    thread::scope(|scope| -> Result<()> {
        let serving = scope.spawn(move || -> Result<usize> {
            let mut got = Vec::new();
            server.read_to_end(&mut got)?;
            server.write_all(&got[..BACK_BYTES])?;
            Ok(got.len())
        });
        client.write_all(&vec![7; THERE_BYTES])?;
        client.shutdown(Shutdown::Write)?;
        let mut got = Vec::new();
        client.read_to_end(&mut got)?;
        let arrived = serving.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
        ensure!(arrived == THERE_BYTES && got.len() == BACK_BYTES, "{arrived} and {} bytes", got.len());
        Ok(())
    })
}

/// Datagrams there and back, many by each call.
fn datagrams(cluster: &Cluster, server: &Value, client: &Value, to: SocketAddr) -> Result<()> {
    let unspecified: IpAddr =
        if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let server = cluster.in_network_of(server, || UdpSocket::bind(to))??;
    let client = cluster.in_network_of(client, || -> Result<UdpSocket> {
        let client = UdpSocket::bind((unspecified, 0))?;
        client.connect(to)?;
        Ok(client)
    })??;
    server.connect(client.local_addr()?)?;
    for (bursts, from, to) in [(BURSTS[0], &client, &server), (BURSTS[1], &server, &client)] {
        setsockopt(from, sockopt::UdpGsoSegment, &DATAGRAM_BYTES)?;
        to.set_read_timeout(Some(LIMIT))?;
        for _ in 0..bursts {
            ensure!(from.send(&[7; BURST_BYTES])? == BURST_BYTES, "not all of a burst was sent");
            let mut got = 0;
            while got < BURST_BYTES {
                got += to.recv(&mut [0; 2048]).with_context(|| format!("after {got} bytes of a burst"))?;
            }
        }
    }
    Ok(())
}

/// The sum of what a node's metrics tell of a family with these labels.
fn metric(node: &Node, family: &str, labels: &[String]) -> Result<u64> {
    let text = get_unix(&node.sandbox().outside(&node.socket()), "/metrics", LIMIT)?.body;
    let of_family = |line: &&str| {
        line.strip_prefix(family).is_some_and(|rest| rest.starts_with('{'))
            && labels.iter().all(|label| line.contains(label.as_str()))
    };
    let value = |line: &str| line.rsplit(' ').next().and_then(|word| word.parse::<f64>().ok());
    Ok(text.lines().filter(of_family).filter_map(value).sum::<f64>() as u64)
}

fn told_by_metrics(node: &Node, protocol: &str, port: u16) -> Result<Counts> {
    let of = |what: &str, direction: &str| {
        let labels = [
            "source_app=\"client\"".to_owned(),
            "destination_app=\"server\"".to_owned(),
            format!("port=\"{port}\""),
            format!("protocol=\"{protocol}\""),
            format!("direction=\"{direction}\""),
            "verdict=\"allowed\"".to_owned(),
        ];
        metric(node, &format!("hivemind_flow_{what}_total"), &labels)
    };
    Ok([
        [of("bytes", "sent")?, of("packets", "sent")?],
        [of("bytes", "received")?, of("packets", "received")?],
    ])
}

/// What the logs of the nodes hold, as one of them tells it of `node`.
fn told_by_log(asked: &Node, node: &Node, protocol: &str, port: u16) -> Result<Counts> {
    let port = format!("{port}/{protocol}");
    let words = ["flows", "--since", LONG_AGO, "-o", "json", "--from", "client", "--to", "server"];
    let text = asked.hivemind_ok(&[&words[..], &["--port", &port]].concat())?;
    let lines = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let minutes: Vec<_> = lines
        .iter()
        .filter(|line| line["type"] == "minute" && line["object"]["node"] == node.name())
        .map(|line| &line["object"])
        .collect();
    ensure!(minutes.iter().all(|minute| minute["exact"] == true), "{minutes:?}");
    let sum = |field: &str| minutes.iter().filter_map(|minute| minute[field].as_u64()).sum::<u64>();
    Ok([[sum("bytesSent"), sum("packetsSent")], [sum("bytesReceived"), sum("packetsReceived")]])
}

/// Speaks both ways over TCP and UDP, IPv4 and IPv6, and compares what each node tells of it with what nftables counts where
/// packets arrive: there each is one segment, since a network between them takes no aggregates.
fn both_nodes_count_what_nftables_counts(routing: &str) -> Result<()> {
    let node = NodeOptions {
        daemon_flags: ["--routing", routing].map(str::to_owned).to_vec(),
        ..NodeOptions::default()
    };
    // On a switch each node is the next hop to its replicas.
    let fabric = FabricOptions { layout: Layout::Bridged, ..FabricOptions::default() };
    let cluster = Cluster::start_with(2, &ClusterOptions { node, fabric })?;
    cluster.start_daemons()?;
    for node in cluster.nodes() {
        node.sandbox().check(&["ip", "link", "set", "dev", "eth0", "gso_max_size", &MTU.to_string()])?;
    }
    cluster.deploy_waiting_on(0, "client", &[])?;
    cluster.deploy_waiting_on(1, "server", &[])?;
    let (client, server) = (cluster.server().replica("client")?, cluster.server().replica("server")?);
    let at_client = End { node: cluster.node(0), replica: &client };
    let at_server = End { node: cluster.node(1), replica: &server };
    at_client.count(["sport", "dport"])?;
    at_server.count(["dport", "sport"])?;
    for (address, port) in both_addresses(&server["status"])?.into_iter().zip(PORTS) {
        let to = SocketAddr::new(address, port);
        stream(&cluster, &server, &client, to).with_context(|| format!("a stream to {to}"))?;
        datagrams(&cluster, &server, &client, to).with_context(|| format!("datagrams to {to}"))?;
    }

    let mut expected = Vec::new();
    for (protocol, port) in connections() {
        let counts = eventually(LIMIT, &format!("the metrics of {port}/{protocol} to be exact"), || {
            let counts =
                [at_server.counted(protocol, port, "input")?, at_client.counted(protocol, port, "input")?];
            for node in cluster.nodes() {
                let told = told_by_metrics(node, protocol, port)?;
                ensure!(told == counts, "{} tells {told:?}, nftables {counts:?}", node.name());
            }
            Ok(counts)
        })?;
        // Or else there were no aggregates, and nothing was shown. What carries no data is whole on both sides: a stream has a
        // good many acknowledgements.
        let (data, segment_bytes) = match protocol {
            "tcp" => ([THERE_BYTES, BACK_BYTES], MTU),
            _ => (BURSTS.map(|bursts| bursts * BURST_BYTES), DATAGRAM_BYTES as usize),
        };
        let sent =
            [at_client.counted(protocol, port, "output")?, at_server.counted(protocol, port, "output")?];
        for ((sent, arrived), data) in sent.into_iter().zip(counts).zip(data) {
            let cut_off = arrived[1].saturating_sub(sent[1]) as usize;
            ensure!(
                sent[0] < arrived[0] && 2 * cut_off > data / segment_bytes,
                "{protocol}: {sent:?} became {arrived:?}, and {data} bytes of it are data"
            );
        }
        if protocol == "udp" {
            let headers = if port == PORTS[0] { 20 + 8 } else { 40 + 8 };
            let exactly = BURSTS.map(|bursts| {
                let packets = bursts * BURST_BYTES.div_ceil(DATAGRAM_BYTES as usize);
                [bursts * BURST_BYTES + packets * headers, packets].map(|number| number as u64)
            });
            ensure!(counts == exactly, "{counts:?}, and {exactly:?} were sent");
        }
        expected.push((protocol, port, counts));
    }

    // A daemon that ends writes what it has counted of the minute.
    for node in [cluster.node(1), cluster.node(0)] {
        node.daemon_term()?;
        node.daemon_start()?;
    }
    cluster.until_ready(2)?;
    for (protocol, port, counts) in expected {
        for node in cluster.nodes() {
            let told = told_by_log(cluster.server(), node, protocol, port)?;
            ensure!(told == counts, "{port}/{protocol}: {} wrote {told:?}, not {counts:?}", node.name());
        }
    }
    Ok(())
}

#[test]
fn in_the_overlay_bytes_and_packets_are_those_of_the_kernel_segment_by_segment() -> Result<()> {
    both_nodes_count_what_nftables_counts("overlay")
}

#[test]
fn without_the_overlay_bytes_and_packets_are_those_of_the_kernel_segment_by_segment() -> Result<()> {
    both_nodes_count_what_nftables_counts("direct")
}
