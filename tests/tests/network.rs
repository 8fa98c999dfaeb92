//! The network as replicas, the node and a machine outside see it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Load, Node, Place, Plan, Traffic, eventually, get, serve};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

fn deploy(node: &Node, name: &str, image: &str, further: &[&str]) -> Result<()> {
    let mut words = vec!["app", "deploy", name, "--image", image];
    words.extend(further);
    node.hivemind_ok(&words).map(drop)
}

fn address(object: &Value, family: &str) -> Result<IpAddr> {
    object[family].as_str().with_context(|| format!("no {family} in {object}"))?.parse().context("no address")
}

/// The service's addresses, IPv4 and IPv6.
fn service(node: &Node, name: &str) -> Result<[IpAddr; 2]> {
    let service = node.json(&["service", "info", name])?;
    Ok([address(&service["spec"], "ipv4")?, address(&service["spec"], "ipv6")?])
}

/// The machine's addresses on the fabric.
fn node_addresses(node: &Node) -> [IpAddr; 2] {
    [node.addresses().ipv4.into(), node.addresses().ipv6.into()]
}

fn url(address: IpAddr, port: u16, path: &str) -> String {
    format!("http://{}{path}", SocketAddr::new(address, port))
}

/// How many packets the node's own stack routed, by a rule of the test's.
fn routed(node: &Node) -> Result<u64> {
    let text = node.sandbox().check(&["nft", "-j", "list", "counter", "inet", "watch", "routed"])?;
    let list: Value = serde_json::from_str(&text)?;
    let counter = list["nftables"].as_array().and_then(|l| l.iter().find(|o| o["counter"].is_object()));
    counter.context("no counter")?["counter"]["packets"].as_u64().context("no packets")
}

fn map_entries(node: &Node, name: &str) -> Result<u64> {
    let status = node.json(&["status"])?;
    let maps = status["maps"].as_array().context("no maps")?;
    let map = maps.iter().find(|map| map["name"] == name).with_context(|| format!("no map {name}"))?;
    map["entries"].as_u64().context("no entries")
}

fn dropped(node: &Node, reason: &str) -> Result<u64> {
    let status = node.json(&["status"])?;
    let drops = status["drops"].as_array().context("no drops")?;
    Ok(drops.iter().find(|d| d["reason"] == reason).and_then(|d| d["packets"].as_u64()).unwrap_or(0))
}

#[test]
fn a_replica_has_two_addresses_a_name_and_a_resolver() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.deploy_waiting("client", &[])?;
    let replica = node.replica("client")?;
    let (v4, v6) = (address(&replica["status"], "ipv4")?, address(&replica["status"], "ipv6")?);
    let name = replica["metadata"]["name"].as_str().context("no name")?;

    let addresses = node.in_replica("client", "ip addr show eth0; ip route; ip -6 route")?;
    for expected in [format!("{v4}/32"), format!("{v6}/128"), "via 169.254.1.1".into(), "via fe80::1".into()]
    {
        assert!(addresses.contains(&expected), "{expected} is missing from:\n{addresses}");
    }
    let resolver = node.in_replica("client", "cat /etc/resolv.conf")?;
    assert_eq!(
        resolver,
        "nameserver 169.254.20.10\n\
         search default.svc.hivemind.internal svc.hivemind.internal hivemind.internal\noptions ndots:2\n"
    );
    let hosts = node.in_replica("client", "cat /etc/hosts; hostname")?;
    assert!(
        hosts.contains(&format!("{v4}\t{name}\n")) && hosts.contains(&format!("{v6}\t{name}\n")),
        "{hosts}"
    );
    assert!(hosts.ends_with(&format!("\n{name}\n")), "the host name is not {name}: {hosts}");
    node.in_replica("client", &format!("ping -c 1 -W 2 {name} && ping -c 1 -W 2 localhost"))?;
    Ok(())
}

#[test]
fn replicas_reach_one_another_past_the_hosts_stack() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    deploy(&node, "web", "nginx:latest", &[])?;
    node.deploy_waiting("client", &[])?;
    node.sandbox().check(&[
        "nft",
        "table inet watch { counter routed {}; chain forward { type filter hook forward priority -200; \
         counter name routed; }; }",
    ])?;
    let web = node.replica("web")?;
    let network = node.network_of_replica(&web)?;
    let there = Place::network(node.sandbox(), &network);
    let _echo = there.answer(7000, "echo")?;
    let client = node.network_of_replica(&node.replica("client")?)?;
    for family in ["ipv4", "ipv6"] {
        let ip = address(&web["status"], family)?;
        let seen = node.in_replica("client", &format!("wget -q -O - {}", url(ip, 80, "/address")))?;
        assert_eq!(seen.trim(), ip.to_string(), "TCP over {family}");
        node.in_replica("client", &format!("ping -c 2 -i 0.1 -W 2 {ip}"))
            .with_context(|| format!("ping over {family}"))?;
        let said = Place::network(node.sandbox(), &client).ask(SocketAddr::new(ip, 7000), 1, false)?;
        assert_eq!(said["answers"][0], "echo", "UDP over {family}: {said}");
    }
    assert_eq!(routed(&node)?, 0, "packets between replicas went through the host's stack");
    for map in ["conntrack_v4", "conntrack_v6"] {
        assert!(map_entries(&node, map)? >= 3, "TCP, UDP and ping must each be in {map}");
    }
    // What leaves the node goes past it too.
    let outside = node.fabric().client_addresses().ipv4;
    node.in_replica("client", &format!("ping -c 1 -W 2 {outside}"))?;
    assert_eq!(routed(&node)?, 0, "packets to the outside went through the host's stack");
    // The counter does count: what somebody outside sends to a replica's own address.
    let replica = address(&web["status"], "ipv4")?;
    node.fabric().route(&format!("{replica}/32"), node.addresses())?;
    let client = node.fabric().client();
    client.check(&["ping", "-c", "1", "-W", "2", &replica.to_string()])?;
    assert!(routed(&node)? >= 1, "the test's counter sees nothing at all");
    Ok(())
}

/// A name server on the node that knows one name, and counts what it is asked.
struct Upstream {
    asked: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    const ANSWER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 55);

    /// Answers A questions for `known.example` with [`Self::ANSWER`] for 300 s, and all others with NXDOMAIN.
    fn start(node: &Node, at: SocketAddr) -> Result<Self> {
        let socket = node.sandbox().in_network(|| UdpSocket::bind(at))??;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let (asked, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&asked), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut question = [0; 1500];
            while !end.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut question) else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                let _ = socket.send_to(&Self::reply(&question[..length]), from);
            }
        });
        Ok(Self { asked, stop, thread: Some(thread) })
    }

    /// The answer's bytes (RFC 1035, section 4).
    fn reply(question: &[u8]) -> Vec<u8> {
        let mut end = 12;
        let mut name = Vec::new();
        while let Some(&length) = question.get(end).filter(|length| **length > 0) {
            name.push(String::from_utf8_lossy(&question[end + 1..][..length.into()]).to_ascii_lowercase());
            end += usize::from(length) + 1;
        }
        let body = &question[12..end + 5];
        let is_known = name.join(".") == "known.example";
        let has_answer = is_known && question[end + 1..end + 3] == [0, 1];
        let mut reply = question[..2].to_vec();
        reply.extend([0x81, if is_known { 0x80 } else { 0x83 }, 0, 1, 0, has_answer.into(), 0, 0, 0, 0]);
        reply.extend(body);
        if has_answer {
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0x2c, 0, 4]);
            reply.extend(Self::ANSWER.octets());
        }
        reply
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn names_of_services_resolve_and_others_are_forwarded_and_cached() -> Result<()> {
    let (node, _registry) = Node::with_daemon_flags(&["--dns-upstream", "127.0.0.9:5354"])?;
    let upstream = Upstream::start(&node, "127.0.0.9:5354".parse()?)?;
    deploy(&node, "web", "nginx:latest", &["--service", "web.local"])?;
    deploy(&node, "web", "nginx:latest", &["-n", "shop", "--service", "shop.local"])?;
    node.deploy_waiting("client", &[])?;
    let [v4, v6] = service(&node, "web")?;
    let shop = node.json(&["service", "info", "web", "-n", "shop"])?;
    let shop = address(&shop["spec"], "ipv4")?;
    assert_ne!(v4, shop, "two namespaces' services must not share an address");

    let lookup = |name: &str, kind: &str| {
        node.hivemind(&["app", "exec", "client", "--", "nslookup", &format!("-type={kind}"), name])
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for name in ["web.local", "web.default.svc.hivemind.internal", "WEB.local"] {
        let (a, aaaa) = (lookup(name, "a")?, lookup(name, "aaaa")?);
        assert!(a.contains(&format!("Address: {v4}")), "{name} has no A: {a}");
        assert!(aaaa.contains(&format!("Address: {v6}")), "{name} has no AAAA: {aaaa}");
    }
    // What a program sees goes through the search path.
    for (name, host) in
        [("web", "web"), ("web.default", "web"), ("web.shop", "shop/web"), ("shop.local", "shop/web")]
    {
        let answered = node.in_replica("client", &format!("wget -q -O - http://{name}/hostname"))?;
        let expected = node.replica(host)?["metadata"]["name"].clone();
        assert_eq!(answered.trim(), expected, "{name} leads to the wrong app");
    }
    assert_eq!(upstream.asked(), 0, "questions for our own names left the node");

    let unknown = lookup("nothing.default.svc.hivemind.internal", "a")?;
    assert!(unknown.contains("NXDOMAIN"), "{unknown}");
    assert_eq!(upstream.asked(), 0, "a name of our own domain was asked of others");
    let known = lookup("known.example", "a")?;
    assert!(known.contains(&format!("Address: {}", Upstream::ANSWER)), "{known}");
    assert_eq!(upstream.asked(), 1);
    let again = lookup("known.example", "a")?;
    assert!(again.contains(&format!("Address: {}", Upstream::ANSWER)), "{again}");
    assert_eq!(upstream.asked(), 1, "the second answer did not come from the cache");
    let foreign = lookup("unknown.example", "a")?;
    assert!(foreign.contains("NXDOMAIN") && upstream.asked() == 2, "{foreign}");

    node.hivemind_ok(&["app", "delete", "web", "-n", "shop"])?;
    let gone = lookup("web.shop.svc.hivemind.internal", "a")?;
    assert!(gone.contains("NXDOMAIN"), "a deleted app's name still resolves: {gone}");
    Ok(())
}

#[test]
fn a_service_balances_every_port_of_both_families_for_replicas_and_the_node() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    deploy(&node, "web", "nginx:latest", &["--replicas", "2"])?;
    node.deploy_waiting("client", &[])?;
    let replicas = node.replicas("web")?;
    let names: BTreeSet<_> = replicas.iter().filter_map(|r| r["metadata"]["name"].as_str()).collect();
    let mut echoes = Vec::new();
    for replica in &replicas {
        let network = node.network_of_replica(replica)?;
        let name = replica["metadata"]["name"].as_str().context("no name")?;
        echoes.push(Place::network(node.sandbox(), &network).answer(7000, name)?);
    }
    let client = node.network_of_replica(&node.replica("client")?)?;
    let from_replica = Place::network(node.sandbox(), &client);
    let from_node = Place::machine(node.sandbox());
    for ip in service(&node, "web")? {
        for place in [from_replica, from_node] {
            let web = SocketAddr::new(ip, 80);
            let dialled = place.dial(web)?;
            assert_eq!(
                dialled["peer"],
                web.to_string(),
                "the socket must see the service's address: {dialled}"
            );
            let echo = SocketAddr::new(ip, 7000);
            for connected in [true, false] {
                let said = place.ask(echo, 24, connected)?;
                let answers: BTreeSet<_> =
                    said["answers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                assert_eq!(answers, names, "UDP must reach both replicas: {said}");
                let froms: BTreeSet<_> =
                    said["froms"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                assert_eq!(
                    froms,
                    BTreeSet::from([echo.to_string().as_str()]),
                    "answers from elsewhere: {said}"
                );
                assert_eq!(said["errors"], serde_json::json!([]), "{said}");
            }
            // A port at which nobody listens is the replica's answer, not the service's.
            let nobody = place.dial(SocketAddr::new(ip, 81))?;
            assert_eq!(nobody["error"], "ConnectionRefused", "{nobody}");
        }
        let page = node.sandbox().check(&["curl", "-s", "-m", "5", &url(ip, 80, "/hostname")])?;
        assert!(names.contains(page.trim()), "a program of the node got {page:?}");
        // Each replica calls its own service, and is also answered by itself.
        let script = format!(
            "i=0; while [ $i -lt 16 ]; do busybox wget -q -O - {} || exit 1; i=$((i+1)); done",
            url(ip, 80, "/hostname")
        );
        for replica in &replicas {
            let name = replica["metadata"]["name"].as_str().context("no name")?;
            let network = node.network_of_replica(replica)?.display().to_string();
            let said = node.sandbox().check(&[
                "nsenter",
                &format!("--net={network}"),
                "sh",
                "-c",
                &script.replace("busybox wget -q -O -", "curl -s -m 5"),
            ])?;
            let hosts: BTreeSet<_> = said.lines().collect();
            assert_eq!(hosts, names, "{name} called its own service");
        }
    }
    Ok(())
}

#[test]
fn a_service_without_replicas_refuses_at_once() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    deploy(&node, "web", "nginx:latest", &[])?;
    node.deploy_waiting("client", &[])?;
    let client = node.network_of_replica(&node.replica("client")?)?;
    node.hivemind_ok(&["app", "scale", "web", "--replicas", "0"])?;
    for ip in service(&node, "web")? {
        for place in [Place::network(node.sandbox(), &client), Place::machine(node.sandbox())] {
            let dialled = eventually(LIMIT, "the service to be empty", || {
                let dialled = place.dial(SocketAddr::new(ip, 80))?;
                ensure!(dialled["error"].is_string(), "{dialled}");
                Ok::<_, anyhow::Error>(dialled)
            })?;
            assert_eq!(dialled["error"], "ConnectionRefused", "{dialled}");
            assert!(dialled["ms"].as_u64().is_some_and(|ms| ms < 500), "it took long: {dialled}");
            let asked = place.ask(SocketAddr::new(ip, 7000), 1, true)?;
            assert_eq!(asked["errors"][0], "ConnectionRefused", "UDP: {asked}");
        }
    }
    node.hivemind_ok(&["app", "scale", "web", "--replicas", "1"])?;
    for ip in service(&node, "web")? {
        node.in_replica("client", &format!("wget -q -O - {}", url(ip, 80, "/")))?;
    }
    Ok(())
}

/// Who answers at a published port, asked by HTTP from the machine outside.
fn hosts_outside(node: &Node, address: SocketAddr, requests: usize) -> Result<BTreeSet<String>> {
    let ask = || (0..requests).map(|_| get(address, "/hostname", Duration::from_secs(5))).collect::<Vec<_>>();
    let mut hosts = BTreeSet::new();
    for response in node.fabric().client().in_network(ask)? {
        let response = response?;
        ensure!(response.status == 200, "{address} answered {response:?}");
        hosts.insert(response.body.trim().to_owned());
    }
    Ok(hosts)
}

#[test]
fn a_published_port_answers_from_outside_from_the_node_and_from_replicas() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    deploy(&node, "web", "nginx:latest", &["--replicas", "3", "-p", "8080:80", "-p", "7000:7000/udp"])?;
    node.deploy_waiting("client", &[])?;
    let replicas = node.replicas("web")?;
    let names: BTreeSet<_> =
        replicas.iter().filter_map(|r| r["metadata"]["name"].as_str()).map(str::to_owned).collect();
    let mut echoes = Vec::new();
    for replica in &replicas {
        let network = node.network_of_replica(replica)?;
        echoes.push(Place::network(node.sandbox(), &network).answer(7000, "echo")?);
    }
    let client = node.network_of_replica(&node.replica("client")?)?;
    for ip in node_addresses(&node) {
        let address = SocketAddr::new(ip, 8080);
        assert_eq!(hosts_outside(&node, address, 60)?, names, "not all replicas answer at {address}");
        let datagrams = SocketAddr::new(ip, 7000);
        for place in [
            Place::machine(node.fabric().client()),
            Place::machine(node.sandbox()),
            Place::network(node.sandbox(), &client),
        ] {
            let said = place.ask(datagrams, 4, true)?;
            assert_eq!(
                said["answers"],
                serde_json::json!(["echo", "echo", "echo", "echo"]),
                "{said} for {place:?}"
            );
        }
        node.sandbox().check(&["curl", "-sf", "-m", "5", &url(ip, 8080, "/")])?;
        node.in_replica("client", &format!("wget -q -O - {}", url(ip, 8080, "/")))
            .with_context(|| format!("a replica asked {address}"))?;
    }
    for ip in ["127.0.0.1", "[::1]", "localhost"] {
        node.sandbox()
            .check(&["curl", "-sf", "-m", "5", &format!("http://{ip}:8080/")])
            .with_context(|| format!("the node asked {ip}"))?;
    }
    // The port is ours: nobody else on the node can take it.
    let taken = node.sandbox().in_network(|| std::net::TcpListener::bind("0.0.0.0:8080"))?;
    assert_eq!(taken.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);

    node.hivemind_ok(&["app", "delete", "web"])?;
    for ip in node_addresses(&node) {
        let refused = Place::machine(node.fabric().client()).dial(SocketAddr::new(ip, 8080))?;
        assert_eq!(refused["error"], "ConnectionRefused", "the deleted app's port: {refused}");
    }
    eventually(LIMIT, "the port to be free for others", || {
        node.sandbox().in_network(|| std::net::TcpListener::bind("0.0.0.0:8080"))?.context("still taken")
    })?;
    Ok(())
}

#[test]
fn what_leaves_the_node_bears_its_address_and_a_spoofed_source_does_not_leave() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    deploy(&node, "outside", "nginx:latest", &[])?;
    node.deploy_waiting("client", &[])?;
    let outside = node.fabric().client_addresses();
    let listeners = node.fabric().client().in_network(|| -> std::io::Result<_> {
        Ok((
            std::net::TcpListener::bind((outside.ipv4, 9000))?,
            std::net::TcpListener::bind((outside.ipv6, 9000))?,
        ))
    })??;
    let own = node_addresses(&node);
    for (listener, (to, expected)) in [listeners.0, listeners.1]
        .into_iter()
        .zip([IpAddr::V4(outside.ipv4), outside.ipv6.into()].into_iter().zip(own))
    {
        let accept = std::thread::spawn(move || listener.accept().map(|(_, from)| from.ip()));
        let script = format!("echo | nc -w 2 {to} 9000 || true");
        node.in_replica("client", &script)?;
        let from = accept.join().map_err(|_| anyhow::anyhow!("the listener panicked"))??;
        assert_eq!(from, expected, "{to} sees the connection from elsewhere");
        node.in_replica("client", &format!("ping -c 1 -W 2 {to}"))?;
    }

    let before = dropped(&node, "spoofed_source")?;
    let network = node.network_of_replica(&node.replica("client")?)?.display().to_string();
    let neighbour = node.replica("outside")?;
    for (family, false_source) in [("ipv4", "10.200.0.77/32"), ("ipv6", "fd77:9::77/128")] {
        let flag = format!("--net={network}");
        node.sandbox().check(&[
            "nsenter",
            &flag,
            "ip",
            "addr",
            "add",
            false_source,
            "dev",
            "eth0",
            "nodad",
        ])?;
        let source = false_source.split('/').next().unwrap_or_default();
        let to = address(&neighbour["status"], family)?.to_string();
        let pinged =
            node.sandbox().run(&["nsenter", &flag, "ping", "-c", "1", "-W", "1", "-I", source, &to])?;
        assert!(!pinged.status.success(), "a packet from {source} was answered");
    }
    let after = dropped(&node, "spoofed_source")?;
    assert!(after >= before + 2, "dropped for a spoofed source: {before} before, {after} after");
    let shown = node.hivemind_ok(&["status"])?;
    assert!(shown.contains("spoofed_source"), "status does not tell of it:\n{shown}");
    Ok(())
}

#[test]
fn an_app_that_is_said_to_be_up_takes_connections_at_once() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let published = SocketAddr::new(node.addresses().ipv4.into(), 8080);
    for round in 0..6 {
        deploy(&node, "web", "nginx:latest", &["-p", "8080:80"])?;
        let outside = Place::machine(node.fabric().client()).dial(published)?;
        assert!(outside["peer"].is_string(), "round {round}: the published port: {outside}");
        for ip in service(&node, "web")? {
            let inside = Place::machine(node.sandbox()).dial(SocketAddr::new(ip, 80))?;
            assert!(inside["peer"].is_string(), "round {round}: the service: {inside}");
        }
        node.hivemind_ok(&["app", "delete", "web"])?;
    }
    Ok(())
}

/// The names of an app's replicas, once there are `count` and all are ready.
fn settled(node: &Node, count: usize) -> Result<BTreeSet<String>> {
    eventually(LIMIT, "as many replicas as were asked for", || {
        let ready = node.ready_replicas("web")?;
        ensure!(ready == count, "there are {ready}");
        let replicas = node.replicas("web")?;
        Ok::<_, anyhow::Error>(replicas.iter().map(|r| r["metadata"]["name"].to_string()).collect())
    })
}

#[test]
fn no_connection_fails_while_an_app_is_scaled_and_restarted() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    deploy(&node, "web", "nginx:latest", &["--replicas", "5", "-p", "8080:80"])?;
    node.deploy_waiting("client", &[])?;
    let client = node.replica("client")?;
    let id = client["metadata"]["id"].as_str().context("no id")?;
    let [v4, v6] = service(&node, "web")?;
    let published = SocketAddr::new(node.addresses().ipv4.into(), 8080);
    let traffic = [
        Traffic::start(&node, SocketAddr::new(v4, 80), 0, Some(id))?,
        Traffic::start(&node, SocketAddr::new(v6, 80), 0, None)?,
        Traffic::start_outside(&node, published, 0)?,
    ];
    for replicas in ["1", "5"] {
        node.hivemind_ok(&["app", "scale", "web", "--replicas", replicas])?;
        settled(&node, replicas.parse()?)?;
    }
    let before = settled(&node, 5)?;
    node.hivemind_ok(&["app", "restart", "web"])?;
    eventually(LIMIT, "all replicas to be new ones", || {
        let now = settled(&node, 5)?;
        ensure!(now.is_disjoint(&before), "some stayed: {now:?}");
        Ok::<_, anyhow::Error>(())
    })?;
    for (way, traffic) in ["replica, IPv4", "node, IPv6", "outside, published"].iter().zip(traffic) {
        let report = traffic.stop()?;
        assert_eq!(report.failures, Vec::<String>::new(), "{way}");
        assert!(report.new_connections > 100, "{way}: there was hardly any traffic: {report:?}");
    }
    Ok(())
}

#[test]
fn an_interface_that_comes_later_serves_published_ports_and_lets_replicas_out_at_once() -> Result<()> {
    // Far less than the time after which the daemon would look by itself.
    const AT_ONCE: Duration = Duration::from_secs(5);
    let (node, registry) = Node::with_daemon()?;
    deploy(&node, "web", "nginx:latest", &["-p", "8080:80"])?;
    registry.stop()?;
    let network = node.network_of_replica(&node.replica("web")?)?;
    let client = node.fabric().client();
    let pid = client.pid().to_string();
    let pair = ["ip", "link", "add", "late0", "type", "veth", "peer", "name", "late0", "netns", &pid];
    node.sandbox().check(&pair)?;
    for (machine, host) in [(node.sandbox(), 1), (client, 2)] {
        machine.check(&["ip", "addr", "add", &format!("198.51.100.{host}/24"), "dev", "late0"])?;
        machine.check(&["ip", "addr", "add", &format!("2001:db8:9::{host}/64"), "dev", "late0", "nodad"])?;
        machine.check(&["ip", "link", "set", "late0", "up"])?;
    }
    for address in ["198.51.100.1:8080", "[2001:db8:9::1]:8080"] {
        let target: SocketAddr = address.parse()?;
        eventually(AT_ONCE, &format!("{address} to answer"), || {
            let response = client.in_network(|| get(target, "/", Duration::from_secs(1)))??;
            ensure!(response.status == 200, "{response:?}");
            anyhow::Ok(())
        })?;
    }
    let _server = serve(|program| client.command(program), 7_000)?;
    let targets = vec!["198.51.100.2:7000".parse()?, "[2001:db8:9::2]:7000".parse()?];
    let inside = |program: &std::path::Path| {
        let mut command = node.sandbox().command("nsenter");
        command.arg(format!("--net={}", network.display())).arg(program);
        command
    };
    let load = Load::start(inside, &Plan { rate: 50, long: 2, targets })?;
    std::thread::sleep(Duration::from_millis(500));
    load.stop()?.check()
}
