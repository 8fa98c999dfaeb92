//! Which service an address and a port are, and which of its backends a connection gets. For sockets and for packets.

use crate::maps::{AFFINITY, Maps, SERVICE_TABLE};
use hivemind_common::service::{
    self, Affinity, AffinityKey, BACKEND_ACTIVE, SERVICE_EVERY_PORT, Service, ServiceKey,
};

/// How many cells are tried: one that was just handed to another service, or whose backend just left, is no answer.
const TRIES: u32 = 3;

/// A backend that was chosen.
pub(crate) struct Chosen<A> {
    pub(crate) number: u32,
    pub(crate) address: A,
}

/// The service at an address of the services' own: that very port, else every port.
#[inline(always)]
pub(crate) fn at<F: Maps>(address: F::Address, port: u16, protocol: u8) -> Option<Service> {
    let services = F::service();
    // SAFETY: here and below a copy of a value of the map, which the daemon replaces as a whole.
    if let Some(found) = unsafe { services.get(ServiceKey::port(address, port, protocol)) } {
        return Some(*found);
    }
    // SAFETY: as above.
    unsafe { services.get(ServiceKey::every_port(address)) }.copied()
}

/// The service that is published at a port of the node.
#[inline(always)]
pub(crate) fn published<F: Maps>(port: u16, protocol: u8) -> Option<Service> {
    // SAFETY: as above.
    unsafe { F::service().get(ServiceKey::published(port, protocol)) }.copied()
}

/// The port of a backend for whoever asked for `port`, in network order.
#[inline(always)]
pub(crate) fn target_port(service: &Service, port: u16) -> u16 {
    if service.flags & SERVICE_EVERY_PORT != 0 || service.target_port == 0 {
        port
    } else {
        service.target_port
    }
}

/// The backend for a client: the one that it had, if the service remembers, else that of the cell which `uniform` says. None
/// if there is none that takes connections.
#[inline(always)]
pub(crate) fn choose<F: Maps>(
    service: &Service,
    uniform: u32,
    client: AffinityKey,
    now: u64,
) -> Option<Chosen<F::Address>> {
    if service.affinity_s != 0
        && let Some(known) = AFFINITY.get_ptr_mut(&client)
    {
        // SAFETY: a value of the map; both fields are read and written whole.
        let known = unsafe { &mut *known };
        if known.counts(now, service.affinity_s)
            && let Some(chosen) = active::<F>(known.backend)
        {
            known.used_ns = now;
            return Some(chosen);
        }
    }
    let chosen = of_table::<F>(service, uniform)?;
    if service.affinity_s != 0 {
        let remembered = Affinity { used_ns: now, backend: chosen.number, padding: 0 };
        // The least recently used give way.
        let _ = AFFINITY.insert(&client, &remembered, 0);
    }
    Some(chosen)
}

#[inline(always)]
fn of_table<F: Maps>(service: &Service, uniform: u32) -> Option<Chosen<F::Address>> {
    let mut uniform = uniform;
    for _ in 0..TRIES {
        let index = service.table_base + service::cell_of(uniform, service.table_size);
        if let Some(cell) = SERVICE_TABLE.get(index)
            && cell.service == service.id
            && let Some(chosen) = active::<F>(cell.backend)
        {
            return Some(chosen);
        }
        uniform = service::hash(uniform as u64);
    }
    None
}

/// A backend, if it is there and takes connections.
#[inline(always)]
pub(crate) fn active<F: Maps>(number: u32) -> Option<Chosen<F::Address>> {
    let backend = F::backend().get_ptr(number)?;
    // SAFETY: a value of the map.
    let (address, state) = unsafe { ((*backend).address, (*backend).state) };
    if state == BACKEND_ACTIVE { Some(Chosen { number, address }) } else { None }
}
