//! What policies say of a connection, and why.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::flow::RuleRef;

/// What the policies of both ends say of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyCheck {
    /// What comes of it.
    pub verdict: PolicyCheckVerdict,
    /// Who makes the connection: `namespace/app`, `host`, `world`, or an address.
    pub source: String,
    /// With whom; as `source`, or `dns`, or the name of a domain.
    pub destination: String,
    /// `tcp`, `udp`, `sctp`, `icmp` or `icmpv6`.
    pub protocol: String,
    /// The port, of a protocol that has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What lets the source make it, or not; several where addresses of the destination differ in that. Empty if the source is
    /// no replica: then no policy governs it.
    pub egress: Vec<PolicyJudgement>,
    /// What lets the destination take it, or not; in the same way.
    pub ingress: Vec<PolicyJudgement>,
}

/// What comes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PolicyCheckVerdict {
    /// Both ends let it pass, whichever addresses they have.
    Allowed,
    /// One of them does not.
    Denied,
    /// It depends on their addresses, or on the names by which these were asked for.
    Depends,
}

/// What the policies of one end say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyJudgement {
    /// Whether they let it pass.
    pub allowed: bool,
    /// The addresses of the other end of which this is true; if that is `world` or the name of a domain, one of each range
    /// that the policies tell apart.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Domains as policies name them: this is so if the node's DNS server answered a name of one of them with the address. Empty: it is
    /// so if it answered none of those that another judgement has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    /// The rules that decide; empty where no policy governs the end.
    pub rules: Vec<RuleRef>,
    /// Rules of policies that only tell, which would deny it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audit: Vec<RuleRef>,
    /// The tiers that were asked, in their order.
    pub steps: Vec<PolicyCheckStep>,
}

/// What one tier of policies says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyCheckStep {
    /// Which: `node` (its own processes reach its replicas), `admin`, `namespace`, `baseline`.
    pub tier: String,
    /// `allowed`, `denied`, or `passed`: the next one decides.
    pub outcome: String,
    /// The rules that say so; empty where none matches.
    pub rules: Vec<RuleRef>,
}
