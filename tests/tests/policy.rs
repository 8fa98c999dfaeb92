//! Network policies as replicas feel them: who is let through, from when on, and what happens to it meanwhile.

use std::{
    fs::File,
    io::{self, Read},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{
    Node, Traffic,
    echo::{ANSWER, Echo, PORT, addresses, any_socket, asks, assert_reaches, dials, exchange},
    eventually, policy, policy_only,
};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

/// What `policy delete` did takes effect within moments.
fn delete(node: &Node, name: &str) -> Result<()> {
    node.hivemind_ok(&["policy", "delete", name]).map(drop)
}

/// Lets `from` reach the server, and nobody else.
fn only(from: &str) -> String {
    policy_only("server", from, "server", "")
}

#[test]
fn a_policy_lets_only_the_client_in_and_flows_say_why_the_stranger_is_refused() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for app in ["server", "client", "stranger"] {
        node.deploy_waiting(app, &[])?;
    }
    let _server = Echo::start(&node, "server")?;
    for app in ["client", "stranger"] {
        assert_reaches(&node, app, "server", true)?;
    }
    node.apply(&only("client"))?;
    assert_reaches(&node, "client", "server", true)?;
    assert_reaches(&node, "stranger", "server", false)?;

    let text = node.hivemind_ok(&["flows", "--from", "stranger", "--verdict", "denied", "-o", "json"])?;
    let line: Value = serde_json::from_str(text.lines().next().context("no flow was denied")?)?;
    let flow = &line["object"];
    for (field, expected) in [
        ("/event", "denied"),
        ("/reason", "policy_ingress"),
        ("/source/app", "stranger"),
        ("/destination/app", "server"),
        ("/ingressRule/policy", "server"),
        ("/ingressRule/direction", "ingress"),
    ] {
        assert_eq!(flow.pointer(field).and_then(Value::as_str), Some(expected), "{field} in {flow}");
    }
    assert!(flow["explanation"].as_str().is_some_and(|text| text.contains("default/server")), "{flow}");

    // A replica that comes later is judged by its labels like the others.
    node.deploy_waiting("late", &["--label", "role=client"])?;
    assert_reaches(&node, "late", "server", false)?;
    let by_role = "{podSelector: {matchLabels: {app: server}}, ingress: [{from: [{podSelector: {matchLabels: {role: client}}}]}]}";
    node.apply(&policy("by-role", by_role))?;
    assert_reaches(&node, "late", "server", true)?;
    assert_reaches(&node, "client", "server", true)?;

    delete(&node, "server")?;
    delete(&node, "by-role")?;
    eventually(LIMIT, "the stranger to get through", || assert_reaches(&node, "stranger", "server", true))
}

#[test]
fn the_node_itself_reaches_its_replicas_whatever_policies_say() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&["app", "deploy", "web", "--image", "nginx:latest"])?;
    node.deploy_waiting("client", &[])?;
    node.apply(&policy("deny-all", "{podSelector: {}, policyTypes: [Ingress, Egress]}"))?;
    let web = SocketAddr::new(addresses(&node, "web")?[0], 80);
    assert!(!dials(&node, "client", web)?);
    let connected = node.sandbox().in_network(|| TcpStream::connect_timeout(&web, ANSWER).is_ok())?;
    assert!(connected, "the node's own processes are kept out");
    // So a replica that starts under it is found ready, which the command waits for.
    node.hivemind_ok(&["app", "scale", "web", "--replicas", "2"])?;
    eventually(LIMIT, "two ready replicas", || {
        ensure!(node.ready_replicas("web")? == 2, "not ready");
        Ok(())
    })
}

#[test]
fn egress_ports_and_blocks_with_exceptions_are_kept_to() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for app in ["one", "two", "client"] {
        node.deploy_waiting(app, &[])?;
    }
    let _servers = [Echo::start(&node, "one")?, Echo::start(&node, "two")?];
    let [one, two] = [addresses(&node, "one")?, addresses(&node, "two")?];
    let spec = format!(
        "{{podSelector: {{matchLabels: {{app: client}}}}, policyTypes: [Egress], egress: [\
         {{to: [{{ipBlock: {{cidr: 10.200.0.0/14, except: [{}/32]}}}}], ports: [{{protocol: UDP, port: 6990, endPort: 7000}}]}}, \
         {{to: [{{ipBlock: {{cidr: {}/128}}}}]}}]}}",
        two[0], two[1]
    );
    let said = node.apply(&policy("out", &spec))?;
    assert!(said.contains("names"), "it is not told that names cannot be asked for any more: {said}");
    let at = |ip| SocketAddr::new(ip, PORT);
    let cases = [(one[0], true, false), (two[0], false, false), (one[1], false, false), (two[1], true, true)];
    for (ip, udp, tcp) in cases {
        assert_eq!((asks(&node, "client", at(ip))?, dials(&node, "client", at(ip))?), (udp, tcp), "{ip}");
    }
    let names = "nslookup one.default.svc.hivemind.internal 169.254.20.10";
    let cannot_ask =
        node.in_replica("client", &format!("timeout 3 {names} >/dev/null 2>&1 && echo yes || echo no"))?;
    assert_eq!(cannot_ask.trim(), "no");
    let dns = "{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: \
               {matchLabels: {kubernetes.io/metadata.name: hivemind-system}}, podSelector: {matchLabels: {app: dns}}}], \
               ports: [{protocol: UDP, port: 53}]}]}";
    node.apply(&policy("names", dns))?;
    node.in_replica("client", names)?;
    Ok(())
}

#[test]
fn namespaces_are_selected_by_labels_that_may_change() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.deploy_waiting("server", &[])?;
    node.deploy_waiting("guest", &["--namespace", "shop"])?;
    let _server = Echo::start(&node, "server")?;
    let spec = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: shop}}, podSelector: \
                {matchLabels: {app: guest}}}]}]}";
    node.apply(&policy("guests", spec))?;
    assert_reaches(&node, "shop/guest", "server", false)?;
    node.hivemind_ok(&["namespace", "label", "shop", "team=shop"])?;
    eventually(LIMIT, "the namespace's replicas to be let in", || {
        assert_reaches(&node, "shop/guest", "server", true)
    })?;
    node.hivemind_ok(&["namespace", "label", "shop", "team-"])?;
    eventually(LIMIT, "them to be kept out again", || assert_reaches(&node, "shop/guest", "server", false))
}

/// A listener on the machine outside that replicas connect to.
fn outside(node: &Node) -> Result<(TcpListener, SocketAddr)> {
    let at = SocketAddr::new(node.fabric().client_addresses().ipv4.into(), PORT);
    let listener = node.fabric().client().in_network(|| TcpListener::bind(at))??;
    listener.set_nonblocking(true)?;
    Ok((listener, at))
}

/// How many connections came since this was asked last.
fn heard(listener: &TcpListener) -> usize {
    std::iter::from_fn(|| listener.accept().ok()).count()
}

#[test]
fn a_replica_is_governed_before_its_first_instruction() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let (listener, at) = outside(&node)?;
    node.apply(&policy("deny-all", "{podSelector: {}, policyTypes: [Ingress, Egress]}"))?;
    // It connects before it does anything else, and then again and again.
    let connect = format!("nc -w 1 {} {} </dev/null", at.ip(), at.port());
    let script = format!("{connect}; echo tried; while true; do {connect}; done");
    for round in 0..5 {
        let name = format!("eager-{round}");
        node.hivemind_ok(&["app", "deploy", &name, "--image", "busybox", "--", "sh", "-c", &script])?;
        eventually(LIMIT, "the first attempt to end", || {
            let log = node.hivemind_ok(&["app", "logs", &name])?;
            ensure!(log.contains("tried"), "{log:?}");
            Ok(())
        })?;
    }
    assert_eq!(heard(&listener), 0, "something got through before the policy");
    // They do connect: without the policy they are heard.
    delete(&node, "deny-all")?;
    eventually(LIMIT, "the replicas to be heard", || {
        ensure!(heard(&listener) > 0, "nothing");
        Ok(())
    })
}

#[test]
fn an_established_connection_stalls_under_a_policy_and_goes_on_without_it() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for app in ["server", "client"] {
        node.deploy_waiting(app, &[])?;
    }
    let _server = Echo::start(&node, "server")?;
    for ip in addresses(&node, "server")? {
        let at = SocketAddr::new(ip, PORT);
        let mut stream = node.in_network_of("client", || TcpStream::connect_timeout(&at, ANSWER))??;
        exchange(&mut stream, 1, LIMIT)?;
        node.apply(&only("nobody"))?;
        let stalled = exchange(&mut stream, 2, ANSWER);
        ensure!(stalled.is_err(), "the connection goes on under the policy, over {ip}");
        delete(&node, "server")?;
        let mut back = [0];
        stream.set_read_timeout(Some(LIMIT))?;
        stream.read_exact(&mut back).context("the connection did not go on after the policy")?;
        assert_eq!(back[0], 2, "what was sent meanwhile is sent again, and comes back");
        exchange(&mut stream, 3, LIMIT)?;
    }
    Ok(())
}

/// Somebody in a replica's network who sends datagrams without pause, each from a new port, and counts those that are
/// answered and those that are not.
struct Prober {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tried: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<Vec<Instant>>>,
}

impl Prober {
    /// Sends `byte` to `to`; waits for an answer as long as `patience`.
    fn start(node: &Node, app: &str, to: SocketAddr, byte: u8, patience: Duration) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (answered, tried) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (end, count, attempts) = (Arc::clone(&stop), Arc::clone(&answered), Arc::clone(&tried));
        let namespace = node.open_network(app)?;
        let thread = std::thread::spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            let mut missed = Vec::new();
            while !end.load(Ordering::Relaxed) {
                let socket = any_socket(to.ip())?;
                socket.set_read_timeout(Some(patience))?;
                socket.connect(to)?;
                socket.send(&[byte])?;
                match socket.recv(&mut [0; 8]) {
                    Ok(_) => drop(count.fetch_add(1, Ordering::Relaxed)),
                    Err(_) => missed.push(Instant::now()),
                }
                attempts.fetch_add(1, Ordering::Relaxed);
            }
            Ok(missed)
        });
        Ok(Self { stop, answered, tried, thread })
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// How many were answered, or waited for as long as it waits.
    fn tried(&self) -> u64 {
        self.tried.load(Ordering::Relaxed)
    }

    /// How many were answered and how many were not.
    fn stop(self) -> Result<(u64, usize)> {
        self.stop.store(true, Ordering::Relaxed);
        let missed = self.thread.join().ok().context("the prober panicked")??;
        Ok((self.answered.load(Ordering::Relaxed), missed.len()))
    }
}

#[test]
fn an_update_is_at_no_moment_more_open_or_more_closed_than_before_and_after() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for app in ["server", "client", "stranger"] {
        node.deploy_waiting(app, &[])?;
    }
    let server = Echo::start(&node, "server")?;
    // Both let the client in and keep the stranger out, by peers, ports and blocks that have nothing in common.
    let client = addresses(&node, "client")?;
    let by_labels = only("client");
    let by_block = policy(
        "server",
        &format!(
            "{{podSelector: {{}}, policyTypes: [Ingress], ingress: [{{from: [{{ipBlock: {{cidr: {}/32}}}}, \
             {{ipBlock: {{cidr: {}/128}}}}], ports: [{{protocol: UDP, port: 6000, endPort: 8000}}]}}]}}",
            client[0], client[1]
        ),
    );
    node.apply(&by_labels)?;
    let at = SocketAddr::new(addresses(&node, "server")?[0], PORT);
    let friend = Prober::start(&node, "client", at, b'f', LIMIT)?;
    let foe = Prober::start(&node, "stranger", at, b'x', Duration::from_millis(1))?;
    for _ in 0..10 {
        for text in [&by_block, &by_labels] {
            let before = (friend.answered(), foe.tried());
            node.apply(text)?;
            eventually(LIMIT, "the client to go on, and the stranger to try", || {
                ensure!(friend.answered() > before.0, "no answer");
                ensure!(foe.tried() > before.1 + 5, "too few attempts");
                Ok(())
            })?;
        }
    }
    // The daemon may die in between; what is in force stays, and the next one changes nothing.
    node.daemon_kill9()?;
    node.daemon_start()?;
    let (answered, missed) = friend.stop()?;
    assert!(
        answered > 20 && missed == 0,
        "{missed} of the client's datagrams were lost, {answered} answered"
    );
    let (answered, tried) = foe.stop()?;
    assert!(tried > 100, "the stranger tried only {tried} times");
    assert_eq!((answered, server.heard(b'x')), (0, 0), "the stranger got through");
    Ok(())
}

#[test]
fn what_is_in_force_stays_while_no_daemon_runs() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for app in ["server", "client", "stranger"] {
        node.deploy_waiting(app, &[])?;
    }
    let _server = Echo::start(&node, "server")?;
    node.apply(&only("client"))?;
    let (client, stranger) = (node.open_network("client")?, node.open_network("stranger")?);
    let at = SocketAddr::new(addresses(&node, "server")?[1], PORT);
    let dials = |network: &File| {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(network, CloneFlags::CLONE_NEWNET)?;
                Ok::<_, nix::Error>(TcpStream::connect_timeout(&at, ANSWER).is_ok())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    };
    node.daemon_kill9()?;
    for _ in 0..3 {
        assert!(dials(&client)?, "the client is refused");
        assert!(!dials(&stranger)?, "the stranger gets through");
    }
    node.daemon_start()?;
    assert!(dials(&client)? && !dials(&stranger)?);
    // A policy that was changed for good is in force when the next daemon says that it is there.
    node.apply(&only("stranger"))?;
    node.daemon_term()?;
    assert!(!dials(&client)? && dials(&stranger)?);
    node.daemon_start()?;
    assert!(!dials(&client)? && dials(&stranger)?);
    Ok(())
}

#[test]
fn a_restart_under_traffic_with_policies_loses_nothing() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&["app", "deploy", "server", "--image", "nginx:latest"])?;
    node.deploy_waiting("client", &[])?;
    node.apply(&only("client"))?;
    let at = SocketAddr::new(addresses(&node, "server")?[0], 80);
    let id = node.replica("client")?["metadata"]["id"].as_str().context("no id")?.to_owned();
    let traffic = Traffic::start(&node, at, 4, Some(&id))?;
    for kill in [true, false, true] {
        if kill {
            node.daemon_kill9()?
        } else {
            node.daemon_term()?
        }
        node.daemon_start()?;
    }
    let report = traffic.stop()?;
    assert_eq!(report.failures, [""; 0], "{report:?}");
    assert!(report.long_requests > 0 && report.new_connections > 0, "{report:?}");
    Ok(())
}

/// More than half of the blocks of addresses that the data path has room for.
const MANY_BLOCKS: u32 = 9_000;

#[test]
fn a_policy_for_which_there_is_no_room_is_told_and_changes_nothing() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for app in ["server", "other", "client", "stranger"] {
        node.deploy_waiting(app, &[])?;
    }
    let _servers = [Echo::start(&node, "server")?, Echo::start(&node, "other")?];
    node.apply(&only("client"))?;
    // With a policy of its own one app has other tables than the other, which it would share else.
    let alone = "{podSelector: {matchLabels: {app: other}}, policyTypes: [Egress], egress: [{}]}";
    node.apply(&policy("alone", alone))?;
    let as_before = || -> Result<()> {
        assert_reaches(&node, "client", "server", true)?;
        assert_reaches(&node, "stranger", "server", false)?;
        assert_reaches(&node, "stranger", "other", true)
    };
    as_before()?;

    // It lets the client in nowhere, and the stranger to neither. For one app there would be room, for both there is not.
    let block = |i: u32| format!("{{ipBlock: {{cidr: {}/32}}}}", Ipv4Addr::from_bits(0xc612_0000 + 2 * i));
    let rules = (0..MANY_BLOCKS).collect::<Vec<_>>();
    let rules = rules.chunks(1_000).map(|some| {
        let blocks: Vec<String> = some.iter().map(|i| block(*i)).collect();
        format!("{{from: [{}]}}", blocks.join(", "))
    });
    let both = "{matchExpressions: [{key: app, operator: In, values: [server, other]}]}";
    let rules = rules.collect::<Vec<_>>().join(", ");
    let file =
        node.write("big.yaml", &policy("server", &format!("{{podSelector: {both}, ingress: [{rules}]}}")))?;
    let said = node.refused(&["policy", "apply", "-f", &file], "HM0512", 6)?;
    for part in [
        "policy server could not be put in force",
        "policy_cidr_v4",
        "16384",
        "what was in force before stays",
    ] {
        ensure!(said.contains(part), "no {part:?}: {said}");
    }
    as_before()?;
    let told = node.hivemind_ok(&["policy", "get", "server"])?;
    ensure!(told.contains("problem[HM0512]: ") && told.contains("  hint: "), "{told}");
    // Neither does a change of something else, nor the next daemon, bring it into force for one of the two.
    node.hivemind_ok(&["namespace", "label", "default", "a=b"])?;
    node.deploy_waiting("late", &[])?;
    as_before()?;
    node.daemon_kill9()?;
    node.daemon_start()?;
    as_before()?;

    node.hivemind_ok(&["app", "delete", "other"])?;
    eventually(LIMIT, "the policy to be in force where there is room for it now", || {
        let policy = node.json(&["policy", "get", "server"])?;
        ensure!(policy["status"]["problem"].is_null(), "{}", policy["status"]);
        Ok(())
    })?;
    assert_reaches(&node, "client", "server", false)?;
    node.apply(&only("client"))?;
    assert_reaches(&node, "client", "server", true)
}
