//! How good each candidate is; see [`Criterion`] for what each score is and why.

use crate::decision::{Criterion, Score};
use crate::index::{Index, NodeState};
use crate::snapshot::Pending;

/// The scores of each of `candidates`, in their order.
pub(crate) fn scores(index: &Index<'_>, pending: &Pending, candidates: &[usize]) -> Vec<Vec<Score>> {
    let states = || candidates.iter().map(|&at| &index.nodes[at]);
    let mut scores = vec![Vec::new(); candidates.len()];
    if let Some(costs) = index.network.costs(&pending.app, candidates) {
        add(&mut scores, Criterion::Network, network(&costs));
    }
    let avoided: Vec<u64> = states().map(|s| preferred_taints(s, pending)).collect();
    if avoided.iter().any(|&count| count > 0) {
        add(&mut scores, Criterion::PreferredTaints, fewer_is_better(&avoided));
    }
    let same: Vec<u64> = states().map(|s| s.replicas_of(&pending.app)).collect();
    add(&mut scores, Criterion::Spread, fewer_is_better(&same));
    let balance = states().map(|s| free_percent(s, pending)).map(|p| (p, p as u32)).collect();
    add(&mut scores, Criterion::Balance, balance);
    let wanted = pending.images.len() as u64;
    let present: Vec<u64> =
        states().map(|s| pending.images.intersection(&s.node.images).count() as u64).collect();
    if present.iter().any(|&count| count > 0) {
        let images = present.into_iter().map(|count| (count, (count * 100 / wanted) as u32)).collect();
        add(&mut scores, Criterion::Image, images);
    }
    scores
}

fn add(scores: &mut [Vec<Score>], criterion: Criterion, values: Vec<(u64, u32)>) {
    let weight = criterion.weight();
    for (of_node, (raw, normalised)) in scores.iter_mut().zip(values) {
        of_node.push(Score { criterion, raw, normalised, weight });
    }
}

/// None is 100, the most is 0.
fn fewer_is_better(counts: &[u64]) -> Vec<(u64, u32)> {
    let most = counts.iter().copied().max().unwrap_or(0);
    let score = |count: u64| ((most - count) * 100).checked_div(most).unwrap_or(100) as u32;
    counts.iter().map(|&count| (count, score(count))).collect()
}

/// The least is 100, the most is 0; all the same is 100. Rounded down, so that only the least is 100.
fn network(costs: &[u128]) -> Vec<(u64, u32)> {
    let most = costs.iter().copied().max().unwrap_or(0);
    let range = most - costs.iter().copied().min().unwrap_or(0);
    let score = |cost: u128| (most - cost).saturating_mul(100).checked_div(range).unwrap_or(100) as u32;
    costs.iter().map(|&cost| (u64::try_from(cost).unwrap_or(u64::MAX), score(cost))).collect()
}

fn preferred_taints(state: &NodeState<'_>, pending: &Pending) -> u64 {
    use crate::snapshot::Effect::PreferNoSchedule;
    let avoided = state.node.taints.iter().filter(|t| t.effect == PreferNoSchedule && !pending.tolerates(t));
    avoided.count() as u64
}

/// What stays free of the scarcer resource, 0..=100. A capacity of 0 leaves nothing.
fn free_percent(state: &NodeState<'_>, pending: &Pending) -> u64 {
    let (free, wants, capacity) = (state.free(), pending.requests, state.node.capacity);
    let percent = |free: u64, wants: u64, capacity: u64| {
        let left = u128::from(free.saturating_sub(wants)) * 100;
        left.checked_div(u128::from(capacity)).unwrap_or(0) as u64
    };
    percent(free.cpu_millicores, wants.cpu_millicores, capacity.cpu_millicores).min(percent(
        free.memory_bytes,
        wants.memory_bytes,
        capacity.memory_bytes,
    ))
}
