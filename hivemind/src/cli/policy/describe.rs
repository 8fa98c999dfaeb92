//! A policy for people.

use hivemind_model::{NetworkPolicy, PolicyType};
use jiff::Timestamp;

use super::{enforced, words};
use crate::cli::{fault::Colours, output::Row, table::fields, units::age};

/// In one word how a policy is.
fn state(policy: &NetworkPolicy) -> String {
    match &policy.status.problem {
        _ if policy.metadata.is_deleting() => "Deleting".to_owned(),
        Some(problem) if !enforced::is(policy) => problem.code.to_string(),
        _ if enforced::is(policy) => "In force".to_owned(),
        _ => "Pending".to_owned(),
    }
}

impl Row for NetworkPolicy {
    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["NAME", "SELECTS", "REPLICAS", "INGRESS FROM", "EGRESS TO", "STATE", "AGE"];
        if wide {
            header.extend(["GENERATION", "NUMBER", "ID"]);
        }
        header
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let mut cells = vec![
            self.metadata.name.clone(),
            words::subject(self),
            self.status.replicas.to_string(),
            words::cell(self, PolicyType::Ingress),
            words::cell(self, PolicyType::Egress),
            state(self),
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
}

/// All of a policy; rules are called as flows name them.
pub(crate) fn describe(policy: &NetworkPolicy, now: Timestamp, colours: Colours) -> String {
    let NetworkPolicy { metadata, status, .. } = policy;
    let replicas = match status.replicas {
        0 => "no replica yet".to_owned(),
        1 => "1 replica".to_owned(),
        count => format!("{count} replicas"),
    };
    let in_force = match status.enforced_at {
        Some(at) if enforced::is(policy) => format!("{}, for {}", state(policy), age(at, now)),
        _ => state(policy),
    };
    let labels: Vec<String> = metadata.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut text = fields(&[
        ("Name", metadata.name.clone()),
        ("Namespace", metadata.namespace.clone()),
        ("Id", metadata.id.clone()),
        ("Labels", labels.join("\n")),
        ("Selects", format!("{}: {replicas}", words::subject(policy))),
        ("State", in_force),
        ("Age", age(metadata.creation_timestamp, now)),
    ]);
    for (name, way, direction) in
        [("ingress", "from", PolicyType::Ingress), ("egress", "to", PolicyType::Egress)]
    {
        text.push('\n');
        match words::rules(policy, direction) {
            None => text.push_str(&format!("{name}: not governed by this policy\n")),
            Some(rules) if rules.is_empty() => text.push_str(&format!("{name}: nothing is allowed\n")),
            Some(rules) => {
                for (index, rule) in rules.iter().enumerate() {
                    text.push_str(&format!("{name}[{index}]: {way} {rule}\n"));
                }
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
    fn policies_are_told_in_a_line_each_and_one_in_full() {
        let now = "2026-01-01T00:03:00Z".parse().unwrap();
        let policies = List { resource_version: 1, items: vec![policy()] };
        assert_eq!(
            list(&policies, Format::Table, false, now).unwrap(),
            "NAME   SELECTS   REPLICAS   INGRESS FROM       EGRESS TO   STATE      AGE\n\
             web    all       2          anyone on 80/tcp   any         In force   3m\n"
        );
        assert_eq!(
            describe(&policy(), now, Colours::Off),
            "Name:       web\n\
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
}
