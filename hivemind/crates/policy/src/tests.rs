//! The compiler against the reference, and both against what Kubernetes' documentation shows.

mod data_path;
mod generate;
mod keys;
mod kubernetes;
mod laws;
mod matrix;
mod outside;
mod overruled;
mod simulate;
mod told;

use std::collections::BTreeMap;

use hivemind_model::{
    Identity, LabelSelector, Metadata, Namespace, NetworkPolicy, NetworkPolicyStatus, PolicySpec,
};

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn selector(pairs: &[(&str, &str)]) -> LabelSelector {
    LabelSelector { match_labels: labels(pairs), ..LabelSelector::default() }
}

fn namespace(name: &str, pairs: &[(&str, &str)]) -> Namespace {
    let mut namespace = Namespace::new(name);
    namespace.metadata.labels.extend(labels(pairs));
    namespace
}

fn identity(number: u32, namespace: &str, pairs: &[(&str, &str)]) -> Identity {
    Identity::new(number, namespace, "app", labels(pairs))
}

fn policy(number: u32, namespace: &str, spec: impl Into<PolicySpec>) -> NetworkPolicy {
    NetworkPolicy {
        metadata: Metadata::new(namespace, format!("policy-{number}")),
        spec: spec.into(),
        status: NetworkPolicyStatus { number, ..NetworkPolicyStatus::default() },
    }
}
