//! Workload identities: numbers for sets of labels, by which the data path knows who speaks to whom.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{DEFAULT_NAMESPACE, SYSTEM_NAMESPACE, metadata::Metadata, network_policy::PolicyProtocol};

/// A workload identity: made by the controller for each set of labels that policies can tell apart and replicas of a namespace
/// carry, removed when no replica carries it any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Its name is made of its number.
    pub metadata: Metadata,
    /// What it stands for. Only [`IdentitySpec::keys`] may become more, with the labels of those keys.
    pub spec: IdentitySpec,
}

/// What an identity stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentitySpec {
    /// Its number, [`Identity::FIRST`] to [`Identity::LAST`].
    pub number: u32,
    /// The namespace of the replicas.
    pub namespace: String,
    /// The app of the replicas, for people to read.
    pub app: String,
    /// The labels of the replicas, of these keys.
    pub labels: BTreeMap<String, String>,
    /// The keys of labels by which it tells replicas apart: those that policies name. What its replicas carry besides may
    /// differ. Absent: all labels, whatever their keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<BTreeSet<String>>,
    /// The ports of the replicas that have names, by which policies may call them; in the order of names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<NamedPort>,
}

/// A port that has a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamedPort {
    /// Its name.
    pub name: String,
    /// The port, 1 to 65535.
    pub port: u16,
    /// Its protocol.
    pub protocol: PolicyProtocol,
}

impl Identity {
    /// The first number that replicas may have; those below are reserved.
    pub const FIRST: u32 = 256;
    /// The last number: identities travel in 24 bits.
    pub const LAST: u32 = (1 << 24) - 1;
    /// The node itself: its own processes.
    pub const HOST: u32 = 1;
    /// Whatever is neither a replica nor a node.
    pub const WORLD: u32 = 2;
    /// The DNS server that replicas ask. Policies select it in [`SYSTEM_NAMESPACE`] by `app=dns` or `k8s-app=kube-dns`.
    pub const DNS: u32 = 3;
    /// Another node: its own processes. Policies see it as they see [`Identity::WORLD`]: by its address.
    pub const NODE: u32 = 4;
    /// The two ends that a check of the network makes on a node for as long as it takes.
    pub const CHECK: u32 = 5;

    /// The identity of a number, which tells replicas apart by all their labels.
    pub fn new(number: u32, namespace: &str, app: &str, labels: BTreeMap<String, String>) -> Self {
        Identity {
            metadata: Metadata::new(DEFAULT_NAMESPACE, format!("identity-{number}")),
            spec: IdentitySpec {
                number,
                namespace: namespace.to_owned(),
                app: app.to_owned(),
                labels,
                keys: None,
                ports: Vec::new(),
            },
        }
    }

    /// What policies see of the DNS server.
    pub fn dns() -> IdentitySpec {
        let labels = [("app", "dns"), ("k8s-app", "kube-dns")];
        IdentitySpec {
            number: Self::DNS,
            namespace: SYSTEM_NAMESPACE.to_owned(),
            app: "dns".to_owned(),
            labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            keys: None,
            ports: Vec::new(),
        }
    }
}

impl IdentitySpec {
    /// Whether it says of a label with that key whether its replicas carry it, and with which value.
    pub fn knows(&self, key: &str) -> bool {
        self.keys.as_ref().is_none_or(|keys| keys.contains(key))
    }

    /// Whether replicas with `labels` are told by it as they are.
    pub fn stands_for(&self, labels: &BTreeMap<String, String>) -> bool {
        let known = labels.iter().filter(|(key, _)| self.knows(key));
        known.eq(self.labels.iter())
    }
}
