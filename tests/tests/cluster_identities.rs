//! A policy that cannot be decided yet, since a node that is to tell its replicas apart does not: what was in force stays, on every
//! node and whatever starts anew meanwhile.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{
    Cluster, ClusterOptions, NodeOptions,
    echo::{ANSWER, Echo, PORT, addresses, assert_reaches, exchange},
    eventually, policy_letting_in,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(40);

/// After how many seconds nobody waits for a node any more.
const GRACE_S: &str = "600";

/// Two nodes: `server` and `stranger` on the first, and on the second `client`, which talks to the server, and of which a second
/// generation has another label and never comes up.
struct Split {
    cluster: Cluster,
    /// The client that talks.
    client: Value,
    at: SocketAddr,
    stream: TcpStream,
    _echo: Echo,
}

impl Split {
    fn start() -> Result<Self> {
        let daemon_flags = vec!["--node-grace".to_owned(), GRACE_S.to_owned()];
        let node = NodeOptions { daemon_flags, ..NodeOptions::default() };
        let cluster = Cluster::start_with(2, &ClusterOptions { node, ..ClusterOptions::default() })?;
        cluster.start_daemons()?;
        cluster.deploy_waiting_on(0, "server", &[])?;
        cluster.deploy_waiting_on(0, "stranger", &[])?;
        cluster.deploy_waiting_on(1, "client", &["-l", "tier=a"])?;
        let server = cluster.server();
        let echo = Echo::start(server, "server")?;
        let at = SocketAddr::new(addresses(server, "server")?[0], PORT);
        server.apply(&policy_letting_in("server", "{matchLabels: {app: client}}"))?;
        let client = server.replica("client")?;
        let connect = move || TcpStream::connect_timeout(&at, LIMIT);
        let stream = cluster.in_network_of(&client, connect)?.context("cannot connect")?;

        server.relabel("client", &[("tier", "b")], Some(&["sh", "-c", "exit 1"]))?;
        eventually(LIMIT, "the next generation", || {
            let all = server.identities("client")?;
            ensure!(all.len() == 2 && all.iter().all(|one| one.2 == Some(all[0].1)), "{all:?}");
            Ok(())
        })?;
        Ok(Self { cluster, client, at, stream, _echo: echo })
    }

    /// The client that talks still does, whichever `byte` it says, and the stranger is let in no more than before.
    fn check_as_before(&mut self, byte: u8) -> Result<()> {
        exchange(&mut self.stream, byte, LIMIT).context("the client's connection is cut")?;
        let stranger = self.cluster.server().replica("stranger")?;
        let at = self.at;
        let tried = self.cluster.in_network_of(&stranger, move || TcpStream::connect_timeout(&at, ANSWER))?;
        ensure!(tried.is_err(), "the stranger is let in");
        Ok(())
    }

    /// The generation of the policy, and those that nodes say is in force there.
    fn generations(&self) -> Result<(u64, Vec<u64>)> {
        let found = self.cluster.server().json(&["policy", "get", "server"])?;
        let generation = found["metadata"]["generation"].as_u64().context("no generation")?;
        let nodes = found["status"]["nodes"].as_object().with_context(|| format!("no nodes: {found}"))?;
        ensure!(nodes.len() == self.cluster.nodes().len(), "not of all nodes: {found}");
        Ok((generation, nodes.values().filter_map(|node| node["generation"].as_u64()).collect()))
    }

    fn is_held_back(&self) -> Result<()> {
        let (generation, told) = self.generations()?;
        ensure!(told.iter().all(|one| *one < generation), "{generation} is told to be in force: {told:?}");
        Ok(())
    }
}

#[test]
fn a_policy_that_waits_for_a_node_leaves_what_is_in_force_alone_on_every_daemon_that_starts() -> Result<()> {
    let mut split = Split::start()?;
    split.check_as_before(b'1')?;
    let name = split.client["metadata"]["name"].as_str().context("no name")?.to_owned();
    let number = split.client["spec"]["identity"].as_u64().context("no identity")?;
    split.cluster.node(1).daemon_kill9()?;

    // Only some replicas of an identity are meant: the one that talks is to become another, and its node does not hear it.
    let server = split.cluster.server();
    let file = server.write("held.yaml", &policy_letting_in("server", "{matchLabels: {tier: a}}"))?;
    server.hivemind_ok(&["policy", "apply", "--no-wait", "-f", &file])?;
    eventually(LIMIT, "the client to be given another identity", || {
        let all = server.identities("client")?;
        let own = all.iter().find(|one| one.0 == name).context("it is gone")?;
        ensure!(own.1 != number && own.2 == Some(number), "{all:?}");
        Ok(())
    })?;
    split.is_held_back()?;
    split.check_as_before(b'2')?;

    // A daemon that starts now knows the policy as it is to be, and not what it was.
    split.cluster.server().daemon_kill9()?;
    exchange(&mut split.stream, b'3', LIMIT).context("the client's connection is cut by a restart")?;
    split.cluster.server().daemon_start()?;
    split.cluster.deploy_waiting_on(0, "late", &[])?;
    let late = Echo::start(split.cluster.server(), "late")?;
    assert_reaches(split.cluster.server(), "stranger", "late", false)?;
    split.is_held_back()?;
    split.check_as_before(b'4')?;

    // The other one is in the same position, and it is the one for which the policy waits.
    split.cluster.node(1).daemon_start()?;
    eventually(LIMIT, "the policy to be in force", || {
        let (generation, told) = split.generations()?;
        ensure!(told.iter().all(|one| *one == generation), "{generation} is not everywhere: {told:?}");
        Ok(())
    })?;
    split.check_as_before(b'5')?;
    assert_reaches(split.cluster.server(), "stranger", "late", true)?;
    drop(late);
    let all = split.cluster.server().identities("client")?;
    let own = all.iter().find(|one| one.0 == name).context("it is gone")?;
    ensure!(own.1 != number && own.2 == Some(own.1), "{all:?}");

    split.cluster.server().apply(&policy_letting_in("server", "{matchLabels: {tier: b}}"))?;
    ensure!(exchange(&mut split.stream, b'6', ANSWER).is_err(), "only the others are let in");
    Ok(())
}
