use hivemind_model::{
    IngressRule, IpBlock, LabelExpression, LabelOperator, LabelSelector, Metadata, NetworkPolicyStatus,
    PolicyType, PortRef,
};

use super::*;

mod cluster;
mod extended;

fn policy(spec: NetworkPolicySpec) -> NetworkPolicy {
    of_spec(spec)
}

fn with_rule(rule: IngressRule) -> NetworkPolicy {
    policy(NetworkPolicySpec { ingress: vec![rule], ..NetworkPolicySpec::default() })
}

/// The field and code of every fault.
fn faults(policy: &NetworkPolicy) -> Vec<(String, ErrorCode)> {
    let mut problems = Problems::default();
    check("", policy, &mut problems);
    match problems.into_result() {
        Ok(()) => Vec::new(),
        Err(error) if error.problems.is_empty() => vec![(error.field.unwrap_or_default(), error.code)],
        Err(error) => error.problems.into_iter().map(|p| (p.field, p.code)).collect(),
    }
}

/// The field and message of every fault.
fn told(policy: &NetworkPolicy) -> Vec<(String, String)> {
    let mut problems = Problems::default();
    check("", policy, &mut problems);
    match problems.into_result() {
        Ok(()) => Vec::new(),
        Err(error) if error.problems.is_empty() => vec![(error.field.unwrap_or_default(), error.message)],
        Err(error) => {
            assert!(error.problems.iter().all(|problem| !problem.hint.is_empty()), "no hint: {error:?}");
            error.problems.into_iter().map(|problem| (problem.field, problem.message)).collect()
        }
    }
}

/// Whether a policy of `spec` has the faults `expected` and no others.
fn assert_told(spec: impl Into<PolicySpec>, expected: &[(&str, &str)]) {
    let policy = of_spec(spec);
    let expected: Vec<(String, String)> =
        expected.iter().map(|(field, message)| ((*field).to_owned(), (*message).to_owned())).collect();
    assert_eq!(told(&policy), expected, "{policy:?}");
}

fn of_spec(spec: impl Into<PolicySpec>) -> NetworkPolicy {
    let metadata = Metadata::new("default", "p");
    NetworkPolicy { metadata, spec: spec.into(), status: NetworkPolicyStatus::default() }
}

fn expression(key: &str, operator: LabelOperator, values: &[&str]) -> LabelExpression {
    LabelExpression { key: key.into(), operator, values: values.iter().map(|v| (*v).to_owned()).collect() }
}

fn selector(labels: &[(&str, &str)], expressions: &[LabelExpression]) -> LabelSelector {
    LabelSelector {
        match_labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        match_expressions: expressions.to_vec(),
    }
}

fn port(number: i64, end: Option<u16>) -> PolicyPort {
    PolicyPort { port: Some(PortRef::Number(number)), end_port: end, ..PolicyPort::default() }
}

fn block(cidr: &str, except: &[&str]) -> PolicyPeer {
    let except = except.iter().map(|e| (*e).to_owned()).collect();
    PolicyPeer { ip_block: Some(IpBlock { cidr: cidr.into(), except }), ..PolicyPeer::default() }
}

#[test]
fn every_fault_of_a_policy_is_told_at_once_with_its_path() {
    let rule = IngressRule {
        ports: vec![port(80, None), port(0, None), port(90, Some(80))],
        from: vec![PolicyPeer::default(), block("10.0.0.1/8", &[]), block("10.0.0.0/8", &["11.0.0.0/16"])],
    };
    let mut bad = policy(NetworkPolicySpec {
        pod_selector: selector(&[("a b", "c")], &[]),
        policy_types: vec![PolicyType::Ingress, PolicyType::Ingress],
        ingress: vec![rule],
        ..NetworkPolicySpec::default()
    });
    bad.metadata.name = "Web".into();
    let found = faults(&bad);
    let fields: Vec<_> = found.iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "metadata.name",
            "spec.podSelector.matchLabels.a b",
            "spec.policyTypes[1]",
            "spec.ingress[0].ports[1].port",
            "spec.ingress[0].ports[2].endPort",
            "spec.ingress[0].from[0]",
            "spec.ingress[0].from[1].ipBlock.cidr",
            "spec.ingress[0].from[2].ipBlock.except[0]",
        ]
    );
}

#[test]
fn paths_stand_behind_the_place_of_the_policy() {
    let mut problems = Problems::default();
    check("items[2]", &with_rule(IngressRule { ports: vec![port(0, None)], from: vec![] }), &mut problems);
    let error = problems.into_result().unwrap_err();
    assert_eq!(error.field.as_deref(), Some("items[2].spec.ingress[0].ports[0].port"));
}

#[test]
fn operators_take_values_or_do_not() {
    let cases = [
        (LabelOperator::In, &[][..], false),
        (LabelOperator::NotIn, &[][..], false),
        (LabelOperator::Exists, &["a"][..], false),
        (LabelOperator::DoesNotExist, &["a"][..], false),
        (LabelOperator::In, &["a", ""][..], true),
        (LabelOperator::NotIn, &["a"][..], true),
        (LabelOperator::In, &["not a value"][..], false),
        (LabelOperator::Exists, &[][..], true),
        (LabelOperator::DoesNotExist, &[][..], true),
    ];
    for (operator, values, good) in cases {
        let asked = selector(&[], &[expression("app", operator, values)]);
        let spec = NetworkPolicySpec { pod_selector: asked, ..NetworkPolicySpec::default() };
        assert_eq!(faults(&policy(spec)).is_empty(), good, "{operator:?} {values:?}");
    }
}

#[test]
fn a_selector_that_can_never_match_is_a_fault() {
    use LabelOperator::{DoesNotExist, Exists, In, NotIn};
    let impossible = [
        selector(&[("app", "web")], &[expression("app", NotIn, &["web", "db"])]),
        selector(&[("app", "web")], &[expression("app", In, &["db"])]),
        selector(&[("app", "web")], &[expression("app", DoesNotExist, &[])]),
        selector(&[], &[expression("app", Exists, &[]), expression("app", DoesNotExist, &[])]),
        selector(&[], &[expression("app", In, &["a", "b"]), expression("app", NotIn, &["b", "a"])]),
        selector(&[], &[expression("app", In, &["a"]), expression("app", In, &["b"])]),
    ];
    for asked in impossible {
        let spec = NetworkPolicySpec { pod_selector: asked.clone(), ..NetworkPolicySpec::default() };
        assert_eq!(
            faults(&policy(spec)),
            [("spec.podSelector".to_owned(), ErrorCode::InvalidSelector)],
            "{asked:?}"
        );
    }
    let possible = [
        selector(
            &[("app", "web")],
            &[expression("app", NotIn, &["db"]), expression("tier", DoesNotExist, &[])],
        ),
        selector(&[], &[expression("app", NotIn, &["a"]), expression("app", DoesNotExist, &[])]),
        selector(&[], &[expression("app", In, &["a", "b"]), expression("app", NotIn, &["b"])]),
    ];
    for asked in possible {
        let spec = NetworkPolicySpec { pod_selector: asked, ..NetworkPolicySpec::default() };
        assert_eq!(faults(&policy(spec)), []);
    }
}

#[test]
fn ports_are_numbers_that_exist() {
    let name = |name: &str| PolicyPort { port: Some(PortRef::Name(name.into())), ..PolicyPort::default() };
    let alone = PolicyPort { end_port: Some(80), ..PolicyPort::default() };
    let bad = [
        (port(0, None), "port", ErrorCode::OutOfRange),
        (port(65_536, None), "port", ErrorCode::OutOfRange),
        (port(-1, None), "port", ErrorCode::OutOfRange),
        (port(80, Some(79)), "endPort", ErrorCode::OutOfRange),
        (alone, "endPort", ErrorCode::OutOfRange),
        (name("80"), "port", ErrorCode::InvalidName),
        (name("Http"), "port", ErrorCode::InvalidName),
        (name("a--b"), "port", ErrorCode::InvalidName),
        (name("a234567890123456"), "port", ErrorCode::InvalidName),
        (PolicyPort { end_port: Some(80), ..name("http") }, "endPort", ErrorCode::OutOfRange),
    ];
    for (port, field, code) in bad {
        let found = faults(&with_rule(IngressRule { ports: vec![port.clone()], from: vec![] }));
        assert_eq!(found, [(format!("spec.ingress[0].ports[0].{field}"), code)], "{port:?}");
    }
    let sctp = PolicyPort { protocol: hivemind_model::PolicyProtocol::Sctp, ..PolicyPort::default() };
    let good = vec![
        name("http"),
        name("a23456789012345"),
        port(1, None),
        port(65_535, None),
        port(80, Some(80)),
        port(1, Some(65_535)),
        sctp,
    ];
    assert_eq!(faults(&with_rule(IngressRule { ports: good, from: vec![] })), []);
}

#[test]
fn a_block_stands_alone_and_its_exceptions_lie_within() {
    let mut both = block("10.0.0.0/8", &[]);
    both.pod_selector = Some(LabelSelector::default());
    let bad = [
        (both, "", ErrorCode::InvalidSelector),
        (block("10.0.0.0/8", &["10.0.0.0/8"]), ".ipBlock.except[0]", ErrorCode::InvalidCidr),
        (block("10.0.0.0/8", &["0.0.0.0/0"]), ".ipBlock.except[0]", ErrorCode::InvalidCidr),
        (block("10.0.0.0/8", &["2001:db8::/32"]), ".ipBlock.except[0]", ErrorCode::InvalidCidr),
        (block("10.0.0.0/8", &["10.0.0.0/16", "10.1.2.3/16"]), ".ipBlock.except[1]", ErrorCode::InvalidCidr),
        (block("web", &["10.0.0.0/16"]), ".ipBlock.cidr", ErrorCode::InvalidCidr),
    ];
    for (peer, field, code) in bad {
        let found = faults(&with_rule(IngressRule { ports: vec![], from: vec![peer.clone()] }));
        assert_eq!(found, [(format!("spec.ingress[0].from[0]{field}"), code)], "{peer:?}");
    }
    let good = vec![block("0.0.0.0/0", &["10.0.0.0/8", "192.0.2.1/32"]), block("::/0", &["fd00::/8"])];
    assert_eq!(faults(&with_rule(IngressRule { ports: vec![], from: good })), []);
}

#[test]
fn what_is_too_much_is_refused() {
    let many = NetworkPolicySpec {
        ingress: vec![IngressRule::default(); RULES_MAX + 1],
        ..NetworkPolicySpec::default()
    };
    assert_eq!(faults(&policy(many)), [("spec.ingress".to_owned(), ErrorCode::OutOfRange)]);
    let ports = vec![port(80, None); 300];
    let peers = vec![block("10.0.0.0/8", &[]); 300];
    let found = faults(&with_rule(IngressRule { ports, from: peers }));
    assert_eq!(found, [("spec.ingress".to_owned(), ErrorCode::OutOfRange)]);
}
