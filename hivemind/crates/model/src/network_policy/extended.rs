//! The spec of a Policy (`hivemind/v1`): what a NetworkPolicy says, and more.
//!
//! It stands among the NetworkPolicies of its namespace, and what any of them allows is allowed, unless one of its rules
//! denies it. A direction of which all rules deny does not close it: what they do not deny stays as it was.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{IpBlock, LabelSelector, PolicyPort, PolicyType};

/// What a Policy allows and denies, and to whom it applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtendedPolicySpec {
    /// The replicas that the policy applies to; an empty selector means all of the namespace.
    #[serde(default)]
    pub pod_selector: LabelSelector,
    /// Which directions it governs. Left out: those that have rules; `Ingress` if none has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_types: Vec<PolicyType>,
    /// About connections that the selected replicas take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<ExtendedIngressRule>,
    /// About connections that they make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<ExtendedEgressRule>,
    /// Whether what it would deny is counted and told, but not denied.
    #[serde(default, skip_serializing_if = "is_false")]
    pub audit: bool,
    /// Whether connections that its rules decide about are written to the daemon's log.
    #[serde(default, skip_serializing_if = "is_false")]
    pub log: bool,
    /// From when on it is as if it were not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
}

/// What becomes of connections that the selected replicas take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtendedIngressRule {
    /// What becomes of them.
    #[serde(default)]
    pub action: PolicyAction,
    /// From any of these; empty: from everywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<ExtendedPeer>,
    /// To these ports of theirs; empty, with no ICMP either: to all, of every protocol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PolicyPort>,
    /// By these messages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub icmp: Vec<IcmpMessage>,
}

/// What becomes of connections that the selected replicas make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtendedEgressRule {
    /// What becomes of them.
    #[serde(default)]
    pub action: PolicyAction,
    /// To any of these; empty: to everywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<ExtendedPeer>,
    /// To these ports of the other end; empty, with no ICMP either: to all, of every protocol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PolicyPort>,
    /// By these messages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub icmp: Vec<IcmpMessage>,
}

/// What becomes of a connection that a rule of a Policy matches.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
pub enum PolicyAction {
    /// It is allowed.
    #[default]
    Allow,
    /// It is denied, whatever allows it.
    Deny,
}

/// Other ends of connections: replicas by labels as in a NetworkPolicy, or one of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtendedPeer {
    /// Replicas with these labels, in the policy's namespace or, with a namespace selector, in those that it selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Namespaces with these labels; without a pod selector all replicas in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Addresses, of replicas too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlock>,
    /// Who has a name of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<Entity>,
    /// Whatever this name resolves to, such as `example.org` or `*.example.org`; of egress only, and not to deny.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_name: Option<String>,
}

/// Ends that have a name of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Entity {
    /// The processes of the replica's own node.
    Host,
    /// The processes of any node.
    Node,
    /// Whatever is outside of the cluster.
    World,
    /// Every replica, every node and the DNS server.
    Cluster,
}

/// Messages of ICMP. Answers to an echo request belong to it; every other message is judged by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IcmpMessage {
    /// Of which protocol.
    #[serde(default)]
    pub family: IcmpFamily,
    /// The type, 0 to 255, for example 8 for an echo request of IPv4 and 128 for one of IPv6; left out: all.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<i64>,
    /// The code, 0 to 255; left out: all of the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
}

/// ICMP or ICMPv6.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
pub enum IcmpFamily {
    /// ICMP.
    #[default]
    IPv4,
    /// ICMPv6.
    IPv6,
}

impl ExtendedPolicySpec {
    /// Whether it has something to say about `direction`.
    pub fn governs(&self, direction: PolicyType) -> bool {
        if !self.policy_types.is_empty() {
            return self.policy_types.contains(&direction);
        }
        match direction {
            PolicyType::Ingress => !self.ingress.is_empty() || self.egress.is_empty(),
            PolicyType::Egress => !self.egress.is_empty(),
        }
    }

    /// Whether what none of its rules allows is denied in `direction`: not where all rules deny.
    pub fn closes(&self, direction: PolicyType) -> bool {
        let actions: Vec<PolicyAction> = match direction {
            PolicyType::Ingress => self.ingress.iter().map(|rule| rule.action).collect(),
            PolicyType::Egress => self.egress.iter().map(|rule| rule.action).collect(),
        };
        self.governs(direction) && (actions.is_empty() || actions.contains(&PolicyAction::Allow))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_is_governed_where_it_is_named_or_has_rules_and_closed_unless_all_of_them_deny() {
        let mut spec = ExtendedPolicySpec::default();
        assert!(spec.governs(PolicyType::Ingress) && !spec.governs(PolicyType::Egress));
        assert!(spec.closes(PolicyType::Ingress) && !spec.closes(PolicyType::Egress));
        spec.egress.push(ExtendedEgressRule { action: PolicyAction::Deny, ..Default::default() });
        assert!(!spec.governs(PolicyType::Ingress) && spec.governs(PolicyType::Egress));
        assert!(!spec.closes(PolicyType::Egress), "it denies something, and leaves the rest alone");
        spec.egress.push(ExtendedEgressRule::default());
        assert!(spec.closes(PolicyType::Egress));
        spec.policy_types = vec![PolicyType::Ingress];
        assert!(spec.closes(PolicyType::Ingress) && !spec.governs(PolicyType::Egress));
    }
}
