//! The fields that documents may have.

use hivemind_model::PolicyKind;

/// Every document's.
pub(crate) const DOCUMENT: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];
/// The same of an app as it is printed, with its replicas.
pub(crate) const DOCUMENT_WITH_REPLICAS: &[&str] =
    &["apiVersion", "kind", "metadata", "spec", "status", "replicas"];
/// What a list of documents has; the last is the server's.
pub(crate) const LIST: &[&str] = &["apiVersion", "kind", "metadata", "items", "resourceVersion"];
/// Those of `metadata`: what is kept, and what the server writes, which is in what a cluster prints and means nothing in what is
/// applied.
pub(crate) const METADATA: &[&str] = &[
    "name",
    "namespace",
    "labels",
    "annotations",
    "id",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "generation",
    "resourceVersion",
    "managedFields",
    "selfLink",
];
/// Those of `metadata` that are kept.
pub(crate) const METADATA_SAID: &[&str] = &["name", "namespace", "labels", "annotations"];

/// Where a field belongs that a document of `kind` has somewhere else, or whose it is: most often it is indented wrongly.
pub(crate) fn home(kind: PolicyKind, field: &str) -> Option<String> {
    let of = |kind: PolicyKind| homes(kind).find(|(fields, _)| fields.contains(&field));
    if let Some((_, home)) = of(kind) {
        return Some(format!("{field:?} belongs {home}: check the indentation"));
    }
    let others: Vec<&str> =
        PolicyKind::ALL.into_iter().filter(|kind| of(*kind).is_some()).map(PolicyKind::name).collect();
    (!others.is_empty())
        .then(|| format!("{field:?} is a field of {}, which {} is not", others.join(" and "), kind.name()))
}

/// Where the fields of a kind belong.
fn homes(kind: PolicyKind) -> impl Iterator<Item = &'static (&'static [&'static str], &'static str)> {
    let own = match kind {
        PolicyKind::NetworkPolicy => network::HOMES,
        PolicyKind::ClusterNetworkPolicy => cluster::HOMES,
        PolicyKind::Policy => extended::HOMES,
    };
    HOMES.iter().chain(own)
}

/// What documents of all kinds have.
const HOMES: &[(&[&str], &str)] = &[
    (&["spec", "metadata", "apiVersion", "kind"], "at the top of the document"),
    (&["ingress", "egress"], "below spec"),
    (&["from"], "in an entry of ingress"),
    (&["to"], "in an entry of egress"),
    (SELECTOR, "below a selector"),
    (EXPRESSION, "in an entry of matchExpressions"),
    (&["namespace", "labels", "annotations"], "below metadata"),
];

/// What NetworkPolicy and Policy have alike.
pub(crate) const PORT: &[&str] = &["protocol", "port", "endPort"];
pub(crate) const IP_BLOCK: &[&str] = &["cidr", "except"];
/// What all kinds have.
pub(crate) const SELECTOR: &[&str] = &["matchLabels", "matchExpressions"];
pub(crate) const EXPRESSION: &[&str] = &["key", "operator", "values"];

/// Those of a NetworkPolicy.
pub(crate) mod network {
    pub(crate) const SPEC: &[&str] = &["podSelector", "policyTypes", "ingress", "egress"];
    pub(crate) const INGRESS: &[&str] = &["from", "ports"];
    pub(crate) const EGRESS: &[&str] = &["to", "ports"];
    pub(crate) const PEER: &[&str] = &["podSelector", "namespaceSelector", "ipBlock"];

    pub(super) const HOMES: &[(&[&str], &str)] = &[
        (&["podSelector"], "below spec, or in an entry of from or to"),
        (&["policyTypes"], "below spec"),
        (&["ports"], "in an entry of ingress or egress, beside from or to"),
        (&["namespaceSelector", "ipBlock"], "in an entry of from or to"),
        (super::PORT, "in an entry of ports"),
        (super::IP_BLOCK, "below ipBlock"),
        (&["name"], "below metadata"),
    ];
}

/// Those of a ClusterNetworkPolicy; both of its versions have the same.
pub(crate) mod cluster {
    pub(crate) const SPEC: &[&str] = &["tier", "priority", "subject", "ingress", "egress"];
    pub(crate) const SUBJECT: &[&str] = &["namespaces", "pods"];
    pub(crate) const PODS: &[&str] = &["namespaceSelector", "podSelector"];
    pub(crate) const INGRESS: &[&str] = &["name", "action", "from", "protocols"];
    pub(crate) const EGRESS: &[&str] = &["name", "action", "to", "protocols"];
    pub(crate) const PEER: &[&str] = &["namespaces", "pods", "nodes", "networks", "domainNames"];
    pub(crate) const PROTOCOL: &[&str] = &["tcp", "udp", "sctp", "destinationNamedPort"];
    pub(crate) const PORTS: &[&str] = &["destinationPort"];
    pub(crate) const PORT: &[&str] = &["number", "range"];
    pub(crate) const RANGE: &[&str] = &["start", "end"];

    pub(super) const HOMES: &[(&[&str], &str)] = &[
        (&["tier", "priority", "subject"], "below spec"),
        (SUBJECT, "below subject, or in an entry of from or to"),
        (PODS, "below pods"),
        (&["action", "protocols"], "in an entry of ingress or egress, beside from or to"),
        (&["nodes", "networks", "domainNames"], "in an entry of to"),
        (PROTOCOL, "in an entry of protocols"),
        (PORTS, "below tcp, udp or sctp"),
        (PORT, "below destinationPort"),
        (RANGE, "below range"),
        (&["name"], "below metadata, or in an entry of ingress or egress"),
    ];
}

/// Those of a Policy.
pub(crate) mod extended {
    pub(crate) const SPEC: &[&str] =
        &["podSelector", "policyTypes", "ingress", "egress", "audit", "log", "until"];
    pub(crate) const INGRESS: &[&str] = &["action", "from", "ports", "icmp"];
    pub(crate) const EGRESS: &[&str] = &["action", "to", "ports", "icmp"];
    pub(crate) const PEER: &[&str] = &["podSelector", "namespaceSelector", "ipBlock", "entity", "domainName"];
    pub(crate) const ICMP: &[&str] = &["family", "type", "code"];

    pub(super) const HOMES: &[(&[&str], &str)] = &[
        (&["podSelector"], "below spec, or in an entry of from or to"),
        (&["policyTypes", "audit", "log", "until"], "below spec"),
        (&["action", "ports", "icmp"], "in an entry of ingress or egress, beside from or to"),
        (&["namespaceSelector", "ipBlock", "entity", "domainName"], "in an entry of from or to"),
        (super::PORT, "in an entry of ports"),
        (ICMP, "in an entry of icmp"),
        (super::IP_BLOCK, "below ipBlock"),
        (&["name"], "below metadata"),
    ];
}
