#![no_main]
//! A file of manifests of all kinds, from its bytes to what the policies in it decide.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use hivemind_manifest::{Options, Source, read_all};
use hivemind_model::{Identity, Namespace, NetworkPolicy, PolicyType, Problems};
use hivemind_policy::{OtherEnd, Speaks, World, check, compile, judge, warnings};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let options = Options { namespace: "default", only_this_namespace: false };
    let check = |policy: &NetworkPolicy| {
        let mut problems = Problems::default();
        check("", policy, &mut problems);
        problems.into_result().err().map(|error| error.problems).unwrap_or_default()
    };
    let read = || read_all(&[Source::new("input.yaml", input.to_vec())], options, &check);
    let found = read();
    let lines = 1 + input.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
    for fault in &found.faults {
        assert!((1..=lines + 1).contains(&fault.line) && fault.column >= 1, "{fault:?} of {lines} lines");
        assert!(!fault.message.is_empty() && !fault.message.contains('\n'), "{fault:?}");
    }
    let again = read();
    assert_eq!(found.faults, again.faults, "a second reading finds other faults");
    if !found.faults.is_empty() {
        return;
    }
    for document in &found.apps {
        assert_eq!(document.app.validate(), Ok(()), "an app without faults is not valid");
        let mut normalized = document.app.clone();
        normalized.normalize();
        assert_eq!(normalized, document.app);
    }
    let policies: Vec<NetworkPolicy> = found.policies.into_iter().map(|document| document.policy).collect();
    decide(&policies);
});

/// Puts policies that are free of faults in force among a few apps.
fn decide(policies: &[NetworkPolicy]) {
    let mut policies = policies.to_vec();
    for (number, policy) in (1..).zip(&mut policies) {
        policy.status.number = number;
    }
    let namespaces: Vec<Namespace> = Vec::new();
    let identity = |number: u32, app: &str| {
        let labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
        Identity::new(Identity::FIRST + number, "default", app, labels)
    };
    let identities = [identity(0, "a"), identity(1, "b")];
    let world = World::of(&namespaces, &identities, &policies);
    let own = Identity::FIRST;
    assert!(compile(own, &world).is_some());
    for other in [Identity::FIRST + 1, Identity::WORLD, Identity::HOST] {
        let other = OtherEnd { identity: other, address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)) };
        for direction in [PolicyType::Ingress, PolicyType::Egress] {
            judge(&world, own, direction, other, Speaks { protocol: 6, port: 80 });
        }
    }
    let before = World::of(&namespaces, &identities, &[]);
    let policies: Vec<_> = policies.iter().collect();
    assert_eq!(warnings(&policies, &before).len(), policies.len());
}
