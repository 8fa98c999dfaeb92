//! A policy for people.

use hivemind_model::{NetworkPolicy, PolicyKind, PolicySpec, PolicyType};
use jiff::Timestamp;

use super::{enforced, words};
use crate::cli::{fault::Colours, output::Row, table::fields, units::age};

/// In one word how a policy is.
fn state(policy: &NetworkPolicy, now: Timestamp) -> String {
    match &policy.status.problem {
        _ if policy.metadata.is_deleting() => "Deleting".to_owned(),
        _ if policy.spec.has_ended(now) => "Ended".to_owned(),
        Some(problem) if !enforced::is(policy) => problem.code.to_string(),
        _ if enforced::is(policy) => "In force".to_owned(),
        _ => "Pending".to_owned(),
    }
}

impl Row for NetworkPolicy {
    fn header(wide: bool) -> Vec<&'static str> {
        let mut header =
            vec!["NAME", "KIND", "SELECTS", "REPLICAS", "INGRESS FROM", "EGRESS TO", "STATE", "AGE"];
        if wide {
            header.extend(["GENERATION", "NUMBER", "ID"]);
        }
        header
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let mut cells = vec![
            self.metadata.name.clone(),
            kind(self).to_owned(),
            words::subject(self),
            self.status.replicas.to_string(),
            words::cell(self, PolicyType::Ingress),
            words::cell(self, PolicyType::Egress),
            state(self, now),
            age(self.metadata.creation_timestamp, now),
        ];
        if wide {
            cells.extend([
                self.metadata.generation.to_string(),
                self.status.number.to_string(),
                self.metadata.id.clone(),
            ]);
        }
        cells
    }

    fn is_cluster_wide(&self) -> bool {
        self.spec.kind().is_cluster_wide()
    }
}

/// The kind in one short word.
fn kind(policy: &NetworkPolicy) -> &'static str {
    match policy.spec.kind() {
        PolicyKind::NetworkPolicy => "network",
        PolicyKind::ClusterNetworkPolicy => "cluster",
        PolicyKind::Policy => "policy",
    }
}

/// What a policy says besides its rules.
fn said(policy: &NetworkPolicy) -> Vec<(&'static str, String)> {
    match &policy.spec {
        PolicySpec::NetworkPolicy(_) => Vec::new(),
        PolicySpec::ClusterNetworkPolicy(spec) => {
            vec![("Asked", format!("tier {:?}, priority {}", spec.tier, spec.priority))]
        }
        PolicySpec::Policy(spec) => {
            let mut pairs = Vec::new();
            if spec.audit {
                pairs.push(("Audit", "what it would deny is told, and not denied".to_owned()));
            }
            if spec.log {
                pairs.push(("Log", "what it decides is written to the log of the daemon".to_owned()));
            }
            pairs.extend(spec.until.map(|until| ("Until", until.to_string())));
            pairs
        }
    }
}

/// What becomes of what no rule of a direction matches.
fn rest(policy: &NetworkPolicy, direction: PolicyType) -> &'static str {
    match &policy.spec {
        PolicySpec::NetworkPolicy(_) => "",
        PolicySpec::Policy(spec) if spec.closes(direction) => "",
        PolicySpec::Policy(_) => "  what these do not deny is as if this policy were not there\n",
        PolicySpec::ClusterNetworkPolicy(_) => {
            "  what these do not match is for the policies behind this one\n"
        }
    }
}

/// All of a policy; rules are called as flows name them.
pub(crate) fn describe(policy: &NetworkPolicy, now: Timestamp, colours: Colours) -> String {
    let NetworkPolicy { metadata, status, .. } = policy;
    let replicas = match status.replicas {
        _ if policy.spec.has_ended(now) => "nobody any more".to_owned(),
        0 => "no replica yet".to_owned(),
        1 => "1 replica".to_owned(),
        count => format!("{count} replicas"),
    };
    let in_force = match status.enforced_at {
        Some(at) if enforced::is(policy) && !policy.spec.has_ended(now) => {
            format!("{}, for {}", state(policy, now), age(at, now))
        }
        _ => state(policy, now),
    };
    let namespace = match policy.spec.kind().is_cluster_wide() {
        true => "-".to_owned(),
        false => metadata.namespace.clone(),
    };
    let labels: Vec<String> = metadata.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut pairs = vec![
        ("Name", metadata.name.clone()),
        ("Kind", policy.spec.kind().name().to_owned()),
        ("Namespace", namespace),
        ("Id", metadata.id.clone()),
        ("Labels", labels.join("\n")),
        ("Selects", format!("{}: {replicas}", words::subject(policy))),
        ("State", in_force),
    ];
    pairs.extend(said(policy));
    pairs.push(("Age", age(metadata.creation_timestamp, now)));
    let mut text = fields(&pairs);
    for (name, way, direction) in
        [("ingress", "from", PolicyType::Ingress), ("egress", "to", PolicyType::Egress)]
    {
        text.push('\n');
        match words::rules(policy, direction) {
            None => text.push_str(&format!("{name}: not governed by this policy\n")),
            Some(rules) if rules.is_empty() => text.push_str(&format!("{name}: nothing is allowed\n")),
            Some(rules) => {
                for (index, words::Rule { action, said, name: called }) in rules.iter().enumerate() {
                    let action = if action.is_empty() { String::new() } else { format!("{action} ") };
                    let called = if called.is_empty() { String::new() } else { format!(" ({called})") };
                    text.push_str(&format!("{name}[{index}]: {action}{way} {said}{called}\n"));
                }
                text.push_str(rest(policy, direction));
            }
        }
    }
    if let Some(problem) = &status.problem {
        let head = colours.paint("1;33", &format!("problem[{}]", problem.code));
        text.push_str(&format!("\n{head}: {}\n", problem.message));
        if !problem.hint.is_empty() {
            text.push_str(&format!("  hint: {}\n", problem.hint));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use hivemind_model::{
        EgressRule, IngressRule, List, Metadata, NetworkPolicySpec, NetworkPolicyStatus, PolicyPort, PortRef,
    };

    use super::*;
    use crate::cli::output::{Format, list};

    fn policy() -> NetworkPolicy {
        let mut metadata = Metadata::new("default", "web");
        metadata.creation_timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        metadata.generation = 1;
        let port = PolicyPort { port: Some(PortRef::Number(80)), ..PolicyPort::default() };
        NetworkPolicy {
            metadata,
            spec: NetworkPolicySpec {
                ingress: vec![IngressRule { ports: vec![port], from: Vec::new() }],
                egress: Vec::<EgressRule>::new(),
                ..NetworkPolicySpec::default()
            }
            .into(),
            status: NetworkPolicyStatus {
                enforced_generation: 1,
                enforced_at: Some("2026-01-01T00:01:00Z".parse().unwrap()),
                replicas: 2,
                ..NetworkPolicyStatus::default()
            },
        }
    }

    #[test]
    fn a_policy_that_has_ended_is_not_said_to_be_in_force() {
        let until = "2026-01-01T00:02:00Z".parse().unwrap();
        let spec = hivemind_model::ExtendedPolicySpec { until: Some(until), ..Default::default() };
        let brief = NetworkPolicy { spec: spec.into(), ..policy() };
        let (before, after) = ("2026-01-01T00:01:59Z".parse().unwrap(), until);
        assert_eq!(
            (state(&brief, before), state(&brief, after)),
            ("In force".to_owned(), "Ended".to_owned())
        );
        let told = describe(&brief, after, Colours::Off);
        assert!(told.contains("all: nobody any more\n") && told.contains("Ended\n"), "{told}");
    }

    #[test]
    fn policies_are_told_in_a_line_each_and_one_in_full() {
        let now = "2026-01-01T00:03:00Z".parse().unwrap();
        let policies = List { resource_version: 1, items: vec![policy()] };
        assert_eq!(
            list(&policies, Format::Table, false, now).unwrap(),
            "NAME   KIND      SELECTS   REPLICAS   INGRESS FROM       EGRESS TO   STATE      AGE\n\
             web    network   all       2          anyone on 80/tcp   any         In force   3m\n"
        );
        assert_eq!(
            describe(&policy(), now, Colours::Off),
            "Name:       web\n\
             Kind:       NetworkPolicy\n\
             Namespace:  default\n\
             Id:         -\n\
             Labels:     -\n\
             Selects:    all: 2 replicas\n\
             State:      In force, for 2m\n\
             Age:        3m\n\
             \n\
             ingress[0]: from anyone on 80/tcp\n\
             \n\
             egress: not governed by this policy\n"
        );
    }

    fn read(kind: PolicyKind, spec: &str) -> NetworkPolicy {
        let (version, kind) = (kind.api_version(), kind.name());
        let text = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n");
        let options = hivemind_manifest::Options { namespace: "shop", only_this_namespace: false };
        let source = hivemind_manifest::Source::new("x", text.into());
        let mut read = hivemind_manifest::read(&[source], options, &|_| Vec::new());
        assert_eq!(read.faults, []);
        let mut policy = read.policies.remove(0).policy;
        policy.metadata.creation_timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        policy
    }

    #[test]
    fn policies_of_the_other_kinds_are_told_with_what_they_alone_say() {
        let now = "2026-01-01T00:03:00Z".parse().unwrap();
        let guard = read(
            PolicyKind::ClusterNetworkPolicy,
            "{tier: Admin, priority: 7, subject: {namespaces: {}}, ingress: [{name: all, action: Deny, from: [{namespaces: {}}]}]}",
        );
        let policies = List { resource_version: 1, items: vec![guard.clone()] };
        assert_eq!(
            list(&policies, Format::Table, true, now).unwrap().lines().nth(1).unwrap(),
            "-           a      cluster   all of all namespaces   0          deny all of all namespaces   any         In force   3m"
        );
        let told = describe(&guard, now, Colours::Off);
        for part in [
            "Kind:       ClusterNetworkPolicy\nNamespace:  -\n",
            "Asked:      tier Admin, priority 7\n",
            "\ningress[0]: deny from all of all namespaces (all)\n  what these do not match is for the policies behind this one\n",
        ] {
            assert!(told.contains(part), "no {part:?}: {told}");
        }
        let more = read(
            PolicyKind::Policy,
            "{podSelector: {}, audit: true, log: true, until: 2030-01-01T00:00:00Z, egress: [{action: Deny, to: [{entity: world}]}]}",
        );
        let told = describe(&more, now, Colours::Off);
        for part in [
            "Kind:       Policy\nNamespace:  shop\n",
            "Audit:      what it would deny is told, and not denied\n",
            "Log:        what it decides is written to the log of the daemon\nUntil:      2030-01-01T00:00:00Z\n",
            "\negress[0]: deny to world\n  what these do not deny is as if this policy were not there\n",
        ] {
            assert!(told.contains(part), "no {part:?}: {told}");
        }
    }
}
