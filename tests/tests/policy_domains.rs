//! Names whose addresses go round, that lead to others by chains of aliases, or that share an address.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Result, ensure};
use hivemind_tests::{
    Node, NodeOptions, UPSTREAM,
    echo::{ANSWER, Echo, PORT},
    eventually, start_upstream,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// How often the name's addresses change, and how many it has at a time: 300 in all.
const ROUNDS: u8 = 30;
const AT_ONCE: u8 = 10;
const LIMIT: Duration = Duration::from_secs(20);

/// Addresses of the machine outside, by the round in which the name has them.
fn address(round: u8, number: u8) -> Ipv4Addr {
    [198, 18, round, number].into()
}

/// An app's policy: it may ask for names, and reach what `name` leads to.
fn only(app: &str, name: &str) -> String {
    format!(
        "apiVersion: hivemind/v1
kind: Policy
metadata: {{name: {app}}}
spec:
  podSelector: {{matchLabels: {{app: {app}}}}}
  egress:
  - {{to: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: hivemind-system}}}}, podSelector: {{matchLabels: {{app: dns}}}}}}]}}
  - {{to: [{{domainName: {name}}}], ports: [{{port: {PORT}}}]}}
"
    )
}

/// No address.
const NONE: [Ipv4Addr; 0] = [];

/// Which of these addresses an app reaches now.
fn reached(node: &Node, app: &str, addresses: Vec<Ipv4Addr>) -> Result<Vec<Ipv4Addr>> {
    node.in_network_of(app, move || {
        let reaches = |ip: &Ipv4Addr| {
            let to = SocketAddr::new(IpAddr::V4(*ip), PORT);
            TcpStream::connect_timeout(&to, ANSWER).is_ok()
        };
        addresses.into_iter().filter(reaches).collect()
    })
}

#[test]
fn a_name_that_goes_round_through_hundreds_of_addresses_is_reached_at_all_of_them() -> Result<()> {
    let daemon_flags = vec!["--dns-upstream".to_owned(), UPSTREAM.to_owned()];
    let node = Node::start(NodeOptions { daemon_flags, ..NodeOptions::default() })?;
    let _registry = node.registry()?;
    node.daemon_start()?;
    let hosts = node.sandbox().directory().join("hosts");
    let has = |round: u8| {
        let lines: String =
            (1..=AT_ONCE).map(|number| format!("{} pool.example\n", address(round, number))).collect();
        fs::write(node.sandbox().outside(&hosts), lines)
    };
    has(0)?;
    let records = [
        format!("--addn-hosts={}", hosts.display()),
        "--cname=www.shop.example,edge.cdn.example".to_owned(),
        "--cname=edge.cdn.example,pool.example".to_owned(),
        format!("--host-record=twin.example,{}", address(0, 1)),
    ];
    // Answers are good for no time at all, so that each question is asked of it.
    let upstream = start_upstream(&node, 0, &records)?;
    let outside = node.fabric().client();
    outside.run(&["ip", "route", "add", "local", "198.18.0.0/16", "dev", "lo"])?;
    node.fabric().route("198.18.0.0/16", node.fabric().client_addresses())?;
    let sockets = outside.in_network(|| {
        let any = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, PORT));
        std::io::Result::Ok((UdpSocket::bind(any)?, TcpListener::bind(any)?))
    })??;
    let _server = Echo::serve(sockets.0, sockets.1)?;
    for app in ["client", "twin", "nobody"] {
        node.deploy_waiting(app, &[])?;
    }
    node.apply(
        &[
            only("client", "www.shop.example"),
            only("twin", "twin.example"),
            only("nobody", "'*.none.example'"),
        ]
        .join("---\n"),
    )?;
    let look =
        |app: &str, name: &str| node.in_replica(app, &format!("nslookup {name} 169.254.20.10 2>&1; true"));
    let all = |round: u8| (1..=AT_ONCE).map(|number| address(round, number)).collect::<Vec<_>>();
    assert_eq!(reached(&node, "client", vec![address(0, 1)])?, NONE, "nobody asked yet");

    for round in 0..ROUNDS {
        has(round)?;
        upstream.signal(Signal::SIGHUP)?;
        let wanted = address(round, 1).to_string();
        eventually(LIMIT, "the name's new addresses", || {
            let told = look("client", "www.shop.example")?;
            ensure!(told.lines().any(|line| line.ends_with(&format!(" {wanted}"))), "{told}");
            Ok(())
        })?;
        // The first packet after the answer passes, to each of its addresses.
        assert_eq!(reached(&node, "client", all(round))?, all(round), "round {round}");
    }
    // What an answer told stays allowed for five minutes, so that who has it can use it.
    let ever: Vec<_> = (0..ROUNDS).flat_map(all).collect();
    let again = reached(&node, "client", ever.clone())?;
    let missed: Vec<_> = ever.iter().filter(|address| !again.contains(address)).collect();
    if let Some(first) = missed.first() {
        let flows =
            node.hivemind_ok(&["flows", "--from", "client", "--to", &first.to_string(), "-o", "wide"])?;
        anyhow::bail!("{missed:?} were not reached:\n{flows}");
    }
    assert_eq!(reached(&node, "client", vec![address(ROUNDS, 1)])?, NONE, "nobody was told of it");

    // Flows tell the name that was asked for, while they are seen and afterwards, and are found by it.
    let of = |to: &str, words: &[&str]| -> Result<Vec<Value>> {
        let words = [&["flows", "--from", "client", "--to", to, "-o", "json"], words].concat();
        node.hivemind_ok(&words)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    };
    let live = of("198.18.0.2", &[])?;
    let named = live.iter().filter(|line| line["object"]["destination"]["domain"] == "www.shop.example");
    ensure!(named.count() > 0, "{live:?}");
    let by_name = of("WWW.shop.example.", &[])?;
    let is_named = |line: &Value| line["object"]["destination"]["domain"] == "www.shop.example";
    ensure!(!by_name.is_empty() && by_name.iter().all(is_named), "{by_name:?}");
    ensure!(of("shop.example", &[])?.is_empty(), "another name");
    node.daemon_term()?;
    node.daemon_start()?;
    let kept = of("198.18.0.2", &["--since", "1h"])?;
    let shares = kept.iter().flat_map(|line| line["object"]["shares"].as_array().into_iter().flatten());
    let mut named = shares.filter(|share| share["domain"] == "www.shop.example");
    ensure!(named.any(|share| share["destination"] == "198.18.0.2/32"), "{kept:?}");
    let by_name = of("www.shop.example", &["--since", "1h"])?;
    let has_name = |line: &Value| {
        let mut shares = line["object"]["shares"].as_array().into_iter().flatten();
        line["type"] == "minute" && shares.any(|share| share["domain"] == "www.shop.example")
    };
    ensure!(!by_name.is_empty() && by_name.iter().all(has_name), "{by_name:?}");
    ensure!(of("shop.example", &["--since", "1h"])?.is_empty(), "another name");

    // An address that two names have is reached by who may reach one of them, once that one was asked for.
    assert_eq!(reached(&node, "twin", vec![address(0, 1)])?, NONE);
    look("twin", "twin.example")?;
    assert_eq!(reached(&node, "twin", vec![address(0, 1), address(0, 2)])?, [address(0, 1)]);
    // Asking for a name that no policy of its own means gains an app nothing.
    look("nobody", "www.shop.example")?;
    assert_eq!(reached(&node, "nobody", vec![address(ROUNDS - 1, 1)])?, NONE);
    Ok(())
}

#[test]
fn what_comes_of_a_name_is_told_before_anybody_asks_for_it() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.deploy_waiting("client", &[])?;
    node.apply(&format!(
        "{}  - {{action: Deny, to: [{{ipBlock: {{cidr: 198.18.0.0/16}}}}]}}\n",
        only("client", "'*.shop.example'")
    ))?;
    let port = PORT.to_string();
    // The exit code is 1 where it is not allowed.
    let check = |to: &str, port: &str| -> Result<Value> {
        let told = node.hivemind(&["policy", "check", "client", to, "--port", port, "-o", "json"])?;
        Ok(serde_json::from_slice(&told.stdout)?)
    };
    let verdicts = |of: &Value| -> Vec<(bool, bool)> {
        let judgements = of["egress"].as_array().into_iter().flatten();
        judgements.map(|one| (one["allowed"] == true, one["domains"].is_array())).collect()
    };

    // Denied to the block that the policy denies, whatever the name is; allowed to all others that have it.
    let by_name = check("WWW.shop.example.", &port)?;
    assert_eq!(by_name["verdict"], "depends", "{by_name}");
    assert_eq!(by_name["destination"], "WWW.shop.example.", "{by_name}");
    assert_eq!(verdicts(&by_name), [(true, false), (false, false)], "{by_name}");
    let denied = by_name["egress"][1]["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert_eq!(denied, ["198.18.0.0"], "{by_name}");
    for (to, port) in [("www.shop.example", "81"), ("shop.example", port.as_str()), ("10.1.2.3", "81")] {
        assert_eq!(check(to, port)?["verdict"], "denied", "{to} on {port}");
    }
    // Of an address nobody knows the name.
    let by_address = check("203.0.113.7", &port)?;
    assert_eq!(by_address["verdict"], "depends", "{by_address}");
    assert_eq!(verdicts(&by_address), [(false, false), (true, true)], "{by_address}");
    assert_eq!(by_address["egress"][1]["domains"][0], "*.shop.example", "{by_address}");
    assert_eq!(check("198.18.0.7", &port)?["verdict"], "denied", "no name opens what is denied");
    assert_eq!(check("world", &port)?["verdict"], "depends");
    assert_eq!(check("dns", "53/udp")?["verdict"], "allowed");
    assert_eq!(check("169.254.20.10", "53/udp")?["verdict"], "allowed");

    for (to, part) in [
        ("203.0.113.7", "  with 203.0.113.7, if asked for by a name of *.shop.example\n"),
        ("www.shop.example", "  with addresses like 198.18.0.0\n"),
    ] {
        let told = node.hivemind(&["policy", "check", "client", to, "--port", &port])?;
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        ensure!(told.status.code() == Some(1) && text.contains(part), "no {part:?}: {text}");
    }
    let said = node.refused(&["policy", "check", "a.example", "client", "--port", "80"], "HM0100", 2)?;
    ensure!(said.contains("FROM") && said.contains("begins no connections"), "{said}");
    Ok(())
}
