//! Changing over to maps of another layout while packets flow, without losing one.
//!
//! 1. Maps that are the same in both versions are pinned for the new one too; the others are made anew.
//! 2. A gate is put in the place of each program at an interface. It goes on with the old program.
//! 3. One write makes all gates go on with the new programs. Those look into the old tables for what they do not know.
//! 4. Once no old program runs, whatever is left in the old tables is taken over from here.
//! 5. Programs that no longer look there are put in the place of the gates, and the old version is removed.
//!
//! It may be killed at any point: packets go on, and who opens the data path next finds out how far it came. Until the third
//! step that may also be the old build.

#[cfg(feature = "next-layout")]
mod connections;

use crate::{
    Config, Error, bpf,
    bpffs::{self, Pins},
    grace,
    host::INTERFACES,
    links::{self, Passage},
    maps::{failed, open},
    netlink::Netlink,
    node::Node,
    programs::{Programs, Purpose},
};
use aya::{
    maps::{Array, HashMap, Map, MapData, ProgramArray},
    programs::SchedClassifier,
};
use hivemind_common::{
    ABI_VERSION,
    layout::{self, Previous},
    name::{self, gate},
    node::{NodeState, OWN},
    translation::Uplink,
};
use std::{fs, io, os::fd::AsFd, path::Path};

/// A version that is to be taken over.
pub(crate) struct Old {
    /// What is different in it.
    previous: Previous,
    pins: Pins,
}

/// What is to be taken over, if there is anything.
///
/// # Errors
/// [`Error::LayoutTooNew`], [`Error::LayoutTooOld`]. Nothing is changed.
pub(crate) fn find(config: &Config) -> Result<Option<Old>, Error> {
    let found = bpffs::versions(config)?;
    let decision = decide(&found, layout::PREVIOUS, |newer| is_turn_of_new(&Pins::of(config, newer)))?;
    Ok(decision.map(|previous| Old { previous, pins: Pins::of(config, previous.version) }))
}

/// What is to be taken over of the versions found. `has_begun` tells of a newer one whether its programs run.
fn decide(
    found: &[u32],
    previous: Option<Previous>,
    has_begun: impl Fn(u32) -> bool,
) -> Result<Option<Previous>, Error> {
    let is_own_there = found.contains(&ABI_VERSION);
    for &newer in found.iter().filter(|version| **version > ABI_VERSION) {
        // One that was interrupted before it took over; ours are in force, and it is removed.
        if !is_own_there || has_begun(newer) {
            return Err(Error::LayoutTooNew { found: newer, known: ABI_VERSION });
        }
    }
    let mut older = found.iter().copied().filter(|version| *version < ABI_VERSION);
    match (older.next(), older.next(), previous) {
        (None, _, _) => Ok(None),
        (Some(version), None, Some(previous)) if previous.version == version => Ok(Some(previous)),
        (Some(version), _, _) => Err(Error::LayoutTooOld { found: version, known: ABI_VERSION }),
    }
}

/// Whether the programs of a version run that has gates.
fn is_turn_of_new(pins: &Pins) -> bool {
    let turn = MapData::from_pin(pins.change(name::TURN)).ok();
    let turn = turn.and_then(|turn| Array::<_, u32>::try_from(Map::Array(turn)).ok());
    turn.is_some_and(|turn| turn.get(&0, 0).is_ok_and(|turn| turn == gate::NEW))
}

/// Programs that take over, and run until the lasting ones do.
pub(crate) struct Change {
    /// Never read: the arrays of programs are emptied when nobody has them.
    _programs: Programs,
}

impl Change {
    /// Does the first four steps. What fails before the third leaves the old programs running.
    pub(crate) fn begin(
        config: &Config,
        pins: &Pins,
        old: &Old,
        services: u32,
        netlink: &mut Netlink,
        has_tcx: bool,
    ) -> Result<Self, Error> {
        let from = &old.pins;
        let is_begun = is_turn_of_new(pins);
        // What one that was killed made before it took over may be of another time.
        if !is_begun {
            pins.forget_maps_and_links()?;
            share(&old.previous, from, pins)?;
        }
        from.make_directories()?;
        let programs = Programs::load(config, pins, services, Purpose::TakeOver(from))?;
        fill_gates(&programs, from, pins, is_begun)?;
        links::hang_gates(&programs, from, pins)?;
        gate_filters(&programs, pins, services, netlink, has_tcx)?;
        if !is_begun {
            // Its timer ends with the pin. It would take translations of connections for unused that only the new table has.
            remove(&from.map(name::COLLECTOR))?;
            let mut turn = turn(pins)?;
            turn.set(0, gate::NEW, 0).map_err(failed(name::TURN))?;
        }
        grace::wait();
        #[cfg(feature = "next-layout")]
        connections::take_over_the_rest(from, pins)?;
        Ok(Self { _programs: programs })
    }
}

/// Does the fifth step, once the lasting programs are everywhere. Also of a change that was killed in the midst of it.
pub(crate) fn end(node: &Node, change: Option<Change>) -> Result<(), Error> {
    let others = bpffs::versions(&node.config)?.into_iter().any(|version| version != ABI_VERSION);
    if others || node.pins.change(name::TURN).exists() {
        links::take_gates_out(&node.programs, &node.pins)?;
        // A gate that runs still needs its array of programs.
        grace::wait();
    }
    node.pins.remove_other_versions(&node.config)?;
    node.pins.end_change()?;
    drop(change);
    Ok(())
}

/// Pins the maps that are the same in both versions for the new one too.
fn share(previous: &Previous, from: &Pins, pins: &Pins) -> Result<(), Error> {
    let shared = name::MAPS.into_iter().filter(|map| layout::is_shared(previous, map));
    for map in shared {
        let failed = || Error::system(format!("share the map {map} with another version"));
        let found = match bpf::get_pinned(&from.map(map)) {
            // Maps are added without a new version: the older build had none. It is made anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found.map_err(failed())?,
        };
        bpf::pin(found.as_fd(), &pins.map(map)).map_err(failed())?;
    }
    Ok(())
}

fn turn(pins: &Pins) -> Result<Array<MapData, u32>, Error> {
    let turn = MapData::from_pin(pins.change(name::TURN)).map_err(failed(name::TURN))?;
    Array::try_from(Map::Array(turn)).map_err(failed(name::TURN))
}

/// Tells the gates where they lead to. Where the old ones are not needed any more they may be gone.
fn fill_gates(programs: &Programs, from: &Pins, pins: &Pins, is_begun: bool) -> Result<(), Error> {
    let map = MapData::from_pin(pins.change(name::GATES)).map_err(failed(name::GATES))?;
    let mut gates = ProgramArray::try_from(Map::ProgramArray(map)).map_err(failed(name::GATES))?;
    for (slot, (hook, _)) in (0..).zip(gate::PROGRAMS) {
        if !is_begun {
            let path = from.program(hook);
            let refused = |error: aya::programs::ProgramError| {
                Error::system(format!("open the program at {}", path.display()))(io::Error::other(error))
            };
            let old = SchedClassifier::from_pin(&path).map_err(refused)?;
            let old = old.fd().map_err(refused)?;
            gates.set(2 * slot + gate::OLD, old, 0).map_err(failed(name::GATES))?;
        }
        let new = programs.to_be_called(hook)?;
        gates.set(2 * slot + gate::NEW, &new, 0).map_err(failed(name::GATES))?;
    }
    Ok(())
}

/// Puts gates into filters, where programs do not hang by links.
fn gate_filters(
    programs: &Programs,
    pins: &Pins,
    services: u32,
    netlink: &mut Netlink,
    has_tcx: bool,
) -> Result<(), Error> {
    let links = netlink.links()?;
    let exists = |index: u32| links.iter().any(|link| link.header.index == index);
    let endpoints = hash::<u32, u32>(pins, name::ENDPOINT_BY_INTERFACE)?;
    for found in endpoints.iter() {
        let (interface, index) = found.map_err(failed(name::ENDPOINT_BY_INTERFACE))?;
        if exists(interface) {
            let name = format!("{INTERFACES}{index}");
            links::gate_filters(programs, pins, netlink, (&name, interface))?;
        }
    }
    if has_tcx {
        return Ok(());
    }
    links::gate_passage(programs, netlink, Passage::Services, services)?;
    for found in hash::<u32, Uplink>(pins, name::UPLINK)?.keys() {
        let index = found.map_err(failed(name::UPLINK))?;
        if exists(index) {
            links::gate_passage(programs, netlink, Passage::Leaving, index)?;
            links::gate_passage(programs, netlink, Passage::Underlay, index)?;
        }
    }
    let nodes = Array::<_, NodeState>::try_from(Map::Array(open(pins, name::NODE_STATE)?));
    let own = nodes.and_then(|nodes| nodes.get(&OWN, 0)).map_err(failed(name::NODE_STATE))?;
    if own.interface != 0 && exists(own.interface) {
        links::gate_passage(programs, netlink, Passage::Overlay, own.interface)?;
    }
    Ok(())
}

fn hash<K: aya::Pod, V: aya::Pod>(pins: &Pins, map: &'static str) -> Result<HashMap<MapData, K, V>, Error> {
    HashMap::try_from(Map::HashMap(open(pins, map)?)).map_err(failed(map))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::system(format!("unpin {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: Option<Previous> = Some(Previous { version: ABI_VERSION - 1, changed: &[] });

    #[test]
    fn nothing_is_taken_over_where_there_is_nothing_or_only_our_own() {
        for found in [&[][..], &[ABI_VERSION]] {
            assert!(matches!(decide(found, BEFORE, |_| true), Ok(None)));
        }
    }

    #[test]
    fn the_version_before_is_taken_over_also_halfway() {
        for found in [&[ABI_VERSION - 1][..], &[ABI_VERSION - 1, ABI_VERSION]] {
            assert!(decide(found, BEFORE, |_| true).is_ok_and(|found| found == BEFORE));
        }
    }

    #[test]
    fn what_is_too_old_is_refused() {
        for (found, previous) in [
            (&[ABI_VERSION - 1][..], None),
            (&[ABI_VERSION - 2], BEFORE),
            (&[ABI_VERSION - 2, ABI_VERSION - 1], BEFORE),
        ] {
            let refused = decide(found, previous, |_| true);
            assert!(
                matches!(refused, Err(Error::LayoutTooOld { found: told, known: ABI_VERSION }) if told == found[0])
            );
        }
    }

    #[test]
    fn a_newer_version_is_refused_unless_it_never_took_over() {
        let newer = ABI_VERSION + 1;
        let refused = |found: &[u32], has_begun: bool| {
            matches!(
                decide(found, BEFORE, |_| has_begun),
                Err(Error::LayoutTooNew { found, known: ABI_VERSION }) if found == newer
            )
        };
        assert!(refused(&[newer], false) && refused(&[newer], true));
        assert!(refused(&[ABI_VERSION, newer], true));
        assert!(!refused(&[ABI_VERSION, newer], false));
    }
}
