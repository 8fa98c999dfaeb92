//! One changed policy among many in a cluster of many replicas, of which two are real: from the request until packets
//! between those are judged by it, and how long a daemon that starts takes until all is in force.
//!
//! The others are on nodes without containers, which are told everything and report as nodes do. Each app has one replica, so an
//! identity of its own, and is selected by as many policies as any other.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hivemind_client::{Client, Selection};
use hivemind_model::{
    ApplyPolicies, DEFAULT_NAMESPACE, IngressRule, IpBlock, LabelSelector, Metadata, NetworkPolicy,
    NetworkPolicySpec, NetworkPolicyStatus, PolicyPeer, PolicyPort, PolicyProtocol, PortRef,
};

use super::{APPLY_MS_MAX, Prober, address, apply};
use crate::bench::figure::Figure;
use crate::{Node, PinnedMaps, SimulatedNodes, eventually, simulated_app};
use hivemind_common::name;

const POLICIES: usize = 1_000;
/// Of the whole cluster: a server, a client, and those on nodes without containers.
const REPLICAS: usize = 500;
const REAL: [&str; 2] = ["server", "client"];
/// Nodes without containers.
const NODES: u8 = 4;
/// How often a policy is changed: half of the times it opens the way, half of the times it closes it.
const APPLIES: usize = 200;
/// How often the daemon is started.
const STARTS: usize = 9;
/// How long all replicas and policies get to come up.
const UP_LIMIT: Duration = Duration::from_secs(300);

pub(super) fn run(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    progress(&format!("policy: a cluster of {REPLICAS} replicas"));
    let (node, registry) = Node::with_daemon()?;
    for (number, app) in REAL.into_iter().enumerate() {
        node.deploy_waiting(app, &["--label", &tier(number)])?;
    }
    registry.stop()?;
    node.hivemind_ok(&["node", "cordon", node.name()])?;
    let simulated = SimulatedNodes::join(&node, NODES)?;
    let client = Client::unix(node.sandbox().outside(&node.socket()));
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    executor.block_on(deploy(&client))?;
    until_up(&node, &simulated)?;
    progress(&format!("policy: {POLICIES} policies"));
    let all = (0..POLICIES).map(policy).collect();
    executor.block_on(client.apply_policies(&ApplyPolicies { items: all }))?;
    executor.block_on(until_in_force(&client))?;
    let prober = Prober::start(&node, &[REAL[0].to_owned()])?;
    let from = address(&node, REAL[1])?;
    let mut samples = Vec::new();
    for turn in 0..APPLIES {
        if turn % 50 == 0 {
            progress(&format!("policy: change {turn} of {APPLIES}"));
        }
        let is_open = turn % 2 == 0;
        let changed = if is_open { policy_with(0, Some(block(&format!("{from}/32")))) } else { policy(0) };
        let applied = executor.block_on(apply(&client, changed, &prober, is_open));
        samples.push(applied.with_context(|| format!("change {turn}"))?);
    }
    prober.stop()?;
    let mut starts = Vec::new();
    for start in 0..STARTS {
        progress(&format!("policy: start {start} of {STARTS}"));
        node.daemon_kill9()?;
        starts.push(node.daemon_start_timed()?);
    }
    ensure!(simulated.seen().running.len() == REPLICAS - REAL.len(), "replicas went");
    drop(simulated);
    node.daemon_kill9()?;
    node.stop()?;
    Ok(vec![
        Figure::p99("policy_enforced_p99", "ms", samples.clone()).at_most(APPLY_MS_MAX),
        Figure::new("policy_enforced_p50", "ms", samples),
        Figure::of_times("policy_start_in_force", &starts),
    ])
}

fn app(number: usize) -> String {
    REAL.get(number).map_or_else(|| format!("app-{number}"), |app| (*app).to_owned())
}

fn tier(number: usize) -> String {
    format!("tier=t{}", number % 4)
}

fn labels(label: &str) -> BTreeMap<String, String> {
    label.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect()
}

async fn deploy(client: &Client) -> Result<()> {
    for number in REAL.len()..REPLICAS {
        client.create_app(&simulated_app(&app(number), 1, labels(&tier(number)))).await?;
    }
    Ok(())
}

/// Waits until every replica runs, and the server's own data path knows the addresses of all.
fn until_up(node: &Node, simulated: &SimulatedNodes) -> Result<()> {
    let bpffs = node.sandbox().outside(&node.sandbox().directory().join("bpf/hivemind"));
    let maps = PinnedMaps::of_version(&bpffs, hivemind_common::ABI_VERSION);
    eventually(UP_LIMIT, "all replicas to be known", || {
        let known = maps.entries()?[name::ADDRESS_EXACT_V4];
        let seen = simulated.seen();
        ensure!(known >= REPLICAS as u64, "{known} addresses, {} replicas; {:?}", seen.came, seen.faults);
        Ok(())
    })
}

/// Waits until every node said of every policy that it is in force.
async fn until_in_force(client: &Client) -> Result<()> {
    let waited = async {
        loop {
            let listed = client.list::<NetworkPolicy>(&Selection::default()).await?.items;
            let in_force = |policy: &&NetworkPolicy| {
                policy.status.nodes.len() == usize::from(NODES) + 1
                    && policy.status.enforced_generation >= policy.metadata.generation
            };
            if listed.iter().filter(in_force).count() == POLICIES {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(UP_LIMIT, waited).await.context("policies do not come into force")?
}

fn selector(label: &str) -> LabelSelector {
    LabelSelector { match_labels: labels(label), ..LabelSelector::default() }
}

/// One that lets a tier reach an app's port, and a block of addresses that is nobody's. None lets the client reach the server.
fn policy(number: usize) -> NetworkPolicy {
    policy_with(number, None)
}

/// The same, that lets another peer in besides.
fn policy_with(number: usize, further: Option<PolicyPeer>) -> NetworkPolicy {
    let port = PolicyPort {
        protocol: PolicyProtocol::Tcp,
        port: Some(PortRef::Number(8_000 + number as i64)),
        end_port: None,
    };
    let pods = PolicyPeer { pod_selector: Some(selector(&tier(number))), ..PolicyPeer::default() };
    let nobody = block(&format!("198.{}.{}.0/24", 18 + (number >> 8), number & 255));
    let spec = NetworkPolicySpec {
        pod_selector: selector(&format!("app={}", app(number % REPLICAS))),
        ingress: vec![
            IngressRule { from: vec![pods], ports: vec![port] },
            IngressRule {
                from: [Some(nobody), further].into_iter().flatten().collect(),
                ..IngressRule::default()
            },
        ],
        ..NetworkPolicySpec::default()
    };
    NetworkPolicy {
        metadata: Metadata::new(DEFAULT_NAMESPACE, format!("policy-{number}")),
        spec: spec.into(),
        status: NetworkPolicyStatus::default(),
    }
}

fn block(cidr: &str) -> PolicyPeer {
    let block = IpBlock { cidr: cidr.to_owned(), ..IpBlock::default() };
    PolicyPeer { ip_block: Some(block), ..PolicyPeer::default() }
}
