//! What the node tells of itself.

use hivemind_model::{Metadata, Node, NodeSpec, NodeStatus, Resource};
use hivemind_store::Objects;

/// Makes or updates this node's object.
///
/// # Errors
/// What the store says.
pub(crate) async fn register(
    objects: &Objects,
    name: &str,
    spec: NodeSpec,
    containerd: String,
) -> Result<(), hivemind_model::ApiError> {
    let status = NodeStatus {
        version: env!("CARGO_PKG_VERSION").into(),
        kernel: kernel_release(),
        containerd,
        cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        memory_bytes: memory_bytes(),
    };
    let node = Node { metadata: Metadata::new(hivemind_model::DEFAULT_NAMESPACE, name), spec, status };
    match objects.get::<Node>(&node.metadata.namespace, name).await {
        Err(error) if error.code == Node::NOT_FOUND => objects.create(&node).await.map(drop),
        Err(error) => Err(error),
        Ok(found) if found.spec == node.spec && found.status == node.status => Ok(()),
        Ok(found) => {
            let set = |n: &mut Node| {
                n.spec.clone_from(&node.spec);
                n.status.clone_from(&node.status);
                Ok(())
            };
            objects.update_with(&found.metadata.namespace, name, set).await.map(drop)
        }
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
