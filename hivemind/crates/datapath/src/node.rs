//! What the data path of this node consists of, shared by the threads that change it.

use crate::{
    Config, Error, MapStatistics, Statistics,
    bpffs::Pins,
    change::{self, Change},
    cluster::{self, lifecycle::Cluster},
    endpoint::{self, table::EndpointTable},
    host,
    links::{self, Passage, ahead::LinksAhead},
    maps::{Maps, PolicyMaps, failed},
    netlink::Netlink,
    policy::{self, table::PolicyTable},
    programs::{Programs, Purpose},
    requirements,
    service::{self, table::ServiceTable},
    sockets,
    statistics::{ConnectionUse, DropStatistics, EndpointDrops, Whose},
    telemetry::{
        connections::{self, Share},
        pairs::Pairs,
        verdicts::{self, Verdicts},
    },
    uplink,
};
use hivemind_common::{
    drop_reason::DropReason,
    endpoint::OUTSIDE,
    family::{Address4, Address6},
    name,
    telemetry::DROPS_OF_HOST,
};
use netlink_packet_route::address::AddressAttribute;
use std::{
    collections::{HashMap, HashSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// The data path of this node.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) pins: Pins,
    pub(crate) programs: Programs,
    pub(crate) mtu: u32,
    /// Whether programs are attached to interfaces by links.
    pub(crate) has_tcx: bool,
    /// The index of the services' own interface.
    pub(crate) services_interface: u32,
    maps: Mutex<Maps>,
    endpoints: Mutex<EndpointTable>,
    services: Mutex<ServiceTable>,
    pairs: Mutex<Pairs>,
    verdicts: Mutex<Verdicts>,
    policy_maps: Mutex<PolicyMaps>,
    /// Locked after the maps, where both are.
    policies: Mutex<PolicyTable>,
    sweeping: Mutex<()>,
    cluster: Mutex<Cluster>,
    /// Whose sockets are to be ended.
    pub(crate) gone: sockets::Gone,
    generation: AtomicU64,
    /// Until it is open.
    links_ahead: Mutex<LinksAhead>,
}

impl Node {
    /// Makes what is missing, adopts what is there, and swaps programs in place. Blocks for some hundred milliseconds.
    ///
    /// `may_use_tcx` is false to do as on a kernel that lacks it.
    pub(crate) fn open(config: Config, may_use_tcx: bool) -> Result<Self, Error> {
        let abilities = requirements::check(&config)?;
        let has_tcx = abilities.tcx && may_use_tcx;
        let previous = change::find(&config)?;
        let mut netlink = Netlink::open()?;
        let directory = &config.netns_dir;
        fs::create_dir_all(directory).map_err(Error::system(format!("create {}", directory.display())))?;
        let pins = Pins::open(&config)?;
        let mtu = host::mtu(&config, &mut netlink)?;
        let services_interface = host::prepare(&config, &mut netlink, mtu)?;
        let change = match previous {
            Some(old) => {
                let begun = Change::begin(&config, &pins, &old, services_interface, &mut netlink, has_tcx);
                Some(begun?)
            }
            None => None,
        };
        let ahead = match has_tcx {
            true => Some(uplink::begin_links(&config, &pins, &mut netlink, services_interface)?),
            false => None,
        };
        let programs = Programs::load(&config, &pins, services_interface, Purpose::Stay)?;
        programs.pin(&pins)?;
        let mut maps = Maps::open(&pins)?;
        let generation = last_generation(&maps)?;
        if generation == 0 {
            maps.generation.set(OUTSIDE, 1, 0).map_err(failed(name::GENERATION))?;
        }
        let node = Self {
            services_interface,
            has_tcx,
            mtu,
            endpoints: Mutex::new(EndpointTable::new(maps.endpoint_state.len().saturating_sub(1))),
            services: Mutex::new(ServiceTable::new(maps.service_table.len())),
            pairs: Mutex::new(Pairs::open(&pins)?),
            verdicts: Mutex::new(Verdicts::open(&pins)?),
            generation: AtomicU64::new(generation.max(1)),
            maps: Mutex::new(maps),
            policy_maps: Mutex::new(PolicyMaps::open(&pins)?),
            policies: Mutex::default(),
            sweeping: Mutex::default(),
            cluster: Mutex::default(),
            gone: sockets::Gone::default(),
            links_ahead: Mutex::new(ahead.and_then(|links| links.join().ok()).unwrap_or_default()),
            config,
            pins,
            programs,
        };
        // Endpoints first, then the sockets that send to them; so a swap never sends where nobody carries.
        endpoint::lifecycle::adopt(&node, &mut netlink)?;
        uplink::adopt(&node, &mut netlink)?;
        links::open_passage(&node, &mut netlink, Passage::Services, services_interface)?;
        cluster::lifecycle::adopt(&node, &mut netlink)?;
        policy::lifecycle::adopt(&node)?;
        service::lifecycle::adopt(&node)?;
        uplink::write_exceptions(&node)?;
        node.refresh_addresses()?;
        links::attach_sockets(&node.programs, &node.pins, &node.config.cgroup_root)?;
        change::end(&node, change)?;
        node.programs.collect()?;
        node.links_ahead().clear();
        Ok(node)
    }

    pub(crate) fn maps(&self) -> MutexGuard<'_, Maps> {
        // The maps live in the kernel; a panic between two writes leaves nothing here in disorder.
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn endpoints(&self) -> MutexGuard<'_, EndpointTable> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn services(&self) -> MutexGuard<'_, ServiceTable> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pairs(&self) -> MutexGuard<'_, Pairs> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn verdicts(&self) -> MutexGuard<'_, Verdicts> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn policy_maps(&self) -> MutexGuard<'_, PolicyMaps> {
        self.policy_maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn policies(&self) -> MutexGuard<'_, PolicyTable> {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held by whoever removes what is left of policies.
    pub(crate) fn sweeping(&self) -> MutexGuard<'_, ()> {
        self.sweeping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locked before the maps, where both are.
    pub(crate) fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn links_ahead(&self) -> MutexGuard<'_, LinksAhead> {
        self.links_ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A generation that was never used. Drawn with the maps locked.
    pub(crate) fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Makes the maps of the node's own addresses, and the interfaces to the outside, agree with its interfaces.
    pub(crate) fn refresh_addresses(&self) -> Result<(), Error> {
        let mut v4 = HashSet::new();
        let mut v6 = HashSet::new();
        for message in Netlink::open()?.addresses()? {
            // IPv4 interfaces with a peer have their own address here; others have it in both.
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let address = local.or_else(|| {
                message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                })
            });
            match address {
                Some(IpAddr::V4(found)) if is_public_v4(&self.config, found) => drop(v4.insert(found)),
                Some(IpAddr::V6(found)) if is_public_v6(&self.config, found) => drop(v6.insert(found)),
                _ => {}
            }
        }
        let mut guard = self.maps();
        let maps = &mut *guard;
        let room = (maps.capacity(name::NODE_ADDRESS_V4), maps.capacity(name::NODE_ADDRESS_V6));
        let v4: HashSet<_> = v4.into_iter().map(|address| Address4::from_octets(address.octets())).collect();
        let v6: HashSet<_> = v6.into_iter().map(|address| Address6::from_octets(address.octets())).collect();
        replace_keys(&mut maps.node_address_v4, (name::NODE_ADDRESS_V4, room.0), &v4)?;
        replace_keys(&mut maps.node_address_v6, (name::NODE_ADDRESS_V6, room.1), &v6)?;
        drop(guard);
        uplink::refresh(self)
    }

    /// Figures, after a collection of expired connections.
    pub(crate) fn statistics(&self) -> Result<Statistics, Error> {
        self.programs.collect()?;
        let services = service::lifecycle::fill(self)?;
        let endpoints = self.endpoints().len() as u64;
        let (cells, _) = self.services().cells();
        let ((pairs, other_pairs), round_trips, events, counters_id) = {
            let counted = self.pairs();
            (counted.totals()?, counted.round_trips()?, counted.events()?, counted.counters_id())
        };
        let counted = self.verdicts().totals()?;
        let (policies, rules) = {
            let table = self.policies();
            (table.fills(), table.rules())
        };
        let names = self.names();
        let maps = self.maps();
        let collector = maps.collector.get(&0, 0).map_err(failed(name::COLLECTOR))?;
        let mut entries = services;
        entries.extend(policies);
        entries.extend([
            (name::CONNTRACK_V4, collector.live[0]),
            (name::CONNTRACK_V6, collector.live[1]),
            (name::ENDPOINT_BY_INTERFACE, endpoints),
            (name::ADDRESS_EXACT_V4, maps.address_exact_v4.keys().count() as u64),
            (name::ADDRESS_EXACT_V6, maps.address_exact_v6.keys().count() as u64),
            (name::SERVICE_TABLE, u64::from(cells)),
            (name::NODE_ADDRESS_V4, maps.node_address_v4.keys().count() as u64),
            (name::NODE_ADDRESS_V6, maps.node_address_v6.keys().count() as u64),
            (name::PAIR, pairs.len() as u64),
            (name::RTT, round_trips.len() as u64),
            (name::VERDICTS, counted.len() as u64),
            (name::TRANSLATION_V4, collector.translations[0]),
            (name::TRANSLATION_V6, collector.translations[1]),
            (name::UPLINK, maps.uplink.keys().count() as u64),
        ]);
        let capacities = maps.capacities.iter();
        let fill = capacities.filter_map(|&(name, capacity)| {
            let (_, entries) = entries.iter().find(|(other, _)| *other == name)?;
            Some(MapStatistics { name, entries: *entries, capacity: capacity.into() })
        });
        let endpoint_drops = endpoint_drops(&maps, &names)?;
        Ok(Statistics {
            counters_id,
            drops_id: maps.drops_id,
            maps: fill.collect(),
            drops: drops(&maps)?,
            endpoint_drops,
            pairs,
            other_pairs,
            verdicts: verdicts::with_idle(counted, rules),
            round_trips,
            events,
        })
    }
}

impl Node {
    /// Who is behind the indices of endpoints, and behind those that are none's.
    fn names(&self) -> HashMap<u32, Whose> {
        let endpoints = self.endpoints().all().into_iter();
        let mut names: HashMap<_, _> =
            endpoints.map(|info| (info.endpoint.index, Whose::Endpoint(info.spec.id))).collect();
        names.insert(DROPS_OF_HOST, Whose::Host);
        names.insert(OUTSIDE, Whose::Outside);
        names
    }

    /// At most `max` of those who have the most connections, the heaviest first: what it began weighs twice, so that whoever floods
    /// another comes before it.
    pub(crate) fn heaviest(&self, max: usize) -> Result<Vec<ConnectionUse>, Error> {
        let shares = connections::by_endpoint(&self.pins)?;
        let names = self.names();
        // One that has no name any more is gone; its connections go as well.
        let named = shares.into_iter().filter_map(|(index, share)| Some((share, names.get(&index)?.clone())));
        let mut uses: Vec<_> = named.collect();
        uses.sort_by(|(a, first), (b, second)| {
            (b.connections + b.begun).cmp(&(a.connections + a.begun)).then_with(|| first.cmp(second))
        });
        uses.truncate(max);
        let told = |(share, whose): (Share, Whose)| ConnectionUse { whose, connections: share.connections };
        Ok(uses.into_iter().map(told).collect())
    }
}

fn drops(maps: &Maps) -> Result<Vec<DropStatistics>, Error> {
    DropReason::ALL
        .into_iter()
        .map(|reason| {
            let counts = maps.drop_counters.get(&(reason as u32), 0).map_err(failed(name::DROP_COUNTERS))?;
            Ok(DropStatistics { reason, packets: counts.iter().sum() })
        })
        .collect()
}

/// Packets dropped of each end that stands.
fn endpoint_drops(maps: &Maps, names: &HashMap<u32, Whose>) -> Result<Vec<EndpointDrops>, Error> {
    let mut drops = Vec::new();
    for found in maps.endpoint_drops.iter() {
        let (key, counts) = found.map_err(failed(name::ENDPOINT_DROPS))?;
        if let (Some(whose), Some(reason)) = (names.get(&key.endpoint), DropReason::from_number(key.reason)) {
            drops.push(EndpointDrops { whose: whose.clone(), reason, packets: counts.iter().sum() });
        }
    }
    drops.sort_by(|a, b| (&a.whose, a.reason as u32).cmp(&(&b.whose, b.reason as u32)));
    Ok(drops)
}

fn last_generation(maps: &Maps) -> Result<u64, Error> {
    let mut last = 0;
    for found in maps.generation.iter() {
        last = last.max(found.map_err(failed(name::GENERATION))?);
    }
    Ok(last)
}

pub(crate) fn replace_keys<K: aya::Pod + Eq + std::hash::Hash>(
    map: &mut aya::maps::HashMap<aya::maps::MapData, K, u32>,
    (name, capacity): (&'static str, u32),
    wanted: &HashSet<K>,
) -> Result<(), Error> {
    let found: HashSet<K> = map.keys().collect::<Result<_, _>>().map_err(failed(name))?;
    found.difference(wanted).try_for_each(|key| crate::maps::forget(map, name, key))?;
    wanted.difference(&found).try_for_each(|key| crate::maps::put(map, (name, capacity), key, &1))
}

fn is_public_v4(config: &Config, address: Ipv4Addr) -> bool {
    !address.is_loopback() && address != config.dns.0
}

fn is_public_v6(config: &Config, address: Ipv6Addr) -> bool {
    !address.is_loopback() && !address.is_unicast_link_local() && address != config.dns.1
}
