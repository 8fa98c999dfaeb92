//! Setting, adopting and removing policies in the maps.

use super::{
    rows::{self, NetKey},
    table::{NO_POLICY, PolicyTable},
};
use crate::{
    Error, identity_bits,
    maps::{PolicyMaps, failed, forget_prefix, put_prefix},
    node::Node,
};
use hivemind_common::name;
use hivemind_policy::Tables;
use std::{collections::BTreeMap, sync::Arc};

const MAPS: [&str; 3] = [name::POLICY, name::POLICY_PREFIX_V4, name::POLICY_PREFIX_V6];

/// Reads back what the maps hold, and removes what no endpoint is judged by. Endpoints must be adopted already.
pub(crate) fn adopt(node: &Node) -> Result<(), Error> {
    let found = read(&mut node.policy_maps())?;
    {
        let maps = node.maps();
        let mut table = node.policies();
        for (number, tables) in found {
            table.adopt(number, tables);
        }
        for info in node.endpoints().all() {
            let index = info.endpoint.index;
            let state = maps.endpoint_state.get(&index, 0).map_err(failed(name::ENDPOINT_STATE))?;
            table.adopt_endpoint(index, state.identity, state.policy);
        }
    }
    sweep(node)
}

/// Has all endpoints of an identity judged by these tables.
pub(crate) fn set(node: &Node, identity: u32, tables: Arc<Tables>) -> Result<(), Error> {
    check_identity(identity)?;
    if let Some(fault) = rows::fault(&tables) {
        return Err(wrong(identity, fault.to_owned()));
    }
    if node.policies().stands(identity, &tables) {
        return Ok(());
    }
    // Equal tables are written once: those who are selected by the same policies alone have the same.
    let shared = node.policies().share(&tables);
    if let Some(number) = shared {
        return assign(node, identity, number);
    }
    make_room(node, &tables)?;
    let number = {
        let mut table = node.policies();
        let number = table.draw();
        table.write(number, Arc::clone(&tables));
        number
    };
    if let Err(error) = write(node, number, &tables) {
        erase(node, number, &tables)?;
        return Err(error);
    }
    assign(node, identity, number)
}

/// Has the endpoints of an identity without a policy judged by that of another one, if this has one.
pub(crate) fn share(node: &Node, identity: u32, other: u32) -> Result<(), Error> {
    check_identity(identity)?;
    let number = node.policies().lend(identity, other);
    number.map_or(Ok(()), |number| assign(node, identity, number))
}

fn check_identity(identity: u32) -> Result<(), Error> {
    if identity_bits::fit(identity) { Ok(()) } else { Err(wrong(identity, identity_bits::too_many())) }
}

fn wrong(identity: u32, reason: String) -> Error {
    Error::Spec { what: format!("policy of the identity {identity}"), reason }
}

/// Whether there is room to set all of these, one after the other, beside what other identities have.
pub(crate) fn check_room(node: &Node, all: &[(u32, Arc<Tables>)]) -> Result<(), Error> {
    let capacities = {
        let maps = node.maps();
        MAPS.map(|map| maps.capacity(map))
    };
    let peak = node.policies().peak(all);
    match (0..MAPS.len()).find(|i| peak[*i] > capacities[*i]) {
        Some(full) => Err(Error::MapFull { map: MAPS[full], capacity: capacities[full] }),
        None => Ok(()),
    }
}

/// Takes an identity's policy away: its endpoints forward nothing from then on.
pub(crate) fn remove(node: &Node, identity: u32) -> Result<(), Error> {
    assign(node, identity, NO_POLICY)
}

/// Removes from the maps what no endpoint is judged by any more, once no program can be reading it. Takes some
/// milliseconds, most of them spent waiting.
pub(crate) fn sweep(node: &Node) -> Result<(), Error> {
    // One at a time: whoever comes second finds nothing left to do.
    let _sweeping = node.sweeping();
    let retired = node.policies().retired();
    if retired.is_empty() {
        return Ok(());
    }
    crate::grace::wait();
    retired.into_iter().try_for_each(|(number, tables)| erase(node, number, &tables))
}

/// Switches the endpoints of an identity, each by one write of its state; then each is judged anew.
fn assign(node: &Node, identity: u32, number: u32) -> Result<(), Error> {
    let mut maps = node.maps();
    let mut table = node.policies();
    for index in table.assign(identity, number) {
        let mut state = maps.endpoint_state.get(&index, 0).map_err(failed(name::ENDPOINT_STATE))?;
        state.policy = number;
        maps.endpoint_state.set(index, state, 0).map_err(failed(name::ENDPOINT_STATE))?;
        table.switch(index, number);
        let generation = node.next_generation();
        maps.generation.set(index, generation, 0).map_err(failed(name::GENERATION))?;
    }
    Ok(())
}

fn make_room(node: &Node, tables: &Tables) -> Result<(), Error> {
    if lacking(node, tables).is_none() {
        return Ok(());
    }
    sweep(node)?;
    match lacking(node, tables) {
        Some((map, capacity)) => Err(Error::MapFull { map, capacity }),
        None => Ok(()),
    }
}

/// The first map that has no room for more tables.
fn lacking(node: &Node, tables: &Tables) -> Option<(&'static str, u32)> {
    let (fill, more) = (node.policies().fill(), rows::count(tables));
    let maps = node.maps();
    MAPS.into_iter().enumerate().find_map(|(i, map)| {
        let capacity = maps.capacity(map);
        (fill[i].saturating_add(more[i]) > capacity).then_some((map, capacity))
    })
}

fn write(node: &Node, number: u32, tables: &Tables) -> Result<(), Error> {
    let [entries, prefixes_v4, prefixes_v6] = {
        let maps = node.maps();
        MAPS.map(|map| (map, maps.capacity(map)))
    };
    let mut maps = node.policy_maps();
    for entry in &tables.entries {
        put_prefix(&mut maps.entries, entries, &rows::entry_key(number, entry), &entry.value)?;
    }
    for prefix in &tables.prefixes {
        match rows::prefix_key(number, prefix) {
            NetKey::V4(key) => put_prefix(&mut maps.prefixes_v4, prefixes_v4, &key, &prefix.number)?,
            NetKey::V6(key) => put_prefix(&mut maps.prefixes_v6, prefixes_v6, &key, &prefix.number)?,
        }
    }
    Ok(())
}

/// Removes a policy that nobody is judged by. In pieces, between which another policy may be written.
fn erase(node: &Node, number: u32, tables: &Tables) -> Result<(), Error> {
    const PIECE: usize = 1_024;
    for entries in tables.entries.chunks(PIECE) {
        let mut maps = node.policy_maps();
        for entry in entries {
            forget_prefix(&mut maps.entries, name::POLICY, &rows::entry_key(number, entry))?;
        }
    }
    for prefixes in tables.prefixes.chunks(PIECE) {
        let mut maps = node.policy_maps();
        for prefix in prefixes {
            match rows::prefix_key(number, prefix) {
                NetKey::V4(key) => forget_prefix(&mut maps.prefixes_v4, name::POLICY_PREFIX_V4, &key)?,
                NetKey::V6(key) => forget_prefix(&mut maps.prefixes_v6, name::POLICY_PREFIX_V6, &key)?,
            }
        }
    }
    node.policies().erase(number);
    Ok(())
}

fn read(maps: &mut PolicyMaps) -> Result<BTreeMap<u32, Tables>, Error> {
    let mut found: BTreeMap<u32, Tables> = BTreeMap::new();
    for item in maps.entries.iter() {
        let (key, value) = item.map_err(failed(name::POLICY))?;
        let (number, entry) = rows::entry_of(&key, value);
        found.entry(number).or_default().entries.push(entry);
    }
    for item in maps.prefixes_v4.iter() {
        let (key, value) = item.map_err(failed(name::POLICY_PREFIX_V4))?;
        if let Some((number, prefix)) = rows::prefix_of_v4(&key, value) {
            found.entry(number).or_default().prefixes.push(prefix);
        }
    }
    for item in maps.prefixes_v6.iter() {
        let (key, value) = item.map_err(failed(name::POLICY_PREFIX_V6))?;
        if let Some((number, prefix)) = rows::prefix_of_v6(&key, value) {
            found.entry(number).or_default().prefixes.push(prefix);
        }
    }
    Ok(found)
}

impl PolicyTable {
    /// The fill of each map of policies.
    pub(crate) fn fills(&self) -> [(&'static str, u64); 3] {
        let fill = self.fill();
        [0, 1, 2].map(|i| (MAPS[i], u64::from(fill[i])))
    }
}
