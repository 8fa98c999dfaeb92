//! What services do beyond balancing: clients that stay, names without an address of their own, names that stand for others, and
//! what becomes of clients when a replica leaves.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Background, Node, NodeOptions, Place, UPSTREAM, eventually, get};
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(20);
const DNS: &str = "@169.254.20.10";
/// Draws among three replicas, all of which give the same one once in 10^9 times.
const DRAWS: usize = 20;

/// The service's addresses, IPv4 and IPv6.
fn service(node: &Node, name: &str) -> Result<[IpAddr; 2]> {
    let service = node.json(&["service", "info", name])?;
    let address = |family: &str| -> Result<IpAddr> {
        Ok(service["spec"][family].as_str().with_context(|| format!("no {family} in {service}"))?.parse()?)
    };
    Ok([address("ipv4")?, address("ipv6")?])
}

fn name_of(replica: &Value) -> Result<String> {
    Ok(replica["metadata"]["name"].as_str().context("no name")?.to_owned())
}

fn addresses_of(replicas: &[Value], family: &str) -> Result<BTreeSet<String>> {
    let address =
        |replica: &Value| replica["status"][family].as_str().map(str::to_owned).context("no address");
    replicas.iter().map(address).collect()
}

/// The lines of a short answer of the node's DNS server.
fn dig(node: &Node, words: &[&str]) -> Result<Vec<String>> {
    let said = node.sandbox().check(&[&["dig", "+short", "+time=5", "+tries=1", DNS], words].concat())?;
    Ok(said.lines().map(str::to_owned).collect())
}

#[test]
fn a_client_stays_with_its_replica_also_while_the_daemon_is_killed_until_that_replica_leaves() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let words = ["app", "deploy", "web", "--image", "nginx", "--replicas", "3", "-p", "8080:80"];
    node.hivemind_ok(&[&words[..], &["--session-affinity=1h"]].concat())?;
    node.deploy_waiting("client", &[])?;
    let info = node.json(&["service", "info", "web"])?;
    assert_eq!(info["spec"]["sessionAffinity"]["timeoutSeconds"], 3600);
    let script = format!(
        "i=0; while [ $i -lt {DRAWS} ]; do wget -q -O - http://web/hostname || exit 1; i=$((i+1)); done"
    );
    let by_replica = || -> Result<BTreeSet<String>> {
        Ok(node.in_replica("client", &script)?.split_whitespace().map(str::to_owned).collect())
    };
    let published = SocketAddr::new(node.addresses().ipv4.into(), 8080);
    let by_outside = || -> Result<BTreeSet<String>> {
        let ask = || (0..DRAWS).map(|_| get(published, "/hostname", LIMIT)).collect::<Result<Vec<_>>>();
        let answers = node.fabric().client().in_network(ask)??;
        Ok(answers.into_iter().map(|answer| answer.body.trim().to_owned()).collect())
    };
    let first = (by_replica()?, by_outside()?);
    assert_eq!((first.0.len(), first.1.len()), (1, 1), "{first:?}");
    node.daemon_kill9()?;
    assert_eq!(by_outside()?, first.1, "without a daemon");
    node.daemon_start()?;
    assert_eq!((by_replica()?, by_outside()?), first, "after a restart of the daemon");
    // The replica ends: its client goes to another, and is true to that.
    let left = first.0.iter().next().context("nobody")?;
    let replicas = node.replicas("web")?;
    let replica = replicas.iter().find(|replica| name_of(replica).is_ok_and(|name| name == *left));
    let pid = replica.and_then(|replica| replica["status"]["pid"].as_i64()).context("no pid")?;
    let others: BTreeSet<_> = replicas.iter().map(name_of).collect::<Result<_>>()?;
    nix::sys::signal::kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
    let second = eventually(LIMIT, "the client to be with another replica", || {
        let now = by_replica()?;
        ensure!(now.len() == 1 && now != first.0, "{now:?}");
        Ok::<_, anyhow::Error>(now)
    })?;
    assert!(second.is_subset(&others));
    assert_eq!(by_replica()?, second);
    // Without it, nobody stays.
    let path = "http://localhost/v1/namespaces/default/apps/web";
    let socket = node.socket().display().to_string();
    let api = ["curl", "-sf", "--unix-socket", &socket, "-H", "content-type: application/json"];
    let mut app: Value = serde_json::from_str(&node.sandbox().check(&[&api[..], &[path]].concat())?)?;
    app["spec"].as_object_mut().context("no spec")?.remove("service");
    node.sandbox().check(&[&api[..], &["-X", "PUT", "-d", &app.to_string(), path]].concat())?;
    eventually(LIMIT, "clients to be forgotten", || {
        let now = by_replica()?;
        ensure!(now.len() > 1, "{now:?}");
        Ok::<_, anyhow::Error>(())
    })
}

#[test]
fn a_headless_service_has_the_addresses_of_the_replicas_that_take_connections() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let words = [
        "app",
        "deploy",
        "db",
        "--image",
        "nginx",
        "--replicas",
        "3",
        "--headless",
        "--service",
        "db.local",
        "--service-port",
        "80",
    ];
    let told = node.hivemind_ok(&words)?;
    ensure!(told.contains("db.default.svc.hivemind.internal"), "{told}");
    node.deploy_waiting("client", &[])?;
    let names = ["db.default.svc.hivemind.internal", "db.local"];
    let is_told = |count: usize| {
        eventually(LIMIT, "the names to have the replicas' addresses", || {
            let replicas = node.replicas("db")?;
            ensure!(replicas.len() == count, "{} replicas", replicas.len());
            for name in names {
                for (family, kind) in [("ipv4", "A"), ("ipv6", "AAAA")] {
                    let said: BTreeSet<_> = dig(&node, &[name, kind])?.into_iter().collect();
                    let expected = addresses_of(&replicas, family)?;
                    ensure!(said == expected, "{name} {kind}: {said:?} instead of {expected:?}");
                }
            }
            Ok::<_, anyhow::Error>(replicas)
        })
    };
    let replicas = is_told(3)?;
    let hosts: BTreeSet<_> = replicas.iter().map(name_of).collect::<Result<_>>()?;
    for replica in &replicas {
        let name = format!("{}.{}", name_of(replica)?, names[0]);
        let address = replica["status"]["ipv4"].as_str().context("no address")?;
        assert_eq!(dig(&node, &[&name, "A"])?, [address]);
        assert_eq!(dig(&node, &["-x", address])?, [format!("{name}.")]);
    }
    let mut servers = dig(&node, &[&format!("_80._tcp.{}", names[0]), "SRV"])?;
    servers.sort();
    let expected: Vec<_> = hosts.iter().map(|host| format!("0 1 80 {host}.{}.", names[0])).collect();
    assert_eq!(servers, expected);
    let page = node.in_replica("client", "wget -q -O - http://db/hostname")?;
    ensure!(hosts.contains(page.trim()), "{page:?}");
    is_told_in_commands(&node)?;
    node.hivemind_ok(&["app", "scale", "db", "--replicas", "1"])?;
    is_told(1)?;
    node.hivemind_ok(&["app", "scale", "db", "--replicas", "0"])?;
    is_told(0)?;
    node.hivemind_ok(&["app", "scale", "db", "--replicas", "2"])?;
    let replicas = is_told(2)?;
    // One that ends comes back when it takes connections again; the other is named all the time.
    let pid = i32::try_from(replicas[0]["status"]["pid"].as_i64().context("no pid")?)?;
    let other = replicas[1]["status"]["ipv4"].as_str().context("no address")?;
    nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    eventually(LIMIT, "the one to be started again", || {
        let said = dig(&node, &[names[0], "A"])?;
        assert!(said.iter().any(|address| address == other), "{said:?}");
        let restarts =
            node.replicas("db")?.iter().filter_map(|r| r["status"]["restarts"].as_u64()).sum::<u64>();
        ensure!(restarts > 0, "not yet");
        Ok::<_, anyhow::Error>(())
    })?;
    is_told(2).map(drop)
}

fn is_told_in_commands(node: &Node) -> Result<()> {
    let list = node.hivemind_ok(&["service", "ls"])?;
    ensure!(list.lines().any(|line| line.starts_with("db") && line.contains("headless")), "{list}");
    let info = node.hivemind_ok(&["service", "info", "db"])?;
    ensure!(info.contains("those of its endpoints (headless)"), "{info}");
    let app = node.json(&["app", "info", "db"])?;
    ensure!(app["metadata"]["name"] == "db", "{app}");
    ensure!(app["status"]["addresses"].as_array().is_none_or(Vec::is_empty), "{app}");
    Ok(())
}

/// Starts dnsmasq as [`UPSTREAM`], with a name that stands for another, which has an address of each family.
fn start_upstream(node: &Node) -> Result<Background> {
    let records =
        ["--cname=db.example,primary.example", "--host-record=primary.example,192.0.2.7,2001:db8::7"];
    hivemind_tests::start_upstream(node, 60, &records.map(str::to_owned))
}

#[test]
fn a_name_outside_is_reached_by_a_name_of_the_cluster() -> Result<()> {
    let daemon_flags = vec!["--dns-upstream".to_owned(), UPSTREAM.to_owned()];
    let node = Node::start(NodeOptions { daemon_flags, ..NodeOptions::default() })?;
    let _registry = node.registry()?;
    node.daemon_start()?;
    let _upstream = start_upstream(&node)?;
    node.hivemind_ok(&["service", "create", "db", "--external-name", "DB.example", "--service", "db.local"])?;
    node.deploy_waiting("client", &[])?;
    let own = "db.default.svc.hivemind.internal";
    eventually(LIMIT, "the name to be served", || {
        let said = dig(&node, &[own, "A"])?;
        ensure!(said == ["db.example.", "primary.example.", "192.0.2.7"], "{said:?}");
        Ok::<_, anyhow::Error>(())
    })?;
    assert_eq!(dig(&node, &["db.local", "AAAA"])?, ["db.example.", "primary.example.", "2001:db8::7"]);
    assert_eq!(dig(&node, &["+tcp", own, "CNAME"])?, ["db.example."]);
    // A program that wants addresses and nothing else gets them, by the short name too.
    let found =
        node.in_replica("client", "nslookup db.default.svc.hivemind.internal; ping -c 1 -w 1 db || true")?;
    ensure!(found.contains("192.0.2.7") && found.contains("PING db (192.0.2.7)"), "{found}");
    let list = node.hivemind_ok(&["service", "ls"])?;
    ensure!(list.contains("db.example"), "{list}");
    node.refused(&["app", "deploy", "db", "--image", "nginx"], "HM0302", 4)?;
    let wrong = ["service", "create", "Db", "--external-name", "db", "--service", "a b"];
    let said = node.refused(&wrong, "HM0101", 2)?;
    for flag in ["--name", "--external-name", "--service"] {
        ensure!(said.contains(flag), "{flag} is not told: {said}");
    }
    // What stands at an app's place is the app's.
    node.refused(&["service", "delete", "client"], "HM0108", 2)?;
    node.hivemind_ok(&["service", "delete", "db"])?;
    eventually(LIMIT, "the name to be gone", || {
        let said = dig(&node, &[own, "A"])?;
        ensure!(said.is_empty(), "{said:?}");
        Ok::<_, anyhow::Error>(())
    })
}

#[test]
fn a_connected_udp_client_is_with_another_replica_within_a_second() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&["app", "deploy", "web", "--image", "nginx", "--replicas", "2"])?;
    node.deploy_waiting("client", &[])?;
    let replicas = node.replicas("web")?;
    let mut echoes = Vec::new();
    for replica in &replicas {
        // In the replica's network, apart from its container: it goes on to answer when that has ended.
        let network = node.network_of_replica(replica)?;
        echoes.push(Place::network(node.sandbox(), &network).answer(7000, &name_of(replica)?)?);
    }
    let client = node.network_of_replica(&node.replica("client")?)?;
    for place in [Place::network(node.sandbox(), &client), Place::machine(node.sandbox())] {
        for ip in service(&node, "web")? {
            let asking = place.ask_until_moved(SocketAddr::new(ip, 7000))?;
            let first = asking.first["answer"].as_str().context("no answer")?.to_owned();
            let now = node.replicas("web")?;
            let replica = now.iter().find(|replica| name_of(replica).is_ok_and(|name| name == first));
            let pid = replica.and_then(|replica| replica["status"]["pid"].as_i64()).context("no pid")?;
            nix::sys::signal::kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
            let moved = asking.end()?;
            assert_ne!(moved["answer"], json!(first), "{moved}");
            let errors = moved["errors"].as_array().context("no errors")?;
            assert!(errors.len() <= 1, "{moved}");
            assert!(
                moved["ms"].as_u64().is_some_and(|ms| ms < 1_000),
                "it was without an answer for long: {moved}"
            );
            eventually(LIMIT, "the replica to be back", || {
                let ready = node.ready_replicas("web")?;
                ensure!(ready == 2, "{ready}");
                Ok::<_, anyhow::Error>(())
            })?;
        }
    }
    Ok(())
}

#[test]
fn a_tcp_connection_goes_on_with_a_replica_that_leaves_until_that_has_had_its_time() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    // It takes no notice of being told to end, so it has all of the grace period.
    let script = "trap '' TERM; nc -ll -p 7000 -e cat; :";
    let words = ["app", "deploy", "echo", "--image", "busybox", "-p", "7000:7000", "--", "sh", "-c", script];
    node.hivemind_ok(&words)?;
    node.deploy_waiting("client", &[])?;
    let client = node.network_of_replica(&node.replica("client")?)?;
    let [v4, _] = service(&node, "echo")?;
    let published = SocketAddr::new(node.addresses().ipv4.into(), 7000);
    let held = [
        Place::network(node.sandbox(), &client).hold(SocketAddr::new(v4, 7000))?,
        Place::machine(node.fabric().client()).hold(published)?,
        Place::machine(node.sandbox()).hold(published)?,
    ];
    assert_eq!(held[0].first["peer"], SocketAddr::new(v4, 7000).to_string());
    let told = std::time::Instant::now();
    let mut deleting =
        node.hivemind_spawn(&["app", "delete", "echo"], &node.sandbox().directory().join("delete.log"))?;
    // New connections are refused at once, the old ones go on.
    let refused = eventually(LIMIT, "the service to be empty", || {
        let dialled = Place::machine(node.sandbox()).dial(SocketAddr::new(v4, 7000))?;
        ensure!(dialled["error"] == "ConnectionRefused", "{dialled}");
        Ok::<_, anyhow::Error>(told.elapsed())
    })?;
    for (held, whose) in held.into_iter().zip(["a replica", "a machine outside", "the node"]) {
        let end = held.end()?;
        let lasted = told.elapsed();
        assert!(
            lasted > refused && lasted > Duration::from_secs(9),
            "{whose}: the grace period was cut short: {lasted:?}, {end}"
        );
        assert!(lasted < Duration::from_secs(16), "{whose}: it took {lasted:?} to learn of it: {end}");
        let kinds = ["UnexpectedEof", "ConnectionReset", "ConnectionAborted", "BrokenPipe"];
        assert!(kinds.iter().any(|kind| end["error"] == *kind), "{whose}: {end}");
    }
    assert!(deleting.wait(LIMIT)?.success());
    Ok(())
}
