//! A node without its server: it goes on by itself with what it knows, says so, and catches up when the server is back.

use std::net::SocketAddr;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hivemind_tests::{
    Cluster, ClusterOptions, FabricOptions, LinkOptions, Node, NodeOptions, eventually, policy, policy_only,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);
const DNS: &str = "@169.254.20.10";

/// How soon a container that was killed is back in its service.
const BACK_LIMIT: Duration = Duration::from_secs(3);

/// How long a node may take to say that it hears nothing from its server, and that it does again.
const NOTICE_LIMIT: Duration = Duration::from_secs(15);

/// After how many seconds what ran on a node that is not heard is started on others.
const GRACE_S: &str = "600";

/// Two nodes; the second one has a replica of `web`, two of `pair`, and one each of `client` and `stranger`, of which
/// `web` lets in the client only.
struct Pair {
    cluster: Cluster,
    web: Value,
    client: Value,
    stranger: Value,
}

impl Pair {
    fn start() -> Result<Self> {
        let fabric = FabricOptions { link: LinkOptions::relayed(), ..FabricOptions::default() };
        // What ran on a node that is cut off is to stay its own for as long as a test takes.
        let daemon_flags = vec!["--node-grace".to_owned(), GRACE_S.to_owned()];
        let node = NodeOptions { daemon_flags, ..NodeOptions::default() };
        let cluster = Cluster::start_with(2, &ClusterOptions { fabric, node })?;
        cluster.start_daemons()?;
        cluster.deploy_on(1, "web", "nginx", &["--service", "web.local"])?;
        cluster.deploy_on(1, "pair", "nginx", &["--replicas", "2"])?;
        for app in ["client", "stranger"] {
            cluster.deploy_waiting_on(1, app, &[])?;
        }
        let server = cluster.server();
        server.apply(
            &(policy("web", "{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}")
                + &policy_only("only-client", "client", "web", "[{port: 80}]")),
        )?;
        let [web, client, stranger] = ["web", "client", "stranger"].map(|app| server.replica(app));
        let pair = Self { web: web?, client: client?, stranger: stranger?, cluster };
        pair.check_guarded()?;
        Ok(pair)
    }

    fn web(&self) -> Result<SocketAddr> {
        let address = self.web["status"]["ipv4"].as_str().context("no address")?;
        Ok(SocketAddr::new(address.parse()?, 80))
    }

    /// The client reaches `web`, and the stranger does not.
    fn check_guarded(&self) -> Result<()> {
        eventually(LIMIT, "the client to be let in", || {
            self.cluster.get_from(&self.client, self.web()?, "/").map(drop)
        })?;
        ensure!(self.cluster.get_from(&self.stranger, self.web()?, "/").is_err(), "the stranger is let in");
        Ok(())
    }
}

/// Whether a node says that it hears from its server.
fn until_connected(node: &Node, is_connected: bool) -> Result<()> {
    eventually(NOTICE_LIMIT, &format!("{} to be connected: {is_connected}", node.name()), || {
        let status = node.json(&["cluster", "status"])?;
        ensure!(status["connected"] == is_connected, "{status}");
        let problems = node.json(&["status"])?["problems"].as_array().context("no problems")?.clone();
        ensure!(problems.is_empty() == is_connected, "{problems:?}");
        Ok(())
    })
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The process id of a replica's container, as the node has it.
fn pid_of(node: &Node, app: &str) -> Result<i32> {
    let pid = node.replica(app)?["status"]["pid"].as_i64().context("no pid")?;
    Ok(i32::try_from(pid)?)
}

#[test]
fn a_node_without_its_server_restarts_resolves_balances_and_guards() -> Result<()> {
    let pair = Pair::start()?;
    let (cluster, node) = (&pair.cluster, pair.cluster.node(1));
    let service = SocketAddr::new(cluster.service("pair")?[0], 80);
    let pid = pid_of(cluster.server(), "web")?;
    cluster.server().daemon_kill9()?;
    until_connected(node, false)?;

    kill(Pid::from_raw(pid), Signal::SIGKILL).context("the container is gone already")?;
    eventually(BACK_LIMIT, "the killed container to be back", || {
        cluster.get_from(&pair.client, pair.web()?, "/").map(drop)
    })?;
    pair.check_guarded()?;

    let names = node.sandbox().check(&["dig", "+short", "+time=2", "+tries=1", DNS, "web.local"])?;
    ensure!(!names.trim().is_empty(), "the name is not known any more");
    let mut answered = std::collections::BTreeSet::new();
    eventually(LIMIT, "both replicas to answer", || {
        answered.insert(cluster.get_from(&pair.client, service, "/hostname")?);
        ensure!(answered.len() == 2, "only {answered:?}");
        Ok(())
    })?;

    // What needs the server is refused with a reason, and what does not is told.
    let refused = node.hivemind(&["app", "scale", "web", "--replicas", "2"])?;
    ensure!(!refused.status.success() && said(&refused).contains("hint: "), "{}", said(&refused));
    node.hivemind_ok(&["service", "ls"])?;

    cluster.server().daemon_start()?;
    until_connected(node, true)?;
    cluster.until_ready(2)?;
    let restarts = cluster.server().replica("web")?["status"]["restarts"].as_u64();
    eventually(LIMIT, "the server to hear of the restart", || {
        let restarts = cluster.server().replica("web")?["status"]["restarts"].as_u64();
        ensure!(restarts == Some(1), "{restarts:?} restarts");
        Ok(())
    })
    .with_context(|| format!("at first: {restarts:?}"))?;
    pair.check_guarded()
}

#[test]
fn an_agent_that_is_started_without_its_server_goes_on_with_what_it_knew() -> Result<()> {
    let pair = Pair::start()?;
    let (cluster, node) = (&pair.cluster, pair.cluster.node(1));
    cluster.server().daemon_kill9()?;
    node.daemon_kill9()?;
    node.daemon_start()?;
    until_connected(node, false)?;
    pair.check_guarded()?;
    cluster.server().daemon_start()?;
    cluster.until_ready(2)?;
    until_connected(node, true)
}

#[test]
fn what_changed_while_a_link_was_cut_is_in_force_once_it_is_healed() -> Result<()> {
    let pair = Pair::start()?;
    let (cluster, node) = (&pair.cluster, pair.cluster.node(1));
    let before: Vec<_> = cluster.server().replicas("pair")?;
    node.link().cut()?;
    until_connected(node, false)?;
    pair.check_guarded()?;
    let file = cluster
        .server()
        .write("open.yaml", &policy_only("only-client", "stranger", "web", "[{port: 80}]"))?;
    // Nobody waits for a node that is cut off.
    drop(cluster.server().hivemind(&["policy", "apply", "-f", &file])?);
    cluster.server().hivemind_ok(&["app", "delete", "pair", "--detach"])?;
    node.link().heal()?;
    until_connected(node, true)?;
    eventually(LIMIT, "the policy to be in force on the other node", || {
        cluster.get_from(&pair.stranger, pair.web()?, "/")?;
        ensure!(cluster.get_from(&pair.client, pair.web()?, "/").is_err(), "the client is still let in");
        Ok(())
    })?;
    eventually(LIMIT, "the deleted app's replicas to go", || {
        for replica in &before {
            let network = node.network_of_replica(replica)?;
            if node.sandbox().outside(&network).exists() {
                bail!("{} is still there", replica["metadata"]["name"]);
            }
        }
        Ok(())
    })
}
