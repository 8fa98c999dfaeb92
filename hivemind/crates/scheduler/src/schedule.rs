//! The choice.

use std::cmp::Reverse;

use crate::decision::{Decision, NodeVerdict, Outcome, Score, Verdict};
use crate::filter::{Refusal, refusals};
use crate::index::Index;
use crate::score::scores;
use crate::snapshot::{Pending, Snapshot};
use crate::words;

/// A snapshot, indexed once, and what was placed on it since.
///
/// Placing one replica takes a time that grows with the nodes, not with the replicas that are placed already.
pub struct Scheduler<'a> {
    index: Index<'a>,
}

impl<'a> Scheduler<'a> {
    /// Index `snapshot`.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        Scheduler { index: Index::of(snapshot) }
    }

    /// Where `pending` would go now, and why.
    pub fn explain(&self, pending: &Pending) -> Decision {
        self.decide(pending).0
    }

    /// Decide where `pending` goes; those that come after it see it there, not ready yet, and the volumes made that it mounts.
    pub fn place(&mut self, pending: &Pending) -> Decision {
        let (decision, chosen) = self.decide(pending);
        if let Some(at) = chosen {
            self.index.place(pending, at);
        }
        decision
    }

    fn decide(&self, pending: &Pending) -> (Decision, Option<usize>) {
        let nodes = &self.index.nodes;
        let refused: Vec<Vec<Refusal>> = nodes.iter().map(|n| refusals(&self.index, n, pending)).collect();
        let candidates: Vec<usize> = (0..nodes.len()).filter(|&at| refused[at].is_empty()).collect();
        let scores = scores(&self.index, pending, &candidates);
        let totals: Vec<u32> = scores.iter().map(|s| total(s)).collect();
        // Nodes are sorted by name, so of equal ones the least position is the first by name.
        let ranked = candidates.iter().zip(&totals);
        let best = ranked.max_by_key(|(at, total)| (**total, Reverse(nodes[**at].replicas), Reverse(**at)));
        let chosen = best.map(|(at, _)| *at);
        let outcome = match chosen {
            Some(at) => Outcome::Bound { node: nodes[at].node.name.clone() },
            None => Outcome::Unschedulable { reason: words::summary(&refused) },
        };
        let mut feasible = scores.into_iter().zip(totals);
        let verdicts = nodes.iter().zip(refused).map(|(state, reasons)| {
            let verdict = match reasons.is_empty().then(|| feasible.next()).flatten() {
                Some((scores, total)) => Verdict::Feasible { scores, total },
                None => Verdict::Refused { reasons },
            };
            NodeVerdict { node: state.node.name.clone(), verdict }
        });
        let decision = Decision {
            replica: pending.id.clone(),
            app: pending.app.clone(),
            outcome,
            nodes: verdicts.collect(),
            rtt_not_measured: self.index.network.not_measured(&pending.app, &candidates),
            rtt_default_us: self.index.network.rtt_default_us,
        };
        (decision, chosen)
    }
}

fn total(scores: &[Score]) -> u32 {
    scores.iter().map(|s| s.weight * s.normalised).sum()
}

/// Place all of `pending`, one after the other by app and then by id, whatever their order in the list; the decisions are in
/// that order too. Who wants another order, or does not want to keep every decision, uses a [`Scheduler`].
pub fn schedule(snapshot: &Snapshot, pending: &[Pending]) -> Vec<Decision> {
    let mut sorted: Vec<&Pending> = pending.iter().collect();
    sorted.sort();
    let mut scheduler = Scheduler::new(snapshot);
    sorted.into_iter().map(|p| scheduler.place(p)).collect()
}

/// Where `pending` would go, and why.
pub fn explain(snapshot: &Snapshot, pending: &Pending) -> Decision {
    Scheduler::new(snapshot).explain(pending)
}
