//! The process inside: it makes the data path, says how long opening it took, and stays until standard input ends.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use hivemind_datapath::{
    BackendSpec, Config, Datapath, EndpointSpec, Guarded, MapSizes, ServicePorts, ServiceSpec,
};
use hivemind_model::{
    EgressRule, Identity, IngressRule, IpBlock, LabelSelector, Metadata, NetworkPolicy, NetworkPolicySpec,
    NetworkPolicyStatus, PolicyPeer, PolicyPort, PolicyProtocol, PolicyType, PortRef,
};
use hivemind_policy::{World, compile};

use super::{CLIENT, SERVER, bytes, endpoint_name, endpoint_v4, namespaces, service_v4};

const NAMESPACE: &str = "default";

/// How many endpoints services have that lead elsewhere than to the server.
const BACKENDS_OF_OTHERS: usize = 2;

/// Cells that a service of so many endpoints takes at most (the next prime after 100 for each).
const CELLS_OF_SERVICE: usize = 211;

/// In the place of the number of rules: no policy governs anybody.
pub(super) const WITHOUT_POLICIES: &str = "open";

/// How many rules one policy has at most here: fewer than it may.
const RULES_OF_POLICY: usize = 2_000;

/// The process itself, until standard input ends: `DIRECTORY CGROUP FEATURES ENDPOINTS SERVICES RULES`. Prints the microseconds that
/// opening the data path took once everything is there.
///
/// # Errors
/// When the arguments cannot be read, or the data path refuses something.
pub fn keep_node(arguments: &[String]) -> Result<()> {
    let [directory, cgroup, features, endpoints, services, rules] = arguments else {
        bail!("usage: hivemind-bench node DIRECTORY CGROUP FEATURES ENDPOINTS SERVICES RULES");
    };
    let (endpoints, services) = (endpoints.parse()?, services.parse()?);
    let rules = if rules == WITHOUT_POLICIES { None } else { Some(rules.parse()?) };
    let config = config(Path::new(directory), cgroup.into(), features.parse()?, services);
    // As many threads as the daemon has.
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let began = Instant::now();
    let datapath = executor.block_on(Datapath::open(config))?;
    let opened_in = began.elapsed();
    executor.block_on(furnish(&datapath, endpoints, services, rules))?;
    println!("{}", opened_in.as_micros());
    io::copy(&mut io::stdin().take(u64::MAX), &mut io::sink())?;
    Ok(())
}

/// As the daemon's, but for the size of an interface's packets, which is that of the interfaces it is compared with, and
/// for room for the services where there are more than fit.
fn config(directory: &Path, cgroup_root: PathBuf, features: u32, services: usize) -> Config {
    let sizes = MapSizes::default();
    // One more, since what changes takes room twice.
    let room = |size: u32, each: usize| size.max(u32::try_from((services + 1) * each).unwrap_or(u32::MAX));
    Config {
        name: "hivemind".to_owned(),
        bpffs: directory.join("bpf/hivemind"),
        cgroup_root,
        netns_dir: namespaces(directory),
        replica_range: (range_v4([10, 200, 0, 0], 24), range_v6([0xfd00, 1, 0, 0], 64)),
        cluster_range: (range_v4([10, 200, 0, 0], 14), range_v6([0xfd00, 1, 0, 0], 48)),
        service_range: (range_v4([10, 204, 0, 0], 16), range_v6([0xfd00, 2, 0, 0], 112)),
        dns: (Ipv4Addr::new(169, 254, 20, 10), Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 0x10)),
        unmasked: Vec::new(),
        masquerade_ports: Config::MASQUERADE_PORTS,
        guarded: Guarded::default(),
        mtu: Some(1500),
        collect_interval: Config::COLLECT_INTERVAL,
        features,
        sizes: MapSizes {
            services: room(sizes.services, 1),
            backends: room(sizes.backends, BACKENDS_OF_OTHERS),
            service_cells: room(sizes.service_cells, CELLS_OF_SERVICE),
            ..sizes
        },
    }
}

/// Makes what is not there already.
async fn furnish(datapath: &Datapath, endpoints: usize, services: usize, rules: Option<usize>) -> Result<()> {
    let world = world(endpoints, rules)?;
    for number in 1..=endpoints {
        let spec = endpoint(number)?;
        let tables = compile(spec.identity, &world).context("an endpoint has no identity")?;
        datapath.set_policy(spec.identity, Arc::new(tables)).await?;
        datapath.ensure_endpoint(spec).await?;
    }
    for number in 1..=services {
        let backends = if number == services { vec![backend_of(&endpoint(SERVER)?)] } else { others(number) };
        datapath.set_service(service(number, backends)).await?;
    }
    Ok(())
}

fn endpoint(number: usize) -> Result<EndpointSpec> {
    let ipv6 = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, u16::from_be_bytes(bytes(number)));
    let identity = Identity::FIRST + u32::try_from(number)?;
    Ok(EndpointSpec { id: endpoint_name(number), ipv4: endpoint_v4(number), ipv6, identity })
}

fn service(number: usize, backends: Vec<BackendSpec>) -> ServiceSpec {
    ServiceSpec {
        id: number as u32,
        address_v4: service_v4(number),
        address_v6: Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, u16::from_be_bytes(bytes(number))),
        ports: ServicePorts::All,
        backends,
        published: Vec::new(),
        affinity_s: None,
    }
}

fn backend_of(endpoint: &EndpointSpec) -> BackendSpec {
    BackendSpec { ipv4: endpoint.ipv4, ipv6: endpoint.ipv6, weight: 1 }
}

/// Endpoints of a service that nobody asks: addresses of other nodes, where nobody is.
fn others(number: usize) -> Vec<BackendSpec> {
    let [high, low] = bytes(number);
    let other = |node: u8| BackendSpec {
        ipv4: Ipv4Addr::new(10, node, high, low),
        ipv6: Ipv6Addr::new(0xfd00, 1, 0, node.into(), 0, 0, 0, u16::from_be_bytes([high, low])),
        weight: 1,
    };
    [201, 202].map(other).to_vec()
}

/// The endpoints' identities, and policies that govern the server and the client in both directions and allow what the bench
/// does, with so many rules besides.
fn world(endpoints: usize, rules: Option<usize>) -> Result<World> {
    let mut world = World::new();
    for number in 1..=endpoints {
        let identity = endpoint(number)?.identity;
        drop(world.set_identity(&Identity::new(identity, NAMESPACE, "bench", labels(number))));
    }
    let Some(rules) = rules else { return Ok(world) };
    let port = |port, protocol| PolicyPort { protocol, port: Some(PortRef::Number(port)), end_port: None };
    let (tcp, udp) = (PolicyProtocol::Tcp, PolicyProtocol::Udp);
    let peer = |number| vec![PolicyPeer { pod_selector: Some(selector(number)), ..PolicyPeer::default() }];
    let ingress = IngressRule { from: peer(CLIENT), ports: vec![port(7, tcp), port(8, tcp), port(7, udp)] };
    let egress = EgressRule { to: peer(SERVER), ..EgressRule::default() };
    let server = NetworkPolicySpec { ingress: vec![ingress], ..NetworkPolicySpec::default() };
    let client = NetworkPolicySpec {
        policy_types: vec![PolicyType::Ingress, PolicyType::Egress],
        egress: vec![egress],
        ..NetworkPolicySpec::default()
    };
    for (number, spec) in [(SERVER, server), (CLIENT, client)] {
        drop(world.set_policy(&NetworkPolicy {
            metadata: Metadata::new(NAMESPACE, endpoint_name(number)),
            spec: NetworkPolicySpec { pod_selector: selector(number), ..spec }.into(),
            status: NetworkPolicyStatus { number: number as u32, ..NetworkPolicyStatus::default() },
        }));
    }
    for first in (0..rules).step_by(RULES_OF_POLICY) {
        let ingress = (first..rules.min(first + RULES_OF_POLICY)).map(rule_for_nobody).collect();
        let spec =
            NetworkPolicySpec { pod_selector: selector(SERVER), ingress, ..NetworkPolicySpec::default() };
        let number = (CLIENT + 1 + first / RULES_OF_POLICY) as u32;
        drop(world.set_policy(&NetworkPolicy {
            metadata: Metadata::new(NAMESPACE, format!("others-{number}")),
            spec: spec.into(),
            status: NetworkPolicyStatus { number, ..NetworkPolicyStatus::default() },
        }));
    }
    Ok(world)
}

/// A block with a port of its own.
fn rule_for_nobody(number: usize) -> IngressRule {
    let [high, low] = bytes(number / 2);
    let cidr = if number.is_multiple_of(2) {
        format!("172.16.{high}.{low}/32")
    } else {
        format!("172.17.{high}.{low}/32")
    };
    let block = IpBlock { cidr, except: Vec::new() };
    let port = PolicyPort {
        protocol: PolicyProtocol::Tcp,
        port: Some(PortRef::Number(1_000 + (number % 50_000) as i64)),
        end_port: None,
    };
    IngressRule {
        ports: vec![port],
        from: vec![PolicyPeer { ip_block: Some(block), ..PolicyPeer::default() }],
    }
}

fn labels(number: usize) -> BTreeMap<String, String> {
    [("endpoint".to_owned(), number.to_string())].into()
}

fn selector(number: usize) -> LabelSelector {
    LabelSelector { match_labels: labels(number), ..LabelSelector::default() }
}

fn range_v4(octets: [u8; 4], length: u8) -> ipnet::Ipv4Net {
    ipnet::Ipv4Net::new_assert(octets.into(), length)
}

fn range_v6([a, b, c, d]: [u16; 4], length: u8) -> ipnet::Ipv6Net {
    ipnet::Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hivemind_policy::{OtherEnd, Speaks, judge};

    #[test]
    fn the_client_may_do_what_the_bench_does_and_others_may_not() {
        let world = world(3, Some(10)).unwrap();
        let identity = |number| endpoint(number).unwrap().identity;
        let is_let_in = |from, port| {
            let other = OtherEnd { identity: identity(from), address: endpoint_v4(from).into() };
            let speaks = Speaks { protocol: 6, port };
            judge(&world, identity(SERVER), PolicyType::Ingress, other, speaks).allowed
        };
        assert!(is_let_in(CLIENT, 7) && is_let_in(CLIENT, 8));
        assert!(!is_let_in(CLIENT, 22) && !is_let_in(3, 7));
    }

    #[test]
    fn there_is_room_for_all_services_and_never_less_than_by_default() {
        let sizes = |services| config(Path::new("/x"), "/y".into(), 0, services).sizes;
        assert_eq!(sizes(100), MapSizes::default());
        let many = sizes(10_000);
        assert!(many.services > 10_000 && many.backends > 20_000 && many.service_cells > 2_110_000);
    }
}
