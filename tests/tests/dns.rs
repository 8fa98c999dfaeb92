//! Names as `dig` sees them: on the node, and in a replica's network.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Background, Node, NodeOptions, UPSTREAM, eventually};

const LIMIT: Duration = Duration::from_secs(20);
const SERVER: &str = "169.254.20.10";
const SERVER_V6: &str = "fd00:20::10";
const WEB: &str = "web.default.svc.hivemind.internal";

/// More addresses than a datagram of 512 bytes holds.
const MANY: u8 = 60;

fn node(upstreams: &[&str]) -> Result<Node> {
    let flags = upstreams.iter().flat_map(|upstream| ["--dns-upstream", upstream]);
    let daemon_flags = flags.map(str::to_owned).collect();
    Node::start(NodeOptions { daemon_flags, ..NodeOptions::default() })
}

/// Starts an upstream with a name that has an address and one that has many.
fn start_upstream(node: &Node) -> Result<Background> {
    let one = "--host-record=one.example,192.0.2.1".to_owned();
    let many = (1..=MANY).map(|last| format!("--host-record=many.example,198.51.100.{last}"));
    hivemind_tests::start_upstream(node, 60, &[one].into_iter().chain(many).collect::<Vec<_>>())
}

/// What dig prints when it asks our server from the node.
fn dig(node: &Node, words: &[&str]) -> Result<String> {
    let server = format!("@{SERVER}");
    let mut all = vec!["dig", "+time=5", "+tries=1", &server];
    all.extend(words);
    let output = node.exec_in_node(&all)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "dig {words:?} failed: {said}");
    // Columns are laid out with as many tabs as it takes.
    Ok(said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect())
}

/// The lines of a short answer, sorted.
fn short(node: &Node, words: &[&str]) -> Result<Vec<String>> {
    let mut all = vec!["+short"];
    all.extend(words);
    let mut lines: Vec<String> = dig(node, &all)?.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

fn deploy_web(node: &Node, replicas: &str) -> Result<()> {
    let words = ["app", "deploy", "web", "--image", "nginx", "--service", "web.local", "--port", "8080:80"];
    node.hivemind_ok(&[&words[..], &["--replicas", replicas]].concat()).map(drop)
}

fn field(object: &serde_json::Value, name: &str) -> Result<String> {
    Ok(object[name].as_str().with_context(|| format!("no {name} in {object}"))?.to_owned())
}

#[test]
fn dig_finds_a_service_its_port_its_replicas_and_the_names_of_their_addresses() -> Result<()> {
    let node = node(&[UPSTREAM])?;
    let _registry = node.registry()?;
    node.daemon_start()?;
    deploy_web(&node, "2")?;
    let service = node.json(&["service", "info", "web"])?;
    let (ipv4, ipv6) = (field(&service["spec"], "ipv4")?, field(&service["spec"], "ipv6")?);
    for name in [WEB, "web.local"] {
        assert_eq!(short(&node, &[name, "A"])?, [ipv4.as_str()]);
        assert_eq!(short(&node, &[name, "AAAA"])?, [ipv6.as_str()]);
    }
    assert_eq!(short(&node, &["+tcp", WEB, "A"])?, [ipv4.as_str()], "over TCP as well");
    for address in [&ipv4, &ipv6] {
        assert_eq!(short(&node, &["-x", address])?, [format!("{WEB}.")]);
    }
    let server = format!("0 1 80 {WEB}.");
    assert_eq!(short(&node, &[&format!("_80._tcp.{WEB}"), "SRV"])?, [server]);
    let with_addresses = dig(&node, &[&format!("_80._tcp.{WEB}"), "SRV"])?;
    ensure!(with_addresses.contains(&format!("{WEB}. 5 IN A {ipv4}")), "{with_addresses}");
    assert_eq!(short(&node, &["dns-version.hivemind.internal", "TXT"])?, ["\"1.1.0\""]);
    assert_eq!(short(&node, &["hivemind.internal", "NS"])?, ["dns.hivemind.internal."]);
    for replica in node.replicas("web")? {
        let name = format!("{}.{WEB}", field(&replica["metadata"], "name")?);
        let address = field(&replica["status"], "ipv4")?;
        assert_eq!(short(&node, &[&name, "A"])?, [address.as_str()]);
        assert_eq!(short(&node, &["-x", &address])?, [format!("{name}.")]);
    }
    Ok(())
}

#[test]
fn what_does_not_exist_is_denied_with_the_time_for_which_to_believe_it() -> Result<()> {
    let node = node(&[UPSTREAM])?;
    let _upstream = start_upstream(&node)?;
    node.daemon_start()?;
    for (name, zone) in [
        ("gone.default.svc.hivemind.internal", "hivemind.internal."),
        ("99.0.200.10.in-addr.arpa", "200.10.in-addr.arpa."),
    ] {
        let said = dig(&node, &[name, "PTR"])?;
        ensure!(said.contains("status: NXDOMAIN") && said.contains("aa rd ra"), "{said}");
        ensure!(said.contains(&format!("{zone} 5 IN SOA")), "{said}");
    }
    let unknown = dig(&node, &["nothing.example", "A"])?;
    ensure!(unknown.contains("status: NXDOMAIN"), "an upstream's answer is handed on: {unknown}");
    let version = dig(&node, &["+edns=1", "+noednsneg", WEB, "A"])?;
    ensure!(version.contains("status: BADVERS"), "another version of EDNS is told: {version}");
    Ok(())
}

#[test]
fn an_answer_too_long_for_a_datagram_comes_whole_over_tcp() -> Result<()> {
    let node = node(&[UPSTREAM])?;
    let _upstream = start_upstream(&node)?;
    node.daemon_start()?;
    let cut = dig(&node, &["+ignore", "+noedns", "many.example", "A"])?;
    ensure!(cut.contains("tc rd ra"), "the answer says that there is more: {cut}");
    let whole = short(&node, &["+noedns", "many.example", "A"])?;
    assert_eq!(whole.len(), usize::from(MANY), "dig asks again over TCP, as we asked our upstream");
    Ok(())
}

#[test]
fn a_replica_is_answered_at_both_addresses_of_the_server() -> Result<()> {
    let node = node(&[UPSTREAM])?;
    let _registry = node.registry()?;
    let _upstream = start_upstream(&node)?;
    node.daemon_start()?;
    node.hivemind_ok(&["app", "deploy", "client", "--image", "busybox", "--command", "sleep 3600"])?;
    let network: PathBuf = node.network_of_replica(&node.replica("client")?)?;
    let enter = format!("--net={}", network.display());
    for server in [SERVER, SERVER_V6] {
        let at = format!("@{server}");
        let words = ["nsenter", &enter, "dig", "+short", "+time=5", "+tries=1", &at, "one.example", "A"];
        let output = node.exec_in_node(&words)?;
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "192.0.2.1", "asked at {server}");
    }
    Ok(())
}

#[test]
fn a_silent_upstream_costs_its_time_once_and_all_of_them_silent_is_a_failure() -> Result<()> {
    let silent = "127.0.0.54:5300";
    let node = node(&[silent, UPSTREAM])?;
    let address: SocketAddr = silent.parse()?;
    let socket = node.sandbox().in_network(|| UdpSocket::bind(address))??;
    let upstream = start_upstream(&node)?;
    node.daemon_start()?;
    eventually(LIMIT, "the second upstream to answer", || {
        let found = short(&node, &["one.example", "A"])?;
        ensure!(found == ["192.0.2.1"], "{found:?}");
        Ok(())
    })?;
    let began = Instant::now();
    assert_eq!(short(&node, &["many.example", "A"])?.len(), usize::from(MANY));
    ensure!(began.elapsed() < Duration::from_secs(1), "the silent one is asked first again");
    drop(upstream);
    let failed = dig(&node, &["+time=15", "other.example", "A"])?;
    ensure!(failed.contains("status: SERVFAIL"), "{failed}");
    drop(socket);
    Ok(())
}

#[test]
fn names_follow_an_app_that_is_scaled_up_and_down() -> Result<()> {
    let node = node(&[UPSTREAM])?;
    let _registry = node.registry()?;
    node.daemon_start()?;
    deploy_web(&node, "1")?;
    let first = node.replica("web")?;
    let service = short(&node, &[WEB, "A"])?;
    for count in [3, 1] {
        let before = node.replicas("web")?;
        node.hivemind_ok(&["app", "scale", "web", "--replicas", &count.to_string()])?;
        eventually(LIMIT, &format!("{count} replicas to have their names"), || {
            let now = node.replicas("web")?;
            ensure!(now.len() == count, "there are {}", now.len());
            now.iter().try_for_each(|replica| has_its_names(&node, replica))
        })?;
        let now = node.replicas("web")?;
        for gone in before.iter().filter(|replica| !now.contains(replica)) {
            let name = format!("{}.{WEB}", field(&gone["metadata"], "name")?);
            let is_there = now.iter().any(|replica| replica["metadata"]["name"] == gone["metadata"]["name"]);
            ensure!(is_there || short(&node, &[&name, "A"])?.is_empty(), "{name} is still there");
        }
        assert_eq!(short(&node, &[WEB, "A"])?, service, "the service keeps its address");
    }
    has_its_names(&node, &first).context("the first one was there all the time")
}

/// Asks for a replica's address by its name, and for its name by its address.
fn has_its_names(node: &Node, replica: &serde_json::Value) -> Result<()> {
    let name = format!("{}.{WEB}", field(&replica["metadata"], "name")?);
    let address = field(&replica["status"], "ipv4")?;
    let (found, reverse) = (short(node, &[&name, "A"])?, short(node, &["-x", &address])?);
    ensure!(found == [address.as_str()] && reverse == [format!("{name}.")], "{name}: {found:?}, {reverse:?}");
    Ok(())
}

#[test]
fn upstreams_that_are_all_gone_are_told_once_fail_at_once_and_are_asked_again_when_they_are_back()
-> Result<()> {
    let node = node(&[UPSTREAM])?;
    node.daemon_start()?;
    for number in 0..20 {
        let began = Instant::now();
        let failed = dig(&node, &[&format!("name-{number}.example"), "A"])?;
        ensure!(failed.contains("status: SERVFAIL"), "{failed}");
        ensure!(began.elapsed() < Duration::from_secs(1), "it took {:?}", began.elapsed());
    }
    let log = node.sandbox().outside(&node.sandbox().directory().join("daemon.log"));
    let log = std::fs::read_to_string(log)?;
    let told = log.lines().filter(|line| line.contains("No upstream of the DNS server answers")).count();
    ensure!(told == 1, "it is told {told} times: {log}");
    let _upstream = start_upstream(&node)?;
    eventually(LIMIT, "the upstream to be asked again", || {
        let found = short(&node, &["one.example", "A"])?;
        ensure!(found == ["192.0.2.1"], "{found:?}");
        Ok(())
    })
}

#[test]
fn a_load_of_questions_is_answered_without_a_loss() -> Result<()> {
    let node = node(&[UPSTREAM])?;
    let _upstream = start_upstream(&node)?;
    node.daemon_start()?;
    node.hivemind_ok(&["app", "deploy", "web", "--image", "busybox", "--replicas", "0"])?;
    let file = node.sandbox().directory().join("questions.txt");
    let questions = format!("{WEB} A\n{WEB} AAAA\none.example A\nnothing.example A\n");
    std::fs::write(node.sandbox().outside(&file), questions)?;
    let file = file.display().to_string();
    let words = ["dnsperf", "-s", SERVER, "-d", &file, "-n", "5000", "-c", "4", "-q", "50", "-l", "20"];
    let output = node.exec_in_node(&words)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let lost = said.lines().find_map(|line| line.trim().strip_prefix("Queries lost:"));
    ensure!(lost.is_some_and(|lost| lost.trim().starts_with("0 ")), "{said}");
    ensure!(said.contains("NOERROR 15000") && said.contains("NXDOMAIN 5000"), "{said}");
    Ok(())
}
