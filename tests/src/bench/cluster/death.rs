//! How soon the server knows that a node is dead: from the cut of its link on, of which nobody is told.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use hivemind_client::{Client, Selection, WatchItem};
use hivemind_model::{Node, NodeState};

use super::super::figure::Figure;
use crate::{Cluster, ClusterOptions, FabricOptions, LinkOptions};

/// How many nodes there are: one is cut off, one is the server, and others are asked whether they hear it.
const NODES: usize = 4;

/// How often a node is cut off.
const DEATHS: usize = 20;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn run(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    let fabric = FabricOptions { link: LinkOptions::relayed(), ..FabricOptions::default() };
    let cluster = Cluster::start_with(NODES, &ClusterOptions { fabric, ..ClusterOptions::default() })?;
    cluster.start_daemons()?;
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = Client::unix(cluster.server().sandbox().outside(&cluster.server().socket()));
    let mut samples = Vec::new();
    for death in 0..DEATHS {
        progress(&format!("cluster: death {} of {DEATHS}", death + 1));
        let node = cluster.node(1 + death % (NODES - 1));
        let took = executor.block_on(async {
            let mut nodes = client.watch::<Node>(&Selection::default()).await?;
            let began = Instant::now();
            node.link().cut()?;
            while let Some(item) = tokio::time::timeout(LIMIT, nodes.next()).await.context("it lives")? {
                let WatchItem::Event(event) = item? else { continue };
                let seen = event.object;
                if seen.metadata.name == node.name() && seen.status.state == NodeState::Dead {
                    return Ok(began.elapsed());
                }
            }
            bail!("the watch ended")
        })?;
        samples.push(took.as_secs_f64() * 1e3);
        node.link().heal()?;
        cluster.until_ready(NODES)?;
    }
    Ok(vec![
        Figure::new("node_death_detect_p50", "ms", samples.clone()),
        Figure::p99("node_death_detect_p99", "ms", samples),
    ])
}
