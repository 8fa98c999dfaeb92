//! Whether a policy can be what its author means. All faults at once, each at the path of its field.

mod cluster;
mod domain_name;
mod extended;
mod peer;
mod port;
mod selector;

use std::collections::BTreeSet;

use hivemind_model::{
    ErrorCode, NetworkPolicy, NetworkPolicySpec, PolicyPeer, PolicyPort, PolicySpec, PolicyType, Problems,
    check_label, check_name,
};
use jiff::Timestamp;

/// How many rules a direction of one policy may have: what fits a rule's number.
pub const RULES_MAX: usize = 2_046;
/// How many peers one rule may have, and how many ports.
pub const PEERS_MAX: usize = 2_048;
/// How many peers and ports all rules of one policy may combine.
pub const COMBINATIONS_MAX: usize = 65_536;
/// How many exceptions one block may have.
pub const EXCEPTIONS_MAX: usize = 1_024;

/// Adds all faults of `policy` to `problems`; fields are paths such as `spec.ingress[0].from[1].ipBlock.cidr`, behind `at`
/// (for example `items[2]`) if that is not empty.
pub fn check(at: &str, policy: &NetworkPolicy, problems: &mut Problems) {
    let metadata = join(at, "metadata");
    check_name(&join(&metadata, "name"), &policy.metadata.name, 63, problems);
    check_name(&join(&metadata, "namespace"), &policy.metadata.namespace, 63, problems);
    for (key, value) in &policy.metadata.labels {
        check_label(&join(&metadata, &format!("labels.{key}")), key, value, problems);
    }
    let at = join(at, "spec");
    match &policy.spec {
        PolicySpec::NetworkPolicy(spec) => check_spec(&at, spec, problems),
        PolicySpec::ClusterNetworkPolicy(spec) => cluster::check(&at, spec, problems),
        PolicySpec::Policy(spec) => extended::check(&at, spec, problems),
    }
}

/// Adds the fault that `policy` ends before `now`, if so: applied, it would do nothing. `at` as for [`check`].
pub fn check_until(at: &str, policy: &NetworkPolicy, now: Timestamp, problems: &mut Problems) {
    if let Some(until) = policy.spec.until().filter(|until| *until <= now) {
        let message = format!("it has ended: {until} is past");
        let hint = "give a time to come, or leave it out for a policy that stays";
        problems.add(ErrorCode::OutOfRange, join(&join(at, "spec"), "until"), message, hint);
    }
}

fn check_spec(at: &str, spec: &NetworkPolicySpec, problems: &mut Problems) {
    selector::check(&join(at, "podSelector"), &spec.pod_selector, problems);
    check_types(at, &spec.policy_types, problems);
    let ingress = spec.ingress.iter().map(|rule| (&rule.ports, &rule.from));
    check_rules(&join(at, "ingress"), "from", ingress, problems);
    let egress = spec.egress.iter().map(|rule| (&rule.ports, &rule.to));
    check_rules(&join(at, "egress"), "to", egress, problems);
}

fn check_types(at: &str, types: &[PolicyType], problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for (i, kind) in types.iter().enumerate() {
        if !seen.insert(kind) {
            let what = format!("{kind:?} is said twice");
            problems.add(ErrorCode::Repeated, format!("{at}.policyTypes[{i}]"), what, "say it once");
        }
    }
}

fn check_rules<'a>(
    at: &str,
    peers_field: &str,
    rules: impl ExactSizeIterator<Item = (&'a Vec<PolicyPort>, &'a Vec<PolicyPeer>)>,
    problems: &mut Problems,
) {
    check_count(at, rules.len(), RULES_MAX, "rules", problems);
    let mut combinations = 0_usize;
    for (i, (ports, peers)) in rules.enumerate().take(RULES_MAX) {
        check_count(&format!("{at}[{i}].ports"), ports.len(), PEERS_MAX, "ports", problems);
        check_count(&format!("{at}[{i}].{peers_field}"), peers.len(), PEERS_MAX, "peers", problems);
        combinations = combinations.saturating_add(ports.len().max(1).saturating_mul(peers.len().max(1)));
        for (j, port) in ports.iter().enumerate().take(PEERS_MAX) {
            port::check(&format!("{at}[{i}].ports[{j}]"), port, problems);
        }
        for (j, one) in peers.iter().enumerate().take(PEERS_MAX) {
            peer::check(&format!("{at}[{i}].{peers_field}[{j}]"), one, problems);
        }
    }
    check_count(at, combinations, COMBINATIONS_MAX, "combinations of peers and ports", problems);
}

fn check_count(at: &str, count: usize, max: usize, what: &str, problems: &mut Problems) {
    if count > max {
        let message = format!("{count} {what}: more than the {max} that are possible");
        problems.add(ErrorCode::OutOfRange, at, message, "divide it between several policies");
    }
}

/// A field's path below `at`.
fn join(at: &str, field: &str) -> String {
    if at.is_empty() { field.to_owned() } else { format!("{at}.{field}") }
}

#[cfg(test)]
mod tests;
