//! What was recorded of flows, in words.

use hivemind_model::{DEFAULT_NAMESPACE, SimulationReach, TrafficCount};
use jiff::Timestamp;

/// An end, or a policy, without the namespace that is meant where none is said.
pub(super) fn short(end: &str) -> String {
    end.strip_prefix(DEFAULT_NAMESPACE).and_then(|rest| rest.strip_prefix('/')).unwrap_or(end).to_owned()
}

/// `60`, or `60-120` where only bounds are known.
pub(super) fn count(count: TrafficCount, of: impl Fn(u64) -> String) -> String {
    if count.least == count.most { of(count.most) } else { format!("{}-{}", of(count.least), of(count.most)) }
}

/// How far the records of nodes reach, and which are missing.
pub(super) fn reach(nodes: &[SimulationReach], missing: &[String]) -> String {
    let time = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%MZ").to_string();
    let mut text = String::new();
    for reach in nodes {
        text += &match (reach.first, reach.last) {
            (Some(first), Some(last)) => {
                format!("recorded on {}: {} to {}\n", reach.node, time(first), time(last))
            }
            _ => format!("recorded on {}: nothing\n", reach.node),
        };
    }
    for place in missing {
        text += &match place.as_str() {
            "log" => "missing: some of a node's log cannot be read\n".to_owned(),
            place => format!("missing: the records of {place}, in whole or in part\n"),
        };
    }
    text
}
