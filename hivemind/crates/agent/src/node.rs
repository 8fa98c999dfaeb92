//! What the node tells of itself.

use std::net::IpAddr;

use hivemind_model::{ApiError, Metadata, Node, NodeSpec, NodeStatus, Resource};
use hivemind_store::Objects;
use jiff::Timestamp;

/// Makes this node's object, or sees to it that the one that is there says where this node's replicas are. One that is as
/// it should be is not written, so that a daemon starts where there is no room to write.
///
/// # Errors
/// What the store says.
pub(crate) async fn register(
    objects: &Objects,
    name: &str,
    spec: NodeSpec,
    told: &Told,
) -> Result<(), ApiError> {
    let set = |known: &mut Node| {
        // One that an older version made has no number yet.
        known.spec.number = spec.number;
        known.spec.server = spec.server;
        known.spec.replica_range_v4.clone_from(&spec.replica_range_v4);
        known.spec.replica_range_v6.clone_from(&spec.replica_range_v6);
        Ok(())
    };
    match objects.update_with("", name, set).await {
        Err(error) if error.code == Node::NOT_FOUND => {
            let mut status = NodeStatus { since: Some(Timestamp::now()), ..NodeStatus::default() };
            told.write(&mut status);
            let metadata = Metadata::new(hivemind_model::DEFAULT_NAMESPACE, name);
            objects.create(&Node { metadata, spec, status }).await.map(drop)
        }
        done => done.map(drop),
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
    addresses: Vec<IpAddr>,
}

impl Told {
    /// Of a node with this version of containerd, these images, and these addresses.
    pub(crate) fn new(containerd: String, mut images: Vec<String>, mut addresses: Vec<IpAddr>) -> Self {
        images.sort_unstable();
        images.dedup();
        images.truncate(Node::IMAGES_MAX);
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(Node::ADDRESSES_MAX);
        Told { containerd, images, addresses }
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
        status.addresses.clone_from(&self.addresses);
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
