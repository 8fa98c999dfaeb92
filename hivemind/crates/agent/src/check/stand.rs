//! What a check stands on: made before, removed afterwards.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use hivemind_datapath::{
    BackendSpec, Endpoint, EndpointSpec, Protocol, PublishedPort, ServicePorts, ServiceSpec,
};
use hivemind_model::{ApiError, ErrorCode, Identity};
use hivemind_policy::Tables;
use tokio::net::TcpListener;

use super::{CheckSpec, place::Place};
use crate::{agent::Shared, fault};

/// What the ends are called: no replica is, since its id has no hyphen.
const NAMES: [&str; 2] = ["net-check-client", "net-check-server"];
/// The number of the service: those in the store are counted from one.
const SERVICE: u32 = u32::MAX;
/// How often a free port of the node is looked for: another program may take it first.
const PORT_TRIES: usize = 4;

/// An end of a check.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub(super) addresses: [IpAddr; 2],
    pub(super) place: Place,
}

/// Everything that was made.
pub(super) struct Stand<'a> {
    pub(super) shared: &'a Arc<Shared>,
    service: (Ipv4Addr, Ipv6Addr),
    taken: Vec<(Ipv4Addr, Ipv6Addr)>,
    /// The client and the server.
    pub(super) probes: Vec<Probe>,
}

impl<'a> Stand<'a> {
    /// Nothing yet.
    pub(super) fn new(shared: &'a Arc<Shared>, spec: &CheckSpec) -> Self {
        Stand { shared, service: spec.service, taken: Vec::new(), probes: Vec::new() }
    }

    /// Makes both ends and the service's name.
    ///
    /// # Errors
    /// What could not be made; [`Stand::remove`] removes the rest.
    pub(super) async fn make(&mut self) -> Result<(), ApiError> {
        let datapath = &self.shared.datapath;
        let failed = |error| fault::explain_datapath(&error);
        datapath.set_policy(Identity::CHECK, Arc::new(Tables::open())).await.map_err(failed)?;
        for id in NAMES {
            let taken = self.shared.pool().take();
            let (ipv4, ipv6) = taken.map_err(|error| {
                let hint = "delete apps that are not needed, or check another node";
                ApiError::new(ErrorCode::AddressesExhausted, error.to_string(), hint)
            })?;
            self.taken.push((ipv4, ipv6));
            let spec = EndpointSpec { id: id.to_owned(), ipv4, ipv6, identity: Identity::CHECK };
            let Endpoint { netns, .. } = datapath.ensure_endpoint(spec).await.map_err(failed)?;
            self.probes.push(Probe { addresses: [ipv4.into(), ipv6.into()], place: Place::Namespace(netns) });
        }
        self.set_service(Vec::new()).await.map_err(failed)?;
        self.shared.services.name_check(Some(self.service)).await;
        Ok(())
    }

    /// The service's addresses.
    pub(super) fn service(&self) -> [IpAddr; 2] {
        [self.service.0.into(), self.service.1.into()]
    }

    /// Publishes this port of the server on the node; returns the node's port.
    pub(super) async fn publish(&self, target_port: u16) -> Result<u16, String> {
        let mut last = String::new();
        for _ in 0..PORT_TRIES {
            let free = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.and_then(|free| free.local_addr());
            let host_port = free.map_err(|error| format!("no port of the node is free: {error}"))?.port();
            let port = PublishedPort { host_port, protocol: Protocol::Tcp, target_port };
            match self.set_service(vec![port]).await {
                Ok(()) => return Ok(host_port),
                Err(error) => last = fault::with_causes(&error),
            }
        }
        Err(format!("no port could be published: {last}"))
    }

    async fn set_service(&self, published: Vec<PublishedPort>) -> Result<(), hivemind_datapath::Error> {
        let backends = self
            .taken
            .get(1)
            .map(|&(ipv4, ipv6)| BackendSpec { ipv4, ipv6, weight: 1 })
            .into_iter()
            .collect();
        let spec = ServiceSpec {
            id: SERVICE,
            affinity_s: None,
            address_v4: self.service.0,
            address_v6: self.service.1,
            ports: ServicePorts::All,
            backends,
            published,
        };
        self.shared.datapath.set_service(spec).await
    }

    /// Removes all that was made, and goes on where something cannot be removed.
    ///
    /// # Errors
    /// The first that could not be removed; the daemon's next start removes it.
    pub(super) async fn remove(&mut self) -> Result<(), ApiError> {
        let datapath = &self.shared.datapath;
        self.shared.services.name_check(None).await;
        let mut results = vec![datapath.remove_service(SERVICE).await];
        for id in NAMES {
            results.push(datapath.remove_endpoint(id).await);
        }
        for (address, _) in self.taken.drain(..) {
            self.shared.pool().give_back(address);
        }
        results.push(datapath.remove_policy(Identity::CHECK).await);
        results.push(datapath.forget_identities([Identity::CHECK].into()).await);
        let failed = results.into_iter().find_map(Result::err);
        failed.map_or(Ok(()), |error| Err(fault::explain_datapath(&error)))
    }
}
