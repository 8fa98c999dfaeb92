//! Policies that are suggested, as YAML with what speaks for them as comments.
//!
//! Each part of a document is written by itself and put in its place, with its comment before it: no text is searched.

use hivemind_model::{PolicySuggestion, RuleEvidence, SeenConnections, SuggestedPolicy};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::document;
use crate::cli::{fault::Failure, output};

/// A comment that has several words is broken before this column.
const COLUMNS: usize = 120;
/// The most nodes that a line names.
const NODES_MAX: usize = 4;

/// All policies, a document each.
pub(super) fn documents(suggestion: &PolicySuggestion) -> Result<String, Failure> {
    let mut text = String::new();
    let (since, until) = (minute(suggestion.since), minute(suggestion.until));
    let reach =
        format!("From flows recorded {since} to {until}; what happens less often than that is not in it.");
    comment(0, &reach, &mut text);
    suggestion.notes.iter().for_each(|note| comment(0, note, &mut text));
    for one in &suggestion.policies {
        text.push_str("---\n");
        write(one, &mut text)?;
    }
    Ok(text)
}

fn write(one: &SuggestedPolicy, text: &mut String) -> Result<(), Failure> {
    one.notes.iter().for_each(|note| comment(0, note, text));
    let mut document = document::said(&one.policy)?;
    if let Some(metadata) = document["metadata"].as_object_mut() {
        metadata.retain(|_, value| value.as_object().is_none_or(|fields| !fields.is_empty()));
    }
    let mut spec = take_fields(&mut document, "spec");
    text.push_str(&output::yaml(&document)?);
    text.push_str("spec:\n");
    let directions = ["ingress", "egress"].map(|direction| (direction, spec.remove(direction)));
    indented(2, &output::yaml(&spec)?, text);
    for ((direction, rules), evidence) in directions.into_iter().zip([&one.ingress, &one.egress]) {
        let Some(Value::Array(rules)) = rules else { continue };
        indented(2, &format!("{direction}:\n"), text);
        for (i, rule) in rules.into_iter().enumerate() {
            if let Some(evidence) = evidence.get(i) {
                explain(evidence, direction == "ingress", text);
            }
            indented(2, &output::yaml(&[rule])?, text);
        }
    }
    Ok(())
}

/// Takes the object of a field out of another.
fn take_fields(document: &mut Value, field: &str) -> Map<String, Value> {
    match document.as_object_mut().and_then(|fields| fields.remove(field)) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn explain(evidence: &RuleEvidence, is_ingress: bool, text: &mut String) {
    evidence.seen.iter().for_each(|seen| comment(2, &seen_in_words(seen, is_ingress), text));
    if evidence.untold > 0 {
        comment(2, &format!("and {} more like these", grouped(evidence.untold)), text);
    }
    evidence
        .wider
        .iter()
        .for_each(|sentence| comment(2, &format!("wider than what was seen: {sentence}"), text));
}

/// `1,204 connections from default/web to 5432/tcp, 2026-01-31T12:00Z to 2026-02-01T09:00Z, on n1`.
fn seen_in_words(seen: &SeenConnections, is_ingress: bool) -> String {
    let number = match seen.connections {
        0 => "connections that began before".to_owned(),
        1 => "1 connection".to_owned(),
        number => format!("{} connections", grouped(number)),
    };
    let port = match seen.port {
        Some(port) => format!("{port}/{}", seen.protocol),
        None => seen.protocol.clone(),
    };
    let whom = match is_ingress {
        true => format!("from {} to {port}", seen.source),
        false => format!("to {} on {port}", seen.destination),
    };
    let time = match seen.first == seen.last {
        true => minute(seen.first),
        false => format!("{} to {}", minute(seen.first), minute(seen.last)),
    };
    let mut nodes = seen.nodes.iter().take(NODES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    if seen.nodes.len() > NODES_MAX {
        nodes.push_str(&format!(" and {} more", seen.nodes.len() - NODES_MAX));
    }
    format!("{number} {whom}, {time}, on {nodes}")
}

fn minute(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%MZ").to_string()
}

/// With a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Names come from outside too: whatever ends a line, or steers a terminal, is a space in a comment.
fn comment(indent: usize, said: &str, text: &mut String) {
    let said = said.replace(char::is_control, " ");
    let start = format!("{:indent$}#", "");
    let mut line = start.clone();
    for word in said.split_whitespace() {
        if line.len() > start.len() && line.len() + 1 + word.len() > COLUMNS {
            text.push_str(&line);
            text.push('\n');
            line = format!("{start}  ");
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

fn indented(indent: usize, lines: &str, text: &mut String) {
    for line in lines.lines() {
        text.push_str(&format!("{:indent$}{line}\n", ""));
    }
}

#[cfg(test)]
mod tests {
    use hivemind_manifest::{Options, Source, read};
    use hivemind_model::{
        ExtendedEgressRule, ExtendedPeer, ExtendedPolicySpec, IngressRule, LabelSelector, Metadata,
        NetworkPolicy, NetworkPolicySpec, NetworkPolicyStatus, PolicyPeer, PolicyPort, PolicySpec,
        PolicyType, PortRef,
    };

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn seen(source: &str, destination: &str, connections: u64) -> SeenConnections {
        SeenConnections {
            source: source.into(),
            destination: destination.into(),
            protocol: "tcp".into(),
            port: Some(5432),
            connections,
            first: at("2026-01-31T12:00:00Z"),
            last: at("2026-02-01T09:00:00Z"),
            nodes: vec!["n1".into()],
        }
    }

    fn selector(app: &str) -> LabelSelector {
        LabelSelector {
            match_labels: [("app".to_owned(), app.to_owned())].into(),
            ..LabelSelector::default()
        }
    }

    fn suggestion() -> PolicySuggestion {
        let policy = |name: &str, spec: PolicySpec| NetworkPolicy {
            metadata: Metadata::new("shop", name),
            spec,
            status: NetworkPolicyStatus::default(),
        };
        let ports = vec![PolicyPort { port: Some(PortRef::Number(5432)), ..PolicyPort::default() }];
        let peer = PolicyPeer { pod_selector: Some(selector("web")), ..PolicyPeer::default() };
        let db = NetworkPolicySpec {
            pod_selector: selector("db"),
            policy_types: vec![PolicyType::Ingress, PolicyType::Egress],
            ingress: vec![IngressRule { ports: ports.clone(), from: vec![peer] }],
            egress: Vec::new(),
        };
        let name = ExtendedPeer { domain_name: Some("api.example.org".into()), ..ExtendedPeer::default() };
        let egress = ExtendedEgressRule { ports, to: vec![name], ..ExtendedEgressRule::default() };
        let web = ExtendedPolicySpec {
            pod_selector: selector("web"),
            policy_types: vec![PolicyType::Ingress, PolicyType::Egress],
            egress: vec![egress.clone(), egress],
            ..ExtendedPolicySpec::default()
        };
        let evidence = |seen, wider, untold| RuleEvidence { seen, wider, untold };
        PolicySuggestion {
            since: at("2026-01-31T11:58:00Z"),
            until: at("2026-02-01T09:01:00Z"),
            policies: vec![
                SuggestedPolicy {
                    policy: policy("db-as-seen", db.into()),
                    ingress: vec![evidence(vec![seen("shop/web", "shop/db", 1204)], Vec::new(), 0)],
                    egress: Vec::new(),
                    notes: vec![
                        "denied, and no reason to allow it: 12 attempts from shop/scanner on 5432/tcp".into(),
                    ],
                },
                SuggestedPolicy {
                    policy: policy("web-as-seen", web.into()),
                    ingress: Vec::new(),
                    egress: vec![
                        evidence(
                            vec![seen("shop/web", "api.example.org\nkind: Evil", 1)],
                            Vec::new(),
                            1_000_000,
                        ),
                        evidence(vec![seen("shop/web", "dns", 0)], vec!["in this".into()], 0),
                    ],
                    notes: Vec::new(),
                },
            ],
            notes: vec!["no policy for job".into()],
        }
    }

    #[test]
    fn what_speaks_for_a_rule_stands_before_it() {
        let expected = "\
# From flows recorded 2026-01-31T11:58Z to 2026-02-01T09:01Z; what happens less often than that is not in it.
# no policy for job
---
# denied, and no reason to allow it: 12 attempts from shop/scanner on 5432/tcp
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: db-as-seen
  namespace: shop
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes:
  - Ingress
  - Egress
  ingress:
  # 1,204 connections from shop/web to 5432/tcp, 2026-01-31T12:00Z to 2026-02-01T09:00Z, on n1
  - from:
    - podSelector:
        matchLabels:
          app: web
    ports:
    - port: 5432
      protocol: TCP
---
";
        let text = documents(&suggestion()).unwrap();
        assert_eq!(text.get(..expected.len()), Some(expected), "{text}");
        let rest = &text[expected.len()..];
        let line = "  # 1 connection to api.example.org kind: Evil on 5432/tcp, 2026-01-31T12:00Z to 2026-02-01T09:00Z, on n1\n  \
                    # and 1,000,000 more like these\n  - action: Allow\n";
        assert!(rest.contains(line), "{rest}");
        assert!(rest.contains("# connections that began before to dns on"), "{rest}");
        assert!(rest.contains("  # wider than what was seen: in this\n  - action: Allow\n"), "{rest}");
    }

    #[test]
    fn what_is_printed_is_read_back_as_what_was_suggested() {
        let suggestion = suggestion();
        let text = documents(&suggestion).unwrap();
        let options = Options { namespace: "default", only_this_namespace: false };
        let found = read(&[Source::new("x", text.clone().into())], options, &|_: &NetworkPolicy| Vec::new());
        assert_eq!(found.faults, [], "{text}");
        let policies: Vec<NetworkPolicy> =
            found.policies.into_iter().map(|document| document.policy).collect();
        let suggested: Vec<NetworkPolicy> = suggestion.policies.into_iter().map(|one| one.policy).collect();
        assert_eq!(policies, suggested, "{text}");
    }

    #[test]
    fn long_comments_are_broken_between_words_and_lines_within_them_are_not() {
        let mut text = String::new();
        comment(2, &"word ".repeat(60), &mut text);
        assert!(text.lines().count() > 1 && text.lines().all(|line| line.starts_with("  #")), "{text}");
        assert!(text.lines().all(|line| line.len() <= COLUMNS), "{text}");
        text.clear();
        comment(0, "a\nkind: b\r\u{1b}[2J", &mut text);
        assert_eq!(text, "# a kind: b [2J\n");
    }
}
