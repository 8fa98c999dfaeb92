//! Policies, whose readers are written by hand.

use std::sync::Arc;

use hivemind_model::{
    ClusterNetworkPolicySpec, ExtendedPolicySpec, Metadata, NetworkPolicy, NetworkPolicySpec,
    NetworkPolicyStatus, PolicyKind, PolicySpec,
};
use hivemind_yaml::{Faults, Node, Source};

use super::{Reading, add_new};
use crate::{
    document::{Origin, PolicyDocument},
    fields,
    kind::Kind,
    reader::{At, Reader},
};

impl Reading<'_> {
    pub(super) fn policy(&mut self, source: &Source, root: Arc<Node>, kind: PolicyKind, faults: &mut Faults) {
        let before = faults.list.len();
        let mut reader = Reader { source, home: &|_, field| fields::home(kind, field), faults };
        let at = At { node: &root, path: String::new() };
        reader.map(&at, fields::DOCUMENT);
        let metadata = reader
            .required(&at, "metadata", "give it a name: metadata: {name: allow-web}")
            .and_then(|metadata| reader.metadata(&metadata, Kind::Policy(kind), self.options));
        let hint = match kind {
            PolicyKind::ClusterNetworkPolicy => {
                "say what it decides: spec: {tier: Admin, priority: 1, subject: …}"
            }
            _ => "say whom it selects: spec: {podSelector: {matchLabels: {app: web}}}",
        };
        let spec = reader.required(&at, "spec", hint).map(|spec| reader.policy_spec(kind, &spec));
        let (named, specified) = (metadata.is_some(), spec.is_some());
        let policy = NetworkPolicy {
            metadata: metadata.unwrap_or_else(|| Metadata::new(self.options.namespace, "")),
            spec: spec.unwrap_or_else(|| empty(kind)),
            status: NetworkPolicyStatus::default(),
        };
        if named {
            let name = [&*policy.metadata.namespace, &*policy.metadata.name];
            self.note_name(source, &root, Kind::Policy(kind), name, faults);
        }
        let document = PolicyDocument { policy, origin: Origin { source: source.clone(), root } };
        if specified {
            let problems = (self.check)(&document.policy);
            add_new(problems, |problem| document.fault(problem), before, faults);
        }
        self.read.policies.push(document);
    }
}

fn empty(kind: PolicyKind) -> PolicySpec {
    match kind {
        PolicyKind::NetworkPolicy => NetworkPolicySpec::default().into(),
        PolicyKind::ClusterNetworkPolicy => ClusterNetworkPolicySpec::default().into(),
        PolicyKind::Policy => ExtendedPolicySpec::default().into(),
    }
}
