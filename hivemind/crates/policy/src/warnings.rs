//! What the authors of valid policies should know.

mod idle;
mod names;
mod overruled;
mod reach;

use hivemind_model::{ErrorCode, NetworkPolicy, Problem};

use crate::world::World;

/// How many warnings one policy gets.
const WARNINGS_MAX: usize = 32;
/// How many apps a warning names.
const NAMED_MAX: usize = 5;

/// What each of `policies`, which come into force together, does that its author may not have meant, in a world as it was
/// `before`, in which older ones of their names may be.
///
/// A policy selects nothing; a peer or a port's name matches nothing; a rule has no effect, for another decides before it, or
/// because the node's own processes always reach its replicas; two policies of the cluster are equal and contradict each
/// other; replicas can no longer resolve names.
pub fn warnings(policies: &[&NetworkPolicy], before: &World) -> Vec<Vec<Problem>> {
    let mut world = before.clone();
    policies.iter().for_each(|policy| drop(world.set_policy(policy)));
    let cut_off = names::cut_off(policies, before, &mut world);
    let told = |(policy, cut_off): (&&NetworkPolicy, Option<Problem>)| {
        let selected = world.selected(policy);
        let mut found = Vec::new();
        idle::add(policy, &selected, &world, &mut found);
        overruled::add(policy, &selected, &world, &mut found);
        found.truncate(WARNINGS_MAX);
        found.extend(cut_off);
        found
    };
    policies.iter().zip(cut_off).map(told).collect()
}

fn warning(field: impl Into<String>, message: String, hint: impl Into<String>) -> Problem {
    Problem { code: ErrorCode::PolicyWarning, field: field.into(), message, hint: hint.into() }
}
