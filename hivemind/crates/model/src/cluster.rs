//! The cluster: its own facts, how a machine joins it, and what server and agents tell one another.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{error::Problem, metadata::Metadata, node::NodeStatus, replica::ReplicaStatus};

/// How packets get from node to node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Routing {
    /// In VXLAN: the network between the nodes sees the nodes' addresses only.
    #[default]
    Overlay,
    /// As they are: the network between the nodes knows the way to each node's replicas.
    Direct,
}

impl Routing {
    /// As people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Routing::Overlay => "overlay",
            Routing::Direct => "direct",
        }
    }
}

/// What all nodes of a cluster have to agree on. It is drawn when the cluster is made, and stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterFacts {
    /// The cluster's own name among clusters.
    pub id: Uuid,
    /// The /48 of unique local addresses (RFC 4193) that all replicas and services are in.
    pub ula_prefix: Ipv6Addr,
    /// The addresses of replicas; each node has a /24 of it.
    pub replica_range: Ipv4Net,
    /// The addresses of services.
    pub service_range: Ipv4Net,
    /// The domain below which services have their names.
    pub domain: String,
    /// Where replicas ask for names.
    pub dns: (Ipv4Addr, Ipv6Addr),
    /// How packets get from node to node.
    #[serde(default)]
    pub routing: Routing,
}

impl ClusterFacts {
    /// The ranges of the replicas of node `number` (from 1 on): IPv4, IPv6; `None` if the range of replicas has no room
    /// for so many nodes.
    pub fn node_ranges(&self, number: u16) -> Option<(Ipv4Net, Ipv6Net)> {
        let index = usize::from(number.checked_sub(1)?);
        let v4 = self.replica_range.subnets(24).ok()?.nth(index)?;
        Some((v4, Ipv6Net::new(self.subnet_v6(number), 64).ok()?))
    }

    /// The ranges of all replicas.
    pub fn replica_ranges(&self) -> (Ipv4Net, Ipv6Net) {
        (self.replica_range, Ipv6Net::new_assert(self.ula_prefix, 48))
    }

    /// The ranges of services.
    pub fn service_ranges(&self) -> (Ipv4Net, Ipv6Net) {
        (self.service_range, Ipv6Net::new_assert(self.subnet_v6(0), 112))
    }

    fn subnet_v6(&self, number: u16) -> Ipv6Addr {
        let mut segments = self.ula_prefix.segments();
        segments[3] = number;
        segments.into()
    }
}

/// A secret by which machines may join the cluster; only a hash of it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JoinToken {
    /// Its name.
    pub metadata: Metadata,
    /// How often and until when it may be used.
    pub spec: JoinTokenSpec,
}

/// How often and until when a join token may be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinTokenSpec {
    /// How many machines may still join by it.
    pub uses: u32,
    /// When it ceases to be valid.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// The SHA-256 of the secret in hex; never sent by the API.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(ignore)]
    pub hash: String,
}

/// What somebody asks for who wants a join token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinTokenRequest {
    /// How many machines may join by it, 1 to 1000.
    pub uses: u32,
    /// For how many seconds it is valid, 60 to 31,536,000.
    pub valid_s: u64,
}

/// A join token that was just made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewJoinToken {
    /// The token.
    pub token: JoinToken,
    /// What the joining machine is given: the secret, and by which certificate it knows the cluster. Shown this once.
    pub secret: String,
    /// The address that it is to join.
    pub address: String,
}

/// What a machine sends that wants to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinRequest {
    /// The token's secret.
    pub token: String,
    /// The name that the node is to have.
    pub name: String,
    /// Where the others will reach it.
    #[schema(value_type = String)]
    pub address: Ipv4Addr,
    /// Its signing request (PKCS #10, in PEM). Left out to ask only whether it could join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_request: Option<String>,
    /// Its clock.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The daemon's version.
    pub version: String,
}

/// What a machine is told that may join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JoinAnswer {
    /// What all nodes agree on.
    #[schema(value_type = Object)]
    pub cluster: ClusterFacts,
    /// The number that the node has, or would have.
    pub number: u16,
    /// The server's name.
    pub server: String,
    /// The server's clock.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The node's certificate with that of the authority (PEM), once there is a signing request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// What a node asks for whose certificate comes near its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RenewRequest {
    /// Its signing request (PKCS #10, in PEM).
    pub signing_request: String,
}

/// The answer to that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RenewAnswer {
    /// The node's certificate with that of the authority (PEM).
    pub certificate: String,
}

/// One line of what a server tells a node: changes of the store, as far as they concern that node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum FeedLine {
    /// The first line.
    #[serde(rename_all = "camelCase")]
    Begin {
        /// Whether all that concerns the node follows, rather than what changed since the revision that it named: what is
        /// not told until the next [`FeedLine::UpTo`] is no more.
        full: bool,
        /// The replicas of the node. One that the node does not have any more is gone.
        replicas: Vec<ObjectRef>,
    },
    /// A key has this value.
    Put {
        /// The key in the store.
        key: String,
        /// Its value.
        value: serde_json::Value,
    },
    /// A key is gone.
    Delete {
        /// The key in the store.
        key: String,
    },
    /// Everything up to this revision has been told. Also a sign of life.
    #[serde(rename_all = "camelCase")]
    UpTo {
        /// The server's revision.
        revision: u64,
    },
}

/// What a node tells the server of what is its own to tell. Everything may be told again at any time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeReport {
    /// How the node is; `state` and `since` are not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeStatus>,
    /// How its replicas are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<ReplicaReport>,
    /// Replicas that it was told to stop, and that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<ObjectRef>,
    /// Which services cannot be set up there, and which can after all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceReport>,
    /// How far policies are enforced there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyReport>,
}

impl NodeReport {
    /// How many things it tells.
    pub fn len(&self) -> usize {
        usize::from(self.node.is_some())
            + self.replicas.len()
            + self.gone.len()
            + self.services.len()
            + self.policies.len()
    }

    /// Whether it tells nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The most things that one report tells.
pub const REPORT_MAX: usize = 256;

/// One object, and no other that has its name later.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct ObjectRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its `uid`.
    #[schema(value_type = String)]
    pub uid: Uuid,
}

/// How a replica is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicaReport {
    /// Which one.
    pub replica: ObjectRef,
    /// How it is.
    pub status: ReplicaStatus,
}

/// Whether a service could be set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceReport {
    /// Which one.
    pub service: ObjectRef,
    /// What is in the way; left out: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// How far a policy is enforced on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyReport {
    /// Which one.
    pub policy: ObjectRef,
    /// How many replicas in the cluster it selects.
    pub replicas: u32,
    /// How far it is enforced there.
    pub enforcement: crate::network_policy::Enforcement,
}

/// What a node measured of the network since it told last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Measurements {
    /// Round trips to other nodes, in microseconds, by the node's name.
    #[serde(default)]
    pub round_trips_us: BTreeMap<String, u32>,
    /// Bytes a second between pairs of identities that this node's replicas began connections between, the largest first.
    #[serde(default)]
    pub traffic: Vec<PairTraffic>,
}

/// The most pairs that are told at once.
pub const TRAFFIC_MAX: usize = 512;

/// Traffic between two identities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PairTraffic {
    /// Who began the connections.
    pub source: u32,
    /// Who took them.
    pub destination: u32,
    /// Bytes a second, both ways together.
    pub bytes_per_s: u64,
}

/// The cluster as `cluster status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The cluster's own name among clusters.
    #[schema(value_type = String)]
    pub id: Uuid,
    /// The node that tells this.
    pub node: String,
    /// Whether that node is a server.
    pub server: bool,
    /// How packets get from node to node.
    pub routing: Routing,
    /// Whether the node hears from its server, or is one.
    pub connected: bool,
    /// The members as that node sees them, by name.
    pub members: Vec<ClusterMember>,
    /// What is wrong, if anything is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterMember {
    /// The node's name.
    pub name: String,
    /// Where it is.
    #[schema(value_type = Option<String>)]
    pub address: Option<Ipv4Addr>,
    /// How it is, as that node sees it.
    pub state: crate::node::NodeState,
    /// Counts how often it refuted that it was dead or began anew.
    pub incarnation: u64,
    /// Since when it is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// The round trip to it, in microseconds, if that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_us: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> ClusterFacts {
        ClusterFacts {
            id: Uuid::nil(),
            ula_prefix: "fd12:3456:789a::".parse().unwrap(),
            replica_range: "10.200.0.0/14".parse().unwrap(),
            service_range: "10.204.0.0/16".parse().unwrap(),
            domain: "hivemind.internal".into(),
            dns: ("169.254.20.10".parse().unwrap(), "fd00:20::10".parse().unwrap()),
            routing: Routing::Overlay,
        }
    }

    #[test]
    fn each_node_has_ranges_of_its_own_below_those_of_the_cluster() {
        let facts = facts();
        let (all_v4, all_v6) = facts.replica_ranges();
        let (_, services_v6) = facts.service_ranges();
        let mut seen = std::collections::BTreeSet::new();
        for number in 1..=crate::Node::LAST {
            let (v4, v6) = facts.node_ranges(number).unwrap();
            assert!(all_v4.contains(&v4) && all_v6.contains(&v6) && !v6.contains(&services_v6.addr()));
            assert!(seen.insert((v4, v6)));
        }
        assert_eq!(facts.node_ranges(1).unwrap().0.to_string(), "10.200.0.0/24");
        assert_eq!(facts.node_ranges(1).unwrap().1.to_string(), "fd12:3456:789a:1::/64");
        assert!(facts.node_ranges(0).is_none() && facts.node_ranges(1025).is_none());
    }

    #[test]
    fn lines_of_a_feed_are_read_back() {
        for line in [
            FeedLine::Begin {
                full: true,
                replicas: vec![ObjectRef { namespace: "a".into(), name: "b".into(), uid: Uuid::max() }],
            },
            FeedLine::Put { key: "nodes/a".into(), value: serde_json::json!({"a": 1}) },
            FeedLine::Delete { key: "nodes/a".into() },
            FeedLine::UpTo { revision: 7 },
        ] {
            let text = serde_json::to_string(&line).unwrap();
            assert_eq!(serde_json::from_str::<FeedLine>(&text).unwrap(), line, "{text}");
        }
    }
}
