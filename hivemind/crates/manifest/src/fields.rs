//! The fields that documents may have.

/// Every document's.
pub(crate) const DOCUMENT: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];
/// What a list of documents has.
pub(crate) const LIST: &[&str] = &["apiVersion", "kind", "metadata", "items"];
/// Those of `metadata` that are kept, and those that the server writes: they are in what a cluster prints, and mean
/// nothing in what is applied.
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
pub(crate) const SPEC: &[&str] = &["podSelector", "policyTypes", "ingress", "egress"];
pub(crate) const INGRESS: &[&str] = &["from", "ports"];
pub(crate) const EGRESS: &[&str] = &["to", "ports"];
pub(crate) const PEER: &[&str] = &["podSelector", "namespaceSelector", "ipBlock"];
pub(crate) const PORT: &[&str] = &["protocol", "port", "endPort"];
pub(crate) const IP_BLOCK: &[&str] = &["cidr", "except"];
pub(crate) const SELECTOR: &[&str] = &["matchLabels", "matchExpressions"];
pub(crate) const EXPRESSION: &[&str] = &["key", "operator", "values"];

/// Where a field belongs that stands somewhere else: most often it is indented wrongly.
pub(crate) fn home(field: &str) -> Option<&'static str> {
    let homes: &[(&[&str], &str)] = &[
        (&["spec", "metadata", "apiVersion", "kind"], "at the top of the document"),
        (&["podSelector"], "below spec, or in an entry of from or to"),
        (&["policyTypes", "ingress", "egress"], "below spec"),
        (&["from"], "in an entry of ingress"),
        (&["to"], "in an entry of egress"),
        (&["ports"], "in an entry of ingress or egress, beside from or to"),
        (&["namespaceSelector", "ipBlock"], "in an entry of from or to"),
        (&["protocol", "port", "endPort"], "in an entry of ports"),
        (IP_BLOCK, "below ipBlock"),
        (SELECTOR, "below podSelector or namespaceSelector"),
        (EXPRESSION, "in an entry of matchExpressions"),
        (&["name", "namespace", "labels", "annotations"], "below metadata"),
    ];
    homes.iter().find(|(fields, _)| fields.contains(&field)).map(|(_, home)| *home)
}
