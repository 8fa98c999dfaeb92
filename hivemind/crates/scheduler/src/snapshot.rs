//! What the decision is made of.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The name of an app or of a volume.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct ObjectName {
    /// Its namespace.
    pub namespace: String,
    /// Its name, unique within the namespace and the kind.
    pub name: String,
}

impl ObjectName {
    /// `namespace/name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        ObjectName { namespace: namespace.into(), name: name.into() }
    }
}

/// An amount of what a node has and a replica asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_millicores: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

/// What an untolerated taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum Effect {
    /// No new replica comes to the node.
    NoSchedule,
    /// A new replica comes to the node if others are not clearly better.
    PreferNoSchedule,
}

/// A node's wish to be left alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Taint {
    /// What it is about.
    pub key: String,
    /// Which of it; may be empty.
    pub value: String,
    /// What it does to those that do not tolerate it.
    pub effect: Effect,
}

/// Taints that a replica does not mind. What is `None` matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Toleration {
    /// The taint's key.
    pub key: Option<String>,
    /// The taint's value.
    pub value: Option<String>,
    /// The taint's effect.
    pub effect: Option<Effect>,
}

impl Toleration {
    /// Whether `taint` is one of those.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.key.as_ref().is_none_or(|k| *k == taint.key)
            && self.value.as_ref().is_none_or(|v| *v == taint.value)
            && self.effect.is_none_or(|e| e == taint.effect)
    }
}

/// How a node is, as its members see it. Only a ready one takes new replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum Health {
    /// It answers.
    Ready,
    /// It did not answer lately.
    Suspect,
    /// It is taken for dead.
    Dead,
    /// It said goodbye.
    Left,
    /// Nothing was heard of it yet.
    Unknown,
}

/// A port's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of a node that only one replica can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct Port {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// Its name, unique in the snapshot; of several with one name only the least one counts.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: BTreeSet<Taint>,
    /// Whether a user closed it to new replicas.
    pub cordoned: bool,
    /// How it is.
    pub health: Health,
    /// What replicas can ask for in all.
    pub capacity: Resources,
    /// References or digests of the images that it has; compared as they are written.
    pub images: BTreeSet<String>,
}

/// A replica that has a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    /// Unique in the snapshot; of several with one id only the least one counts.
    pub id: String,
    /// Whose replica it is.
    pub app: ObjectName,
    /// Where; a replica on a node that the snapshot lacks does not count.
    pub node: String,
    /// What it asked for. It has that until it is gone, also when it is on its way out.
    pub requests: Resources,
    /// The node's ports that it has for itself.
    pub ports: BTreeSet<Port>,
    /// Whether it takes traffic.
    pub ready: bool,
    /// Whether it is on its way out.
    pub leaving: bool,
}

/// A volume that exists, and so lies on a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Volume {
    /// Its name.
    pub name: ObjectName,
    /// Where it lies.
    pub node: String,
}

/// What two apps were measured to say to each other, both directions together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Traffic {
    /// The pair, in any order; entries of the same pair add up. Twice the same app: its replicas talk to each other.
    pub apps: (ObjectName, ObjectName),
    /// Between all replicas of one and all of the other.
    pub bytes_per_second: u64,
}

/// The round-trip time that was measured between two nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rtt {
    /// The pair, in any order; of several entries of one pair the least counts.
    pub nodes: (String, String),
    /// Microseconds.
    pub rtt_us: u32,
}

/// The cluster at one moment. The order of each list is of no account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// All nodes.
    pub nodes: Vec<Node>,
    /// All replicas that have a node.
    pub replicas: Vec<Placed>,
    /// All volumes that exist.
    pub volumes: Vec<Volume>,
    /// What is known of who talks to whom.
    pub traffic: Vec<Traffic>,
    /// What is known of how far nodes are apart. A node is 0 µs from itself.
    pub rtt: Vec<Rtt>,
}

/// A replica that wants a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pending {
    /// Whose replica it is.
    pub app: ObjectName,
    /// Unique among what is placed and pending.
    pub id: String,
    /// What it asks for; a node is never refused for what is not asked for (0).
    pub requests: Resources,
    /// Labels that the node must have, with these values.
    pub selector: BTreeMap<String, String>,
    /// Taints that it does not mind.
    pub tolerations: Vec<Toleration>,
    /// Volumes that it mounts; one that does not exist yet will be made on the node that is chosen.
    pub volumes: BTreeSet<ObjectName>,
    /// Images of its containers, as [`Node::images`] has them.
    pub images: BTreeSet<String>,
    /// Ports of the node that it wants for itself.
    pub ports: BTreeSet<Port>,
}

impl Pending {
    /// A replica that asks for nothing in particular.
    pub fn new(app: ObjectName, id: impl Into<String>) -> Self {
        Pending {
            app,
            id: id.into(),
            requests: Resources::default(),
            selector: BTreeMap::new(),
            tolerations: Vec::new(),
            volumes: BTreeSet::new(),
            images: BTreeSet::new(),
            ports: BTreeSet::new(),
        }
    }

    pub(crate) fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|t| t.tolerates(taint))
    }
}
