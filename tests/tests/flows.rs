//! `hivemind flows`: who spoke to whom, what became of it and why, as somebody at a terminal sees it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    os::{fd::AsRawFd, unix::process::ExitStatusExt},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Background, Node, Place, eventually, get, policy, policy_only};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::{
        signal::Signal,
        socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket},
    },
    unistd::{Pid, gettid},
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

/// Within this, what happened is shown to whoever follows.
const A_MOMENT: Duration = Duration::from_secs(2);

const PORT: u16 = 5000;
const METRICS_PORT: u16 = 9464;

/// More refused datagrams than the kernel tells one by one, each from a port of its own.
const FLOOD: u64 = 8_000;

/// More connections than one processor tells in a second, and fewer than the kernel keeps; from which port on.
const BEGUN: u16 = 56_000;
/// Of what a replica sends now and then by itself meanwhile, at most so many connections begin and end.
const OTHERS_MAX: u64 = 8;
const FIRST_PORT: u16 = 4_096;

/// Flags of TCP.
const SYN: u8 = 2;
const RST: u8 = 4;

/// What the daemon may hold more after a flood than before.
const MEMORY_MORE_KB: u64 = 4 << 10;

/// The words of a line of `flows`; what is longer than a column is told apart by two spaces.
fn cells(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

fn flows(node: &Node, words: &[&str]) -> Result<String> {
    node.hivemind_ok(&[&["flows"], words].concat())
}

/// The first line that `flows` tells with these flags, once it tells one.
fn told(node: &Node, words: &[&str]) -> Result<String> {
    let found = eventually(LIMIT, &format!("a flow of {words:?}"), || {
        let text = flows(node, words)?;
        text.lines().next().map(str::to_owned).context("none is told")
    });
    found.with_context(|| format!("all flows:\n{}", flows(node, &[]).unwrap_or_default()))
}

/// As [`told`], as the API's JSON.
fn told_json(node: &Node, words: &[&str]) -> Result<Value> {
    let line = told(node, &[words, &["-o", "json"]].concat())?;
    let line: Value = serde_json::from_str(&line).with_context(|| format!("no JSON: {line}"))?;
    ensure!(line["type"] == "flow", "{line}");
    Ok(line["object"].clone())
}

fn replica_name(node: &Node, app: &str) -> Result<String> {
    let replica = node.replica(app)?;
    Ok(replica["metadata"]["name"].as_str().context("no name")?.to_owned())
}

fn ipv4(node: &Node, app: &str) -> Result<IpAddr> {
    let replica = node.replica(app)?;
    replica["status"]["ipv4"].as_str().context("no address")?.parse().context("no address")
}

/// Sends `count` datagrams of four bytes from an app's replica, each from a port of its own, and waits for no answer.
fn send(node: &Node, app: &str, to: SocketAddr, count: u64) -> Result<()> {
    let sent = node.in_network_of(app, || {
        (0..count).try_for_each(|_| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.send_to(b"who?", to).map(drop)
        })
    })?;
    sent.context("cannot send")
}

#[test]
fn each_end_the_verdict_the_rule_and_the_counts_are_told_in_words() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&[
        "app",
        "deploy",
        "web",
        "--image",
        "nginx",
        "--service",
        "web.local",
        "--port",
        "8080:80",
    ])?;
    node.deploy_waiting("client", &["--namespace", "shop"])?;
    node.deploy_waiting("stranger", &[])?;
    let peers =
        "{namespaceSelector: {}, podSelector: {matchLabels: {app: client}}}, {ipBlock: {cidr: 0.0.0.0/0}}";
    node.apply(
        &(policy("web", &format!("{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: [{peers}]}}]}}"))
            // The block above is everybody's: this keeps the stranger from leaving.
            + &policy("stay", "{podSelector: {matchLabels: {app: stranger}}, policyTypes: [Egress]}")),
    )?;
    let (web, client) = (replica_name(&node, "web")?, replica_name(&node, "shop/client")?);
    let address = ipv4(&node, "web")?;

    // A name, and behind it a service's address: what is told is the replica that it became.
    node.in_replica("shop/client", "wget -q -O /dev/null http://web.local/")?;
    let line = told(&node, &["--from", "shop/client", "--to", "web"])?;
    let row = cells(&line);
    ensure!(row[1] == "allowed" && row[2].starts_with(&format!("shop/{client}:")), "{line}");
    ensure!(row.iter().any(|cell| cell.ends_with(&format!("-> {web}:80"))), "{line}");
    ensure!(row.contains(&"web/ingress[0]"), "no rule: {line}");
    let flow = told_json(&node, &["--from", "shop/client", "--to", "web"])?;
    for (field, value) in [
        ("/source/namespace", "shop"),
        ("/source/app", "client"),
        ("/source/kind", "replica"),
        ("/destination/namespace", "default"),
        ("/destination/replica", web.as_str()),
        ("/ingressRule/policy", "web"),
        ("/protocol", "tcp"),
        ("/verdict", "allowed"),
        ("/node", node.name()),
    ] {
        ensure!(flow.pointer(field).is_some_and(|found| found == value), "{field} is not {value}: {flow}");
    }
    let line = told(&node, &["--from", "client", "--to", "dns", "-n", "shop"])?;
    ensure!(line.contains("-> dns:53 ") && line.contains(" udp "), "{line}");

    // From outside, and to there.
    let published = SocketAddr::new(node.addresses().ipv4.into(), 8080);
    node.fabric().client().in_network(|| get(published, "/", LIMIT))??;
    let outside = IpAddr::from(node.fabric().client_addresses().ipv4);
    let line = told(&node, &["--from", "world", "--to", "default/web"])?;
    ensure!(line.contains(&format!("world {outside}:")) && line.contains("web/ingress[0]"), "{line}");
    send(&node, "shop/client", SocketAddr::new(outside, PORT), 1)?;
    let line = told(&node, &["--from", "shop/client", "--to", &format!("{outside}/32")])?;
    ensure!(line.contains(&format!("-> world {outside}:{PORT} ")), "{line}");

    // The node's own processes, which policies do not keep out.
    let dialled = Place::machine(node.sandbox()).dial(SocketAddr::new(address, 80))?;
    ensure!(dialled["peer"].is_string(), "{dialled}");
    let line = told(&node, &["--from", "host", "--to", "web"])?;
    ensure!(line.contains(" node-to-replicas") && !line.contains("node-to-replicas/"), "{line}");

    // Bytes and packets: 20 of IP, 8 of UDP, and what was said.
    let network = node.network_of_replica(&node.replica("web")?)?;
    let _server = Place::network(node.sandbox(), &network).answer(PORT, "web")?;
    let client_network = node.network_of_replica(&node.replica("shop/client")?)?;
    let asked =
        Place::network(node.sandbox(), &client_network).ask(SocketAddr::new(address, PORT), 1, true)?;
    ensure!(asked["answers"][0] == "web", "{asked}");
    let line = told(&node, &["--from", "shop/client", "--to", "web", "--tail", "1"])?;
    ensure!(line.contains("  udp   live  ") && line.ends_with("1 packet 32 B, back 1 packet 31 B"), "{line}");

    // Refused, by a policy that has no rule for it; and what no policy is about.
    send(&node, "stranger", SocketAddr::new(address, PORT), 1)?;
    let line = told(&node, &["--verdict", "denied"])?;
    for part in [" denied ", "default/stay governs the source, and no rule allows it", "  stay/egress"] {
        ensure!(line.contains(part), "no {part:?}: {line}");
    }
    let flow = told_json(&node, &["--from", "stranger", "--verdict", "denied"])?;
    ensure!(flow["reason"] == "policy_egress" && flow["egressRule"]["policy"] == "stay", "{flow}");
    ensure!(flow["egressRule"]["index"].is_null() && flow["ingressRule"].is_null(), "{flow}");
    let spoofed = SocketAddr::from(([10, 99, 0, 1], 0));
    let network = node.network_of_replica(&node.replica("stranger")?)?.display().to_string();
    let enter = format!("--net={network}");
    node.sandbox().check(&["nsenter", &enter, "ip", "address", "add", "10.99.0.1/32", "dev", "eth0"])?;
    let said =
        node.in_network_of("stranger", || UdpSocket::bind(spoofed)?.send_to(b"who?", (address, PORT)))?;
    said.context("cannot send from another's address")?;
    let flow = told_json(&node, &["--verdict", "dropped", "--from", "10.99.0.1"])?;
    ensure!(flow["reason"] == "spoofed_source" && flow["explanation"] != "", "{flow}");

    let none = node.hivemind(&["flows", "--from", "web", "--verdict", "denied"])?;
    ensure!(none.status.success() && none.stdout.is_empty(), "{none:?}");
    let said = String::from_utf8_lossy(&none.stderr);
    ensure!(said.contains("no such flows") && !said.contains("no app"), "{said}");
    let misspelt = node.hivemind(&["flows", "--to", "wbe"])?;
    let said = String::from_utf8_lossy(&misspelt.stderr);
    ensure!(said.contains("there is no app \"wbe\"; did you mean \"web\"?"), "{said}");
    Ok(())
}

#[test]
fn a_filter_that_cannot_be_meant_is_told_with_all_others() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let wrong = ["flows", "--from", "a/b/c", "--to", "10.0.0.0/40", "--tail", "5000"];
    let said = node.refused(&wrong, "HM0100", 2)?;
    for part in ["at: --from", "at: --to", "at: --tail", "error[HM0103]", "\"a/b/c\"", "4096"] {
        ensure!(said.contains(part), "no {part:?}: {said}");
    }
    ensure!(said.matches("  hint: ").count() == 3, "{said}");
    let as_json = node.hivemind(&[&wrong[..], &["-o", "json"]].concat())?;
    let error: Value = serde_json::from_slice(&as_json.stderr).context("no JSON")?;
    ensure!(error["problems"].as_array().is_some_and(|all| all.len() == 3), "{error}");
    for wrong in [["--verdict", "refused"], ["-o", "yaml"], ["--tail", "x"]] {
        let output = node.hivemind(&["flows", wrong[0], wrong[1]])?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2) && said.contains(wrong[1]), "{said}");
    }
    Ok(())
}

/// `flows --follow` in the background.
struct Follower {
    program: Background,
    log: PathBuf,
}

impl Follower {
    fn start(node: &Node, name: &str, words: &[&str]) -> Result<Self> {
        let inside = node.sandbox().directory().join(name);
        let program = node.hivemind_spawn(&[&["flows", "--follow"], words].concat(), &inside)?;
        Ok(Self { program, log: node.sandbox().outside(&inside) })
    }

    /// Everything that it said, on both outputs.
    fn said(&self) -> Result<String> {
        fs::read_to_string(&self.log).context("it wrote nothing")
    }

    /// Waits until it told `lines` lines.
    fn await_lines(&self, lines: usize) -> Result<String> {
        eventually(LIMIT, &format!("{lines} lines"), || {
            let said = self.said()?;
            ensure!(said.lines().count() >= lines, "{said:?}");
            Ok(said)
        })
    }
}

/// A node on which the app `client` may speak to `web`, the app `stranger` not, and one attempt was refused already.
fn guarded(flags: &[&str]) -> Result<(Node, hivemind_tests::Registry, SocketAddr)> {
    let (node, registry) = Node::with_daemon_flags(flags)?;
    for app in ["web", "client", "stranger"] {
        node.deploy_waiting(app, &[])?;
    }
    node.apply(&policy_only("only-client", "client", "web", ""))?;
    let web = SocketAddr::new(ipv4(&node, "web")?, PORT);
    send(&node, "stranger", web, 1)?;
    told(&node, &["--verdict", "denied"])?;
    Ok((node, registry, web))
}

#[test]
fn who_follows_sees_a_denial_within_a_moment_and_ends_with_ctrl_c_or_with_the_daemon() -> Result<()> {
    let (node, _registry, web) = guarded(&[])?;
    let denied = ["--verdict", "denied", "--to", "web"];
    let mut first = Follower::start(&node, "first", &denied)?;
    let mut json = Follower::start(&node, "json", &[&denied[..], &["-o", "json"]].concat())?;
    // What it told already shows that it follows.
    first.await_lines(1)?;
    json.await_lines(1)?;
    send(&node, "client", web, 1)?;
    let began = Instant::now();
    send(&node, "stranger", web, 1)?;
    let said = first.await_lines(2)?;
    let took = began.elapsed();
    ensure!(took < A_MOMENT, "it was told after {took:?}");
    let line = said.lines().nth(1).context("no line")?;
    ensure!(line.contains("only-client/ingress") && line.contains("stranger-"), "{line}");
    ensure!(said.lines().count() == 2, "the client's is told too: {said}");

    first.program.signal(Signal::SIGINT)?;
    let status = first.program.wait(LIMIT)?;
    // A shell shows the one as the other.
    ensure!(status.signal() == Some(2) || status.code() == Some(130), "{status:?}");
    ensure!(first.said()? == said, "it said more: {:?}", first.said());

    let mut second = Follower::start(&node, "second", &["--tail", "1"])?;
    second.await_lines(1)?;
    node.daemon_term()?;
    for follower in [&mut json, &mut second] {
        let status = follower.program.wait(LIMIT)?;
        ensure!(status.code() == Some(7), "{status:?}: {:?}", follower.said());
    }
    let said = second.said()?;
    ensure!(said.contains("error[HM0601]: the daemon ended the stream") && said.contains("hint: "), "{said}");
    for line in json.said()?.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        ensure!(line["type"] == "flow" || line["code"] == "HM0601", "{line}");
    }
    Ok(())
}

/// The sum of what a family tells with these labels.
fn metric(node: &Node, family: &str, labels: &[&str]) -> Result<u64> {
    let address = SocketAddr::from(([127, 0, 0, 1], METRICS_PORT));
    let text = node.sandbox().in_network(|| get(address, "/metrics", LIMIT))??.body;
    let of_family = |line: &&str| {
        line.strip_prefix(family).is_some_and(|rest| rest.starts_with('{'))
            && labels.iter().all(|label| line.contains(label))
    };
    let value = |line: &str| line.rsplit(' ').next().and_then(|word| word.parse::<f64>().ok());
    Ok(text.lines().filter(of_family).filter_map(value).sum::<f64>() as u64)
}

/// Of the lines of `flows -o json`: how many flows, and how many events were lost in the kernel.
fn counted(text: &str) -> Result<(u64, u64)> {
    let (mut flows, mut lost) = (0, 0);
    for line in text.lines() {
        let line: Value = serde_json::from_str(line)?;
        match line["type"].as_str() {
            Some("flow") => flows += 1,
            _ => {
                ensure!(line["object"]["place"] == "kernel", "{line}");
                lost += line["object"]["events"].as_u64().context("no events")?;
            }
        }
    }
    Ok((flows, lost))
}

/// Sends a segment with these flags of each of so many connections, on one processor. Their checksums are wrong, so that nobody
/// answers.
fn send_segments(node: &Node, app: &str, to: Ipv4Addr, count: u16, flags: u8) -> Result<()> {
    let sent = node.in_network_of(app, || -> Result<Duration> {
        let mut one = CpuSet::new();
        one.set(0)?;
        sched_setaffinity(Pid::from_raw(0), &one)?;
        // Before all else on that processor: how many events the kernel may tell grows with the time that it takes.
        let ours = gettid().to_string();
        let first = Command::new("chrt").args(["--fifo", "--pid", "1", &ours]).status()?;
        ensure!(first.success(), "chrt: {first}");
        let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)?;
        let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
        let began = Instant::now();
        for port in FIRST_PORT..FIRST_PORT + count {
            let mut segment = [0; 20];
            segment[..2].copy_from_slice(&port.to_be_bytes());
            segment[2..4].copy_from_slice(&PORT.to_be_bytes());
            (segment[12], segment[13]) = (5 << 4, flags);
            sendto(socket.as_raw_fd(), &segment, &to, MsgFlags::empty())?;
        }
        Ok(began.elapsed())
    })?;
    println!("{count} segments with the flags {flags} were sent within {:?}", sent.context("cannot send")?);
    Ok(())
}

#[test]
fn of_a_flood_of_connections_each_beginning_and_end_is_told_or_counted_as_lost() -> Result<()> {
    let (node, _registry) =
        Node::with_daemon_flags(&["--metrics-address", &format!("127.0.0.1:{METRICS_PORT}")])?;
    for app in ["web", "client"] {
        node.deploy_waiting(app, &[])?;
    }
    let web = ipv4(&node, "web")?;
    // By class, told and lost by the kernel until now: what the metrics say may be from a second ago.
    let at_once = || -> Result<Vec<(String, [u64; 2])>> {
        let status = node.json(&["status"])?;
        let count = |events: &Value| -> Option<(String, [u64; 2])> {
            Some((events["class"].as_str()?.to_owned(), [events["told"].as_u64()?, events["lost"].as_u64()?]))
        };
        status["events"].as_array().and_then(|all| all.iter().map(count).collect()).context("no events")
    };
    // Of all classes: now and then a replica sends something else.
    let all = || -> Result<u64> { Ok(at_once()?.into_iter().map(|(_, [told, lost])| told + lost).sum()) };
    // What the kernel told until now the daemon has read once it tells of what came after it.
    let before_it_follows = all()?;
    send(&node, "client", SocketAddr::new(web, PORT), 1)?;
    told(&node, &["--from", "client"])?;
    let follower = Follower::start(&node, "follower", &["--tail", "1", "-o", "json"])?;
    follower.await_lines(1)?;
    let following = all()?;
    let known = at_once()?;
    let lost_before: u64 = known.iter().map(|(_, [_, lost])| lost).sum();
    let before = ["new", "closed"].map(|class| {
        known.iter().find(|(of, _)| of == class).map_or([0; 2], |(_, told_and_lost)| *told_and_lost)
    });
    let counts = |class: &str| -> Result<[u64; 2]> {
        let label = [format!("class=\"{class}\"")];
        let count = |family: &str| metric(&node, family, &[&label[0]]);
        Ok([count("hivemind_datapath_events_total")?, count("hivemind_datapath_events_lost_total")?])
    };
    let IpAddr::V4(address) = web else { anyhow::bail!("{web} is not of IPv4") };
    send_segments(&node, "client", address, BEGUN, SYN)?;
    // Once the daemon has read of these, there is room to be told of the others.
    eventually(LIMIT, "the first losses to be told", || {
        follower.said()?.contains("\"place\":\"kernel\"").then_some(()).context("none yet")
    })?;
    send_segments(&node, "client", address, BEGUN, RST)?;
    let begun = u64::from(BEGUN);

    eventually(LIMIT, "the metrics to tell of all", || {
        let labels = ["source_app=\"client\"", "destination_app=\"web\"", "protocol=\"tcp\""];
        let exact = metric(&node, "hivemind_flow_connections_total", &labels)?;
        ensure!(exact == begun, "{exact} connections are counted, of {begun}");
        for (class, before) in ["new", "closed"].into_iter().zip(before) {
            let [told, lost_now] = counts(class)?;
            let now = [told - before[0], lost_now - before[1]];
            let expected = begun..=begun + OTHERS_MAX;
            ensure!(
                expected.contains(&(now[0] + now[1])),
                "{class}: {} told, {} lost, of {expected:?}",
                now[0],
                now[1]
            );
            ensure!(now[0] > 0 && now[1] > 0, "{class}: {} told, {} lost: it was no flood", now[0], now[1]);
        }
        Ok(())
    })?;
    // Of all classes, as above: a late one of another connection may be lost as well.
    let lost_in_all = || -> Result<u64> { Ok(at_once()?.into_iter().map(|(_, [_, lost])| lost).sum()) };
    eventually(LIMIT, "the metrics to tell of as many losses as the status", || {
        let (of_status, of_metrics) =
            (lost_in_all()?, metric(&node, "hivemind_datapath_events_lost_total", &[])?);
        ensure!(of_status == of_metrics, "{of_status} lost in the status, {of_metrics} in metrics");
        Ok(())
    })?;
    eventually(LIMIT, "the status to tell of the loss", || {
        let problems = node.json(&["status"])?["problems"].clone();
        ensure!(
            problems.as_array().is_some_and(|all| all.iter().any(|one| one["code"] == "HM0514")),
            "{problems}"
        );
        Ok(())
    })?;

    // Who follows is told of all: what the kernel lost, and what came faster than it read.
    eventually(LIMIT, "all to be told to who follows, or counted", || {
        let said = follower.said()?;
        let is_flow = |line: &&str| line.starts_with("{\"type\":\"flow\"");
        let told = said.lines().filter(is_flow).count() as u64 - 1;
        let losses = said.lines().filter(|line| !is_flow(line)).map(serde_json::from_str::<Value>);
        let (mut in_kernel, mut elsewhere) = (0, 0);
        for loss in losses {
            let loss = loss?;
            let events = loss["object"]["events"].as_u64().with_context(|| format!("no loss: {loss}"))?;
            *(if loss["object"]["place"] == "kernel" { &mut in_kernel } else { &mut elsewhere }) += events;
        }
        let lost = lost_in_all()? - lost_before;
        ensure!(in_kernel == lost, "{in_kernel} events were lost in the kernel, which says {lost}");
        let (sum, now) = (told + in_kernel + elsewhere, all()?);
        let between = now - following..=now - before_it_follows;
        ensure!(
            between.contains(&sum) && sum >= 2 * begun,
            "{told} told, {in_kernel} and {elsewhere} lost, of {between:?}"
        );
        Ok(())
    })
}

#[test]
fn a_flood_of_denials_costs_little_and_what_was_not_told_is_counted() -> Result<()> {
    let (node, _registry, web) = guarded(&["--metrics-address", &format!("127.0.0.1:{METRICS_PORT}")])?;
    let denied = ["--verdict", "denied", "--from", "stranger"];
    let follower = Follower::start(&node, "follower", &[&denied[..], &["-o", "json"]].concat())?;
    follower.await_lines(1)?;
    let class = ["class=\"policy_ingress\""];
    let counts = || -> Result<[u64; 2]> {
        let count = |family: &str| metric(&node, family, &class);
        Ok([count("hivemind_datapath_events_total")?, count("hivemind_datapath_events_lost_total")?])
    };
    let before = counts()?;
    ensure!(before == [1, 0], "{before:?}");
    let memory_before = node.daemon_memory_kb()?;
    send(&node, "stranger", web, FLOOD)?;
    let memory = node.daemon_memory_kb()?;
    ensure!(memory < memory_before + MEMORY_MORE_KB, "{memory_before} kB became {memory} kB");

    // Without a further event to tell it by: every datagram was either told or counted as lost, for each reader.
    let attempts = FLOOD + 1;
    let everything = |text: &str| -> Result<(u64, u64)> {
        let (told, lost) = counted(text)?;
        ensure!(told + lost == attempts, "{told} told, {lost} lost, of {attempts}");
        ensure!(lost > attempts / 2, "only {lost} were lost: it was no flood");
        Ok((told, lost))
    };
    let (told, lost) = eventually(LIMIT, "all to be told or counted", || everything(&follower.said()?))?;
    let later = [&denied[..], &["--tail", "4096", "-o", "json"]].concat();
    ensure!(everything(&flows(&node, &later)?)? == (told, lost), "flows tells otherwise later");
    let line = flows(&node, &denied)?;
    let line = line.lines().find(|line| line.starts_with("-- ")).context("no line about a loss")?;
    ensure!(line.ends_with("events were lost here: more came at once than the kernel tells --"), "{line}");

    eventually(LIMIT, "the metrics to say the same", || {
        let now = counts()?;
        ensure!(now == [told, lost], "{now:?} and not {told}, {lost}");
        let labels = ["source_app=\"stranger\"", "verdict=\"denied\""];
        let exact = metric(&node, "hivemind_flow_connections_total", &labels)?;
        ensure!(exact == attempts, "{exact} attempts are counted, of {attempts}");
        Ok(())
    })?;
    let status = node.json(&["status"])?;
    let events = status["events"].as_array().context("no events")?;
    let ours = events.iter().find(|events| events["class"] == "policy_ingress").context("no such events")?;
    ensure!(ours["told"] == told && ours["lost"] == lost, "{ours}");
    Ok(())
}
