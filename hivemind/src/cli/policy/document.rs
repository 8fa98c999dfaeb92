//! Policies as `policy apply` takes them.

use hivemind_model::{ErrorCode, NetworkPolicy};
use serde_json::{Value, json};

use crate::cli::fault::{Failure, fault};

/// A policy with all that is known of it.
pub(crate) fn of(policy: &NetworkPolicy) -> Result<Value, Failure> {
    let wrong = |error: serde_json::Error| {
        fault(ErrorCode::Internal, format!("the policy cannot be written as JSON: {error}"), "")
    };
    let mut document = serde_json::to_value(policy).map_err(wrong)?;
    let kind = policy.spec.kind();
    document["apiVersion"] = json!(kind.api_version());
    if kind.is_cluster_wide()
        && let Some(metadata) = document["metadata"].as_object_mut()
    {
        metadata.remove("namespace");
    }
    Ok(document)
}

/// Several of them, of any kinds.
pub(super) fn list(policies: &[NetworkPolicy]) -> Result<Value, Failure> {
    let items: Vec<Value> = policies.iter().map(of).collect::<Result<_, _>>()?;
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
}

/// What its author says of a policy, and nothing else.
pub(crate) fn said(policy: &NetworkPolicy) -> Result<Value, Failure> {
    let mut document = of(policy)?;
    if let Some(fields) = document.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = document["metadata"].as_object_mut() {
        metadata.retain(|field, _| matches!(field.as_str(), "name" | "namespace" | "labels" | "annotations"));
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use hivemind_manifest::{Options, Source, read};

    use super::*;
    use crate::cli::output;

    const ALL: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a, annotations: {v: '1.10'}}
spec:
  podSelector: {matchLabels: {version: '2', on: 'true', none: 'null'}}
  ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: '::/0'}}], ports: [{port: 80, endPort: 90}, {port: http}]}]
  egress: [{}]
---
apiVersion: policy.networking.k8s.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: b}
spec:
  tier: Baseline
  priority: 0
  subject: {pods: {podSelector: {}}}
  ingress: [{name: 'no: 1', action: Deny, from: [{namespaces: {}}], protocols: [{destinationNamedPort: http}]}]
  egress:
  - {action: Accept, to: [{networks: ['::/0']}, {domainNames: ['*.example.org']}, {nodes: {}}]}
  - {action: Pass, to: [{pods: {podSelector: {}}}], protocols: [{tcp: {destinationPort: {range: {start: 1, end: 9}}}}]}
---
apiVersion: hivemind/v1
kind: Policy
metadata: {name: c}
spec:
  podSelector: {}
  audit: true
  log: true
  until: 2030-01-01T00:00:00Z
  ingress: [{action: Deny, from: [{entity: world}], icmp: [{type: 8}, {family: IPv6}], ports: [{}]}]
  egress: [{to: [{domainName: example.org}]}]
";

    #[test]
    fn what_is_printed_can_be_applied_again() {
        let options = Options { namespace: "shop", only_this_namespace: false };
        let check = |policy: &NetworkPolicy| {
            let mut problems = hivemind_model::Problems::default();
            hivemind_policy::check("", policy, &mut problems);
            problems.into_result().err().map(|error| error.problems).unwrap_or_default()
        };
        let from = |text: &str| read(&[Source::new("x", text.into())], options, &check);
        let first = from(ALL);
        assert_eq!(first.faults, []);
        let policies: Vec<NetworkPolicy> =
            first.policies.into_iter().map(|document| document.policy).collect();
        assert_eq!(policies.len(), 3);
        let again = |text: String, policies: &[NetworkPolicy]| {
            let second = from(&text);
            assert_eq!(second.faults, [], "{text}");
            let read: Vec<NetworkPolicy> =
                second.policies.into_iter().map(|document| document.policy).collect();
            assert_eq!(read, policies, "{text}");
        };
        for policy in &policies {
            let one = std::slice::from_ref(policy);
            again(output::yaml(&of(policy).unwrap()).unwrap(), one);
            again(output::json(&of(policy).unwrap()).unwrap(), one);
            again(output::yaml(&said(policy).unwrap()).unwrap(), one);
        }
        again(output::yaml(&list(&policies).unwrap()).unwrap(), &policies);
    }
}
