//! The bench `footprint`: the size of the program, the daemon's memory, and how soon it is ready.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use hivemind_client::Client;
use tokio::runtime::Runtime;

use super::figure::Figure;
use super::{containers, memory};
use crate::{Node, NodeOptions, hivemind_binary, image_archive};

/// How many nodes the daemon is started on for the first time.
const COLD_STARTS: usize = 9;

/// How many of those go on to run apps and to have their memory looked at.
const MEMORY_NODES: usize = 3;

/// How often the daemon of such a node is killed and started again: nine times in all.
const WARM_STARTS: usize = 3;

/// How many apps of one replica run then.
const APPS: usize = 10;

/// MB are 10^6 bytes.
const MEGABYTE: f64 = 1e6;

const BINARY_MB_MAX: f64 = 25.0;
const MEMORY_MB_MAX: f64 = 30.0;
const START_MS_MAX: f64 = 200.0;

/// What was seen, a sample a node or a start.
#[derive(Default)]
struct Samples {
    cold: Vec<Duration>,
    warm: Vec<Duration>,
    datapath: Vec<Duration>,
    idle: Vec<f64>,
    apps: Vec<f64>,
    maps: Vec<f64>,
    containerd: Vec<f64>,
    collector: Vec<f64>,
}

pub(super) fn run(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    let program = hivemind_binary()?;
    let size = fs::metadata(&program).with_context(|| format!("no {}", program.display()))?.len();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut samples = Samples::default();
    for number in 1..=COLD_STARTS {
        progress(&format!("footprint: node {number} of {COLD_STARTS}"));
        let node = Node::start(NodeOptions::default())?;
        samples.cold.push(node.daemon_start_timed()?);
        let opened = node
            .datapath_opened_in()
            .context("the daemon's log does not tell when the data path was open")?;
        samples.datapath.push(opened);
        if number > COLD_STARTS - MEMORY_NODES {
            samples.look_at_memory(&node, &runtime)?;
            samples.start_again(&node)?;
        }
        node.daemon_kill9()?;
        node.stop()?;
    }
    Ok(samples.figures(size as f64 / MEGABYTE))
}

impl Samples {
    fn look_at_memory(&mut self, node: &Node, runtime: &Runtime) -> Result<()> {
        let daemon = node.daemon_pid()?;
        let megabytes = |bytes: u64| bytes as f64 / MEGABYTE;
        self.idle.push(megabytes(memory::settled(daemon)?));
        let client = Client::unix(node.sandbox().outside(&node.socket()));
        runtime.block_on(async {
            containers::import(&client, &image_archive("busybox")?).await?;
            for number in 0..APPS {
                containers::start(&client, &format!("app-{number}")).await?;
            }
            anyhow::Ok(())
        })?;
        self.apps.push(megabytes(memory::settled(daemon)?));
        self.maps.push(megabytes(memory::maps(daemon)?));
        self.containerd.push(megabytes(memory::resident(node.containerd_pid()?)?));
        self.collector.push(megabytes(memory::resident(node.log_collector_pid()?)?));
        Ok(())
    }

    /// Kills the daemon and starts it again, which adopts the replicas.
    fn start_again(&mut self, node: &Node) -> Result<()> {
        for _ in 0..WARM_STARTS {
            node.daemon_kill9()?;
            self.warm.push(node.daemon_start_timed()?);
        }
        Ok(())
    }

    fn figures(self, binary_mb: f64) -> Vec<Figure> {
        vec![
            Figure::new("binary_size", "MB", vec![binary_mb]).at_most(BINARY_MB_MAX),
            Figure::of_times("start_to_ready", &self.cold).at_most(START_MS_MAX),
            Figure::of_times("start_to_ready_warm", &self.warm).at_most(START_MS_MAX),
            Figure::of_times("start_to_ready_datapath", &self.datapath),
            Figure::new("daemon_rss_idle", "MB", self.idle).at_most(MEMORY_MB_MAX),
            Figure::new("daemon_rss_10_apps", "MB", self.apps).at_most(MEMORY_MB_MAX),
            Figure::new("ebpf_maps", "MB", self.maps),
            Figure::new("containerd_rss_10_apps", "MB", self.containerd),
            Figure::new("log_collector_rss_10_apps", "MB", self.collector),
        ]
    }
}
