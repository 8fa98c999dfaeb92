//! Policies in words.

use hivemind_model::{
    LabelExpression, LabelOperator, LabelSelector, NetworkPolicy, PolicyPeer, PolicyPort, PolicyProtocol,
    PolicySpec, PolicyType, PortRef,
};

/// Whom a selector selects: `app=web`, `tier in (a,b)`, `!old`; `all` for everyone.
pub(crate) fn selector(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().map(|(key, value)| format!("{key}={value}"));
    let all: Vec<String> = labels.chain(selector.match_expressions.iter().map(expression)).collect();
    if all.is_empty() { "all".to_owned() } else { all.join(",") }
}

fn expression(LabelExpression { key, operator, values }: &LabelExpression) -> String {
    match (operator, values.as_slice()) {
        (LabelOperator::In, [value]) => format!("{key}={value}"),
        (LabelOperator::NotIn, [value]) => format!("{key}!={value}"),
        (LabelOperator::In, values) => format!("{key} in ({})", values.join(",")),
        (LabelOperator::NotIn, values) => format!("{key} not in ({})", values.join(",")),
        (LabelOperator::Exists, _) => key.clone(),
        (LabelOperator::DoesNotExist, _) => format!("!{key}"),
    }
}

fn peer(peer: &PolicyPeer) -> String {
    let PolicyPeer { pod_selector, namespace_selector, ip_block } = peer;
    if let Some(block) = ip_block {
        let except = match block.except.is_empty() {
            true => String::new(),
            false => format!(" except {}", block.except.join(",")),
        };
        return format!("{}{except}", block.cidr);
    }
    let pods = pod_selector.as_ref().map_or("all".to_owned(), selector);
    match namespace_selector {
        None => pods,
        Some(namespaces) if namespaces.is_empty() => format!("{pods} of all namespaces"),
        Some(namespaces) => format!("{pods} of namespaces {}", selector(namespaces)),
    }
}

fn port(port: &PolicyPort) -> String {
    let protocol = match port.protocol {
        PolicyProtocol::Tcp => "tcp",
        PolicyProtocol::Udp => "udp",
        PolicyProtocol::Sctp => "sctp",
    };
    match (&port.port, port.end_port) {
        (None, _) => protocol.to_owned(),
        (Some(PortRef::Number(first)), Some(last)) => format!("{first}-{last}/{protocol}"),
        (Some(PortRef::Number(number)), None) => format!("{number}/{protocol}"),
        (Some(PortRef::Name(name)), _) => format!("{name}/{protocol}"),
    }
}

/// Whom a policy applies to.
pub(crate) fn subject(policy: &NetworkPolicy) -> String {
    match &policy.spec {
        PolicySpec::NetworkPolicy(spec) => selector(&spec.pod_selector),
        PolicySpec::Policy(spec) => selector(&spec.pod_selector),
        PolicySpec::ClusterNetworkPolicy(spec) => match (&spec.subject.namespaces, &spec.subject.pods) {
            (_, Some(pods)) => {
                format!(
                    "{} of namespaces {}",
                    selector(&pods.pod_selector),
                    selector(&pods.namespace_selector)
                )
            }
            (Some(namespaces), None) => format!("namespaces {}", selector(namespaces)),
            (None, None) => selector(&LabelSelector::default()),
        },
    }
}

/// What one rule allows: `app=client on 80/tcp`.
fn rule(peers: &[PolicyPeer], ports: &[PolicyPort]) -> String {
    let who = match peers.is_empty() {
        true => "anyone".to_owned(),
        false => peers.iter().map(peer).collect::<Vec<_>>().join(" or "),
    };
    match ports.is_empty() {
        true => who,
        false => format!("{who} on {}", ports.iter().map(port).collect::<Vec<_>>().join(",")),
    }
}

/// The rules of a direction; `None` if the policy does not govern it.
pub(crate) fn rules(policy: &NetworkPolicy, direction: PolicyType) -> Option<Vec<String>> {
    let PolicySpec::NetworkPolicy(spec) = &policy.spec else { return None };
    spec.governs(direction).then(|| match direction {
        PolicyType::Ingress => spec.ingress.iter().map(|r| rule(&r.from, &r.ports)).collect(),
        PolicyType::Egress => spec.egress.iter().map(|r| rule(&r.to, &r.ports)).collect(),
    })
}

/// The most characters of rules in a table.
const CELL_CHARS_MAX: usize = 48;

/// A direction in a few words: `any` if it is not governed, `none` if nothing is allowed.
pub(crate) fn cell(policy: &NetworkPolicy, direction: PolicyType) -> String {
    match rules(policy, direction) {
        None => "any".to_owned(),
        Some(rules) if rules.is_empty() => "none".to_owned(),
        Some(rules) => {
            let text = rules.join("; ");
            if text.chars().count() <= CELL_CHARS_MAX {
                text
            } else if let [one] = rules.as_slice() {
                let begin: String = one.chars().take(CELL_CHARS_MAX).collect();
                begin + "…"
            } else {
                format!("{} rules", rules.len())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hivemind_manifest::{Options, Source, read};

    use super::*;

    fn policy(spec: &str) -> NetworkPolicy {
        let text = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: a}}\nspec: {spec}\n"
        );
        let options = Options { namespace: "default", only_this_namespace: false };
        let mut read = read(&[Source::new("x", text.into())], options, &|_| Vec::new());
        assert_eq!(read.faults, []);
        read.policies.remove(0).policy
    }

    #[test]
    fn rules_are_told_in_words() {
        let policy = policy(
            "{podSelector: {matchLabels: {app: web}, matchExpressions: [{key: tier, operator: NotIn, values: [a, b]}, {key: old, operator: DoesNotExist}]}, \
             ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 80}, {port: 1, endPort: 9, protocol: UDP}]}, \
             {from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {podSelector: {}, namespaceSelector: {matchLabels: {team: x}}}, {namespaceSelector: {}}]}, {}], \
             policyTypes: [Ingress, Egress]}",
        );
        assert_eq!(subject(&policy), "app=web,tier not in (a,b),!old");
        assert_eq!(
            rules(&policy, PolicyType::Ingress).unwrap(),
            [
                "app=client on 80/tcp,1-9/udp",
                "10.0.0.0/8 except 10.1.0.0/16 or all of namespaces team=x or all of all namespaces",
                "anyone",
            ]
        );
        assert_eq!(cell(&policy, PolicyType::Ingress), "3 rules");
        assert_eq!(cell(&policy, PolicyType::Egress), "none");
    }

    #[test]
    fn what_a_policy_does_not_govern_is_open() {
        let policy = policy("{podSelector: {}, ingress: [{ports: [{port: 80}]}]}");
        assert_eq!(
            (cell(&policy, PolicyType::Ingress), cell(&policy, PolicyType::Egress)),
            ("anyone on 80/tcp".into(), "any".into())
        );
        assert_eq!(subject(&policy), "all");
    }
}
