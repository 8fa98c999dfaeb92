//! Tracing a packet that nobody sends.

use crate::{
    services::servers,
    talk::connect,
    world::{
        NODE_V4, NODE_V6, OUTSIDE_V4, OUTSIDE_V6, Place, World, addresses, admit_all, eventually,
        far_replica, in_a_world, replica, service,
    },
};
use hivemind_common::name;
use hivemind_datapath::{
    ClusterSpec, Datapath, DropReason, Protocol, PublishedPort, RemoteEndpoint, RemoteNode, Routing,
    ServiceSpec, Trace, TraceDone, TraceFrom, TraceSpec, TraceVerdict,
};
use hivemind_policy::Tables;
use std::{
    collections::BTreeMap,
    ffi::CString,
    net::{IpAddr, SocketAddr},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    sync::Arc,
};

async fn trace(datapath: &Datapath, from: TraceFrom, to: SocketAddr) -> Trace {
    let spec = TraceSpec { from, to, protocol: Protocol::Tcp, source_port: None };
    datapath.trace(spec).await.unwrap()
}

fn replica_1() -> TraceFrom {
    TraceFrom::Endpoint(replica(1).id)
}

/// What was done, each by which program; the answer's after the packet's.
fn told(trace: &Trace) -> Vec<(bool, &'static str, TraceDone)> {
    trace.steps.iter().map(|step| (step.is_reply, step.program, step.done.clone())).collect()
}

fn dropped(reason: DropReason) -> TraceVerdict {
    TraceVerdict::Dropped { reason: Some(reason), is_reply: false }
}

#[test]
fn a_packet_between_two_replicas_is_followed_there_and_back() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        let one = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let two = datapath.ensure_endpoint(replica(2)).await.unwrap();
        for address in addresses(&replica(2)) {
            let trace = trace(&datapath, replica_1(), (address, 80).into()).await;
            let reached = |id: u8, interface: &str| TraceDone::Endpoint {
                id: Some(replica(id).id),
                interface: interface.to_owned(),
            };
            let hook = if address.is_ipv4() { "sock_connect4" } else { "sock_connect6" };
            assert_eq!(
                told(&trace),
                [
                    (false, hook, TraceDone::AsAsked),
                    (false, name::FROM_REPLICA, reached(2, &two.interface)),
                    (true, name::FROM_REPLICA, reached(1, &one.interface)),
                ]
            );
            assert_eq!(trace.verdict, TraceVerdict::Passes);
            let flow = trace.steps[1].flow.unwrap();
            assert_eq!((flow.source.identity, flow.destination.identity), (257, 258));
        }
    });
}

#[test]
fn what_a_policy_refuses_is_told_with_its_reason() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        datapath.ensure_endpoint(replica(1)).await.unwrap();
        datapath.ensure_endpoint(replica(2)).await.unwrap();
        datapath.set_policy(replica(2).identity, Arc::new(closed())).await.unwrap();
        let to = SocketAddr::new(replica(2).ipv4.into(), 80);
        let refused = trace(&datapath, replica_1(), to).await;
        assert_eq!(refused.verdict, dropped(DropReason::PolicyIngress), "{refused:?}");
        datapath.set_policy(replica(1).identity, Arc::new(closed())).await.unwrap();
        let refused = trace(&datapath, replica_1(), to).await;
        assert_eq!(refused.verdict, dropped(DropReason::PolicyEgress), "{refused:?}");
        datapath.remove_policy(replica(1).identity).await.unwrap();
        let refused = trace(&datapath, replica_1(), to).await;
        assert_eq!(refused.verdict, dropped(DropReason::NoPolicy), "{refused:?}");
    });
}

/// Tables that let nothing pass.
fn closed() -> Tables {
    let mut tables = Tables::open();
    tables.entries.iter_mut().for_each(|entry| entry.value.verdict = hivemind_common::policy::DENY);
    tables
}

#[test]
fn a_service_is_told_with_its_backend_and_without_one() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        datapath.ensure_endpoint(replica(1)).await.unwrap();
        datapath.ensure_endpoint(replica(2)).await.unwrap();
        datapath.set_service(service(1, &[2])).await.unwrap();
        let to = SocketAddr::new(service(1, &[]).address_v4.into(), 80);
        for from in [replica_1(), TraceFrom::Host] {
            let passes = trace(&datapath, from, to).await;
            assert_eq!(passes.verdict, TraceVerdict::Passes, "{passes:?}");
            assert_eq!(passes.steps[0].done, TraceDone::Backend { remembered: false });
            assert_eq!(passes.steps[0].went.destination, (replica(2).ipv4, 80).into());
        }
        datapath.set_service(service(1, &[])).await.unwrap();
        let refused = trace(&datapath, replica_1(), to).await;
        assert_eq!(refused.verdict, dropped(DropReason::NoBackend));
        assert_eq!(told(&refused), [(false, "sock_connect4", TraceDone::Refused)]);
    });
}

#[test]
fn a_published_port_is_told_from_outside_with_every_translation() {
    in_a_world(async |world| {
        let _outside = world.outside();
        let datapath = world.open().await;
        let one = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let port = PublishedPort { host_port: 8080, protocol: Protocol::Tcp, target_port: 80 };
        datapath.set_service(ServiceSpec { published: vec![port], ..service(1, &[1]) }).await.unwrap();
        for (node, client) in
            [(IpAddr::V4(NODE_V4), IpAddr::V4(OUTSIDE_V4)), (NODE_V6.into(), OUTSIDE_V6.into())]
        {
            let passes = trace(&datapath, TraceFrom::Outside(client), (node, 8080).into()).await;
            assert_eq!(passes.verdict, TraceVerdict::Passes, "{passes:?}");
            let [there, back] = &passes.steps[..] else { panic!("{passes:?}") };
            assert_eq!((there.program, there.interface.as_str()), (name::FROM_UNDERLAY, "up0"));
            assert_eq!(there.went.destination.port(), 80);
            assert_eq!((back.program, &back.interface), (name::FROM_REPLICA, &one.interface));
            assert_eq!(back.went.source, (node, 8080).into(), "the client knows no other");
            assert!(matches!(&back.done, TraceDone::Out { interface, .. } if interface == "up0"), "{back:?}");
        }
        datapath.set_service(ServiceSpec { published: vec![port], ..service(1, &[]) }).await.unwrap();
        let to = SocketAddr::new(NODE_V4.into(), 8080);
        let stack = trace(&datapath, TraceFrom::Outside(OUTSIDE_V4.into()), to).await;
        assert_eq!(stack.steps[0].done, TraceDone::ToHost, "TCP is refused by the host's stack: {stack:?}");
    });
}

#[test]
fn what_leaves_the_node_is_told_with_the_address_that_it_gets() {
    in_a_world(async |world| {
        let _outside = world.outside();
        let datapath = world.open().await;
        datapath.ensure_endpoint(replica(1)).await.unwrap();
        for (node, far) in
            [(IpAddr::V4(NODE_V4), IpAddr::V4(OUTSIDE_V4)), (NODE_V6.into(), OUTSIDE_V6.into())]
        {
            let passes = trace(&datapath, replica_1(), (far, 443).into()).await;
            assert_eq!(passes.verdict, TraceVerdict::Passes, "{passes:?}");
            let [_, there, back] = &passes.steps[..] else { panic!("{passes:?}") };
            assert_eq!(there.went.source.ip(), node);
            let done = TraceDone::Out { interface: "up0".to_owned(), next_hop: Some(far) };
            assert_eq!(there.done, done);
            assert_eq!(back.program, name::FROM_UNDERLAY);
            assert_eq!(back.went.destination.ip(), there.came.source.ip());
        }
        // Nowhere to go.
        let lost = trace(&datapath, replica_1(), "203.0.113.9:80".parse().unwrap()).await;
        assert_eq!(lost.verdict, TraceVerdict::Dropped { reason: None, is_reply: false }, "{lost:?}");
    });
}

#[test]
fn the_nodes_own_processes_are_reached_and_reach() {
    in_a_world(async |world| {
        let _outside = world.outside();
        let datapath = world.open().await;
        let one = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let to_host = trace(&datapath, replica_1(), (NODE_V4, 22).into()).await;
        assert_eq!(to_host.verdict, TraceVerdict::Passes, "{to_host:?}");
        let programs: Vec<_> = to_host.steps.iter().map(|step| (step.is_reply, step.program)).collect();
        let expected = [
            (false, "sock_connect4"),
            (false, name::FROM_REPLICA),
            (false, "host"),
            (true, name::TO_REPLICA),
        ];
        assert_eq!(programs, expected);
        let from_host = trace(&datapath, TraceFrom::Host, (replica(1).ipv4, 80).into()).await;
        assert_eq!(from_host.verdict, TraceVerdict::Passes, "{from_host:?}");
        assert_eq!(
            (from_host.steps[1].program, &from_host.steps[1].interface),
            (name::TO_REPLICA, &one.interface)
        );
    });
}

#[test]
fn a_replica_of_another_node_is_reached_through_the_overlay_or_as_it_is() {
    in_a_world(async |world| {
        let _other = world.outside();
        let datapath = world.open().await;
        datapath.ensure_endpoint(replica(1)).await.unwrap();
        let far = far_replica(2);
        for routing in [Routing::Overlay, Routing::Direct] {
            let node = RemoteNode {
                number: 2,
                address: OUTSIDE_V4,
                name: "other".to_owned(),
                ranges: ("10.200.2.0/24".parse().unwrap(), "fd00:1:0:2::/64".parse().unwrap()),
            };
            let spec = ClusterSpec { routing, own: 1, address: NODE_V4, nodes: vec![node] };
            datapath.set_cluster(Some(spec)).await.unwrap();
            let known = RemoteEndpoint { ipv4: far.ipv4, ipv6: far.ipv6, identity: far.identity, node: 2 };
            datapath.replace_remote_endpoints(vec![known]).await.unwrap();
            let passes = trace(&datapath, replica_1(), (far.ipv4, 80).into()).await;
            assert_eq!(passes.verdict, TraceVerdict::Passes, "{passes:?}");
            let done = TraceDone::ToNode {
                address: OUTSIDE_V4,
                interface: "up0".to_owned(),
                overlay: routing == Routing::Overlay,
            };
            assert_eq!(passes.steps[1].done, done);
            let back = &passes.steps[2];
            assert_eq!((back.is_reply, back.program), (true, name::FROM_UNDERLAY));
            assert!(matches!(back.done, TraceDone::Endpoint { .. }), "{back:?}");
            let from_host = trace(&datapath, TraceFrom::Host, (far.ipv4, 80).into()).await;
            assert_eq!(from_host.verdict, TraceVerdict::Passes, "{from_host:?}");
        }
    });
}

#[test]
fn a_connection_that_stands_is_told_as_one() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[2]).await;
        let one = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let to = SocketAddr::new(replica(2).ipv4.into(), 80);
        let talk = world.run(Place::In(&one), move || {
            let (stream, _) = connect(to).unwrap();
            (stream.local_addr().unwrap().port(), stream)
        });
        let (port, _stream) = talk.join().unwrap();
        let spec = TraceSpec { from: replica_1(), to, protocol: Protocol::Tcp, source_port: Some(port) };
        let known = datapath.trace(spec).await.unwrap();
        let flow = known.steps[1].flow.unwrap();
        assert_eq!(flow.kind, hivemind_datapath::FlowKind::Live);
        assert!(flow.packets[1] > 0, "its counts are not copied: {flow:?}");
    });
}

#[test]
fn tracing_changes_nothing_of_what_the_node_knows() {
    in_a_world(async |world| {
        let _outside = world.outside();
        let datapath = world.open().await;
        datapath.ensure_endpoint(replica(1)).await.unwrap();
        datapath.ensure_endpoint(replica(2)).await.unwrap();
        let port = PublishedPort { host_port: 8080, protocol: Protocol::Tcp, target_port: 80 };
        datapath.set_service(ServiceSpec { published: vec![port], ..service(1, &[1]) }).await.unwrap();
        admit_all(&datapath).await;
        let packets: [(TraceFrom, SocketAddr); 5] = [
            (replica_1(), (replica(2).ipv4, 80).into()),
            (replica_1(), (replica(2).ipv6, 80).into()),
            (replica_1(), (OUTSIDE_V4, 443).into()),
            (TraceFrom::Outside(OUTSIDE_V4.into()), (NODE_V4, 8080).into()),
            (replica_1(), (service(1, &[]).address_v4, 80).into()),
        ];
        // Kernels ask their neighbours who listens to what, at any time: but not at every time.
        for attempt in 0.. {
            let before = everything(world);
            for (from, to) in packets.clone() {
                assert_eq!(trace(&datapath, from, to).await.verdict, TraceVerdict::Passes);
            }
            let after = everything(world);
            let changed: Vec<_> = before.keys().filter(|map| before[*map] != after[*map]).collect();
            if changed.is_empty() {
                break;
            }
            assert!(attempt < 10, "{changed:?} changed each time");
        }
        // And it would be seen.
        let before = everything(world);
        let one = datapath.endpoints()[0].endpoint.clone();
        let to = SocketAddr::new(replica(2).ipv4.into(), 80);
        assert!(
            world.run(Place::In(&one), move || std::net::TcpStream::connect(to).is_err()).join().unwrap()
        );
        eventually("a packet leaves something behind", || everything(world) != before);
    });
}

/// What every pinned map holds, as bytes. Without the collector's, which a timer of the kernel's writes, and the two that cannot be
/// read without taking from them.
fn everything(world: &World) -> BTreeMap<&'static str, BTreeMap<Vec<u8>, Vec<u8>>> {
    let left_out = [name::COLLECTOR, name::EVENTS, name::PAIR_FREE];
    let maps = name::MAPS.into_iter().filter(|map| !left_out.contains(map));
    maps.map(|map| (map, dump(world, map))).collect()
}

fn dump(world: &World, map: &'static str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let path = world.map_path(map);
    let info = aya::maps::MapInfo::from_pin(&path).unwrap();
    let is_per_cpu =
        matches!(info.map_type().unwrap(), aya::maps::MapType::PerCpuHash | aya::maps::MapType::PerCpuArray);
    let cpus = aya::util::nr_cpus().unwrap();
    let value_bytes = info.value_size() as usize;
    let room = if is_per_cpu { value_bytes.next_multiple_of(8) * cpus } else { value_bytes };
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut attributes = [0_u64; 8];
    attributes[0] = path.as_ptr() as u64;
    let descriptor = bpf(OBJ_GET, &mut attributes).unwrap();
    // SAFETY: the kernel has just made it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let mut found = BTreeMap::new();
    let mut key: Option<Vec<u8>> = None;
    loop {
        let mut next = vec![0_u8; info.key_size() as usize];
        let mut attributes = [0_u64; 8];
        attributes[0] = descriptor.as_raw_fd() as u64;
        attributes[1] = key.as_ref().map_or(0, |key| key.as_ptr() as u64);
        attributes[2] = next.as_mut_ptr() as u64;
        if bpf(GET_NEXT_KEY, &mut attributes).is_none() {
            return found;
        }
        let mut value = vec![0_u8; room];
        let mut attributes = [0_u64; 8];
        attributes[0] = descriptor.as_raw_fd() as u64;
        attributes[1] = next.as_ptr() as u64;
        attributes[2] = value.as_mut_ptr() as u64;
        if bpf(LOOKUP, &mut attributes).is_some() {
            found.insert(next.clone(), value);
        }
        key = Some(next);
    }
}

// `enum bpf_cmd` of <linux/bpf.h>.
const LOOKUP: i64 = 1;
const GET_NEXT_KEY: i64 = 4;
const OBJ_GET: i64 = 7;

fn bpf(command: i64, attributes: &mut [u64; 8]) -> Option<i32> {
    // SAFETY: the attributes are a valid, zero-padded prefix of `union bpf_attr`; the callers keep what they point to.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    (result >= 0).then_some(result as i32)
}
