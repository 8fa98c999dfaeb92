//! What policies say that a NetworkPolicy cannot: tiers of the whole cluster, denials, entities, messages of ICMP, domains,
//! telling without denying, and an end.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{
    Background, Node, NodeOptions, UPSTREAM,
    echo::{ANSWER, Echo, PORT, addresses, asks, assert_reaches, dials},
    eventually, policy_only,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

/// Long before any test.
const LONG_AGO: &str = "2001-01-01T00:00:00Z";

/// A policy of the whole cluster.
fn cluster(name: &str, tier: &str, priority: u32, rest: &str) -> String {
    format!(
        "apiVersion: policy.networking.k8s.io/v1beta1\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\n\
         spec: {{tier: {tier}, priority: {priority}, {rest}}}\n---\n"
    )
}

/// A policy of Hivemind's own kind.
fn own(name: &str, spec: &str) -> String {
    format!("apiVersion: hivemind/v1\nkind: Policy\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n")
}

/// Lets an app's replicas ask for names.
fn to_names() -> &'static str {
    "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: hivemind-system}}, podSelector: \
     {matchLabels: {app: dns}}}], ports: [{protocol: UDP, port: 53}]}"
}

fn pings(node: &Node, app: &str, to: IpAddr) -> Result<bool> {
    let said =
        node.in_replica(app, &format!("ping -c 1 -W 1 {to} >/dev/null 2>&1 && echo yes || echo no"))?;
    Ok(said.trim() == "yes")
}

/// The flows of an app's connections that are known, newest last.
fn flows(node: &Node, words: &[&str]) -> Result<Vec<Value>> {
    let mut all = vec!["flows", "-o", "json"];
    all.extend(words);
    let text = node.hivemind_ok(&all)?;
    let lines = text.lines().map(|line| Ok(serde_json::from_str::<Value>(line)?["object"].take()));
    lines.collect()
}

#[test]
fn policies_of_the_cluster_come_before_those_of_namespaces_and_after_them() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for app in ["server", "client", "stranger"] {
        node.deploy_waiting(app, &[])?;
    }
    let _server = Echo::start(&node, "server")?;
    let everybody = "subject: {namespaces: {}}";
    let deny_all = |tier, priority| {
        let rest = format!("{everybody}, ingress: [{{action: Deny, from: [{{namespaces: {{}}}}]}}]");
        cluster("deny-all", tier, priority, &rest)
    };
    // Where no policy of a namespace speaks, the last tier does.
    node.apply(&deny_all("Baseline", 10))?;
    assert_reaches(&node, "client", "server", false)?;
    node.apply(&policy_only("server", "client", "server", ""))?;
    assert_reaches(&node, "client", "server", true)?;
    assert_reaches(&node, "stranger", "server", false)?;
    // The first tier is asked first, lower priorities before higher ones.
    node.apply(&deny_all("Admin", 10))?;
    assert_reaches(&node, "client", "server", false)?;
    let from = |app: &str| {
        format!("from: [{{pods: {{namespaceSelector: {{}}, podSelector: {{matchLabels: {{app: {app}}}}}}}}}]")
    };
    let rules = |action: &str, app: &str| {
        cluster("first", "Admin", 5, &format!("{everybody}, ingress: [{{action: {action}, {}}}]", from(app)))
    };
    node.apply(&rules("Pass", "client"))?;
    assert_reaches(&node, "client", "server", true)?;
    assert_reaches(&node, "stranger", "server", false)?;
    node.apply(&rules("Pass", "stranger"))?;
    assert_reaches(&node, "client", "server", false)?;
    assert_reaches(&node, "stranger", "server", false)?;
    let port = format!("{PORT}/udp");
    let asked = node.hivemind(&["policy", "check", "client", "server", "--port", &port])?;
    let said = String::from_utf8_lossy(&asked.stdout).into_owned();
    ensure!(asked.status.code() == Some(1), "{said}");
    for part in
        ["client to server on 7000/udp: denied", "Admin tier: denied", "hivemind-system/deny-all/ingress[0]"]
    {
        ensure!(said.contains(part), "no {part:?}: {said}");
    }
    node.apply(&rules("Accept", "stranger"))?;
    assert_reaches(&node, "stranger", "server", true)?;
    let allowed = node.json(&["policy", "check", "stranger", "server", "--port", &port])?;
    assert_eq!(allowed["verdict"], "allowed", "{allowed}");
    assert_eq!(allowed["ingress"][0]["rules"][0]["policy"], "first", "{allowed}");
    let host = node.json(&["policy", "check", "host", "server", "--port", "icmp"])?;
    assert_eq!(host["ingress"][0]["rules"][0]["policy"], "node-to-replicas", "{host}");
    node.refused(&["policy", "check", "nobody", "server", "--port", "80"], "HM0201", 3)?;
    let said = node.refused(&["policy", "check", "client", "server", "--port", "80/quic"], "HM0100", 2)?;
    ensure!(said.contains("--port") && said.contains("sctp"), "{said}");

    let denied = flows(&node, &["--from", "client", "--verdict", "denied"])?;
    let last = denied.last().context("nothing was denied")?;
    assert_eq!(last["ingressRule"]["policy"], "deny-all", "{last}");
    assert_eq!(last["ingressRule"]["index"], 0, "{last}");
    // The node's own processes get through all of them.
    let server = SocketAddr::new(addresses(&node, "server")?[0], PORT);
    let reaches =
        node.sandbox().in_network(|| std::net::TcpStream::connect_timeout(&server, ANSWER).is_ok())?;
    assert!(reaches, "the node's own processes are kept out");
    Ok(())
}

#[test]
fn denials_entities_and_messages_are_kept_to() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for app in ["server", "client", "stranger"] {
        node.deploy_waiting(app, &[])?;
    }
    let _server = Echo::start(&node, "server")?;
    let server = addresses(&node, "server")?;
    let outside = IpAddr::from(node.fabric().client_addresses().ipv4);

    // A policy of which all rules deny leaves alone what they do not.
    let deny = "{podSelector: {matchLabels: {app: server}}, ingress: [{action: Deny, from: [{podSelector: {matchLabels: {app: stranger}}}]}]}";
    node.apply(&own("no-stranger", deny))?;
    assert_reaches(&node, "client", "server", true)?;
    assert_reaches(&node, "stranger", "server", false)?;
    // And denies what another allows.
    node.apply(&policy_only("server", "stranger", "server", ""))?;
    assert_reaches(&node, "stranger", "server", false)?;
    for name in ["no-stranger", "server"] {
        node.hivemind_ok(&["policy", "delete", name])?;
    }

    // Echo requests, and nothing else; their answers come back.
    for (family, kind) in [("IPv4", 8), ("IPv6", 128)] {
        let only = format!(
            "{{podSelector: {{matchLabels: {{app: server}}}}, ingress: [{{icmp: [{{family: {family}, type: {kind}}}]}}]}}"
        );
        node.apply(&own("pings", &only))?;
        assert_reaches(&node, "client", "server", false)?;
        let found = [pings(&node, "client", server[0])?, pings(&node, "client", server[1])?];
        assert_eq!(found, [family == "IPv4", family == "IPv6"]);
    }
    node.hivemind_ok(&["policy", "delete", "pings"])?;

    let to = |entity: &str| {
        own(
            "to",
            &format!(
                "{{podSelector: {{matchLabels: {{app: client}}}}, egress: [{{to: [{{entity: {entity}}}]}}]}}"
            ),
        )
    };
    let here = IpAddr::from(node.addresses().ipv4);
    for (entity, expected) in [
        ("world", [false, true, false]),
        ("cluster", [true, false, true]),
        ("host", [false, false, true]),
        ("node", [false, false, true]),
    ] {
        node.apply(&to(entity))?;
        let found = [server[0], outside, here].map(|to| pings(&node, "client", to));
        let found = found.into_iter().collect::<Result<Vec<bool>>>()?;
        assert_eq!(found, expected, "{entity}: a replica, outside, the node");
    }
    Ok(())
}

#[test]
fn what_a_policy_would_deny_is_told_if_it_is_to_audit_and_denied_if_not_until_its_time_is_over() -> Result<()>
{
    let (node, _registry) = Node::with_daemon()?;
    for app in ["server", "client", "stranger"] {
        node.deploy_waiting(app, &[])?;
    }
    let _server = Echo::start(&node, "server")?;
    let spec = |rest: &str| {
        own(
            "trial",
            &format!(
                "{{podSelector: {{matchLabels: {{app: server}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: client}}}}}}]}}]{rest}}}"
            ),
        )
    };
    node.apply(&spec(", audit: true"))?;
    for app in ["client", "stranger"] {
        assert_reaches(&node, app, "server", true)?;
    }
    let audited = flows(&node, &["--from", "stranger", "--to", "server"])?;
    let told =
        |flow: &&Value| flow["ingressRule"]["policy"] == "trial" && flow["ingressRule"]["index"].is_null();
    ensure!(audited.iter().any(|flow| told(&flow) && flow["verdict"] == "audited"), "not told: {audited:?}");
    let fine = flows(&node, &["--from", "client", "--to", "server"])?;
    ensure!(!fine.is_empty() && fine.iter().all(|flow| flow["verdict"] == "allowed"), "{fine:?}");
    // On disk too: each by itself, though the kernel counts both as what passed.
    node.daemon_term()?;
    node.daemon_start()?;
    let on_disk = |words: &[&str]| -> Result<Vec<Value>> {
        let words = [&["flows", "--since", LONG_AGO, "--to", "server", "-o", "json"], words].concat();
        let text = node.hivemind_ok(&words)?;
        let lines = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
        Ok(lines
            .into_iter()
            .filter(|line| line["type"] == "minute")
            .map(|line| line["object"].clone())
            .collect())
    };
    let audited = on_disk(&["--verdict", "audited"])?;
    let is_audit = |share: &Value| share["verdict"] == "audited" && share["ingressRule"]["policy"] == "trial";
    let shares = |minute: &Value| minute["shares"].as_array().cloned().unwrap_or_default();
    ensure!(!audited.is_empty(), "none is on disk");
    for minute in &audited {
        ensure!(minute["source"]["app"] == "stranger" && shares(minute).iter().all(is_audit), "{minute}");
    }
    let fine = on_disk(&["--verdict", "allowed"])?;
    let begins = |app: &str| fine.iter().any(|minute| minute["source"]["app"] == app);
    ensure!(begins("client") && !begins("stranger"), "{fine:?}");

    node.apply(&spec(""))?;
    assert_reaches(&node, "client", "server", true)?;
    assert_reaches(&node, "stranger", "server", false)?;
    let until = Timestamp::now() + SignedDuration::from_secs(4);
    node.apply(&spec(&format!(", until: '{until}'")))?;
    assert_reaches(&node, "stranger", "server", false)?;
    eventually(LIMIT, "the policy's time to be over", || assert_reaches(&node, "stranger", "server", true))?;
    assert!(Timestamp::now() >= until, "it ended too early");
    let list = node.hivemind_ok(&["policy", "ls"])?;
    ensure!(list.contains("Ended") && !list.contains("In force"), "{list}");
    // A daemon that starts later does not bring it back.
    node.daemon_kill9()?;
    node.daemon_start()?;
    assert_reaches(&node, "stranger", "server", true)
}

/// A name server that knows some names of the machine outside.
fn start_upstream(node: &Node) -> Result<Background> {
    let outside = node.fabric().client_addresses();
    let records = [
        "--cname=www.shop.example,edge.cdn.example".to_owned(),
        format!("--host-record=edge.cdn.example,{},{}", outside.ipv4, outside.ipv6),
        "--host-record=evil.example,169.254.169.254".to_owned(),
    ];
    hivemind_tests::start_upstream(node, 1, &records)
}

#[test]
fn a_domain_is_reached_once_its_name_was_asked_for_and_nothing_else_is() -> Result<()> {
    let daemon_flags = vec!["--dns-upstream".to_owned(), UPSTREAM.to_owned()];
    let node = Node::start(NodeOptions { daemon_flags, ..NodeOptions::default() })?;
    let _registry = node.registry()?;
    node.daemon_start()?;
    let _upstream = start_upstream(&node)?;
    node.deploy_waiting("client", &[])?;
    let outside = node.fabric().client_addresses();
    let sockets = node.fabric().client().in_network(|| {
        let any = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, PORT));
        std::io::Result::Ok((UdpSocket::bind(any)?, TcpListener::bind(any)?))
    })??;
    let _server = Echo::serve(sockets.0, sockets.1)?;
    let both = [IpAddr::from(outside.ipv4), outside.ipv6.into()].map(|ip| SocketAddr::new(ip, PORT));
    let reached =
        || -> Result<[bool; 2]> { Ok([dials(&node, "client", both[0])?, asks(&node, "client", both[1])?]) };
    let look = |name: &str| {
        node.in_replica("client", &format!("nslookup {name} 169.254.20.10 >/dev/null 2>&1; echo"))
    };

    // What was answered before the policy was there is not taken for known.
    look("www.shop.example")?;
    assert_eq!(reached()?, [true, true]);
    let spec = |domain: &str| {
        own(
            "names",
            &format!(
                "{{podSelector: {{matchLabels: {{app: client}}}}, egress: [{}, {{to: [{{domainName: '{domain}'}}], ports: \
                 [{{port: {PORT}}}, {{port: {PORT}, protocol: UDP}}]}}]}}",
                to_names()
            ),
        )
    };
    node.apply(&spec("*.shop.example"))?;
    assert_eq!(reached()?, [false, false], "nobody asked yet");
    look("other.example")?;
    assert_eq!(reached()?, [false, false], "another name was asked for");
    // The name that was asked for leads there by another one; the first packet after the answer passes.
    look("www.shop.example")?;
    assert_eq!(reached()?, [true, true]);
    assert!(!pings(&node, "client", both[0].ip())?, "only the ports that are said");

    // The next daemon goes on with it, though the answer's time is over.
    node.daemon_kill9()?;
    node.daemon_start()?;
    assert_eq!(reached()?, [true, true]);
    node.apply(&spec("edge.cdn.example"))?;
    assert_eq!(reached()?, [false, false], "it is another name's");
    look("www.shop.example")?;
    assert_eq!(reached()?, [true, true], "which the answer went through");

    // Whoever owns a name does not open by it what no replica may reach.
    node.apply(&own(
        "names",
        &format!(
            "{{podSelector: {{matchLabels: {{app: client}}}}, egress: [{}, {{to: [{{domainName: evil.example}}]}}]}}",
            to_names()
        ),
    ))?;
    look("evil.example")?;
    let metadata = SocketAddr::from(([169, 254, 169, 254], 80));
    assert!(!dials(&node, "client", metadata)?);
    let denied = flows(&node, &["--from", "client", "--to", "169.254.169.254"])?;
    ensure!(denied.iter().any(|flow| flow["verdict"] == "denied"), "{denied:?}");
    Ok(())
}
