//! Services on this node: what the data path balances and the DNS server answers.
//!
//! One task owns the state and does all the writing, so that nothing is written in two orders at once. It follows the
//! services in the store; besides, workers tell it when a replica of theirs must leave at once ([`Services::withdraw`]) or
//! may enter ([`Services::admit`]), which is quicker than the way through the store: it leaves before its process is
//! signalled, and when users are told that it is ready, connections reach it.

mod names;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
};

use hivemind_datapath::{BackendSpec, Datapath, PublishedPort, ServicePorts, ServiceSpec};
use hivemind_dns::DnsServer;
use hivemind_model::{Problem, Protocol, Resource, Service, WatchEvent, WatchKind};
use hivemind_store::{ObjectWatch, Objects};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub(crate) use names::check_name;
use names::records;
pub use names::{Zone, names};

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
