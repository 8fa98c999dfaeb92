//! The spec of a ClusterNetworkPolicy (`policy.networking.k8s.io`), in the form that v1beta1 has; v1alpha2 is read into it.
//!
//! Its rules are gone through in their order, policies by priority; the first that matches decides, or passes the
//! connection on to the next tier: `Admin`, then the policies of namespaces, then `Baseline`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::LabelSelector;

/// What a ClusterNetworkPolicy decides, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterNetworkPolicySpec {
    /// When it is asked.
    pub tier: ClusterTier,
    /// 0 to 1000; within a tier lower ones are asked first, among equals those of the lesser name.
    pub priority: i64,
    /// The replicas that it applies to, in any namespace.
    pub subject: ClusterSubject,
    /// About connections that they take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<ClusterIngressRule>,
    /// About connections that they make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<ClusterEgressRule>,
}

/// When a ClusterNetworkPolicy is asked.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
pub enum ClusterTier {
    /// Before the policies of namespaces, which cannot change what it decides.
    #[default]
    Admin,
    /// After them, for replicas that none of them governs.
    Baseline,
}

/// Whom a ClusterNetworkPolicy applies to; exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterSubject {
    /// All replicas of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// These replicas of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPods>,
}

/// Replicas by their labels and those of their namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespacedPods {
    /// The namespaces; empty means all.
    #[serde(default)]
    pub namespace_selector: LabelSelector,
    /// The replicas in them; empty means all.
    pub pod_selector: LabelSelector,
}

/// What becomes of connections that the subject takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterIngressRule {
    /// For people to read, at most 100 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What becomes of them.
    pub action: ClusterAction,
    /// From any of these; at least one.
    pub from: Vec<ClusterPeer>,
    /// By any of these; empty: by every protocol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<ClusterProtocol>,
}

/// What becomes of connections that the subject makes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterEgressRule {
    /// For people to read, at most 100 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What becomes of them.
    pub action: ClusterAction,
    /// To any of these; at least one.
    pub to: Vec<ClusterPeer>,
    /// By any of these; empty: by every protocol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<ClusterProtocol>,
}

/// What becomes of a connection that a rule of a ClusterNetworkPolicy matches.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
pub enum ClusterAction {
    /// It is allowed.
    #[default]
    Accept,
    /// It is denied.
    Deny,
    /// The next tier decides.
    Pass,
}

/// Other ends of connections; exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterPeer {
    /// All replicas of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// These replicas of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPods>,
    /// Nodes with these labels, by their addresses; of egress only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<LabelSelector>,
    /// Blocks of addresses, of replicas too; of egress only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
    /// Names such as `example.org` or `*.example.org`; of egress only, and only for `Accept`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domain_names: Vec<String>,
}

/// A protocol and ports of the end that takes the connection; exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterProtocol {
    /// TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<ClusterPorts>,
    /// UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<ClusterPorts>,
    /// SCTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sctp: Option<ClusterPorts>,
    /// The port of this name, of replicas only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_named_port: Option<String>,
}

/// Ports of a protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterPorts {
    /// Which; left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<ClusterPort>,
}

/// A port or a range of ports; exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterPort {
    /// The port, 1 to 65535.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// The range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<ClusterPortRange>,
}

/// Ports from first to last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterPortRange {
    /// The first, 1 to 65535.
    pub start: i64,
    /// The last, greater than the first.
    pub end: i64,
}
