//! What has to be asked of the outside, against asking of any address by any name.

use std::{collections::BTreeSet, net::IpAddr};

use hivemind_model::{Identity, PolicyType};
use proptest::{collection::vec, prelude::*, sample::select};

use super::generate;
use crate::{OtherEnd, Outside, World, domain::is_internal, judge};

const DOMAINS: [&str; 3] = ["example.org", "*.example.org", "other.example"];

/// The world in which all these addresses have names that these patterns mean, and no other.
fn supposing(world: &World, patterns: &BTreeSet<&str>, addresses: &BTreeSet<IpAddr>) -> World {
    let mut world = world.clone();
    for pattern in DOMAINS {
        let addresses = addresses.iter().filter(|_| patterns.contains(pattern));
        drop(world.set_domain(pattern, addresses.copied()));
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_address_outside_is_judged_as_the_one_that_stands_for_it(
        world in generate::world(),
        identity in Identity::FIRST..Identity::FIRST + generate::IDENTITIES,
        direction in select(vec![PolicyType::Egress, PolicyType::Ingress]),
        addresses in vec(generate::address(), 1..6),
        patterns in prop::collection::btree_set(select(&DOMAINS), 0..=3),
        speaks in generate::speaks(),
    ) {
        let outside = Outside::of(&world, identity, direction);
        let of_nodes: BTreeSet<IpAddr> = world.addresses_of_nodes(None).collect();
        let is_outside = |address: &IpAddr| !is_internal(*address) && !of_nodes.contains(address);
        prop_assert!(outside.addresses.iter().all(is_outside));
        for address in addresses.into_iter().filter(is_outside) {
            let first = outside.addresses.range(..=address).next_back().copied();
            let first = first.filter(|first| first.is_ipv4() == address.is_ipv4());
            let Some(first) = first else {
                return Err(TestCaseError::fail(format!("nothing stands for {address}")));
            };
            let named = BTreeSet::from([address, first]);
            let judged = |world: &World, address: IpAddr| {
                judge(world, identity, direction, OtherEnd { identity: Identity::WORLD, address }, speaks)
            };
            let supposed = supposing(&world, &patterns, &named);
            prop_assert_eq!(judged(&supposed, address), judged(&supposed, first), "{} for {}", first, address);
            // A name that is not told changes nothing.
            let told: BTreeSet<&str> =
                patterns.iter().filter(|pattern| outside.domains.contains(**pattern)).copied().collect();
            let only_told = supposing(&world, &told, &named);
            prop_assert_eq!(judged(&supposed, address), judged(&only_told, address));
        }
    }
}
