//! What rules a node out.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::index::{Index, NodeState};
use crate::snapshot::{Effect, Health, ObjectName, Pending, Port, Taint};

/// Why a node cannot have a replica. [`Refusal::words`] says it to people, the kind to programs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Refusal {
    /// The node is not ready.
    NotReady {
        /// What it is instead.
        health: Health,
    },
    /// A user closed the node to new replicas.
    Cordoned,
    /// The replica does not tolerate this taint.
    Taint {
        /// The first such.
        taint: Taint,
    },
    /// The node lacks this label or has another value.
    Selector {
        /// The label's key.
        key: String,
        /// The value that is wanted.
        value: String,
    },
    /// The replica mounts a volume that lies elsewhere.
    VolumeElsewhere {
        /// The volume.
        volume: ObjectName,
        /// Where it lies.
        node: String,
    },
    /// Another replica has the port.
    PortTaken {
        /// The first such.
        port: Port,
    },
    /// Not enough CPU is left.
    Cpu {
        /// What is asked for, in thousandths of a core.
        wants_millicores: u64,
        /// What is left.
        free_millicores: u64,
    },
    /// Not enough memory is left.
    Memory {
        /// What is asked for, in bytes.
        wants_bytes: u64,
        /// What is left.
        free_bytes: u64,
    },
}

/// All that speaks against `state`, the most fundamental first.
pub(crate) fn refusals(index: &Index<'_>, state: &NodeState<'_>, pending: &Pending) -> Vec<Refusal> {
    let node = state.node;
    let mut found = Vec::new();
    if node.health != Health::Ready {
        found.push(Refusal::NotReady { health: node.health });
    }
    if node.cordoned {
        found.push(Refusal::Cordoned);
    }
    let untolerated = |t: &&Taint| t.effect == Effect::NoSchedule && !pending.tolerates(t);
    if let Some(taint) = node.taints.iter().find(untolerated) {
        found.push(Refusal::Taint { taint: taint.clone() });
    }
    if let Some((key, value)) = pending.selector.iter().find(|(k, v)| node.labels.get(*k) != Some(v)) {
        found.push(Refusal::Selector { key: key.clone(), value: value.clone() });
    }
    let existing = pending.volumes.iter().filter_map(|v| Some((v, index.volumes.get(v)?)));
    for (volume, at) in existing.filter(|(_, at)| **at != node.name) {
        found.push(Refusal::VolumeElsewhere { volume: volume.clone(), node: at.clone() });
    }
    if let Some(port) = pending.ports.iter().find(|p| state.ports.contains(p)) {
        found.push(Refusal::PortTaken { port: *port });
    }
    resources(state, pending, &mut found);
    found
}

fn resources(state: &NodeState<'_>, pending: &Pending, found: &mut Vec<Refusal>) {
    let (free, wants) = (state.free(), pending.requests);
    if wants.cpu_millicores > free.cpu_millicores {
        let (wants_millicores, free_millicores) = (wants.cpu_millicores, free.cpu_millicores);
        found.push(Refusal::Cpu { wants_millicores, free_millicores });
    }
    if wants.memory_bytes > free.memory_bytes {
        found.push(Refusal::Memory { wants_bytes: wants.memory_bytes, free_bytes: free.memory_bytes });
    }
}
