//! The bench `containers`: from the request for a container until it runs, through the product, through the bare calls
//! to containerd, and through `ctr`, in turns on one node and its one containerd.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use hivemind_client::{Client, Selection, Watch, WatchItem};
use hivemind_model::{
    App, AppService, AppSpec, AppStatus, Container, DEFAULT_NAMESPACE, Metadata, Phase, Replica, Template,
    WatchKind,
};
use tokio::time::timeout;

use super::calls::{Calls, Way};
use super::figure::Figure;
use crate::{Node, NodeOptions, image_archive};

/// How often each way is measured. One round more comes before, and does not count.
const ROUNDS: usize = 21;

/// What every container of the bench runs.
pub(super) const IMAGE: &str = "busybox:latest";

/// Waits, and ends at once when asked to.
pub(super) const COMMAND: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"];

/// How long one container may take to come or to go.
const LIMIT: Duration = Duration::from_secs(60);

const RATIO_MAX: f64 = 1.5;

pub(super) fn run(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    let node = Node::start(NodeOptions::default())?;
    node.daemon_start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = Client::unix(node.sandbox().outside(&node.socket()));
    let archive = image_archive("busybox")?;
    runtime.block_on(import(&client, &archive))?;
    let mut calls = Calls::start(&node, &archive)?;

    let (mut product, mut plain, mut ctr) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        progress(&format!("containers: round {round} of {ROUNDS}"));
        let name = format!("app-{round}");
        let times = [
            runtime.block_on(async {
                let took = start(&client, &name).await?;
                remove(&client, &name).await?;
                anyhow::Ok(took)
            })?,
            calls.measure(Way::Runtime)?,
            calls.measure(Way::Ctr)?,
        ];
        if round > 0 {
            product.push(times[0]);
            plain.push(times[1]);
            ctr.push(times[2]);
        }
    }
    calls.stop()?;
    node.daemon_kill9()?;
    node.stop()?;
    Ok(figures(&product, &plain, &ctr))
}

fn figures(product: &[Duration], plain: &[Duration], ctr: &[Duration]) -> Vec<Figure> {
    let plain = Figure::of_times("container_start_without_network", plain);
    let ctr = Figure::of_times("container_start_ctr", ctr);
    vec![
        Figure::of_times("container_start", product).against(&plain).at_most_times(RATIO_MAX),
        Figure::of_times("container_start_vs_ctr", product).against(&ctr),
        plain,
        ctr,
    ]
}

/// Brings an image to the node.
pub(super) async fn import(client: &Client, archive: &Path) -> Result<()> {
    client.import(tokio::fs::File::open(archive).await?).await?;
    Ok(())
}

/// Makes an app of one replica; returns how long it took from the request until the API told that it runs.
pub(super) async fn start(client: &Client, name: &str) -> Result<Duration> {
    let mut watch = watch(client, name).await?;
    let began = Instant::now();
    client.create_app(&app(name)).await?;
    until(&mut watch, name, |kind, replica| {
        kind != WatchKind::Deleted && replica.status.phase == Phase::Running
    })
    .await?;
    Ok(began.elapsed())
}

/// Deletes an app, and returns when its replica is gone.
async fn remove(client: &Client, name: &str) -> Result<()> {
    let mut watch = watch(client, name).await?;
    client.delete_app(DEFAULT_NAMESPACE, name).await?;
    until(&mut watch, name, |kind, _| kind == WatchKind::Deleted).await
}

/// The changes of an app's replicas from now on.
async fn watch(client: &Client, name: &str) -> Result<Watch<Replica>> {
    let mut watch = client.watch(&Selection::app(DEFAULT_NAMESPACE, name)).await?;
    loop {
        let item = timeout(LIMIT, watch.next()).await.context("the watch does not begin")?;
        if let WatchItem::Synced { .. } = item.context("the watch ended")?? {
            return Ok(watch);
        }
    }
}

async fn until(
    watch: &mut Watch<Replica>,
    name: &str,
    is_reached: impl Fn(WatchKind, &Replica) -> bool,
) -> Result<()> {
    let reach = async {
        loop {
            match watch.next().await.context("the watch ended")?? {
                WatchItem::Event(event) if is_reached(event.kind, &event.object) => return Ok(()),
                WatchItem::Event(_) | WatchItem::Synced { .. } => {}
            }
        }
    };
    timeout(LIMIT, reach).await.with_context(|| format!("the replica of {name} does not get there"))?
}

fn app(name: &str) -> App {
    let command = COMMAND.map(str::to_owned).to_vec();
    let container = Container { image: IMAGE.to_owned(), command, ..Container::default() };
    App {
        metadata: Metadata::new(DEFAULT_NAMESPACE, name),
        spec: AppSpec {
            replicas: 1,
            hostnames: Vec::new(),
            service: AppService::default(),
            depends_on: Vec::new(),
            template: Template { containers: vec![container], ..Template::default() },
        },
        status: AppStatus::default(),
    }
}
