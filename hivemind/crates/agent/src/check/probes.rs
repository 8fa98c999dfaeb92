//! The paths, one after the other.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use hivemind_model::NetProbe;
use nix::sys::socket::{setsockopt, sockopt::Ipv6DontFrag};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

use super::{CheckSpec, dns, place::Place, report::Report, stand::Stand};
use crate::services::check_name;

/// Bytes of one large transfer.
const TRANSFER: usize = 8 << 20;
/// Bytes that are written at once.
const PIECE: usize = 64 << 10;
/// Bytes of the headers before a datagram's content.
const HEADERS: [u32; 2] = [28, 48];
/// Bytes of a datagram that is longer than what any path here carries in one piece.
const LONG: usize = 4_000;
const DNS_PORT: u16 = 53;
const WORD: &[u8] = b"hivemind";

/// Where to look if a path between two ends of this node fails.
const NEIGHBOURS: &str = "see whether `tc filter show` or `bpftool net` tell of programs of others at the interfaces hm*, and the \
daemon's log";
const FIREWALL: &str = "see whether the machine's own firewall drops it: nft list ruleset";
const SOCKETS: &str = "see whether the daemon's programs are attached at its cgroup (bpftool cgroup tree), and the daemon's log";
const DNS: &str = "see whether the interface of the DNS addresses is up and has them (ip address), and the firewall lets 53 in";

/// Walks all paths.
pub(super) async fn walk_all(stand: &Stand<'_>, spec: &CheckSpec) -> Vec<NetProbe> {
    let mut report = Report::new(stand.shared.datapath.flow_events());
    between_replicas(&mut report, stand).await;
    by_service(&mut report, stand).await;
    by_name(&mut report, stand).await;
    with_the_node(&mut report, stand).await;
    sizes(&mut report, stand).await;
    guarded(&mut report, stand, spec).await;
    outside(&mut report, stand, spec).await;
    report.into_probes()
}

async fn between_replicas(report: &mut Report, stand: &Stand<'_>) {
    let [client, server] = &stand.probes[..] else { return };
    for address in server.addresses {
        let family = family(address);
        let path = tcp(&client.place, &server.place, address, None);
        report.walk(&format!("replica to replica, TCP over {family}"), NEIGHBOURS, path).await;
        let path = udp(&client.place, &server.place, address, WORD.len());
        report.walk(&format!("replica to replica, UDP over {family}"), NEIGHBOURS, path).await;
    }
}

async fn by_service(report: &mut Report, stand: &Stand<'_>) {
    let [client, server] = &stand.probes[..] else { return };
    for (service, address) in stand.service().into_iter().zip(server.addresses) {
        let name = format!("service by its {} address", family(service));
        let path = tcp(&client.place, &server.place, address, Some((service, None)));
        report.walk(&name, SOCKETS, path).await;
    }
}

async fn by_name(report: &mut Report, stand: &Stand<'_>) {
    let [client, server] = &stand.probes[..] else { return };
    let zone = &stand.shared.config.zone;
    let name = check_name(zone);
    let servers = [IpAddr::from(zone.dns.0), IpAddr::from(zone.dns.1)];
    for dns_server in servers {
        let wanted = stand.service();
        let path = async {
            for address in wanted {
                ask(&client.place, dns_server, &name, address).await?;
            }
            Ok(())
        };
        report.walk(&format!("DNS over {}", family(dns_server)), DNS, path).await;
    }
    let path = async {
        let [service, _] = stand.service();
        ask(&client.place, servers[0], &name, service).await?;
        tcp(&client.place, &server.place, server.addresses[0], Some((service, None))).await
    };
    report.walk("service by its name", DNS, path).await;
}

async fn with_the_node(report: &mut Report, stand: &Stand<'_>) {
    let [client, server] = &stand.probes[..] else { return };
    let own = stand.shared.datapath.uplink_addresses().unwrap_or_default();
    for (i, word) in ["IPv4", "IPv6"].into_iter().enumerate() {
        let node_to_replica = format!("node to replica over {word}");
        let path = tcp(&Place::Host, &server.place, server.addresses[i], None);
        report.walk(&node_to_replica, FIREWALL, path).await;
        let Some(node) = own.iter().copied().find(|address| family(*address) == word) else {
            let why = format!("no interface of the node that leads outside has an {word} address");
            for name in ["replica to node", "published port from a replica", "published port from the node"] {
                report.skip(&format!("{name} over {word}"), &why);
            }
            continue;
        };
        let path = tcp(&client.place, &Place::Host, node, None);
        report.walk(&format!("replica to node over {word}"), FIREWALL, path).await;
        for (name, from) in [("a replica", &client.place), ("the node", &Place::Host)] {
            let path = async {
                let listener = server.place.listen(server.addresses[i]).await.map_err(unmade)?;
                let port = listener.local_addr().map_err(unmade)?.port();
                let published = stand.publish(port).await?;
                exchange(from, &listener, (node, published).into(), None).await
            };
            report.walk(&format!("published port from {name} over {word}"), SOCKETS, path).await;
        }
    }
}

async fn sizes(report: &mut Report, stand: &Stand<'_>) {
    let [client, server] = &stand.probes[..] else { return };
    let mtu = stand.shared.datapath.mtu();
    for (address, headers) in server.addresses.into_iter().zip(HEADERS) {
        let family = family(address);
        let bytes = mtu.saturating_sub(headers) as usize;
        let look = format!("see whether every interface hm* has an MTU of {mtu}: ip link");
        let path = udp(&client.place, &server.place, address, bytes);
        report.walk(&format!("packet of {mtu} bytes over {family}"), &look, path).await;
        let path = udp(&client.place, &server.place, address, LONG);
        let look = "see whether a firewall drops fragments";
        report.walk(&format!("packet in fragments over {family}"), look, path).await;
        let path = tcp(&client.place, &server.place, address, Some((address, Some(TRANSFER))));
        report.walk(&format!("{} MiB by TCP over {family}", TRANSFER >> 20), NEIGHBOURS, path).await;
    }
    let path = too_long(&client.place, server.addresses[1], mtu.saturating_sub(HEADERS[1]) as usize + 1);
    let look = format!("eth0 of replicas should have an MTU of {mtu}: see the daemon's --mtu");
    report.walk("packet that is too long is refused at once", &look, path).await;
}

async fn guarded(report: &mut Report, stand: &Stand<'_>, spec: &CheckSpec) {
    let [client, _] = &stand.probes[..] else { return };
    let own = stand.shared.datapath.uplink_addresses().unwrap_or_default();
    let node = own.into_iter().next().map(|node| SocketAddr::new(node, spec.guarded_port));
    let metadata = SocketAddr::new(hivemind_datapath::Config::METADATA[0], 80);
    for (name, to) in
        [("the node's own servers are refused", node), ("the cloud's metadata is refused", Some(metadata))]
    {
        let Some(to) = to else {
            report.skip(name, "no interface of the node that leads outside has an address");
            continue;
        };
        let path = async {
            match client.place.client(to).await {
                Ok(socket) => match socket.connect(to).await {
                    Err(error) if is_silence(&error) => std::future::pending().await,
                    // An answer, be it a refusal.
                    _ => {}
                },
                Err(_) => std::future::pending().await,
            }
        };
        report.refuse(name, to.ip(), path).await;
    }
}

async fn outside(report: &mut Report, stand: &Stand<'_>, spec: &CheckSpec) {
    let [client, _] = &stand.probes[..] else { return };
    let name = "replica to the outside";
    let Some(to) = spec.outside else {
        report.skip(name, "nothing is sent off this machine unless --outside ADDRESS:PORT says where");
        return;
    };
    let path = async {
        let socket = client.place.client(to).await.map_err(unmade)?;
        match socket.connect(to).await {
            Ok(_) => Ok(()),
            // It answers, which is what was asked.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(format!("{to} is not reached: {error}")),
        }
    };
    let look = "see whether the node itself reaches it, and whether net.ipv4.ip_forward is 1";
    report.walk(&format!("{name}, {to}"), look, path).await;
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn unmade(error: io::Error) -> String {
    format!("a socket could not be made: {error}")
}

/// Whether it is no answer that made it fail.
fn is_silence(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
}

/// Listens at an address and has the client get there: by itself, or by another address; with so many bytes, or a word.
async fn tcp(
    from: &Place,
    at: &Place,
    address: IpAddr,
    way: Option<(IpAddr, Option<usize>)>,
) -> Result<(), String> {
    let listener = at.listen(address).await.map_err(unmade)?;
    let port = listener.local_addr().map_err(unmade)?.port();
    let (to, bytes) = way.unwrap_or((address, None));
    exchange(from, &listener, (to, port).into(), bytes).await
}

/// Connects, and has what is sent come back whole.
async fn exchange(
    from: &Place,
    listener: &TcpListener,
    to: SocketAddr,
    bytes: Option<usize>,
) -> Result<(), String> {
    let socket = from.client(to).await.map_err(unmade)?;
    let bytes = bytes.unwrap_or(WORD.len());
    let answer = async {
        let (mut stream, _) = listener.accept().await?;
        let got = read_all(&mut stream).await?;
        stream.write_all(&got.to_be_bytes()).await
    };
    let ask = async {
        let mut stream = socket.connect(to).await?;
        // Not within the future, which is moved about.
        let piece = vec![7; PIECE];
        let mut left = bytes;
        while left > 0 {
            let next = left.min(PIECE);
            stream.write_all(&piece[..next]).await?;
            left -= next;
        }
        stream.shutdown().await?;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).await?;
        Ok::<_, io::Error>(u64::from_be_bytes(answer))
    };
    // Who is refused waits for no server.
    let both = async { tokio::try_join!(ask, answer) };
    match both.await {
        Ok((got, ())) if got == bytes as u64 => Ok(()),
        Ok((got, ())) => Err(format!("{got} of {bytes} bytes arrived at {to}")),
        Err(error) => Err(format!("{to} is not reached: {error}")),
    }
}

async fn read_all(stream: &mut TcpStream) -> io::Result<u64> {
    let mut piece = vec![0; PIECE];
    let mut got = 0;
    loop {
        match stream.read(&mut piece).await? {
            0 => return Ok(got),
            count => got += count as u64,
        }
    }
}

/// Sends a datagram of so many bytes and has it come back.
async fn udp(from: &Place, at: &Place, address: IpAddr, bytes: usize) -> Result<(), String> {
    let server = at.datagrams(address).await.map_err(unmade)?;
    let to = server.local_addr().map_err(unmade)?;
    let client = client_of(from, to).await?;
    let sent = vec![7; bytes];
    let echo = async {
        let mut got = vec![0; bytes + 1];
        let (count, sender) = server.recv_from(&mut got).await?;
        server.send_to(&got[..count], sender).await
    };
    let ask = async {
        client.send(&sent).await?;
        let mut got = vec![0; bytes + 1];
        let count = client.recv(&mut got).await?;
        Ok::<_, io::Error>(got[..count] == sent[..])
    };
    match tokio::try_join!(ask, echo) {
        Ok((true, _)) => Ok(()),
        Ok((false, _)) => Err(format!("a datagram of {bytes} bytes came back as another")),
        Err(error) => Err(format!("{to} is not reached with {bytes} bytes: {error}")),
    }
}

async fn client_of(from: &Place, to: SocketAddr) -> Result<UdpSocket, String> {
    let any = if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let client = from.datagrams(any).await.map_err(unmade)?;
    client.connect(to).await.map_err(|error| format!("{to} is not reached: {error}"))?;
    Ok(client)
}

/// Sends a datagram that must not be cut and does not fit: the sender is to be told at once.
async fn too_long(from: &Place, to: IpAddr, bytes: usize) -> Result<(), String> {
    let client = client_of(from, SocketAddr::new(to, DNS_PORT)).await?;
    setsockopt(&client, Ipv6DontFrag, &true).map_err(|error| unmade(error.into()))?;
    match client.send(&vec![7; bytes]).await {
        Err(error) if error.raw_os_error() == Some(nix::libc::EMSGSIZE) => Ok(()),
        Err(error) => Err(format!("a datagram of {bytes} bytes fails otherwise: {error}")),
        Ok(_) => Err(format!("a datagram of {bytes} bytes is sent, though it must not be cut")),
    }
}

/// Asks a DNS server for an address that a name has.
async fn ask(from: &Place, server: IpAddr, name: &str, address: IpAddr) -> Result<(), String> {
    let to = SocketAddr::new(server, DNS_PORT);
    let client = client_of(from, to).await?;
    let id = rand::random();
    client
        .send(&dns::question(id, name, address.is_ipv6()))
        .await
        .map_err(|error| format!("{to}: {error}"))?;
    let mut answer = vec![0; 1_500];
    let count = client.recv(&mut answer).await.map_err(|error| format!("{to} does not answer: {error}"))?;
    dns::gives(&answer[..count], id, address)
}
