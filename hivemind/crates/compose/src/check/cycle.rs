//! Services that wait for each other.

use std::collections::{BTreeMap, BTreeSet};

use hivemind_model::ErrorCode;

use crate::{project::Project, reader::Reader, spot::Spot};

/// Adds a fault for each circle of services that wait for each other, at the place that closes it.
pub(super) fn check(reader: &mut Reader<'_>, project: &Project) {
    let waits: BTreeMap<&str, Vec<(&str, &Spot)>> =
        project.all_services().map(|(name, service)| (name.as_str(), service.named_services())).collect();
    let mut done = BTreeSet::new();
    for name in waits.keys() {
        search(reader, &waits, name, &mut done);
    }
}

/// Goes through what `start` waits for, depth first. The way is a list: a chain of services may be as long as there are services,
/// too long for calls within calls.
fn search<'p>(
    reader: &mut Reader<'_>,
    waits: &BTreeMap<&'p str, Vec<(&'p str, &'p Spot)>>,
    start: &'p str,
    done: &mut BTreeSet<&'p str>,
) {
    let mut way: Vec<(&str, usize)> = vec![(start, 0)];
    while let Some((name, next)) = way.last_mut() {
        let name = *name;
        let found = waits.get(name).and_then(|others| others.get(*next)).copied();
        *next += 1;
        let Some((other, spot)) = found.filter(|_| !done.contains(name)) else {
            done.insert(name);
            way.pop();
            continue;
        };
        if other == name {
            continue;
        }
        match way.iter().position(|(on_way, _)| *on_way == other) {
            Some(begin) => {
                let circle = way.iter().skip(begin).map(|(name, _)| *name).chain([other]);
                let told = circle.collect::<Vec<_>>().join(" → ");
                let message = format!("services that wait for each other: {told}");
                reader.fault_at(spot, ErrorCode::OutOfRange, message, "leave one of them out");
            }
            None if !done.contains(other) => way.push((other, 0)),
            None => {}
        }
    }
}
