//! The rules and alerts that come with the program: whether Prometheus takes them, whether they fire when they should, and
//! whether what they speak of exists.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, de::DeserializeOwned};

use crate::promtool::tool;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[serde(rename = "name")]
    _name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    record: String,
    #[serde(default)]
    alert: String,
    expr: String,
    #[serde(default, rename = "for")]
    _lasts: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Tests {
    tests: Vec<Test>,
}

#[derive(Deserialize)]
struct Test {
    #[serde(default)]
    alert_rule_test: Vec<AlertTest>,
}

#[derive(Deserialize)]
struct AlertTest {
    alertname: String,
    exp_alerts: Vec<serde_json::Value>,
}

/// What a query is made of besides metrics.
const WORDS: [&str; 11] = [
    "sum",
    "rate",
    "increase",
    "changes",
    "time",
    "histogram_quantile",
    "label_replace",
    "or",
    "and",
    "by",
    // Prometheus' own: whether a scrape came.
    "up",
];

fn place(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..").join(path)
}

fn read<T: DeserializeOwned>(path: &str) -> T {
    let text = fs::read_to_string(place(path)).expect("it is there");
    serde_saphyr::from_str(&text).expect("it is YAML of that kind")
}

fn rules(path: &str) -> Vec<Rule> {
    read::<File>(path).groups.into_iter().flat_map(|group| group.rules).collect()
}

fn alerts() -> Vec<Rule> {
    rules("packaging/prometheus/alerts.yaml")
}

#[test]
fn promtool_takes_the_rules_and_finds_that_they_do_what_their_tests_say() {
    let directory = place("packaging/prometheus");
    for words in [&["check", "rules", "rules.yaml", "alerts.yaml"][..], &["test", "rules", "tests.yaml"]] {
        let output =
            Command::new(tool()).args(words).current_dir(&directory).output().expect("promtool is missing");
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
    }
}

#[test]
fn every_metric_of_the_rules_is_in_the_reference_or_recorded() {
    let reference = fs::read_to_string(place("docs/reference/metrics.md")).unwrap();
    let rows = reference.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let mut known: BTreeSet<String> = BTreeSet::new();
    for (name, rest) in rows {
        if rest.starts_with("histogram") {
            known.extend(["bucket", "sum", "count"].map(|ending| format!("{name}_{ending}")));
        } else {
            known.insert(name.to_owned());
        }
    }
    assert!(known.contains("hivemind_flow_bytes_total"), "the reference is not read");
    let recording = rules("packaging/prometheus/rules.yaml");
    known.extend(recording.iter().map(|rule| rule.record.clone()));
    let mut seen = BTreeSet::new();
    for rule in recording.iter().chain(&alerts()) {
        let metrics = metrics(&rule.expr);
        assert!(!metrics.is_empty() || rule.expr.starts_with("up{"), "{}", rule.expr);
        for metric in metrics {
            assert!(known.contains(&metric), "{metric} of {}{} does not exist", rule.record, rule.alert);
            seen.insert(metric);
        }
    }
    assert!(seen.len() > 20, "{seen:?}");
}

/// The metrics of a query: what is left without strings, selectors, ranges, lists of labels and words.
fn metrics(query: &str) -> Vec<String> {
    let mut rest = query.to_owned();
    for (open, close) in [("\"", "\""), ("{", "}"), ("[", "]"), ("by (", ")")] {
        while let Some((before, after)) = rest.split_once(open) {
            let (_, after) =
                after.split_once(close).unwrap_or_else(|| panic!("{open} is not closed: {query}"));
            rest = format!("{before} {after}");
        }
    }
    let words = rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let names = words.filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()));
    names.filter(|name| !WORDS.contains(name)).map(str::to_owned).collect()
}

#[test]
fn every_alert_says_what_is_what_it_means_and_where_it_is_written_what_to_do() {
    let guide = fs::read_to_string(place("docs/guide/metrics.md")).unwrap();
    let headings: BTreeSet<_> = guide.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let alerts = alerts();
    assert!(alerts.len() > 20);
    for alert in &alerts {
        let name = alert.alert.as_str();
        assert!(["critical", "warning", "info"].contains(&alert.labels["severity"].as_str()), "{name}");
        for key in ["summary", "description"] {
            assert!(alert.annotations[key].ends_with('.'), "the {key} of {name} is no sentence");
        }
        let anchor = format!("docs/guide/metrics.md#{}", name.to_lowercase());
        assert_eq!(alert.annotations["runbook"], anchor, "{name}");
        assert!(headings.contains(name), "the guide does not say what to do about {name}");
    }
    let named = headings.iter().filter(|heading| heading.starts_with("Hivemind"));
    assert_eq!(named.count(), alerts.len(), "the guide speaks of alerts that are not there");
}

#[test]
fn of_every_alert_it_is_tested_that_it_fires_and_that_it_does_not() {
    let tests: Tests = read("packaging/prometheus/tests.yaml");
    let tests: Vec<_> = tests.tests.into_iter().flat_map(|test| test.alert_rule_test).collect();
    for Rule { alert, .. } in alerts() {
        let fires = |wanted| {
            let mut of = tests.iter().filter(|test| test.alertname == alert);
            of.any(|test| test.exp_alerts.is_empty() != wanted)
        };
        assert!(fires(true) && fires(false), "{alert}");
    }
}
