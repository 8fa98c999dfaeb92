//! What holds in every world.

use std::collections::{BTreeMap, BTreeSet};

use hivemind_common::policy::{EGRESS, rule_number};
use hivemind_model::{Identity, PolicyType};
use proptest::{collection::vec, prelude::*};

use super::{data_path, generate};
use crate::{Compiler, OtherEnd, Speaks, Tables, World, compile, judge, warnings};

/// How many random worlds; each is asked about [`QUESTIONS`] connections of each of its identities in both directions: more
/// than a million in all.
const WORLDS: u32 = 1_200;
const QUESTIONS: usize = 60;

fn questions() -> impl Strategy<Value = Vec<(OtherEnd, Speaks)>> {
    let one = (generate::other_identity(), generate::address(), generate::speaks())
        .prop_map(|(identity, address, speaks)| (OtherEnd { identity, address }, speaks));
    vec(one, QUESTIONS)
}

pub(super) fn all_tables(world: &World) -> BTreeMap<u32, Tables> {
    let numbers = (0..generate::IDENTITIES).map(|n| Identity::FIRST + n);
    numbers.filter_map(|number| Some((number, compile(number, world)?))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: WORLDS, ..ProptestConfig::default() })]

    #[test]
    fn the_tables_decide_as_the_reference_does_and_name_a_rule_that_says_so(
        world in generate::world(), questions in questions()
    ) {
        for (number, tables) in all_tables(&world) {
            data_path::assert_well_formed(&tables);
            for (other, speaks) in &questions {
                for (direction, bit) in [(PolicyType::Ingress, 0), (PolicyType::Egress, EGRESS)] {
                    let meant = judge(&world, number, direction, *other, *speaks);
                    let (allowed, rule) = data_path::verdict(&tables, bit, *other, *speaks);
                    prop_assert_eq!(allowed, meant.allowed, "{} {:?} {:?} {:?}", number, direction, other, speaks);
                    let rules = if meant.audit.is_empty() { &meant.rules } else { &meant.audit };
                    prop_assert!(rules.contains(&rule), "{rule:x} is none of {rules:x?}: {meant:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_compiled_together_is_what_is_compiled_alone(world in generate::world()) {
        let mut compiler = Compiler::new(&world);
        for (number, tables) in all_tables(&world) {
            let together = compiler.compile(number);
            prop_assert_eq!(together.as_deref(), Some(&tables), "{}", number);
        }
    }

    #[test]
    fn a_rule_of_which_is_told_that_others_decide_before_it_decides_nothing(
        world in generate::world(), questions in questions()
    ) {
        let policies: Vec<_> = world.policies().collect();
        // Numbers of generated policies come up again in other namespaces.
        let is_alone = |number: u32| policies.iter().filter(|p| p.status.number == number).count() == 1;
        let mut idle = BTreeSet::new();
        for (policy, told) in policies.iter().zip(warnings(&policies, &world)) {
            for warning in told.iter().filter(|w| w.message.contains("never has an effect")) {
                let (direction, index) = warning.field.trim_end_matches(']').split_once('[').unwrap();
                let bit = if direction == "spec.egress" { EGRESS } else { 0 };
                if is_alone(policy.status.number) {
                    idle.insert(rule_number(policy.status.number, bit, Some(index.parse().unwrap())));
                }
            }
        }
        for number in (0..generate::IDENTITIES).map(|n| Identity::FIRST + n) {
            for (other, speaks) in &questions {
                for direction in [PolicyType::Ingress, PolicyType::Egress] {
                    let meant = judge(&world, number, direction, *other, *speaks);
                    let found = meant.rules.iter().find(|rule| idle.contains(rule));
                    prop_assert_eq!(found, None, "{} {:?} {:?}: {:?}", number, other, speaks, meant);
                }
            }
        }
    }

    #[test]
    fn a_change_touches_every_identity_of_which_the_tables_change(
        start in generate::world(), changes in vec(generate::change(), 1..12)
    ) {
        let mut world = start;
        let mut before = all_tables(&world);
        for change in changes {
            let touched = change.carry_out(&mut world);
            let after = all_tables(&world);
            let numbers = before.keys().chain(after.keys());
            for number in numbers {
                let same = before.get(number) == after.get(number);
                prop_assert!(same || touched.contains(number), "{number} was changed by {change:?}");
            }
            before = after;
        }
    }

    #[test]
    fn a_world_does_not_depend_on_its_history(start in generate::world(), changes in vec(generate::change(), 0..12)) {
        let mut world = start;
        changes.iter().for_each(|change| drop(change.carry_out(&mut world)));
        let mut fresh = World::new();
        world.policies().for_each(|policy| drop(fresh.set_policy(policy)));
        for spec in world.identities().filter(|spec| spec.number >= Identity::FIRST) {
            let mut identity = Identity::new(spec.number, &spec.namespace, &spec.app, spec.labels.clone());
            identity.spec.ports.clone_from(&spec.ports);
            fresh.set_identity(&identity);
        }
        fresh.take_surroundings(&world);
        for name in ["blue", "green", "hivemind-system"] {
            let mut namespace = hivemind_model::Namespace::new(name);
            namespace.metadata.labels = (*world.namespace_labels(name)).clone();
            fresh.set_namespace(&namespace);
        }
        prop_assert_eq!(all_tables(&world), all_tables(&fresh));
    }
}
