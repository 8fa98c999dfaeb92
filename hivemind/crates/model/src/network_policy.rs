//! Network policies: which connections the replicas that a policy selects may take and make.
//!
//! There are three kinds. [`NetworkPolicySpec`] has the fields of Kubernetes' NetworkPolicy (`networking.k8s.io/v1`) and
//! their meaning: a replica that no policy selects is open; one that is selected takes (or makes) only what some rule of
//! some policy that selects it allows. [`ExtendedPolicySpec`] stands among those and can say more. Before and after them
//! come the policies of the whole cluster, [`ClusterNetworkPolicySpec`]. Replies of what was allowed always pass, and so does
//! what the node's own processes send to a replica.

mod cluster;
mod extended;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{error::Problem, metadata::Metadata};

pub use cluster::{
    ClusterAction, ClusterEgressRule, ClusterIngressRule, ClusterNetworkPolicySpec, ClusterPeer, ClusterPort,
    ClusterPortRange, ClusterPorts, ClusterProtocol, ClusterSubject, ClusterTier, NamespacedPods,
};
pub use extended::{
    Entity, ExtendedEgressRule, ExtendedIngressRule, ExtendedPeer, ExtendedPolicySpec, IcmpFamily,
    IcmpMessage, PolicyAction,
};

/// A network policy of any kind. Names are unique among all kinds of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicy {
    /// Name and namespace; it selects replicas of its namespace only. One of the whole cluster is in
    /// [`SYSTEM_NAMESPACE`](crate::SYSTEM_NAMESPACE), whichever it selects.
    pub metadata: Metadata,
    /// What is wanted.
    #[serde(flatten)]
    pub spec: PolicySpec,
    /// What is.
    pub status: NetworkPolicyStatus,
}

/// What a policy says, by its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "kind", content = "spec")]
pub enum PolicySpec {
    /// `networking.k8s.io/v1`.
    NetworkPolicy(NetworkPolicySpec),
    /// `policy.networking.k8s.io/v1beta1`.
    ClusterNetworkPolicy(ClusterNetworkPolicySpec),
    /// `hivemind/v1`.
    Policy(ExtendedPolicySpec),
}

/// The kinds of policies.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
pub enum PolicyKind {
    /// Kubernetes' policy of a namespace.
    #[default]
    NetworkPolicy,
    /// The Kubernetes network policy API's policy of the whole cluster.
    ClusterNetworkPolicy,
    /// Hivemind's own policy of a namespace.
    Policy,
}

impl PolicyKind {
    /// All kinds.
    pub const ALL: [PolicyKind; 3] =
        [PolicyKind::NetworkPolicy, PolicyKind::ClusterNetworkPolicy, PolicyKind::Policy];

    /// The word in manifests.
    pub const fn name(self) -> &'static str {
        match self {
            PolicyKind::NetworkPolicy => "NetworkPolicy",
            PolicyKind::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            PolicyKind::Policy => "Policy",
        }
    }

    /// The newest `apiVersion` of manifests.
    pub const fn api_version(self) -> &'static str {
        match self {
            PolicyKind::NetworkPolicy => "networking.k8s.io/v1",
            PolicyKind::ClusterNetworkPolicy => "policy.networking.k8s.io/v1beta1",
            PolicyKind::Policy => "hivemind/v1",
        }
    }

    /// Every `apiVersion` that is read, the newest first.
    pub const fn api_versions(self) -> &'static [&'static str] {
        match self {
            PolicyKind::NetworkPolicy => &["networking.k8s.io/v1"],
            PolicyKind::ClusterNetworkPolicy => {
                &["policy.networking.k8s.io/v1beta1", "policy.networking.k8s.io/v1alpha2"]
            }
            PolicyKind::Policy => &["hivemind/v1"],
        }
    }

    /// Whether such a policy is in no namespace of its author's choice, and selects replicas of any.
    pub const fn is_cluster_wide(self) -> bool {
        matches!(self, PolicyKind::ClusterNetworkPolicy)
    }
}

impl Default for PolicySpec {
    fn default() -> Self {
        PolicySpec::NetworkPolicy(NetworkPolicySpec::default())
    }
}

impl From<NetworkPolicySpec> for PolicySpec {
    fn from(spec: NetworkPolicySpec) -> Self {
        PolicySpec::NetworkPolicy(spec)
    }
}

impl From<ClusterNetworkPolicySpec> for PolicySpec {
    fn from(spec: ClusterNetworkPolicySpec) -> Self {
        PolicySpec::ClusterNetworkPolicy(spec)
    }
}

impl From<ExtendedPolicySpec> for PolicySpec {
    fn from(spec: ExtendedPolicySpec) -> Self {
        PolicySpec::Policy(spec)
    }
}

impl PolicySpec {
    /// Of which kind it is.
    pub const fn kind(&self) -> PolicyKind {
        match self {
            PolicySpec::NetworkPolicy(_) => PolicyKind::NetworkPolicy,
            PolicySpec::ClusterNetworkPolicy(_) => PolicyKind::ClusterNetworkPolicy,
            PolicySpec::Policy(_) => PolicyKind::Policy,
        }
    }

    /// Whether what it would deny is only told.
    pub const fn is_audit(&self) -> bool {
        matches!(self, PolicySpec::Policy(ExtendedPolicySpec { audit: true, .. }))
    }

    /// Whether what its rules decide is written to the daemon's log.
    pub const fn is_logged(&self) -> bool {
        matches!(self, PolicySpec::Policy(ExtendedPolicySpec { log: true, .. }))
    }

    /// From when on it is as if it were not there, if ever.
    pub const fn until(&self) -> Option<Timestamp> {
        match self {
            PolicySpec::Policy(spec) => spec.until,
            _ => None,
        }
    }

    /// Whether it is as if it were not there at `now`.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.until().is_some_and(|until| until <= now)
    }

    /// Whether it has something to say about `direction`.
    pub fn governs(&self, direction: PolicyType) -> bool {
        match self {
            PolicySpec::NetworkPolicy(spec) => spec.governs(direction),
            PolicySpec::Policy(spec) => spec.governs(direction),
            PolicySpec::ClusterNetworkPolicy(spec) => match direction {
                PolicyType::Ingress => !spec.ingress.is_empty(),
                PolicyType::Egress => !spec.egress.is_empty(),
            },
        }
    }
}

/// What is read before the kind is known, which was always the same once and then not written.
#[derive(Deserialize)]
struct Unread {
    metadata: Metadata,
    #[serde(default)]
    kind: PolicyKind,
    /// As it is written: a tree of it would take longer to make than the policy.
    spec: Box<RawValue>,
    #[serde(default)]
    status: NetworkPolicyStatus,
}

impl<'de> Deserialize<'de> for NetworkPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Unread { metadata, kind, spec, status } = Unread::deserialize(deserializer)?;
        let spec = match kind {
            PolicyKind::NetworkPolicy => serde_json::from_str(spec.get()).map(PolicySpec::NetworkPolicy),
            PolicyKind::ClusterNetworkPolicy => {
                serde_json::from_str(spec.get()).map(PolicySpec::ClusterNetworkPolicy)
            }
            PolicyKind::Policy => serde_json::from_str(spec.get()).map(PolicySpec::Policy),
        };
        let spec = spec.map_err(|error| {
            let told = error.to_string();
            // The place is one in the spec, not in what is read.
            let fault = told.rsplit_once(" at line ").map_or(told.as_str(), |(fault, _)| fault);
            D::Error::custom(format_args!("spec: {fault}"))
        })?;
        Ok(NetworkPolicy { metadata, spec, status })
    }
}

/// What a NetworkPolicy allows, and to whom it applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPolicySpec {
    /// The replicas that the policy applies to; an empty selector means all of the namespace.
    #[serde(default)]
    pub pod_selector: LabelSelector,
    /// Which directions it governs. Left out: `Ingress`, and `Egress` if there are egress rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_types: Vec<PolicyType>,
    /// What the selected replicas may take: anything that one of these allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<IngressRule>,
    /// What the selected replicas may make: anything that one of these allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressRule>,
}

/// A direction, as seen from the selected replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum PolicyType {
    /// Connections to them.
    Ingress,
    /// Connections that they make.
    Egress,
}

/// Connections that the selected replicas may take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IngressRule {
    /// To these ports of theirs; empty: to all, of every protocol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PolicyPort>,
    /// From any of these; empty: from everywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<PolicyPeer>,
}

/// Connections that the selected replicas may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EgressRule {
    /// To these ports of the other end; empty: to all, of every protocol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PolicyPort>,
    /// To any of these; empty: to everywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<PolicyPeer>,
}

/// A port, or a range of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyPort {
    /// The protocol.
    #[serde(default)]
    pub protocol: PolicyProtocol,
    /// The port, 1 to 65535; left out: all ports of the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortRef>,
    /// The last port of a range that begins at `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_port: Option<u16>,
}

/// A port by number or by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum PortRef {
    /// Its number.
    Number(i64),
    /// Its name, as the app of the replica that takes the connection gives it.
    Name(String),
}

/// A transport protocol that has ports.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum PolicyProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Other ends of connections: either a block of addresses, or replicas by the labels of theirs and of their namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyPeer {
    /// Replicas with these labels, in the policy's namespace or, with a namespace selector, in those that it selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Namespaces with these labels; without a pod selector all replicas in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Addresses, of replicas too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlock>,
}

/// A block of addresses, less some blocks within it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IpBlock {
    /// The block, for example `192.0.2.0/24` or `2001:db8::/32`.
    pub cidr: String,
    /// Blocks within it that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

/// Selects by labels: everything said must hold; nothing said selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// These labels with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// These conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelExpression>,
}

/// One condition on a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelExpression {
    /// The label's key.
    pub key: String,
    /// What must hold of it.
    pub operator: LabelOperator,
    /// The values that `In` and `NotIn` speak of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What may be asked of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum LabelOperator {
    /// It is there with one of the values.
    In,
    /// It is not there, or with another value.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether something with `labels` is selected.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|expression| expression.holds(labels))
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

impl LabelExpression {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let among = || value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            LabelOperator::In => among(),
            LabelOperator::NotIn => !among(),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }
}

/// What is, of a network policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicyStatus {
    /// The data path's number for it, from 1 on, given when it is made.
    #[serde(default)]
    pub number: u32,
    /// When the API took the spec as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub accepted_at: Option<Timestamp>,
    /// The generation of the spec that is enforced on every node.
    #[serde(default)]
    pub enforced_generation: u64,
    /// When that came into force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub enforced_at: Option<Timestamp>,
    /// How many replicas it selects.
    #[serde(default)]
    pub replicas: u32,
    /// Why it could not be enforced, for example because the data path's table is full; what was in force before stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// The same of each node, by the node's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, Enforcement>,
}

/// How far a policy is enforced on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Enforcement {
    /// The generation of the spec that is enforced.
    #[serde(default)]
    pub generation: u64,
    /// When that came into force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub at: Option<Timestamp>,
    /// Why it could not be enforced; what was in force before stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

impl NetworkPolicyStatus {
    /// Notes how far it is on `node`, and what that means for all nodes together. A generation never goes back.
    pub fn note(&mut self, node: &str, enforcement: &Enforcement) {
        let known = self.nodes.entry(node.to_owned()).or_default();
        if enforcement.generation > known.generation {
            known.generation = enforcement.generation;
            known.at = enforcement.at;
        }
        known.problem.clone_from(&enforcement.problem);
        self.sum_up();
    }

    /// Forgets the nodes for which `stays` does not hold.
    pub fn retain_nodes(&mut self, stays: impl Fn(&str) -> bool) {
        let before = self.nodes.len();
        self.nodes.retain(|node, _| stays(node));
        if self.nodes.len() != before {
            self.sum_up();
        }
    }

    fn sum_up(&mut self) {
        let Some(least) = self.nodes.values().map(|on| on.generation).min() else { return };
        self.enforced_generation = least;
        self.enforced_at =
            self.nodes.values().filter(|on| on.generation == least).filter_map(|on| on.at).max();
        self.problem = self.nodes.values().find_map(|on| on.problem.clone());
    }
}

impl NetworkPolicySpec {
    /// Whether it governs `direction`, by `policyTypes` or, where those are left out, by Kubernetes' rule.
    pub fn governs(&self, direction: PolicyType) -> bool {
        if self.policy_types.is_empty() {
            direction == PolicyType::Ingress || !self.egress.is_empty()
        } else {
            self.policy_types.contains(&direction)
        }
    }
}

/// The body of a request to apply policies: all of them or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyPolicies {
    /// The policies; each replaces the one of its name and namespace.
    pub items: Vec<NetworkPolicy>,
}

/// What became of policies that were applied, in the order of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppliedPolicies {
    /// One for each.
    pub items: Vec<AppliedPolicy>,
}

/// What became of one policy that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppliedPolicy {
    /// What was done.
    pub action: ApplyAction,
    /// The policy as it is now, or would be.
    pub policy: NetworkPolicy,
    /// What its author should know, for example that it cuts replicas off from names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Problem>,
}

/// What applying did to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ApplyAction {
    /// It was not there.
    Created,
    /// It was different.
    Changed,
    /// It was there as it is.
    Unchanged,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn expression(key: &str, operator: LabelOperator, values: &[&str]) -> LabelSelector {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        LabelSelector {
            match_expressions: vec![LabelExpression { key: key.into(), operator, values }],
            ..LabelSelector::default()
        }
    }

    #[test]
    fn an_empty_selector_selects_everything() {
        assert!(LabelSelector::default().selects(&labels(&[])));
        assert!(LabelSelector::default().selects(&labels(&[("app", "web")])));
    }

    #[test]
    fn each_operator_is_true_of_what_it_says_and_of_nothing_else() {
        let (web, none) = (labels(&[("app", "web")]), labels(&[]));
        let cases = [
            (LabelOperator::In, &["web", "db"][..], true, false),
            (LabelOperator::In, &["db"][..], false, false),
            (LabelOperator::NotIn, &["web"][..], false, true),
            (LabelOperator::NotIn, &["db"][..], true, true),
            (LabelOperator::Exists, &[][..], true, false),
            (LabelOperator::DoesNotExist, &[][..], false, true),
        ];
        for (operator, values, of_web, of_none) in cases {
            let selector = expression("app", operator, values);
            assert_eq!(
                (selector.selects(&web), selector.selects(&none)),
                (of_web, of_none),
                "{operator:?} {values:?}"
            );
        }
    }

    #[test]
    fn labels_and_expressions_must_all_hold() {
        let mut selector = expression("tier", LabelOperator::Exists, &[]);
        selector.match_labels = labels(&[("app", "web")]);
        assert!(selector.selects(&labels(&[("app", "web"), ("tier", "front")])));
        assert!(!selector.selects(&labels(&[("app", "web")])));
        assert!(!selector.selects(&labels(&[("tier", "front")])));
    }

    #[test]
    fn a_policy_is_written_with_its_kind_and_read_without_one_as_it_was_before_there_were_several() {
        let metadata = Metadata::new("shop", "web");
        let cluster = ClusterNetworkPolicySpec { priority: 7, ..ClusterNetworkPolicySpec::default() };
        let extended = ExtendedPolicySpec { audit: true, ..ExtendedPolicySpec::default() };
        for (spec, kind) in [
            (PolicySpec::default(), "NetworkPolicy"),
            (cluster.into(), "ClusterNetworkPolicy"),
            (extended.into(), "Policy"),
        ] {
            let policy =
                NetworkPolicy { metadata: metadata.clone(), spec, status: NetworkPolicyStatus::default() };
            let mut json = serde_json::to_value(&policy).unwrap();
            assert_eq!(json["kind"], kind);
            assert_eq!(serde_json::from_value::<NetworkPolicy>(json.clone()).unwrap(), policy);
            json.as_object_mut().unwrap().remove("kind");
            let read = serde_json::from_value::<NetworkPolicy>(json);
            assert_eq!(read.is_ok_and(|read| read == policy), kind == "NetworkPolicy");
        }
    }

    #[test]
    fn a_field_that_is_not_known_is_told() {
        let json = serde_json::json!({"metadata": Metadata::new("a", "b"), "kind": "Policy", "spec": {"audits": true}});
        let error = serde_json::from_value::<NetworkPolicy>(json).unwrap_err().to_string();
        assert!(error.starts_with("spec: unknown field `audits`"), "{error}");
        assert!(!error.contains("column"), "{error}");
    }

    #[test]
    fn egress_is_governed_only_if_it_is_named_or_has_rules() {
        let mut spec = NetworkPolicySpec::default();
        assert!(spec.governs(PolicyType::Ingress) && !spec.governs(PolicyType::Egress));
        spec.egress.push(EgressRule::default());
        assert!(spec.governs(PolicyType::Ingress) && spec.governs(PolicyType::Egress));
        spec.policy_types = vec![PolicyType::Egress];
        assert!(!spec.governs(PolicyType::Ingress) && spec.governs(PolicyType::Egress));
    }
}
