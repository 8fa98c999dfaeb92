//! What is known of a connection, in either family: in the node's tables, and in those of the copy.

use super::TraceTuple;
use crate::{
    Error, FlowEvent,
    bpffs::Pins,
    programs::trial::{Trial, live},
    service::lifecycle::number,
    telemetry::{connections, events::Clocks},
};
use aya::Pod;
use hivemind_common::{
    conntrack::{Entry, Key, Side},
    family::{Address, Address4, Address6},
    name,
    service::{Affinity, AffinityKey},
    translation::Translation,
};
use std::net::IpAddr;

/// An address of one family, with the names of its tables.
pub(super) trait Ip: Address + Pod {
    const CONNTRACK: &'static str;
    const TRANSLATION: &'static str;
    const SERVICE: &'static str;
    const BACKEND: &'static str;
    const NODE_ADDRESS: &'static str;
    /// 4 or 6.
    const VERSION: u32;

    fn of(address: IpAddr) -> Self;
    fn ip(self) -> IpAddr;
}

impl Ip for Address4 {
    const CONNTRACK: &'static str = name::CONNTRACK_V4;
    const TRANSLATION: &'static str = name::TRANSLATION_V4;
    const SERVICE: &'static str = name::SERVICE_V4;
    const BACKEND: &'static str = name::BACKEND_V4;
    const NODE_ADDRESS: &'static str = name::NODE_ADDRESS_V4;
    const VERSION: u32 = 4;

    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::from_octets(address.octets()),
            IpAddr::V6(_) => Self::default(),
        }
    }

    fn ip(self) -> IpAddr {
        self.octets().into()
    }
}

impl Ip for Address6 {
    const CONNTRACK: &'static str = name::CONNTRACK_V6;
    const TRANSLATION: &'static str = name::TRANSLATION_V6;
    const SERVICE: &'static str = name::SERVICE_V6;
    const BACKEND: &'static str = name::BACKEND_V6;
    const NODE_ADDRESS: &'static str = name::NODE_ADDRESS_V6;
    const VERSION: u32 = 6;

    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::from_mapped(Address4::from_octets(address.octets())),
            IpAddr::V6(address) => Self::from_octets(address.octets()),
        }
    }

    fn ip(self) -> IpAddr {
        self.octets().into()
    }
}

/// What is known of the connection of a packet.
pub(super) struct Known {
    /// Its entry.
    pub(super) entry: Entry,
    /// The index of the side that the packet goes to.
    pub(super) to: usize,
    /// The same in words of the telemetry.
    pub(super) flow: Option<FlowEvent>,
}

fn key<A: Ip>(tuple: &TraceTuple) -> (Key<A>, Side) {
    let addresses = [A::of(tuple.source.ip()), A::of(tuple.destination.ip())];
    let ports = [tuple.source.port().to_be(), tuple.destination.port().to_be()];
    Key::between(addresses, ports, number(tuple.protocol))
}

/// Copies what the node knows of a packet's connection. Returns whether that is anything.
pub(super) fn seed(trial: &mut Trial, pins: &Pins, packet: &TraceTuple) -> Result<bool, Error> {
    match packet.destination.ip() {
        IpAddr::V4(_) => seed_as::<Address4>(trial, pins, packet),
        IpAddr::V6(_) => seed_as::<Address6>(trial, pins, packet),
    }
}

fn seed_as<A: Ip>(trial: &mut Trial, pins: &Pins, packet: &TraceTuple) -> Result<bool, Error>
where
    Key<A>: Pod,
    Translation<A>: Pod,
{
    let (key, side) = key::<A>(packet);
    let mut any = false;
    let mut keys = vec![key];
    if let Some(found) = live::<_, Translation<A>>(pins, A::TRANSLATION, &key)? {
        let (other, _) = found.turn(side, key.protocol);
        trial.put(A::TRANSLATION, &key, &found)?;
        if let Some(back) = live::<_, Translation<A>>(pins, A::TRANSLATION, &other)? {
            trial.put(A::TRANSLATION, &other, &back)?;
        }
        keys.push(other);
        any = true;
    }
    for key in keys {
        if let Some(found) = live::<_, Entry>(pins, A::CONNTRACK, &key)? {
            trial.put(A::CONNTRACK, &key, &found)?;
            any = true;
        }
    }
    Ok(any)
}

/// Whether the node knows a connection with these ends.
pub(super) fn is_known(pins: &Pins, packet: &TraceTuple) -> Result<bool, Error> {
    fn known<A: Ip>(pins: &Pins, packet: &TraceTuple) -> Result<bool, Error>
    where
        Key<A>: Pod,
        Translation<A>: Pod,
    {
        let (key, _) = key::<A>(packet);
        Ok(live::<_, Entry>(pins, A::CONNTRACK, &key)?.is_some()
            || live::<_, Translation<A>>(pins, A::TRANSLATION, &key)?.is_some())
    }
    match packet.destination.ip() {
        IpAddr::V4(_) => known::<Address4>(pins, packet),
        IpAddr::V6(_) => known::<Address6>(pins, packet),
    }
}

/// Copies which backend a service remembers for a client that it knows by its address.
pub(super) fn seed_affinity(
    trial: &mut Trial,
    pins: &Pins,
    service: u32,
    client: IpAddr,
) -> Result<(), Error> {
    let (words, family) = match client {
        IpAddr::V4(_) => (Address4::of(client).words(), Address4::VERSION),
        IpAddr::V6(_) => (Address6::of(client).words(), Address6::VERSION),
    };
    let key = AffinityKey { client: words, service, family };
    match live::<_, Affinity>(pins, name::AFFINITY, &key)? {
        Some(found) => trial.put(name::AFFINITY, &key, &found),
        None => Ok(()),
    }
}

/// What the copy knows of a packet's connection, under whichever of its tuples the packet is.
pub(super) fn known(trial: &Trial, packet: &TraceTuple) -> Result<Option<Known>, Error> {
    match packet.destination.ip() {
        IpAddr::V4(_) => known_as::<Address4>(trial, packet),
        IpAddr::V6(_) => known_as::<Address6>(trial, packet),
    }
}

fn known_as<A: Ip>(trial: &Trial, packet: &TraceTuple) -> Result<Option<Known>, Error>
where
    Key<A>: Pod,
    Translation<A>: Pod,
{
    let (mut key, mut from) = key::<A>(packet);
    let mut entry = trial.get::<_, Entry>(A::CONNTRACK, &key)?;
    if entry.is_none()
        && let Some(found) = trial.get::<_, Translation<A>>(A::TRANSLATION, &key)?
    {
        (key, from) = found.turn(from, key.protocol);
        entry = trial.get(A::CONNTRACK, &key)?;
    }
    Ok(entry.map(|entry| {
        let flow = connections::told(&key, &entry, Clocks::now(), A::ip);
        Known { entry, to: from.other().index(), flow }
    }))
}
