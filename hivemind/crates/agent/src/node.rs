//! What the node tells of itself.

use hivemind_model::{ApiError, Metadata, Node, NodeSpec, NodeStatus, Resource};
use hivemind_store::Objects;
use jiff::Timestamp;

/// Makes or updates this node's object.
///
/// # Errors
/// What the store says.
pub(crate) async fn register(
    objects: &Objects,
    name: &str,
    spec: NodeSpec,
    told: &Told,
) -> Result<(), ApiError> {
    let mut node = Node {
        metadata: Metadata::new(hivemind_model::DEFAULT_NAMESPACE, name),
        spec,
        status: NodeStatus { since: Some(Timestamp::now()), ..NodeStatus::default() },
    };
    match objects.get::<Node>("", name).await {
        Err(error) if error.code == Node::NOT_FOUND => {
            told.write(&mut node.status);
            objects.create(&node).await.map(drop)
        }
        Err(error) => Err(error),
        Ok(_) => {
            let set = |known: &mut Node| {
                // One that an older version made has no number yet.
                known.spec.number = node.spec.number;
                known.spec.server = node.spec.server;
                known.spec.replica_range_v4.clone_from(&node.spec.replica_range_v4);
                known.spec.replica_range_v6.clone_from(&node.spec.replica_range_v6);
                told.write(&mut known.status);
                Ok(())
            };
            objects.update_with("", name, set).await.map(drop)
        }
    }
}

/// Writes what the node tells of itself into its object, if there is one.
///
/// # Errors
/// What the store says.
pub(crate) async fn tell(objects: &Objects, name: &str, told: &Told) -> Result<(), ApiError> {
    let write = |node: &mut Node| {
        told.write(&mut node.status);
        Ok(())
    };
    match objects.update_with("", name, write).await {
        Err(error) if error.code == Node::NOT_FOUND => Ok(()),
        done => done.map(drop),
    }
}

/// What only the node itself can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    containerd: String,
    images: Vec<String>,
}

impl Told {
    /// Of a node with this version of containerd and these images.
    pub(crate) fn new(containerd: String, mut images: Vec<String>) -> Self {
        images.sort_unstable();
        images.dedup();
        images.truncate(Node::IMAGES_MAX);
        Told { containerd, images }
    }

    /// Writes it, and leaves alone what others tell.
    pub(crate) fn write(&self, status: &mut NodeStatus) {
        status.version = env!("CARGO_PKG_VERSION").into();
        status.kernel = kernel_release();
        status.containerd.clone_from(&self.containerd);
        let cpus = std::thread::available_parallelism();
        status.cpus = cpus.map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
        status.memory_bytes = memory_bytes();
        status.images.clone_from(&self.images);
    }
}

/// The running kernel's release.
pub(crate) fn kernel_release() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim().to_owned()
}

fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|l| l.trim().strip_suffix(" kB")).and_then(|n| n.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
