//! Setting, adopting and removing services.
//!
//! New backends and new cells are written first, then the service's entries, one write each, by which programs turn
//! to them; what they replace stays as it is until no program can still be reading it.

use crate::{
    BackendSpec, Error, Protocol, PublishedPort, ServicePort, ServicePorts, ServiceSpec,
    maps::{Maps, failed, forget, put},
    node::Node,
    reservation::Reservation,
    service::table::{Record, ServiceTable, cells, fault},
    slab::Extent,
};
use hivemind_common::{
    family::{Address, Address4, Address6},
    name,
    packet::{TCP, UDP},
    service::{BACKEND_ACTIVE, Backend, Cell, SERVICE_EVERY_PORT, Service, ServiceKey},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    thread,
    time::Instant,
};

/// Makes the service what the specification says.
pub(crate) fn set(node: &Node, spec: ServiceSpec) -> Result<(), Error> {
    let what = || format!("service {}", spec.id);
    if let Some(reason) = fault(&spec) {
        return Err(Error::Spec { what: what(), reason });
    }
    release(node)?;
    let reservations = {
        let table = node.services();
        if let Some(other) = same_address(&table, &spec) {
            return Err(Error::Spec {
                what: what(),
                reason: format!("its address belongs to the service {other}"),
            });
        }
        reserve(&table, &spec)?
    };
    check_room(node, &spec)?;
    let numbers = node.services().number(spec.id, &spec.backends);
    let result = install(node, &spec, &numbers);
    let extent = match result {
        Ok(extent) => extent,
        Err(error) => {
            node.services().give_back_numbers(spec.id, &numbers);
            return Err(error);
        }
    };
    let (gone, leavers) = {
        let mut table = node.services();
        table.reservations.extend(reservations);
        let before =
            table.records.insert(spec.id, Record { spec: spec.clone(), extent, numbers: numbers.clone() });
        let_go(&mut table);
        (retire(&mut table, before.as_ref(), extent, &numbers), leavers(before.as_ref(), &spec))
    };
    let drained = drain(node, &gone);
    node.gone.note_backends(leavers);
    drained
}

/// Fails if the port is neither free nor a service's.
pub(crate) fn check_port(node: &Node, port: u16, protocol: Protocol) -> Result<(), Error> {
    let ours = {
        let table = node.services();
        table.reservations.contains_key(&(port, protocol))
            || table.records.values().any(|record| {
                let published = &record.spec.published;
                published.iter().any(|p| p.host_port == port && p.protocol == protocol)
            })
    };
    if ours { Ok(()) } else { Reservation::take(port, protocol).map(drop) }
}

/// Removes the service, if it is there.
pub(crate) fn remove(node: &Node, id: u32) -> Result<(), Error> {
    release(node)?;
    let (keys_v4, keys_v6) = match node.services().records.get(&id) {
        Some(Record { spec, .. }) => (keys(spec, v4(spec)), keys(spec, v6(spec))),
        None => return Ok(()),
    };
    {
        let mut maps = node.maps();
        keys_v4.iter().try_for_each(|(key, _)| forget(&mut maps.service_v4, name::SERVICE_V4, key))?;
        keys_v6.iter().try_for_each(|(key, _)| forget(&mut maps.service_v6, name::SERVICE_V6, key))?;
    }
    let gone = {
        let mut table = node.services();
        let before = table.records.remove(&id);
        let_go(&mut table);
        retire(&mut table, before.as_ref(), Extent::default(), &[])
    };
    drain(node, &gone)
}

/// Lets go of ports that are published no more.
fn let_go(table: &mut ServiceTable) {
    let published = table.records.values().flat_map(|record| &record.spec.published);
    let wanted: HashSet<_> = published.map(|port| (port.host_port, port.protocol)).collect();
    table.reservations.retain(|port, _| wanted.contains(port));
}

/// Has backends take nothing new: datagrams that still come for them go to others.
fn drain(node: &Node, gone: &[u32]) -> Result<(), Error> {
    let mut guard = node.maps();
    let maps = &mut *guard;
    let room = (maps.capacity(name::BACKEND_V4), maps.capacity(name::BACKEND_V6));
    for number in gone {
        if let Ok(backend) = maps.backend_v4.get(number, 0) {
            put(&mut maps.backend_v4, (name::BACKEND_V4, room.0), number, &Backend { state: 0, ..backend })?;
        }
        if let Ok(backend) = maps.backend_v6.get(number, 0) {
            put(&mut maps.backend_v6, (name::BACKEND_V6, room.1), number, &Backend { state: 0, ..backend })?;
        }
    }
    Ok(())
}

/// Adopts the services that the maps hold, and reserves their published ports again.
pub(crate) fn adopt(node: &Node) -> Result<(), Error> {
    let mut guard = node.maps();
    let maps = &mut *guard;
    let mut table = node.services();
    let mut known = HashSet::new();
    for (spec, extent, numbers) in recorded(maps)? {
        for port in &spec.published {
            match Reservation::take(port.host_port, port.protocol) {
                Ok(held) => {
                    table.reservations.insert((port.host_port, port.protocol), held);
                }
                Err(error) => tracing::warn!(
                    port = port.host_port,
                    %error,
                    "A published port could not be reserved again; it goes on working for connections from outside"
                ),
            }
        }
        let id = spec.id;
        let members = numbers.clone();
        if table.adopt(Record { spec, extent, numbers }) {
            known.extend(members);
        } else {
            tracing::warn!(
                service = id,
                "A service with impossible cells was found; it waits to be set again"
            );
        }
    }
    // Left by a daemon that was killed in the middle: nobody refers to them, but a program might be reading them.
    let mut orphans: HashSet<u32> = HashSet::new();
    for found in maps.backend_v4.keys() {
        orphans.insert(found.map_err(failed(name::BACKEND_V4))?);
    }
    for found in maps.backend_v6.keys() {
        orphans.insert(found.map_err(failed(name::BACKEND_V6))?);
    }
    orphans.retain(|number| !known.contains(number));
    if !orphans.is_empty() {
        table.retire(Extent::default(), orphans.into_iter().collect(), Instant::now());
    }
    Ok(())
}

/// Entries of services, of backends and of cells, and how many there could be.
pub(crate) fn fill(node: &Node) -> Result<Vec<(&'static str, u64)>, Error> {
    let maps = node.maps();
    Ok(vec![
        (name::SERVICE_V4, maps.service_v4.keys().count() as u64),
        (name::SERVICE_V6, maps.service_v6.keys().count() as u64),
        (name::BACKEND_V4, maps.backend_v4.keys().count() as u64),
        (name::BACKEND_V6, maps.backend_v6.keys().count() as u64),
    ])
}

/// Removes backends and frees cells whose quarantine is over. Backends that could not be removed are tried again after
/// another quarantine.
pub(crate) fn release(node: &Node) -> Result<(), Error> {
    let gone = node.services().release(Instant::now());
    let removed = {
        let mut maps = node.maps();
        gone.iter().try_for_each(|number| {
            forget(&mut maps.backend_v4, name::BACKEND_V4, number)?;
            forget(&mut maps.backend_v6, name::BACKEND_V6, number)
        })
    };
    if removed.is_err() {
        node.services().retire(Extent::default(), gone, Instant::now());
    }
    removed
}

fn same_address(table: &ServiceTable, spec: &ServiceSpec) -> Option<u32> {
    let same = |other: &&Record| {
        other.spec.id != spec.id
            && (other.spec.address_v4 == spec.address_v4 || other.spec.address_v6 == spec.address_v6)
    };
    table.records.values().find(same).map(|other| other.spec.id)
}

/// Reserves the ports that the service publishes and did not before. Nothing is kept if one is taken.
fn reserve(table: &ServiceTable, spec: &ServiceSpec) -> Result<HashMap<(u16, Protocol), Reservation>, Error> {
    let mut taken = HashMap::new();
    for port in &spec.published {
        let key = (port.host_port, port.protocol);
        match table.publisher(port) {
            Some(publisher) if publisher != spec.id => {
                return Err(Error::PortTaken { port: port.host_port, protocol: port.protocol });
            }
            _ if table.reservations.contains_key(&key) => {}
            // Adopted without a reservation: whoever took the port meanwhile does not take it from the service.
            Some(_) => match Reservation::take(port.host_port, port.protocol) {
                Ok(held) => drop(taken.insert(key, held)),
                Err(Error::PortTaken { .. }) => {}
                Err(error) => return Err(error),
            },
            None => drop(taken.insert(key, Reservation::take(port.host_port, port.protocol)?)),
        }
    }
    Ok(taken)
}

/// Fails before anything is written if the maps have no room for what the service adds.
fn check_room(node: &Node, spec: &ServiceSpec) -> Result<(), Error> {
    let (keys_now, backends_now, keys_before, backends_before) = {
        let table = node.services();
        let all = table.records.values();
        let keys_now: usize = all.clone().map(|record| keys(&record.spec, v4(&record.spec)).len()).sum();
        let backends_now: usize = all.map(|record| record.numbers.len()).sum();
        let before = table.records.get(&spec.id);
        (
            keys_now,
            backends_now,
            before.map_or(0, |record| keys(&record.spec, v4(&record.spec)).len()),
            before.map_or(0, |record| record.numbers.len()),
        )
    };
    let maps = node.maps();
    let full = |map, wanted: usize| {
        let capacity = maps.capacity(map);
        if wanted > capacity as usize { Err(Error::MapFull { map, capacity }) } else { Ok(()) }
    };
    full(name::SERVICE_V4, keys_now - keys_before + keys(spec, v4(spec)).len())?;
    full(name::BACKEND_V4, backends_now - backends_before + spec.backends.len())
}

/// Writes the backends, the cells and the entries of a service; returns where the cells are.
fn install(node: &Node, spec: &ServiceSpec, numbers: &[u32]) -> Result<Extent, Error> {
    let before = node.services().records.get(&spec.id).map(|record| {
        let same = record.spec.backends == spec.backends && record.numbers == numbers;
        let stale_v4 = keys(&record.spec, v4(&record.spec));
        let stale_v6 = keys(&record.spec, v6(&record.spec));
        (same.then_some(record.extent), stale_v4, stale_v6)
    });
    let (kept, stale_v4, stale_v6) = before.unwrap_or((None, Vec::new(), Vec::new()));
    let extent = match kept {
        Some(extent) => extent,
        None => write_table(node, spec, numbers)?,
    };
    let written = write_entries(node, spec, extent, &stale_v4, &stale_v6);
    if written.is_err() && kept.is_none() {
        // Some entries may point at the new cells already; they wait like any others.
        node.services().retire(extent, Vec::new(), Instant::now());
    }
    written.map(|()| extent)
}

fn write_table(node: &Node, spec: &ServiceSpec, numbers: &[u32]) -> Result<Extent, Error> {
    let cells = cells(&spec.backends, numbers);
    let extent = take_cells(node, cells.len() as u32)?;
    let mut guard = node.maps();
    let maps = &mut *guard;
    let mut write = || -> Result<(), Error> {
        let (room_v4, room_v6) = (maps.capacity(name::BACKEND_V4), maps.capacity(name::BACKEND_V6));
        for (backend, number) in spec.backends.iter().zip(numbers) {
            let v4 = backend_entry(Address4::from_octets(backend.ipv4.octets()), backend.weight, spec.id);
            let v6 = backend_entry(Address6::from_octets(backend.ipv6.octets()), backend.weight, spec.id);
            put(&mut maps.backend_v4, (name::BACKEND_V4, room_v4), number, &v4)?;
            put(&mut maps.backend_v6, (name::BACKEND_V6, room_v6), number, &v6)?;
        }
        for (index, &backend) in (extent.base..).zip(&cells) {
            let cell = Cell { backend, service: spec.id };
            maps.service_table.set(index, cell, 0).map_err(failed(name::SERVICE_TABLE))?;
        }
        Ok(())
    };
    let written = write();
    drop(guard);
    if written.is_err() {
        node.services().give_back(extent);
    }
    written.map(|()| extent)
}

/// Takes cells; waits for those in quarantine if there are not enough others.
fn take_cells(node: &Node, size: u32) -> Result<Extent, Error> {
    loop {
        let wait = {
            let mut table = node.services();
            if let Some(extent) = table.take(size) {
                return Ok(extent);
            }
            table.next_release(Instant::now())
        };
        let Some(wait) = wait else {
            let (_, capacity) = node.services().cells();
            return Err(Error::MapFull { map: name::SERVICE_TABLE, capacity });
        };
        thread::sleep(wait);
        release(node)?;
    }
}

fn backend_entry<A>(address: A, weight: u16, service: u32) -> Backend<A> {
    Backend { address, port: 0, state: BACKEND_ACTIVE, weight, padding: 0, service }
}

fn write_entries(
    node: &Node,
    spec: &ServiceSpec,
    extent: Extent,
    stale_v4: &[(ServiceKey<Address4>, u16)],
    stale_v6: &[(ServiceKey<Address6>, u16)],
) -> Result<(), Error> {
    let entry = |target_port: u16| Service {
        id: spec.id,
        flags: if target_port == 0 { SERVICE_EVERY_PORT } else { 0 },
        table_base: extent.base,
        table_size: extent.size,
        target_port,
        backends: spec.backends.len().min(usize::from(u16::MAX)) as u16,
        affinity_s: spec.affinity_s.map_or(0, NonZeroU32::get),
    };
    let mut guard = node.maps();
    let maps = &mut *guard;
    let room = (maps.capacity(name::SERVICE_V4), maps.capacity(name::SERVICE_V6));
    let (fresh_v4, fresh_v6) = (keys(spec, v4(spec)), keys(spec, v6(spec)));
    for (key, target_port) in &fresh_v4 {
        put(&mut maps.service_v4, (name::SERVICE_V4, room.0), key, &entry(*target_port))?;
    }
    for (key, target_port) in &fresh_v6 {
        put(&mut maps.service_v6, (name::SERVICE_V6, room.1), key, &entry(*target_port))?;
    }
    for (key, _) in stale_v4.iter().filter(|(key, _)| !fresh_v4.iter().any(|(fresh, _)| fresh == key)) {
        forget(&mut maps.service_v4, name::SERVICE_V4, key)?;
    }
    for (key, _) in stale_v6.iter().filter(|(key, _)| !fresh_v6.iter().any(|(fresh, _)| fresh == key)) {
        forget(&mut maps.service_v6, name::SERVICE_V6, key)?;
    }
    Ok(())
}

/// The addresses of the backends that a service no longer has.
fn leavers(before: Option<&Record>, after: &ServiceSpec) -> Vec<IpAddr> {
    let stays = |backend: &&BackendSpec| {
        after.backends.iter().any(|other| (other.ipv4, other.ipv6) == (backend.ipv4, backend.ipv6))
    };
    let before = before.iter().flat_map(|record| &record.spec.backends);
    before
        .filter(|backend| !stays(backend))
        .flat_map(|backend| [backend.ipv4.into(), backend.ipv6.into()])
        .collect()
}

/// Puts what a service no longer uses into quarantine. Returns the backends among it.
fn retire(table: &mut ServiceTable, before: Option<&Record>, extent: Extent, numbers: &[u32]) -> Vec<u32> {
    let Some(before) = before else { return Vec::new() };
    let gone: Vec<u32> = before.numbers.iter().copied().filter(|number| !numbers.contains(number)).collect();
    let freed = if before.extent == extent { Extent::default() } else { before.extent };
    if freed.size > 0 || !gone.is_empty() {
        table.retire(freed, gone.clone(), Instant::now());
    }
    gone
}

fn v4(spec: &ServiceSpec) -> Address4 {
    Address4::from_octets(spec.address_v4.octets())
}

fn v6(spec: &ServiceSpec) -> Address6 {
    Address6::from_octets(spec.address_v6.octets())
}

/// The keys of a service in one family, each with its target port in network order (zero keeps the port).
fn keys<A: Address>(spec: &ServiceSpec, address: A) -> Vec<(ServiceKey<A>, u16)> {
    let mut keys = match &spec.ports {
        ServicePorts::All => vec![(ServiceKey::every_port(address), 0)],
        ServicePorts::List(ports) => ports
            .iter()
            .map(|port| {
                (
                    ServiceKey::port(address, port.port.to_be(), number(port.protocol)),
                    port.target_port.to_be(),
                )
            })
            .collect(),
    };
    keys.extend(spec.published.iter().map(|port| {
        (ServiceKey::published(port.host_port.to_be(), number(port.protocol)), port.target_port.to_be())
    }));
    keys
}

pub(crate) fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    }
}

fn protocol(number: u8) -> Option<Protocol> {
    match number {
        TCP => Some(Protocol::Tcp),
        UDP => Some(Protocol::Udp),
        _ => None,
    }
}

/// A service as its entries tell it, piece by piece.
#[derive(Default)]
struct Pieces {
    address_v4: Option<Ipv4Addr>,
    address_v6: Option<Ipv6Addr>,
    every_port: bool,
    ports: Vec<ServicePort>,
    published: Vec<PublishedPort>,
    affinity_s: Option<NonZeroU32>,
    extent: Extent,
}

/// The services that the maps hold.
fn recorded(maps: &Maps) -> Result<Vec<(ServiceSpec, Extent, Vec<u32>)>, Error> {
    let mut services: BTreeMap<u32, Pieces> = BTreeMap::new();
    for found in maps.service_v4.iter() {
        let (key, service) = found.map_err(failed(name::SERVICE_V4))?;
        let pieces = services.entry(service.id).or_default();
        pieces.extent = Extent { base: service.table_base, size: service.table_size };
        pieces.affinity_s = NonZeroU32::new(service.affinity_s);
        let target_port = u16::from_be(service.target_port);
        let port = u16::from_be(key.port);
        let is_published = key.address == Address4::unspecified();
        if !is_published {
            pieces.address_v4 = Some(key.address.octets().into());
        }
        match protocol(key.protocol) {
            Some(protocol) if is_published => {
                pieces.published.push(PublishedPort { host_port: port, protocol, target_port });
            }
            Some(protocol) => pieces.ports.push(ServicePort { port, protocol, target_port }),
            None => pieces.every_port = true,
        }
    }
    for found in maps.service_v6.iter() {
        let (key, service) = found.map_err(failed(name::SERVICE_V6))?;
        if key.address != Address6::unspecified() {
            services.entry(service.id).or_default().address_v6 = Some(key.address.octets().into());
        }
    }
    let mut found = Vec::new();
    for (id, mut pieces) in services {
        // One without an address in both families was being written or removed: it is not whole.
        let (Some(address_v4), Some(address_v6)) = (pieces.address_v4, pieces.address_v6) else { continue };
        pieces.ports.sort();
        pieces.published.sort();
        let (backends, numbers) = members(maps, id, pieces.extent)?.into_iter().unzip();
        let ports = if pieces.every_port { ServicePorts::All } else { ServicePorts::List(pieces.ports) };
        let Pieces { published, affinity_s, extent, .. } = pieces;
        let spec = ServiceSpec { id, address_v4, address_v6, ports, backends, published, affinity_s };
        found.push((spec, extent, numbers));
    }
    Ok(found)
}

/// The backends of a service: those in its cells, and those without weight.
fn members(maps: &Maps, service: u32, extent: Extent) -> Result<Vec<(BackendSpec, u32)>, Error> {
    let mut in_cells = HashSet::new();
    for index in extent.base..extent.base.saturating_add(extent.size) {
        let cell = maps.service_table.get(&index, 0).map_err(failed(name::SERVICE_TABLE))?;
        if cell.service == service {
            in_cells.insert(cell.backend);
        }
    }
    let mut members = Vec::new();
    for found in maps.backend_v4.iter() {
        let (number, v4) = found.map_err(failed(name::BACKEND_V4))?;
        if v4.service != service || (v4.weight > 0 && !in_cells.contains(&number)) {
            continue;
        }
        let Ok(v6) = maps.backend_v6.get(&number, 0) else { continue };
        let (ipv4, ipv6) = (v4.address.octets().into(), v6.address.octets().into());
        members.push((BackendSpec { ipv4, ipv6, weight: v4.weight }, number));
    }
    members.sort_by_key(|(_, number)| *number);
    Ok(members)
}
