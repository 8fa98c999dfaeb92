//! The story of a cluster: join, spread, reach across, guard across, lose a node, get over it.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{Cluster, ClusterOptions, NodeOptions, eventually, policy_only};

/// How long anything that is not bounded otherwise may take.
const LIMIT: Duration = Duration::from_secs(40);

/// After how many seconds the story's server takes the replicas of a dead node for lost.
const GRACE_S: &str = "3";

struct Story {
    cluster: Cluster,
}

type Step = (&'static str, fn(&mut Story) -> Result<String>);

/// The steps, in order.
const STEPS: &[Step] = &[
    ("a second machine joins", Story::join),
    ("replicas are put on both nodes", Story::spread),
    ("a client on each node reaches every replica by its service", Story::reach),
    ("a policy keeps a stranger on the other node out", Story::guard),
    ("flows name the apps at both ends", Story::flows),
    ("the second node is lost, and its replicas are back on the first", Story::lose_node),
    ("the service answers from all of them", Story::reach),
];

/// Plays the story on nodes of its own and hands each step's line to `tell`.
///
/// # Errors
/// The first step that failed, with what was expected; the nodes are removed all the same.
pub fn play_cluster(mut tell: impl FnMut(&str)) -> Result<()> {
    let began = Instant::now();
    let node =
        NodeOptions { daemon_flags: vec!["--node-grace".into(), GRACE_S.into()], ..NodeOptions::default() };
    let cluster = Cluster::start_with(2, &ClusterOptions { node, ..ClusterOptions::default() })?;
    tell(&format!("ok    {:<60} {:>6} ms", "two machines with containerd", began.elapsed().as_millis()));
    let mut story = Story { cluster };
    for (name, step) in STEPS {
        let began = Instant::now();
        match step(&mut story) {
            Ok(detail) => tell(&format!("ok    {name:<60} {:>6} ms  {detail}", began.elapsed().as_millis())),
            Err(error) => {
                tell(&format!("FAIL  {name:<60} {:>6} ms", began.elapsed().as_millis()));
                let logs = story.cluster.nodes().iter().map(|node| node.daemon_log_end());
                let logs: Vec<_> = logs.collect();
                return Err(error.context(format!(
                    "step `{name}` failed; the ends of the daemons' logs:\n{}\n",
                    logs.join("\n---\n")
                )));
            }
        }
    }
    story.cluster.stop()
}

impl Story {
    fn join(&mut self) -> Result<String> {
        self.cluster.start_daemons()?;
        let status = self.cluster.server().json(&["cluster", "status"])?;
        Ok(format!("{} members", status["members"].as_array().map_or(0, Vec::len)))
    }

    fn spread(&mut self) -> Result<String> {
        self.cluster.deploy("web", "nginx", &["--replicas", "2"])?;
        self.cluster.deploy("client", "busybox", &["--replicas", "2", "--command", "sleep 3600"])?;
        for app in ["web", "client"] {
            let replicas = self.cluster.until_up(app, 2, LIMIT)?;
            let nodes: BTreeSet<_> = replicas.iter().map(|r| r["spec"]["node"].to_string()).collect();
            ensure!(nodes.len() == 2, "{app} is on {nodes:?}");
        }
        Ok(String::new())
    }

    fn reach(&mut self) -> Result<String> {
        let replicas = self.cluster.server().replicas("web")?;
        let names: BTreeSet<String> = replicas.iter().filter_map(name).collect();
        let service = self.cluster.service("web")?;
        for client in self.cluster.server().replicas("client")? {
            for address in service {
                let mut seen = BTreeSet::new();
                eventually(LIMIT, "every replica to answer", || {
                    let said = self.cluster.get_from(&client, SocketAddr::new(address, 80), "/hostname")?;
                    seen.insert(said.trim().to_owned());
                    ensure!(seen == names, "{seen:?} answered of {names:?}");
                    Ok(())
                })?;
            }
        }
        Ok(format!("{} replicas, over IPv4 and IPv6", names.len()))
    }

    fn guard(&mut self) -> Result<String> {
        self.cluster.deploy("stranger", "busybox", &["--replicas", "2", "--command", "sleep 3600"])?;
        let strangers = self.cluster.until_up("stranger", 2, LIMIT)?;
        self.cluster.server().apply(&policy_only("only-client", "client", "web", ""))?;
        let web = self.cluster.server().replicas("web")?;
        for stranger in &strangers {
            for web in &web {
                let address = SocketAddr::new(crate::both_addresses(&web["status"])?[0], 80);
                let got = self.cluster.get_from(stranger, address, "/hostname");
                ensure!(
                    got.is_err(),
                    "a stranger on {} got through to {}",
                    stranger["spec"]["node"],
                    web["spec"]["node"]
                );
            }
        }
        self.reach()
    }

    fn flows(&mut self) -> Result<String> {
        eventually(LIMIT, "a denied flow from one node to the other", || {
            let said = self.cluster.server().hivemind_ok(&["flows", "--from", "stranger", "-o", "json"])?;
            let across =
                said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(|line| {
                    let flow = &line["object"];
                    let ends = [&flow["source"]["node"], &flow["destination"]["node"]];
                    flow["destination"]["app"] == "web"
                        && ends.iter().all(|node| node.is_string())
                        && ends[0] != ends[1]
                });
            across.map(drop).context("there is none")
        })?;
        Ok(String::new())
    }

    fn lose_node(&mut self) -> Result<String> {
        let began = Instant::now();
        self.cluster.node(1).link().cut()?;
        let server = self.cluster.server().name().to_owned();
        eventually(LIMIT, "all replicas to be on the first node", || {
            let replicas = self.cluster.server().replicas("web")?;
            let on_first = replicas.iter().filter(|r| r["spec"]["node"] == server.as_str());
            ensure!(on_first.count() == 2 && replicas.len() == 2, "not yet");
            Ok(())
        })?;
        self.cluster.until_up("web", 2, LIMIT)?;
        self.cluster.until_up("client", 2, LIMIT)?;
        Ok(format!("after {:.1} s", began.elapsed().as_secs_f64()))
    }
}

fn name(replica: &Value) -> Option<String> {
    replica["metadata"]["name"].as_str().map(str::to_owned)
}
