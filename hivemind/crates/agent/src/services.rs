//! Services on this node: what the data path balances and the DNS server answers.
//!
//! One task owns the state and does all the writing, so that nothing is written in two orders at once. It follows the
//! services in the store; besides, workers tell it when a replica of theirs must leave at once ([`Services::withdraw`]) or
//! may enter ([`Services::admit`]), which is quicker than the way through the store: it leaves before its process is
//! signalled, and when users are told that it is ready, connections reach it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
};

use hivemind_datapath::{BackendSpec, Datapath, PublishedPort, ServicePorts, ServiceSpec};
use hivemind_dns::{DnsServer, Records};
use hivemind_model::{Problem, Protocol, Resource, SYSTEM_NAMESPACE, Service, WatchEvent, WatchKind};
use hivemind_store::{ObjectWatch, Objects};
use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::fault;

/// Namespace and name.
type Key = (String, String);

/// A replica's addresses.
type Addresses = (Ipv4Addr, Ipv6Addr);

/// How many requests of workers may wait.
const REQUESTS_MAX: usize = 256;

enum Request {
    Withdraw(Key, Ipv4Addr, oneshot::Sender<usize>),
    Admit(Key, Addresses, oneshot::Sender<()>),
    Forget(Key, Ipv4Addr),
    Settle(oneshot::Sender<()>),
    NameCheck(Option<Addresses>, oneshot::Sender<()>),
}

/// The handle that workers have.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    requests: mpsc::Sender<Request>,
}

impl Services {
    /// Takes the endpoint at `address` out of its service now, and keeps it out until [`Services::admit`]. Returns how
    /// many other endpoints the service still has.
    pub(crate) async fn withdraw(&self, service: Key, address: Ipv4Addr) -> usize {
        let (done, wait) = oneshot::channel();
        if self.requests.send(Request::Withdraw(service, address, done)).await.is_err() {
            return 0;
        }
        wait.await.unwrap_or(0)
    }

    /// Puts the endpoint at `addresses` into its service, whether the store says so yet or not. Returns when the data path
    /// balances over it, or could not be written (which is told in the service's status).
    pub(crate) async fn admit(&self, service: Key, addresses: Addresses) {
        let (done, wait) = oneshot::channel();
        if self.requests.send(Request::Admit(service, addresses, done)).await.is_ok() {
            let _ = wait.await;
        }
    }

    /// The replica that was at `address` is gone: from now on only the store says whether the address is in a service.
    pub(crate) async fn forget(&self, service: Key, address: Ipv4Addr) {
        let _ = self.requests.send(Request::Forget(service, address)).await;
    }

    /// Gives the service of a check of the network its name, or takes it away. Returns when that is so.
    pub(crate) async fn name_check(&self, addresses: Option<Addresses>) {
        let (done, wait) = oneshot::channel();
        if self.requests.send(Request::NameCheck(addresses, done)).await.is_ok() {
            let _ = wait.await;
        }
    }

    /// Returns when all services that the store held at the start are written.
    pub(crate) async fn settled(&self) {
        let (done, wait) = oneshot::channel();
        if self.requests.send(Request::Settle(done)).await.is_ok() {
            let _ = wait.await;
        }
    }
}

/// The task's state.
pub(crate) struct ServiceWriter {
    pub(crate) datapath: Arc<Datapath>,
    pub(crate) dns: Arc<DnsServer>,
    pub(crate) objects: Objects,
    pub(crate) zone: Zone,
    node: String,
    services: BTreeMap<Key, Service>,
    withdrawn: BTreeSet<Ipv4Addr>,
    /// Endpoints that workers put into services, which the store may not know of yet.
    admitted: BTreeMap<Ipv4Addr, (Key, Ipv6Addr)>,
    /// Services that could not be written and are tried again.
    failed: BTreeSet<Key>,
    /// The addresses of the service of a check of the network.
    check: Option<Addresses>,
}

/// How long until what could not be written is tried again.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(2);

impl ServiceWriter {
    /// A writer of node `node`.
    pub(crate) fn new(
        node: String,
        datapath: Arc<Datapath>,
        dns: Arc<DnsServer>,
        objects: Objects,
        zone: Zone,
    ) -> Self {
        ServiceWriter {
            datapath,
            dns,
            objects,
            zone,
            node,
            services: BTreeMap::new(),
            withdrawn: BTreeSet::new(),
            admitted: BTreeMap::new(),
            check: None,
            failed: BTreeSet::new(),
        }
    }

    /// Writes all services of the store, removes those that it does not hold, and follows it until `stop`. Workers reach
    /// it through the returned handle.
    pub(crate) fn start(self, stop: CancellationToken, tasks: &mut tokio::task::JoinSet<()>) -> Services {
        let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
        tasks.spawn(self.run(inbox, stop));
        Services { requests }
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Request>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.objects.list_and_watch::<Service>(None).await {
                Ok((first, watch)) => {
                    self.replace_all(first.items).await;
                    self.follow_watch(watch, &mut inbox, &stop).await;
                }
                Err(error) => warn!(%error, "Services cannot be read from the store; trying again"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
    }

    /// Returns when the watch ends or `stop` comes.
    async fn follow_watch(
        &mut self,
        mut watch: ObjectWatch<Service>,
        inbox: &mut mpsc::Receiver<Request>,
        stop: &CancellationToken,
    ) {
        loop {
            let retry = tokio::time::sleep(RETRY_AFTER);
            tokio::select! {
                () = stop.cancelled() => return,
                Some(request) = inbox.recv() => self.answer(request).await,
                event = watch.next() => match event {
                    Ok(event) => self.follow(event).await,
                    Err(error) => {
                        warn!(%error, "The watch on services ended; starting it again");
                        return;
                    }
                },
                () = retry, if !self.failed.is_empty() => {
                    for key in std::mem::take(&mut self.failed) {
                        self.write(&key).await;
                    }
                }
            }
        }
    }

    /// At the start: what the store holds is written, and what an earlier daemon wrote besides goes.
    async fn replace_all(&mut self, services: Vec<Service>) {
        let numbers: BTreeSet<u32> = services.iter().filter_map(|s| s.spec.balanced()).map(|s| s.0).collect();
        for stray in self.datapath.services().into_iter().filter(|s| !numbers.contains(&s.id)) {
            if let Err(error) = self.datapath.remove_service(stray.id).await {
                warn!(service = stray.id, %error, "A service that is no more could not be removed from the data path");
            }
        }
        self.services.clear();
        for service in services {
            let key = key_of(&service);
            self.services.insert(key.clone(), service);
            self.write(&key).await;
        }
        self.publish_names();
    }

    async fn follow(&mut self, event: WatchEvent<Service>) {
        let key = key_of(&event.object);
        match event.kind {
            WatchKind::Added | WatchKind::Modified => {
                let before = self.services.insert(key.clone(), event.object);
                self.write(&key).await;
                let after = &self.services[&key];
                let is_named_as_before = |before: Service| {
                    before.spec == after.spec && before.status.endpoints == after.status.endpoints
                };
                if !before.is_some_and(is_named_as_before) {
                    self.publish_names();
                }
            }
            WatchKind::Deleted => {
                self.services.remove(&key);
                self.failed.remove(&key);
                self.publish_names();
                let Some((number, ..)) = event.object.spec.balanced() else { return };
                if let Err(error) = self.datapath.remove_service(number).await {
                    warn!(service = %key.1, %error, "A service could not be removed from the data path");
                }
            }
        }
    }

    async fn answer(&mut self, request: Request) {
        match request {
            Request::Withdraw(key, address, done) => {
                self.withdrawn.insert(address);
                self.admitted.remove(&address);
                self.write_all_of(&key).await;
                let others = self.services.get(&key).map_or(0, |s| self.backends(s).len());
                let _ = done.send(others);
            }
            Request::Admit(key, (ipv4, ipv6), done) => {
                self.withdrawn.remove(&ipv4);
                self.admitted.insert(ipv4, (key.clone(), ipv6));
                self.write_all_of(&key).await;
                let _ = done.send(());
            }
            Request::Forget(key, address) => {
                self.withdrawn.remove(&address);
                self.admitted.remove(&address);
                self.write_all_of(&key).await;
            }
            Request::Settle(done) => {
                let _ = done.send(());
            }
            Request::NameCheck(addresses, done) => {
                self.check = addresses;
                self.publish_names();
                let _ = done.send(());
            }
        }
    }

    /// Writes what a change of a service's endpoints concerns: the data path, or the names of a headless service.
    async fn write_all_of(&mut self, key: &Key) {
        self.write(key).await;
        if self.services.get(key).is_some_and(|service| service.spec.is_headless()) {
            self.publish_names();
        }
    }

    /// The endpoints that the store names and those that were admitted, less those withdrawn, by address.
    fn open_endpoints(&self, service: &Service) -> BTreeMap<Ipv4Addr, Ipv6Addr> {
        let key = key_of(service);
        let stored = service.status.endpoints.iter().map(|e| (e.ipv4, e.ipv6));
        let admitted = self.admitted.iter().filter(|(_, (of, _))| *of == key).map(|(v4, (_, v6))| (*v4, *v6));
        stored.chain(admitted).filter(|(ipv4, _)| !self.withdrawn.contains(ipv4)).collect()
    }

    /// The same as the data path has them.
    fn backends(&self, service: &Service) -> Vec<BackendSpec> {
        let open = self.open_endpoints(service).into_iter();
        open.map(|(ipv4, ipv6)| BackendSpec { ipv4, ipv6, weight: 1 }).collect()
    }

    async fn write(&mut self, key: &Key) {
        let Some(service) = self.services.get(key) else { return };
        let Some((id, address_v4, address_v6)) = service.spec.balanced() else { return };
        let affinity = service.spec.session_affinity;
        let spec = ServiceSpec {
            id,
            address_v4,
            address_v6,
            ports: ServicePorts::All,
            backends: self.backends(service),
            published: service.spec.published.iter().map(published).collect(),
            affinity_s: affinity.and_then(|affinity| NonZeroU32::new(affinity.timeout_seconds)),
        };
        let problem = match self.datapath.set_service(spec).await {
            Ok(()) => None,
            Err(error) => {
                self.failed.insert(key.clone());
                Some(fault::of_datapath(&error))
            }
        };
        if problem.as_ref() != service.status.node_problems.get(&self.node) {
            self.tell(key.clone(), problem).await;
        }
    }

    /// Writes `problem` into the service's status, so that users see it.
    async fn tell(&mut self, key: Key, problem: Option<Problem>) {
        match &problem {
            Some(problem) => {
                warn!(service = %key.1, namespace = %key.0, problem = %problem.message, "A service cannot be set up")
            }
            None => info!(service = %key.1, namespace = %key.0, "The service is set up after all"),
        }
        if let Some(service) = self.services.get_mut(&key) {
            service.status.note(&self.node, problem.clone());
        }
        let node = self.node.clone();
        let told = self.objects.update_with::<Service>(&key.0, &key.1, |service| {
            service.status.note(&node, problem.clone());
            Ok(())
        });
        if let Err(error) = told.await {
            warn!(service = %key.1, %error, "A service's status could not be written");
        }
    }

    fn publish_names(&self) {
        let open = |service: &Service| self.open_endpoints(service);
        let mut records = records(self.services.values(), &self.zone, open);
        if let Some((ipv4, ipv6)) = self.check
            && let Err(error) = records.insert(&check_name(&self.zone), [ipv4.into(), ipv6.into()])
        {
            warn!(%error, "The name of the service of a check of the network cannot be served");
        }
        self.dns.publish(records);
    }
}

/// The name of the service of a check of the network, while one goes on.
pub(crate) fn check_name(zone: &Zone) -> String {
    format!("net-check.{SYSTEM_NAMESPACE}.svc.{}", zone.domain)
}

fn key_of(service: &Service) -> Key {
    let metadata = service.metadata();
    (metadata.namespace.clone(), metadata.name.clone())
}

fn published(port: &hivemind_model::PublishedPort) -> PublishedPort {
    PublishedPort {
        host_port: port.host_port,
        target_port: port.container_port,
        protocol: protocol(port.protocol),
    }
}

/// `protocol` in the words of the data path.
pub(crate) fn protocol(protocol: Protocol) -> hivemind_datapath::Protocol {
    match protocol {
        Protocol::Tcp => hivemind_datapath::Protocol::Tcp,
        Protocol::Udp => hivemind_datapath::Protocol::Udp,
    }
}

/// What the names of services are below, and whose addresses are ours.
#[derive(Clone, Debug)]
pub struct Zone {
    /// The cluster domain.
    pub domain: String,
    /// Where the DNS server answers.
    pub dns: (Ipv4Addr, Ipv6Addr),
    /// The networks of replicas and services: an address in one of them has a name of ours or none.
    pub networks: Vec<IpNet>,
}

/// The version of Kubernetes' specification of names that ours follow, told as that specification says.
const DNS_VERSION: &str = "1.1.0";

/// The names of all services in the store, for a DNS server that starts.
///
/// # Errors
/// When the store cannot be read.
pub async fn names(objects: &Objects, zone: &Zone) -> Result<Records, hivemind_model::ApiError> {
    let services = objects.list::<Service>(None).await?.items;
    let stored = |service: &Service| service.status.endpoints.iter().map(|e| (e.ipv4, e.ipv6)).collect();
    Ok(records(services.iter(), zone, stored))
}

/// The names of `services`, and those of the zone itself.
///
/// A service is `<app>.<namespace>.svc.<domain>`, and whatever it was called besides; below that name, each replica that
/// takes connections has its own, and each port that is published or named has a server (`_80._tcp.…`). Addresses have the name
/// of the service or of the replica. A headless service has the addresses of its endpoints that are `open`, which are its
/// servers, too; one for a name outside is an alias of that.
pub(crate) fn records<'a>(
    services: impl Iterator<Item = &'a Service>,
    zone: &Zone,
    open: impl Fn(&Service) -> BTreeMap<Ipv4Addr, Ipv6Addr>,
) -> Records {
    let mut records = Records::new();
    zone.networks.iter().for_each(|network| records.own_network(*network));
    if let Err(error) = name_zone(&mut records, zone) {
        warn!(domain = zone.domain, %error, "The cluster domain's own names cannot be served");
    }
    for service in services {
        let own = format!("{}.{}.svc.{}", service.metadata.name, service.metadata.namespace, zone.domain);
        if let Err(error) = name_service(&mut records, service, &own, &open(service)) {
            warn!(name = own, %error, "A service's name cannot be served");
        }
    }
    records
}

fn name_zone(records: &mut Records, zone: &Zone) -> Result<(), hivemind_dns::NameError> {
    let own = format!("dns.{}", zone.domain);
    let addresses = [IpAddr::from(zone.dns.0), IpAddr::from(zone.dns.1)];
    records.insert(&own, addresses)?;
    for address in addresses {
        records.insert_reverse(address, &own)?;
    }
    records.insert_text(&format!("dns-version.{}", zone.domain), DNS_VERSION)
}

fn name_service(
    records: &mut Records,
    service: &Service,
    own: &str,
    open: &BTreeMap<Ipv4Addr, Ipv6Addr>,
) -> Result<(), hivemind_dns::NameError> {
    if let Some(outside) = &service.spec.external_name {
        for name in service.spec.hostnames.iter().map(String::as_str).chain([own]) {
            records.insert_alias(name, outside)?;
        }
        return Ok(());
    }
    let addresses: Vec<IpAddr> = match service.spec.balanced() {
        Some((_, ipv4, ipv6)) => vec![ipv4.into(), ipv6.into()],
        None => open.iter().flat_map(|(ipv4, ipv6)| [IpAddr::from(*ipv4), IpAddr::from(*ipv6)]).collect(),
    };
    records.insert(own, addresses.iter().copied())?;
    if service.spec.balanced().is_some() {
        for address in &addresses {
            records.insert_reverse(*address, own)?;
        }
    }
    let hivemind_model::ServiceSpec { ports, published, .. } = &service.spec;
    let published =
        published.iter().map(|port| (port.container_port.to_string(), port.container_port, port.protocol));
    let numbered = ports.iter().map(|port| (port.port.to_string(), port.port, port.protocol));
    let named = ports.iter().filter_map(|port| Some((port.name.clone()?, port.port, port.protocol)));
    let ports: Vec<_> = published
        .chain(numbered)
        .chain(named)
        .map(|(name, port, protocol)| (port, format!("_{name}._{}.{own}", protocol.as_str())))
        .collect();
    if service.spec.balanced().is_some() {
        for (port, name) in &ports {
            records.insert_server(name, own, *port)?;
        }
    }
    for endpoint in &service.status.endpoints {
        let replica = format!("{}.{own}", endpoint.replica);
        if service.spec.is_headless() && open.contains_key(&endpoint.ipv4) {
            for (port, name) in &ports {
                records.insert_server(name, &replica, *port)?;
            }
        }
        let addresses = [IpAddr::from(endpoint.ipv4), IpAddr::from(endpoint.ipv6)];
        records.insert(&replica, addresses)?;
        for address in addresses {
            records.insert_reverse(address, &replica)?;
        }
    }
    for hostname in &service.spec.hostnames {
        if let Err(error) = records.insert(hostname, addresses.iter().copied()) {
            warn!(name = hostname, %error, "A service's name cannot be served");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hivemind_model::{Metadata, ServicePort, ServiceSpec, ServiceStatus};

    use super::*;

    fn service(name: &str, spec: ServiceSpec) -> Service {
        let endpoint = |last| hivemind_model::Endpoint {
            replica: format!("{name}-{last}"),
            node: "n".into(),
            ipv4: Ipv4Addr::new(10, 200, 0, last),
            ipv6: format!("fd00:1::{last}").parse().unwrap(),
        };
        let endpoints = if spec.external_name.is_some() { vec![] } else { vec![endpoint(7), endpoint(8)] };
        Service {
            metadata: Metadata::new("shop", name),
            spec: ServiceSpec { hostnames: vec![format!("{name}.local")], ..spec },
            status: ServiceStatus { endpoints, ..ServiceStatus::default() },
        }
    }

    fn zone() -> Zone {
        Zone {
            domain: "hivemind.internal".into(),
            dns: (Ipv4Addr::new(169, 254, 20, 10), "fd00:20::10".parse().unwrap()),
            networks: vec!["10.200.0.0/14".parse().unwrap()],
        }
    }

    /// The table that a server should be given, besides what every table has.
    fn expected(fill: impl FnOnce(&mut Records)) -> Records {
        let nobody: [&Service; 0] = [];
        let mut records = records(nobody.into_iter(), &zone(), |_| BTreeMap::new());
        fill(&mut records);
        records
    }

    fn all(service: &Service) -> BTreeMap<Ipv4Addr, Ipv6Addr> {
        service.status.endpoints.iter().map(|e| (e.ipv4, e.ipv6)).collect()
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_service_has_its_own_name_and_those_it_was_given() {
        let web = service(
            "web",
            ServiceSpec {
                number: 1,
                ipv4: Some(Ipv4Addr::new(10, 204, 0, 10)),
                ipv6: Some("fd00::10".parse().unwrap()),
                published: vec![hivemind_model::PublishedPort {
                    host_port: 8080,
                    container_port: 80,
                    protocol: Protocol::Tcp,
                }],
                ports: vec![ServicePort { name: Some("dns".into()), port: 53, protocol: Protocol::Udp }],
                ..ServiceSpec::default()
            },
        );
        let own = "web.shop.svc.hivemind.internal";
        let wanted = expected(|records| {
            for name in [own, "web.local"] {
                records.insert(name, ips(&["10.204.0.10", "fd00::10"])).unwrap();
            }
            ips(&["10.204.0.10", "fd00::10"])
                .into_iter()
                .for_each(|address| records.insert_reverse(address, own).unwrap());
            records.insert_server(&format!("_80._tcp.{own}"), own, 80).unwrap();
            records.insert_server(&format!("_53._udp.{own}"), own, 53).unwrap();
            records.insert_server(&format!("_dns._udp.{own}"), own, 53).unwrap();
            replicas(records, "web", own, &[7, 8]);
        });
        assert_eq!(records([web].iter(), &zone(), all), wanted);
    }

    fn replicas(records: &mut Records, service: &str, own: &str, last: &[u8]) {
        for last in last {
            let name = format!("{service}-{last}.{own}");
            for address in ips(&[&format!("10.200.0.{last}"), &format!("fd00:1::{last}")]) {
                records.insert(&name, [address]).unwrap();
                records.insert_reverse(address, &name).unwrap();
            }
        }
    }

    #[test]
    fn a_headless_service_has_the_addresses_of_the_replicas_that_take_connections() {
        let ports = vec![ServicePort { name: Some("sql".into()), port: 5432, protocol: Protocol::Tcp }];
        let db = service("db", ServiceSpec { ports, ..ServiceSpec::default() });
        let own = "db.shop.svc.hivemind.internal";
        // One has left, and the store does not know yet; another has come.
        let open = |_: &Service| {
            BTreeMap::from([
                (Ipv4Addr::new(10, 200, 0, 8), "fd00:1::8".parse().unwrap()),
                (Ipv4Addr::new(10, 200, 0, 9), "fd00:1::9".parse().unwrap()),
            ])
        };
        let wanted = expected(|records| {
            for name in [own, "db.local"] {
                let addresses = ips(&["10.200.0.8", "fd00:1::8", "10.200.0.9", "fd00:1::9"]);
                records.insert(name, addresses).unwrap();
            }
            replicas(records, "db", own, &[7, 8]);
            for port in ["_5432", "_sql"] {
                records.insert_server(&format!("{port}._tcp.{own}"), &format!("db-8.{own}"), 5432).unwrap();
            }
        });
        assert_eq!(records([db].iter(), &zone(), open), wanted);
    }

    #[test]
    fn a_service_for_a_name_outside_stands_for_that() {
        let outside = Some("db.example.com".to_owned());
        let db = service("db", ServiceSpec { external_name: outside, ..ServiceSpec::default() });
        let wanted = expected(|records| {
            for name in ["db.shop.svc.hivemind.internal", "db.local"] {
                records.insert_alias(name, "db.example.com").unwrap();
            }
        });
        assert_eq!(records([db].iter(), &zone(), all), wanted);
    }
}
