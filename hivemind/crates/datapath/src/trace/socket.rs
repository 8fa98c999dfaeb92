//! What the socket hooks would do with a socket that connects: they cannot be run by hand, so this reads what they read.

use super::tables::Ip;
use crate::{
    Error, Protocol, bpffs::Pins, maps::failed, node::Node, programs::trial::live,
    service::lifecycle::number, telemetry::events::Clocks,
};
use aya::Pod;
use hivemind_common::{
    family::{Address4, Address6},
    name,
    service::{Affinity, AffinityKey, BACKEND_ACTIVE, Backend, SERVICE_EVERY_PORT, Service, ServiceKey},
};
use std::net::{IpAddr, SocketAddr};

/// Where a socket goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// Where it asked to go: that is no service's address.
    AsAsked,
    /// Nowhere: the service has no backend.
    Refused,
    /// To a backend; `remembered` because its client had that one before.
    To { backend: SocketAddr, remembered: bool },
}

/// Where a socket goes that asks for `to`. `namespace` is the cookie of its network namespace; `is_the_nodes`, whether that is
/// the node's own. Of a service that spreads its clients, the first backend of its table stands for all of them.
pub(super) fn way(
    node: &Node,
    to: SocketAddr,
    protocol: Protocol,
    namespace: u64,
    is_the_nodes: bool,
) -> Result<Way, Error> {
    let asked = Asked { node, to, protocol: number(protocol), namespace, is_the_nodes };
    match to.ip() {
        IpAddr::V4(_) => asked.way::<Address4>(),
        IpAddr::V6(_) => asked.way::<Address6>(),
    }
}

/// The number of the service at an address, for packets that no hook saw.
pub(super) fn service_at(node: &Node, to: SocketAddr, protocol: Protocol) -> Result<Option<u32>, Error> {
    let asked = Asked { node, to, protocol: number(protocol), namespace: 0, is_the_nodes: false };
    let found = match to.ip() {
        IpAddr::V4(_) => asked.service::<Address4>()?,
        IpAddr::V6(_) => asked.service::<Address6>()?,
    };
    Ok(found.map(|service| service.id))
}

struct Asked<'a> {
    node: &'a Node,
    to: SocketAddr,
    protocol: u8,
    namespace: u64,
    is_the_nodes: bool,
}

impl Asked<'_> {
    fn pins(&self) -> &Pins {
        &self.node.pins
    }

    fn way<A: Ip>(&self) -> Result<Way, Error>
    where
        ServiceKey<A>: Pod,
        Backend<A>: Pod,
    {
        let Some(service) = self.service::<A>()? else { return Ok(Way::AsAsked) };
        let remembered = self.remembered(&service)?;
        let remembered = match remembered {
            Some(backend) => self.active::<A>(backend)?,
            None => None,
        };
        let chosen = match remembered {
            Some(address) => Some(address),
            None => self.first::<A>(&service)?,
        };
        let keeps = service.flags & SERVICE_EVERY_PORT != 0 || service.target_port == 0;
        let port = if keeps { self.to.port() } else { u16::from_be(service.target_port) };
        Ok(match chosen {
            Some(address) => {
                Way::To { backend: SocketAddr::new(address, port), remembered: remembered.is_some() }
            }
            None => Way::Refused,
        })
    }

    /// That very port, else every port, else a port published on the node.
    fn service<A: Ip>(&self) -> Result<Option<Service>, Error>
    where
        ServiceKey<A>: Pod,
    {
        let (address, port) = (A::of(self.to.ip()), self.to.port().to_be());
        let at = |key: ServiceKey<A>| live::<_, Service>(self.pins(), A::SERVICE, &key);
        if address != A::unspecified() {
            for key in [ServiceKey::port(address, port, self.protocol), ServiceKey::every_port(address)] {
                if let Some(found) = at(key)? {
                    return Ok(Some(found));
                }
            }
        }
        let Some(published) = at(ServiceKey::published(port, self.protocol))? else { return Ok(None) };
        let is_ours = if address.is_loopback() {
            self.is_the_nodes
        } else {
            live::<_, u32>(self.pins(), A::NODE_ADDRESS, &address)?.is_some()
        };
        Ok(is_ours.then_some(published))
    }

    fn remembered(&self, service: &Service) -> Result<Option<u32>, Error> {
        if service.affinity_s == 0 {
            return Ok(None);
        }
        let (low, high) = (self.namespace as u32, (self.namespace >> 32) as u32);
        let client = AffinityKey { client: [low, high, 0, 0], service: service.id, family: 0 };
        let found = live::<_, Affinity>(self.pins(), name::AFFINITY, &client)?;
        let now = Clocks::now().monotonic_ns();
        Ok(found.filter(|known| known.counts(now, service.affinity_s)).map(|known| known.backend))
    }

    fn active<A: Ip>(&self, backend: u32) -> Result<Option<IpAddr>, Error>
    where
        Backend<A>: Pod,
    {
        let found = live::<_, Backend<A>>(self.pins(), A::BACKEND, &backend)?;
        Ok(found.filter(|found| found.state == BACKEND_ACTIVE).map(|found| found.address.ip()))
    }

    fn first<A: Ip>(&self, service: &Service) -> Result<Option<IpAddr>, Error>
    where
        Backend<A>: Pod,
    {
        for index in 0..service.table_size {
            let cell = {
                let maps = self.node.maps();
                maps.service_table.get(&(service.table_base + index), 0)
            };
            let cell = cell.map_err(failed(name::SERVICE_TABLE))?;
            if cell.service == service.id
                && let Some(address) = self.active::<A>(cell.backend)?
            {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }
}
