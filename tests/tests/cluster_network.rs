//! The network of two nodes: replicas, services, published ports and policies are the same wherever one looks.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Cluster, Node, Traffic, both_addresses, eventually, get, policy, policy_only};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);
const PORT: u16 = 7000;

fn cluster() -> Result<Cluster> {
    let cluster = Cluster::start(2)?;
    cluster.start_daemons()?;
    Ok(cluster)
}

/// A cluster with a replica of `web`, which publishes 8080, and one of `client` on each of two nodes.
fn with_web_and_clients() -> Result<Cluster> {
    let cluster = cluster()?;
    cluster.deploy("web", "nginx", &["--replicas", "2", "-p", "8080:80", "--service", "web.local"])?;
    cluster.deploy("client", "busybox", &["--replicas", "2", "--command", "sleep 3600"])?;
    for app in ["web", "client"] {
        let replicas = cluster.until_up(app, 2, LIMIT)?;
        let nodes: BTreeSet<_> = replicas.iter().map(|replica| replica["spec"]["node"].to_string()).collect();
        ensure!(nodes.len() == 2, "{app} is on {nodes:?}");
    }
    Ok(cluster)
}

fn names_of(replicas: &[Value]) -> Result<BTreeSet<String>> {
    let name = |replica: &Value| replica["metadata"]["name"].as_str().map(str::to_owned).context("no name");
    replicas.iter().map(name).collect()
}

/// Asks until every replica has answered.
fn until_all_answer(replicas: &[Value], mut ask: impl FnMut() -> Result<String>) -> Result<()> {
    let expected = names_of(replicas)?;
    let mut seen = BTreeSet::new();
    eventually(LIMIT, "every replica to answer", || {
        seen.insert(ask()?.trim().to_owned());
        ensure!(seen == expected, "{seen:?} answered of {expected:?}");
        Ok(())
    })
}

#[test]
fn replicas_reach_one_another_by_address_and_by_service_from_either_node() -> Result<()> {
    let cluster = with_web_and_clients()?;
    let (web, clients) = (cluster.server().replicas("web")?, cluster.server().replicas("client")?);
    for client in &clients {
        for address in
            web.iter().map(|web| both_addresses(&web["status"])).collect::<Result<Vec<_>>>()?.concat()
        {
            let said = cluster.get_from(client, SocketAddr::new(address, 80), "/address");
            let said = said.with_context(|| format!("from {} to {address}", client["spec"]["node"]))?;
            assert_eq!(said.trim(), address.to_string());
        }
        for address in cluster.service("web")? {
            let ask = || cluster.get_from(client, SocketAddr::new(address, 80), "/hostname");
            until_all_answer(&web, ask).with_context(|| format!("the service at {address}"))?;
        }
    }
    Ok(())
}

#[test]
fn a_published_port_leads_to_every_replica_on_either_node() -> Result<()> {
    let cluster = with_web_and_clients()?;
    let web = cluster.server().replicas("web")?;
    for node in cluster.nodes() {
        for address in [IpAddr::V4(node.addresses().ipv4), IpAddr::V6(node.addresses().ipv6)] {
            let ask = || {
                let client = cluster.fabric().client();
                let page = client.in_network(|| {
                    get(SocketAddr::new(address, 8080), "/hostname", Duration::from_secs(2))
                })??;
                Ok(page.body)
            };
            until_all_answer(&web, ask).with_context(|| format!("the published port at {address}"))?;
        }
    }
    Ok(())
}

#[test]
fn a_nodes_own_processes_reach_replicas_and_services_of_the_other() -> Result<()> {
    let cluster = with_web_and_clients()?;
    let web = cluster.server().replicas("web")?;
    for node in cluster.nodes() {
        for address in
            web.iter().map(|web| both_addresses(&web["status"])).collect::<Result<Vec<_>>>()?.concat()
        {
            let target = SocketAddr::new(address, 80).to_string();
            let said = node.sandbox().check(&["curl", "-sS", "-m", "2", &format!("http://{target}/address")]);
            let said = said.with_context(|| format!("from {} to {address}", node.name()))?;
            assert_eq!(said.trim(), address.to_string());
        }
        let service = format!("http://{}/hostname", SocketAddr::new(cluster.service("web")?[0], 80));
        until_all_answer(&web, || node.sandbox().check(&["curl", "-sS", "-m", "2", &service]))?;
    }
    Ok(())
}

#[test]
fn a_stream_between_nodes_arrives_whole_and_datagrams_up_to_the_mtu() -> Result<()> {
    let cluster = cluster()?;
    cluster.deploy_waiting_on(0, "sender", &[])?;
    cluster.deploy_waiting_on(1, "receiver", &[])?;
    let (sender, receiver) = (cluster.server().replica("sender")?, cluster.server().replica("receiver")?);
    let sent: Vec<u8> = (0_u32..4 << 20).flat_map(u32::to_le_bytes).collect();
    for address in both_addresses(&receiver["status"])? {
        let target = SocketAddr::new(address, PORT);
        let listener = cluster.in_network_of(&receiver, || TcpListener::bind(target))??;
        let mut stream = cluster.in_network_of(&sender, || TcpStream::connect_timeout(&target, LIMIT))??;
        let (mut arriving, _) = listener.accept()?;
        arriving.set_read_timeout(Some(LIMIT))?;
        let mut received = Vec::new();
        thread::scope(|scope| -> Result<()> {
            let writing = scope.spawn(|| -> Result<()> {
                stream.write_all(&sent)?;
                Ok(stream.shutdown(Shutdown::Write)?)
            });
            arriving.read_to_end(&mut received)?;
            writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        ensure!(received == sent, "{} of {} bytes arrived, or others", received.len(), sent.len());

        let datagrams = cluster.in_network_of(&receiver, || UdpSocket::bind(target))??;
        datagrams.set_read_timeout(Some(LIMIT))?;
        let from = SocketAddr::new(if target.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() }, 0);
        let socket = cluster.in_network_of(&sender, || UdpSocket::bind(from))??;
        // The largest that needs no fragments: an MTU of 1,450, less the headers.
        for bytes in [1, 1_000, if target.is_ipv4() { 1_422 } else { 1_402 }] {
            socket.send_to(&sent[..bytes], target)?;
            let mut datagram = [0; 2_048];
            let length =
                datagrams.recv(&mut datagram).with_context(|| format!("{bytes} bytes to {target}"))?;
            ensure!(datagram[..length] == sent[..bytes], "{length} of {bytes} bytes arrived, or others");
        }
    }
    Ok(())
}

#[test]
fn policies_hold_between_nodes_and_flows_tell_both_ends() -> Result<()> {
    let cluster = cluster()?;
    cluster.deploy_on(1, "web", "nginx", &[])?;
    for app in ["client", "stranger"] {
        cluster.deploy_waiting_on(0, app, &[])?;
    }
    let server = cluster.server();
    let web = server.replica("web")?;
    let (client, stranger) = (server.replica("client")?, server.replica("stranger")?);
    for address in both_addresses(&web["status"])? {
        let target = SocketAddr::new(address, 80);
        for from in [&client, &stranger] {
            cluster.get_from(from, target, "/").context("before there is a policy")?;
        }
    }
    server.apply(
        &(policy("nobody", "{podSelector: {}, policyTypes: [Ingress]}")
            + &policy_only("only-client", "client", "web", "[{port: 80}]")),
    )?;
    for address in both_addresses(&web["status"])? {
        let target = SocketAddr::new(address, 80);
        cluster.get_from(&client, target, "/").context("the client is kept out")?;
        ensure!(cluster.get_from(&stranger, target, "/").is_err(), "the stranger is let in");
        ensure!(
            cluster.get_from(&client, SocketAddr::new(address, 81), "/").is_err(),
            "another port is open"
        );
    }
    for (from, verdict) in [("client", "allowed"), ("stranger", "denied")] {
        let flow = told(server, &["--from", from, "--to", "web", "--verdict", verdict])?;
        for (field, value) in [
            ("/source/app", from),
            ("/source/kind", "replica"),
            ("/destination/app", "web"),
            ("/node", cluster.node(1).name()),
        ] {
            ensure!(
                flow.pointer(field).is_some_and(|found| found == value),
                "{field} is not {value}: {flow}"
            );
        }
        // What the other node saw of the same: it let it go.
        if verdict == "denied" {
            assert_eq!(flow["ingressRule"]["direction"], "ingress", "{flow}");
        }
    }
    Ok(())
}

/// The first flow of node 1 that is told with these flags.
fn told(node: &Node, words: &[&str]) -> Result<Value> {
    eventually(LIMIT, &format!("a flow of {words:?}"), || {
        let text = node.hivemind_ok(&[&["flows", "-o", "json"], words].concat())?;
        let flows = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
        let objects =
            flows.into_iter().filter(|line| line["type"] == "flow").map(|mut line| line["object"].take());
        let there = objects.into_iter().find(|flow| flow["node"] != node.name());
        there.with_context(|| format!("none is told of the other node:\n{text}"))
    })
}

#[test]
fn connections_survive_a_restart_of_either_nodes_daemon() -> Result<()> {
    let cluster = cluster()?;
    cluster.deploy_on(1, "web", "nginx", &["-p", "8080:80"])?;
    cluster.deploy_waiting_on(0, "client", &[])?;
    let client = cluster.server().replica("client")?;
    let id = client["metadata"]["id"].as_str().context("no id")?;
    let mut ways = Vec::new();
    for address in cluster.service("web")? {
        let target = SocketAddr::new(address, 80);
        ways.push(Traffic::start(cluster.server(), target, 1, Some(id))?);
    }
    ways.push(Traffic::start_outside(cluster.server(), cluster.at(0, 8080), 1)?);
    for number in [1, 0] {
        cluster.node(number).daemon_kill9()?;
        cluster.node(number).daemon_start()?;
    }
    cluster.until_ready(2)?;
    for traffic in ways {
        let report = traffic.stop()?;
        ensure!(report.failures.is_empty(), "{:#?}", report.failures);
        ensure!(report.long_requests > 5 && report.new_connections > 10, "hardly any traffic: {report:?}");
    }
    Ok(())
}
