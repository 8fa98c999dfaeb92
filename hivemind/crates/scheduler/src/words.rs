//! Decisions as people read them.

use std::collections::BTreeMap;
use std::fmt;

use crate::decision::{Criterion, Decision, Outcome, Verdict};
use crate::filter::Refusal;
use crate::snapshot::{Effect, Health, Protocol};

impl Refusal {
    /// What is wrong with the node, to be read after "it": `is cordoned`.
    pub fn words(&self) -> String {
        match self {
            Refusal::NotReady { health } => format!("is not ready ({})", health_words(*health)),
            Refusal::Cordoned => "is cordoned".into(),
            Refusal::Taint { taint } if taint.value.is_empty() => {
                format!("has the taint {}:{}, which is not tolerated", taint.key, effect_words(taint.effect))
            }
            Refusal::Taint { taint } => {
                let effect = effect_words(taint.effect);
                format!("has the taint {}={}:{effect}, which is not tolerated", taint.key, taint.value)
            }
            Refusal::Selector { key, value } => format!("lacks the label {key}={value}"),
            Refusal::VolumeElsewhere { volume, node } => {
                format!("lacks the volume {}/{}, which is on {node}", volume.namespace, volume.name)
            }
            Refusal::PortTaken { port } => {
                let protocol = if port.protocol == Protocol::Tcp { "tcp" } else { "udp" };
                format!("has port {}/{protocol} taken", port.number)
            }
            Refusal::Cpu { wants_millicores, free_millicores } => {
                format!("has too little CPU (wants {wants_millicores}m, {free_millicores}m free)")
            }
            Refusal::Memory { wants_bytes, free_bytes } => {
                let (wants, free) = (bytes_words(*wants_bytes), bytes_words(*free_bytes));
                format!("has too little memory (wants {wants}, {free} free)")
            }
        }
    }
}

impl Decision {
    /// The decision as text: a sentence, then a line a node, the best first.
    pub fn words(&self) -> String {
        let app = format!("{}/{}", self.app.namespace, self.app.name);
        let mut text = match &self.outcome {
            Outcome::Bound { node } => format!("A replica of {app} goes to {node}.\n"),
            Outcome::Unschedulable { reason } => format!("A replica of {app} fits nowhere: {reason}.\n"),
        };
        let mut nodes: Vec<_> = self.nodes.iter().collect();
        nodes.sort_by_key(|n| match &n.verdict {
            _ if Some(n.node.as_str()) == self.node() => (0, 0),
            Verdict::Feasible { total, .. } => (1, u32::MAX - total),
            Verdict::Refused { .. } => (2, 0),
        });
        let width = nodes.iter().map(|n| n.node.chars().count()).max().unwrap_or(0);
        for node in nodes {
            text += &format!("  {:width$}  {}\n", node.node, verdict_words(&node.verdict));
        }
        if self.rtt_not_measured > 0 {
            let (pairs, default) = (self.rtt_not_measured, self.rtt_default_us);
            text += &format!("Round-trip times not measured: {pairs}, each taken for {default} µs.\n");
        }
        text
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words())
    }
}

fn verdict_words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Feasible { scores, total } => {
            let parts: Vec<String> = scores
                .iter()
                .map(|s| format!("{} {}×{}", criterion_words(s.criterion), s.normalised, s.weight))
                .collect();
            format!("{total}: {}", parts.join(" + "))
        }
        Verdict::Refused { reasons } => reasons.iter().map(Refusal::words).collect::<Vec<_>>().join("; "),
    }
}

/// All nodes by their first reason, most frequent first: `3 nodes: 2 are cordoned, 1 is not ready (suspect)`. Nodes that
/// have too little count together, with what is free where it is most.
pub(crate) fn summary(refused: &[Vec<Refusal>]) -> String {
    if refused.is_empty() {
        return "there is no node".into();
    }
    let mut groups: BTreeMap<Refusal, (u64, &Refusal)> = BTreeMap::new();
    for reason in refused.iter().filter_map(|reasons| reasons.first()) {
        let (count, most) = groups.entry(group(reason)).or_insert((0, reason));
        *count += 1;
        // Within a group only what is free differs.
        *most = reason.max(*most);
    }
    let mut groups: Vec<(u64, &Refusal)> = groups.into_values().collect();
    groups.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    let plural = if refused.len() == 1 { "node" } else { "nodes" };
    let more: u64 = groups.iter().skip(GROUPS_MAX).map(|(count, _)| count).sum();
    let mut parts: Vec<String> =
        groups.iter().take(GROUPS_MAX).map(|(n, r)| format!("{n} {}", counted(*n, r))).collect();
    if more > 0 {
        parts.push(format!("{more} for other reasons"));
    }
    format!("{} {plural}: {}", refused.len(), parts.join(", "))
}

/// The reason without what differs from node to node.
fn group(reason: &Refusal) -> Refusal {
    let mut group = reason.clone();
    match &mut group {
        Refusal::Cpu { free_millicores: free, .. } | Refusal::Memory { free_bytes: free, .. } => *free = 0,
        _ => {}
    }
    group
}

/// The words for so many nodes: `is cordoned`, `are cordoned`.
fn counted(nodes: u64, reason: &Refusal) -> String {
    let words = reason.words();
    if nodes == 1 {
        return words;
    }
    let (verb, rest) = words.split_once(' ').unwrap_or((&words, ""));
    let verb = match verb {
        "is" => "are",
        "has" => "have",
        "lacks" => "lack",
        other => other,
    };
    let short = matches!(reason, Refusal::Cpu { .. } | Refusal::Memory { .. });
    let rest = if short { rest.replace(", ", ", at most ") } else { rest.to_owned() };
    format!("{verb} {rest}")
}

/// More would not be read.
const GROUPS_MAX: usize = 8;

fn health_words(health: Health) -> &'static str {
    match health {
        Health::Ready => "ready",
        Health::Suspect => "suspect",
        Health::Dead => "dead",
        Health::Left => "left",
        Health::Unknown => "unknown",
    }
}

fn effect_words(effect: Effect) -> &'static str {
    match effect {
        Effect::NoSchedule => "NoSchedule",
        Effect::PreferNoSchedule => "PreferNoSchedule",
    }
}

fn criterion_words(criterion: Criterion) -> &'static str {
    match criterion {
        Criterion::Spread => "spread",
        Criterion::Balance => "balance",
        Criterion::Image => "image",
        Criterion::PreferredTaints => "preferred taints",
        Criterion::Network => "network",
    }
}

/// `512 MiB`, `2.0 GiB`: whole up to MiB, with one decimal above, rounded down.
fn bytes_words(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes >> 10),
        1_048_576..GIB => format!("{} MiB", bytes >> 20),
        _ => format!("{}.{} GiB", bytes / GIB, bytes % GIB * 10 / GIB),
    }
}
