//! Rules that others decide before, and equals that contradict each other.

use std::{cmp::Ordering, collections::BTreeSet};

use hivemind_common::policy::{ADMIN, BASELINE, EGRESS, NAMESPACE};
use hivemind_model::{NetworkPolicy, PolicyKind, Problem};

use super::{WARNINGS_MAX, reach::Reach, warning};
use crate::{
    rules::{Action, Policy, Rule},
    world::World,
};

/// How many rules of others one policy is held against: looking for more would take longer than a warning is worth.
const RIVALS_MAX: usize = 256;

/// A rule and whose it is.
#[derive(Clone, Copy)]
struct Rival<'a> {
    policy: &'a Policy,
    index: usize,
    rule: &'a Rule,
}

impl Rival<'_> {
    /// `ClusterNetworkPolicy guard, by its rule ingress[0],`.
    fn name(&self, direction: u32) -> String {
        format!("{}, by its rule {}[{}],", name(self.policy), word(direction), self.index)
    }
}

fn name(policy: &Policy) -> String {
    match policy.tier {
        NAMESPACE => format!("policy {}", policy.name),
        _ => format!("{} {}", PolicyKind::ClusterNetworkPolicy.name(), policy.name),
    }
}

fn word(direction: u32) -> &'static str {
    if direction == EGRESS { "egress" } else { "ingress" }
}

pub(super) fn add(policy: &NetworkPolicy, selected: &[u32], world: &World, found: &mut Vec<Problem>) {
    let Some(own) = world.rules(policy) else { return };
    // What only tells decides nothing; and of nobody nothing can be said.
    if own.is_audit || selected.is_empty() {
        return;
    }
    let selected: BTreeSet<u32> = selected.iter().copied().collect();
    for direction in [0, EGRESS] {
        let Some(said) = own.direction(direction) else { continue };
        let closing = closing(own, &selected, direction, world);
        let earlier = earlier(own, &selected, direction, world);
        for (index, rule) in said.rules.iter().enumerate() {
            if found.len() >= WARNINGS_MAX {
                return;
            }
            let field = format!("spec.{}[{index}]", word(direction));
            if let Some(closing) = closing {
                let what = format!(
                    "this rule never has an effect: {} governs the replicas, and what it does not allow is denied before",
                    name(closing)
                );
                found.push(warning(
                    field,
                    what,
                    "make it of tier Admin, or say it in policies of namespaces",
                ));
                continue;
            }
            let this = Rival { policy: own, index, rule };
            let reach = Reach::of(own, rule, world);
            let before = earlier.iter().find(|(rival, of)| rival.decides_before(&this) && of.covers(&reach));
            if let Some((winner, _)) = before {
                let what = format!(
                    "this rule never has an effect: {} decides all that it matches before ({})",
                    winner.name(direction),
                    action(winner)
                );
                found.push(warning(field, what, "remove it, or have it asked before the other"));
            } else if let Some(equal) = equal(&this, &reach, &selected, direction, world) {
                found.push(contradiction(field, &this, &equal, direction));
            }
        }
    }
}

fn action(rival: &Rival<'_>) -> &'static str {
    match (rival.rule.action, rival.policy.tier) {
        (Action::Allow, NAMESPACE) => "Allow",
        (Action::Allow, _) => "Accept",
        (Action::Deny, _) => "Deny",
        (Action::Pass, _) => "Pass",
    }
}

/// When a tier is asked.
fn turn(policy: &Policy) -> u8 {
    match policy.tier {
        ADMIN => 0,
        BASELINE => 2,
        _ => 1,
    }
}

impl Rival<'_> {
    /// Whether this rule decides of what both match, and the other does not.
    fn decides_before(&self, other: &Rival<'_>) -> bool {
        match turn(self.policy).cmp(&turn(other.policy)) {
            Ordering::Greater => false,
            // An earlier tier that passes a connection on decides nothing, and one that allows nothing may yet be asked.
            Ordering::Less => self.policy.tier == ADMIN && self.rule.action != Action::Pass,
            Ordering::Equal if self.policy.tier == NAMESPACE => {
                self.rule.action == Action::Deny && other.rule.action == Action::Allow
            }
            Ordering::Equal => self.place() < other.place(),
        }
    }

    fn place(&self) -> (i64, &str, usize) {
        (self.policy.priority, &self.policy.name, self.index)
    }
}

/// The rules that may decide before those of `own`, for all replicas that it selects.
fn earlier<'a>(
    own: &'a Policy,
    selected: &BTreeSet<u32>,
    direction: u32,
    world: &'a World,
) -> Vec<(Rival<'a>, Reach<'a>)> {
    let Some(first) = selected.first().and_then(|identity| world.identity(*identity)) else {
        return Vec::new();
    };
    let decides = |policy: &&Policy| {
        turn(policy) <= turn(own) && !policy.is_audit && policy.direction(direction).is_some()
    };
    let mut found = Vec::new();
    for policy in world.policies_of(first).into_iter().filter(decides) {
        let rules = policy.direction(direction).map_or(&[][..], |said| &said.rules);
        let counts = |rule: &Rule| policy.tier != NAMESPACE || rule.action == Action::Deny;
        let rivals: Vec<Rival<'_>> = rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| counts(rule))
            .map(|(index, rule)| Rival { policy, index, rule })
            .collect();
        if rivals.is_empty() || found.len() + rivals.len() > RIVALS_MAX {
            continue;
        }
        if std::ptr::eq(policy, own)
            || selected.is_subset(&world.subjects(&policy.namespace, &policy.subject))
        {
            found.extend(rivals.into_iter().map(|rival| (rival, Reach::of(policy, rival.rule, world))));
        }
    }
    found
}

/// The policy of a namespace because of which what comes after those is not asked, of any replica that `own` selects.
fn closing<'a>(
    own: &Policy,
    selected: &BTreeSet<u32>,
    direction: u32,
    world: &'a World,
) -> Option<&'a Policy> {
    if own.tier != BASELINE {
        return None;
    }
    let closes = |policy: &&Policy| {
        policy.tier == NAMESPACE
            && !policy.is_audit
            && policy.direction(direction).is_some_and(|said| said.closes)
    };
    let of = |identity: &u32| world.policies_of(world.identity(*identity)?).into_iter().find(closes);
    let mut all = selected.iter().map(of);
    let first = all.next()??;
    all.all(|found| found.is_some()).then_some(first)
}

/// A rule of an equal policy that says something else of connections that this one matches as well.
fn equal<'a>(
    this: &Rival<'_>,
    reach: &Reach<'_>,
    selected: &BTreeSet<u32>,
    direction: u32,
    world: &'a World,
) -> Option<Rival<'a>> {
    let is_equal = |policy: &&Policy| {
        let Policy { tier, priority, name, .. } = this.policy;
        (policy.tier, policy.priority) == (*tier, *priority) && policy.name != *name
    };
    let rivals = world
        .cluster_policies()
        .filter(is_equal)
        .filter(|policy| !selected.is_disjoint(&world.subjects(&policy.namespace, &policy.subject)))
        .flat_map(|policy| {
            let rules = policy.direction(direction).map_or(&[][..], |said| &said.rules);
            rules.iter().enumerate().map(move |(index, rule)| Rival { policy, index, rule })
        });
    rivals.take(RIVALS_MAX).find(|rival| {
        rival.rule.action != this.rule.action && Reach::of(rival.policy, rival.rule, world).meets(reach)
    })
}

fn contradiction(field: String, this: &Rival<'_>, equal: &Rival<'_>, direction: u32) -> Problem {
    let winner = if equal.place() < this.place() { equal } else { this };
    let what = format!(
        "{} says {} of some connections of which this says {}, at the same tier and priority: {} counts, the first by name",
        equal.name(direction),
        action(equal),
        action(this),
        winner.policy.name
    );
    warning(field, what, "give one of them another priority")
}
