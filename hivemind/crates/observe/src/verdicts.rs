//! What the rules of policies decided, by policy and rule.
//!
//! A series is there as long as its policy. A policy that is made anew under the same name has another number, and its series
//! begin at zero. Rules that decided nothing yet are told with zero, so that the first connections are a rise, as far as there is
//! room beside those that did.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use hivemind_common::policy::{RULE_HOST, RuleParts, rule_parts};

use crate::{
    accumulator::Accumulator,
    snapshot::{PolicyName, VerdictSample},
};

/// The namespace of what is the node's own, and how the rule is called there by which its processes reach its replicas.
const HOST_RULE: (&str, &str) = ("hivemind-system", "node-to-replicas");
/// How everything is called that found no room.
const OTHER: &str = "other";

/// What tells the series apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Labels {
    rule: Rule,
    allowed: bool,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Rule {
    Host,
    /// By name first, so that they are told in that order.
    Of {
        policy: Arc<PolicyName>,
        number: u32,
        egress: bool,
        /// None is what the policy does where none of its rules fits.
        index: Option<u32>,
    },
    Other,
}

/// The verdicts' totals.
#[derive(Debug)]
pub(crate) struct Verdicts {
    totals: Accumulator<(Option<u32>, bool), Labels, 1>,
    /// Rules in force that decided nothing yet.
    idle: BTreeSet<Labels>,
    rules_max: usize,
}

impl Verdicts {
    /// None yet; at most `rules_max` rules are told singly, once for each verdict, and `other` besides.
    pub(crate) fn new(rules_max: usize) -> Self {
        Verdicts { totals: Accumulator::new(), idle: BTreeSet::new(), rules_max }
    }

    /// Takes in all of the kernel's counters. `policies` are all that exist, by number.
    pub(crate) fn observe(&mut self, policies: &HashMap<u32, Arc<PolicyName>>, samples: &[VerdictSample]) {
        self.totals.begin(|labels| match &labels.rule {
            Rule::Of { number, policy, .. } => policies.get(number) == Some(policy),
            Rule::Host | Rule::Other => true,
        });
        self.idle.clear();
        for sample in samples {
            let rise = self.totals.rise((sample.rule, sample.allowed), [sample.connections]);
            // What is of a policy that is gone is about to go, too.
            let Some(rule) = rule(sample.rule, policies) else { continue };
            let labels = Labels { rule, allowed: sample.allowed };
            if sample.connections == 0 && !self.totals.contains(&labels) {
                self.idle.insert(labels);
                continue;
            }
            let has_room = self.totals.contains(&labels) || self.totals.len() < self.rules_max;
            let other = Labels { rule: Rule::Other, allowed: sample.allowed };
            self.totals.add(if has_room { labels } else { other }, rise);
        }
        self.totals.end();
    }

    /// The labels with their connections, in order.
    pub(crate) fn sorted(&self) -> Vec<(&Labels, u64)> {
        let counted = self.totals.sorted().into_iter().map(|(labels, [connections])| (labels, *connections));
        let mut all: Vec<_> = counted.collect();
        let room = self.rules_max.saturating_sub(all.len());
        all.extend(self.idle.iter().take(room).map(|labels| (labels, 0)));
        all.sort_unstable();
        all
    }
}

impl Labels {
    /// Namespace and name of the policy, direction, rule, verdict.
    pub(crate) fn values(&self) -> [Cow<'_, str>; 5] {
        let is_audit = matches!(&self.rule, Rule::Of { policy, .. } if policy.is_audit);
        let verdict = match (self.allowed, is_audit) {
            (true, true) => "audited",
            (true, false) => "allowed",
            (false, _) => "denied",
        };
        let [namespace, policy, direction, rule]: [Cow<'_, str>; 4] = match &self.rule {
            Rule::Host => [HOST_RULE.0.into(), HOST_RULE.1.into(), "ingress".into(), "default".into()],
            Rule::Other => ["".into(), OTHER.into(), OTHER.into(), OTHER.into()],
            Rule::Of { policy, egress, index, .. } => [
                policy.namespace.as_str().into(),
                policy.name.as_str().into(),
                if *egress { "egress".into() } else { "ingress".into() },
                index.map_or("default".into(), |index| index.to_string().into()),
            ],
        };
        [namespace, policy, direction, rule, verdict.into()]
    }
}

fn rule(number: Option<u32>, policies: &HashMap<u32, Arc<PolicyName>>) -> Option<Rule> {
    match number {
        None => Some(Rule::Other),
        Some(RULE_HOST) => Some(Rule::Host),
        Some(number) => {
            let RuleParts { policy, egress, index } = rule_parts(number)?;
            Some(Rule::Of { policy: Arc::clone(policies.get(&policy)?), number: policy, egress, index })
        }
    }
}
