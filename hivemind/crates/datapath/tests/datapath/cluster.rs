use crate::{
    life::state,
    talk::{ask, connect, datagrams, echo, serve_tcp, serve_udp},
    world::{
        NODE_V4, NODE_V6, OUTSIDE_V4, OtherNode, Place, World, addresses, admit_all, far_replica, in_a_world,
        ip, replica, service,
    },
};
use hivemind_common::{
    ABI_VERSION, name,
    node::NodeState,
    packet::TCP,
    policy::{ALLOW, ANY_PEER, DENY, PolicyEntry},
};
use hivemind_datapath::{
    BackendSpec, ClusterSpec, Datapath, DropReason, Endpoint, Error, PairStatistics, Protocol, PublishedPort,
    RemoteEndpoint, RemoteNode, Routing,
};
use hivemind_policy::{TableEntry, Tables, Transport};
use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const SILENCE: Duration = Duration::from_millis(200);
const WORLD: u32 = 2;
const NODE: u32 = 4;

pub(crate) fn near(routing: Routing) -> ClusterSpec {
    let other = RemoteNode {
        number: 2,
        name: "other".to_owned(),
        address: OUTSIDE_V4,
        ranges: ("10.200.2.0/24".parse().unwrap(), "fd00:1:0:2::/64".parse().unwrap()),
    };
    ClusterSpec { routing, own: 1, address: NODE_V4, nodes: vec![other] }
}

fn far(routing: Routing) -> ClusterSpec {
    let other = RemoteNode {
        number: 1,
        name: "first".to_owned(),
        address: NODE_V4,
        ranges: ("10.200.1.0/24".parse().unwrap(), "fd00:1:0:1::/64".parse().unwrap()),
    };
    ClusterSpec { routing, own: 2, address: OUTSIDE_V4, nodes: vec![other] }
}

fn remote(n: u8) -> RemoteEndpoint {
    let spec = replica(n);
    RemoteEndpoint { ipv4: spec.ipv4, ipv6: spec.ipv6, identity: spec.identity, node: 1 }
}

fn far_remote(n: u8) -> RemoteEndpoint {
    let spec = far_replica(n);
    RemoteEndpoint { ipv4: spec.ipv4, ipv6: spec.ipv6, identity: spec.identity, node: 2 }
}

/// Both nodes in one cluster, which know one another's first three replicas.
pub(crate) async fn joined(world: &World, routing: Routing) -> (Datapath, OtherNode) {
    let datapath = world.open().await;
    let other = world.other_node();
    datapath.refresh_node_addresses().await.unwrap();
    other.datapath.refresh_node_addresses().await.unwrap();
    datapath.set_cluster(Some(near(routing))).await.unwrap();
    other.datapath.set_cluster(Some(far(routing))).await.unwrap();
    datapath.set_remote_endpoints((1..4).map(far_remote).collect(), Vec::new()).await.unwrap();
    other.datapath.replace_remote_endpoints((1..4).map(remote).collect()).await.unwrap();
    (datapath, other)
}

/// A replica of the other node that answers with its number on TCP and UDP port 80, in both families.
pub(crate) async fn far_server(other: &OtherNode, n: u8) -> Endpoint {
    let endpoint = other.datapath.ensure_endpoint(far_replica(n)).await.unwrap();
    other
        .world
        .run(Place::In(&endpoint), move || {
            for address in addresses(&far_replica(n)) {
                serve_tcp((address, 80).into(), n);
                serve_udp((address, 80).into(), n);
            }
        })
        .join()
        .unwrap();
    endpoint
}

/// Asks by TCP and UDP in both families; moves much data both ways.
pub(crate) fn talk(to: [IpAddr; 2], number: u8) {
    for address in to {
        let target = SocketAddr::new(address, 80);
        let (mut stream, name) = connect(target).unwrap();
        assert_eq!(name, number);
        let sender = stream.try_clone().unwrap();
        let much = vec![7; 3_000_000];
        let writing = std::thread::spawn(move || {
            (&sender).write_all(&much).unwrap();
            sender.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        writing.join().unwrap();
        assert_eq!(back.iter().filter(|byte| **byte == 7).count(), 3_000_000);
        let socket = datagrams(address);
        assert_eq!(ask(&socket, target).unwrap(), (number, target));
    }
}

fn ping(to: [IpAddr; 2]) {
    for address in to {
        let pinged =
            Command::new("ping").args(["-c", "1", "-W", "5", &address.to_string()]).output().unwrap();
        assert!(pinged.status.success(), "{}", String::from_utf8_lossy(&pinged.stdout));
    }
}

#[test]
fn replicas_of_two_nodes_talk_in_both_families() {
    in_a_world(async |world| {
        let (datapath, other) = joined(world, Routing::Overlay).await;
        far_server(&other, 1).await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        world
            .run(Place::In(&a), || {
                talk(addresses(&far_replica(1)), 1);
                ping(addresses(&far_replica(1)));
            })
            .join()
            .unwrap();
        for datapath in [&datapath, &other.datapath] {
            let statistics = datapath.statistics().await.unwrap();
            // A new interface says hello to multicast listeners.
            let drops = statistics.drops.iter().filter(|drop| drop.reason != DropReason::NotUnicast);
            assert_eq!(drops.map(|drop| drop.packets).sum::<u64>(), 0, "{:?}", statistics.drops);
            let pair = statistics.pairs.iter().find(|pair| pair.protocol == TCP).unwrap();
            assert_eq!((pair.source, pair.destination), (replica(1).identity, far_replica(1).identity));
        }
        let statistics = datapath.statistics().await.unwrap();
        let trips: Vec<_> =
            statistics.round_trips.iter().map(|trips| (trips.local, trips.peer, trips.node)).collect();
        assert!(trips.contains(&(replica(1).identity, far_replica(1).identity, 2)), "{trips:?}");
    });
}

#[test]
fn a_peer_on_another_node_is_let_in_by_its_identity() {
    in_a_world(async |world| {
        let (datapath, other) = joined(world, Routing::Overlay).await;
        far_server(&other, 1).await;
        let mut tables = Tables::open();
        for entry in &mut tables.entries {
            if entry.peer == ANY_PEER {
                entry.value.verdict = DENY;
            }
        }
        let value = PolicyEntry { rule: 1, precedence: 1, verdict: ALLOW, ..PolicyEntry::default() };
        let transport = Transport::Ports { protocol: TCP, port: 80, bits: 16 };
        tables.entries.push(TableEntry { peer: replica(1).identity, transport, value });
        tables.entries.sort_by_key(|entry| (entry.peer, entry.transport));
        other.datapath.set_policy(far_replica(1).identity, Arc::new(tables)).await.unwrap();
        for (n, is_let_in) in [(1, true), (2, false)] {
            let client = datapath.ensure_endpoint(replica(n)).await.unwrap();
            let reached = world.run(Place::In(&client), || {
                addresses(&far_replica(1))
                    .map(|address| TcpStream::connect_timeout(&(address, 80).into(), SILENCE).is_ok())
            });
            assert_eq!(reached.join().unwrap(), [is_let_in; 2], "replica {n}");
        }
        let statistics = other.datapath.statistics().await.unwrap();
        assert!(statistics.dropped(DropReason::PolicyIngress) > 0);
    });
}

#[test]
fn a_service_has_backends_on_another_node() {
    in_a_world(async |world| {
        let (datapath, other) = joined(world, Routing::Overlay).await;
        far_server(&other, 1).await;
        let spec = far_replica(1);
        let web = hivemind_datapath::ServiceSpec {
            backends: vec![BackendSpec { ipv4: spec.ipv4, ipv6: spec.ipv6, weight: 1 }],
            ..service(1, &[])
        };
        let to = [web.address_v4.into(), web.address_v6.into()];
        datapath.set_service(web).await.unwrap();
        let client = datapath.ensure_endpoint(replica(1)).await.unwrap();
        world.run(Place::In(&client), move || talk(to, 1)).join().unwrap();
        world.run(Place::OnNode, move || talk(to, 1)).join().unwrap();
    });
}

#[test]
fn a_process_of_one_node_reaches_a_replica_of_another_and_is_reached() {
    in_a_world(async |world| {
        let (_datapath, other) = joined(world, Routing::Overlay).await;
        let b = far_server(&other, 1).await;
        world
            .run(Place::OnNode, || {
                talk(addresses(&far_replica(1)), 1);
                ping(addresses(&far_replica(1)));
            })
            .join()
            .unwrap();
        let statistics = other.datapath.statistics().await.unwrap();
        let sources: Vec<_> = statistics.pairs.iter().map(|pair| pair.source).collect();
        assert!(!sources.is_empty() && sources.iter().all(|source| *source == NODE), "{sources:?}");
        // The other way: out by its own node, which puts its own address in the place of the replica's.
        world
            .run(Place::OnNode, || {
                for address in [IpAddr::V4(NODE_V4), IpAddr::V6(NODE_V6)] {
                    serve_tcp((address, 80).into(), 9);
                    serve_udp((address, 80).into(), 9);
                }
            })
            .join()
            .unwrap();
        other.world.run(Place::In(&b), || talk([NODE_V4.into(), NODE_V6.into()], 9)).join().unwrap();
    });
}

#[test]
fn a_published_port_of_one_node_has_its_backend_on_another() {
    in_a_world(async |world| {
        let (datapath, other) = joined(world, Routing::Overlay).await;
        published_elsewhere(world, &datapath, &other).await;
    });
}

/// Has a client outside, a process of the node and a replica of it ask a port that a replica of the other node serves.
async fn published_elsewhere(world: &World, datapath: &Datapath, other: &OtherNode) {
    let client = world.client();
    datapath.refresh_node_addresses().await.unwrap();
    far_server(other, 1).await;
    let spec = far_replica(1);
    let port = |protocol| PublishedPort { host_port: 80, protocol, target_port: 80 };
    let web = hivemind_datapath::ServiceSpec {
        backends: vec![BackendSpec { ipv4: spec.ipv4, ipv6: spec.ipv6, weight: 1 }],
        published: vec![port(Protocol::Tcp), port(Protocol::Udp)],
        ..service(1, &[])
    };
    datapath.set_service(web).await.unwrap();
    let node: [IpAddr; 2] = ["198.51.100.1".parse().unwrap(), "2001:db8:1::1".parse().unwrap()];
    client.run(move || talk(node, 1)).join().unwrap();
    let statistics = other.datapath.statistics().await.unwrap();
    assert!(statistics.pairs.iter().any(|pair| pair.source == WORLD), "{:?}", statistics.pairs);
    world.run(Place::OnNode, move || talk(node, 1)).join().unwrap();
    let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
    world.run(Place::In(&a), move || talk(node, 1)).join().unwrap();
    let statistics = other.datapath.statistics().await.unwrap();
    let of_replica = |pair: &PairStatistics| pair.source == replica(1).identity;
    assert!(statistics.pairs.iter().any(of_replica), "{:?}", statistics.pairs);
    // Answers find their way back also when everything is judged again.
    let mut asked =
        client.run(move || node.map(|address| connect((address, 80).into()).unwrap().0)).join().unwrap();
    other.datapath.set_remote_endpoints(vec![remote(7)], Vec::new()).await.unwrap();
    for stream in &mut asked {
        assert_eq!(echo(stream).unwrap(), 1);
    }
}

#[test]
fn with_direct_routing_all_of_it_works_as_well() {
    in_a_world(async |world| {
        let (datapath, other) = joined(world, Routing::Direct).await;
        let b = far_server(&other, 2).await;
        let a = datapath.ensure_endpoint(replica(2)).await.unwrap();
        world
            .run(Place::In(&a), || {
                talk(addresses(&far_replica(2)), 2);
                ping(addresses(&far_replica(2)));
                for address in addresses(&replica(2)) {
                    serve_tcp((address, 80).into(), 5);
                    serve_udp((address, 80).into(), 5);
                }
            })
            .join()
            .unwrap();
        other.world.run(Place::In(&b), || talk(addresses(&replica(2)), 5)).join().unwrap();
        world.run(Place::OnNode, || talk(addresses(&far_replica(2)), 2)).join().unwrap();
        published_elsewhere(world, &datapath, &other).await;
    });
}

#[test]
fn without_tcx_filters_do_the_same_and_go_with_the_cluster() {
    in_a_world(async |world| {
        let other = world.other_node();
        other.datapath.set_cluster(Some(far(Routing::Overlay))).await.unwrap();
        far_server(&other, 1).await;
        let filters = || {
            let listed = ["ingress", "egress"].map(|way| {
                let shown = Command::new("tc").args(["filter", "show", "dev", "up0", way]).output().unwrap();
                String::from_utf8(shown.stdout).unwrap()
            });
            listed.concat()
        };
        // What hangs at an interface to the outside does so in a cluster or without.
        drop(Datapath::open_without_tcx(world.config.clone()).await.unwrap());
        let parts = |listed: String| {
            listed
                .split_whitespace()
                .filter(|word| word.ends_with("lay"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let before = parts(filters());
        // Once anew, once adopting what is there.
        for _ in 0..2 {
            let datapath = Datapath::open_without_tcx(world.config.clone()).await.unwrap();
            admit_all(&datapath).await;
            datapath.set_cluster(Some(near(Routing::Overlay))).await.unwrap();
            assert!(filters().contains("from_underlay"), "{}", filters());
            let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
            world.run(Place::In(&a), || talk(addresses(&far_replica(1)), 1)).join().unwrap();
            world.run(Place::OnNode, || talk(addresses(&far_replica(1)), 1)).join().unwrap();
        }
        let datapath = Datapath::open_without_tcx(world.config.clone()).await.unwrap();
        datapath.set_cluster(None).await.unwrap();
        assert_eq!(parts(filters()), before);
    });
}

#[test]
fn a_sender_is_told_when_the_path_between_nodes_is_narrower_than_its_own() {
    in_a_world(async |world| {
        let (datapath, other) = joined(world, Routing::Overlay).await;
        far_server(&other, 1).await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        ip(&format!("route add {OUTSIDE_V4}/32 dev up0 mtu 1400"));
        // The same as before, but the way there has changed.
        datapath.set_cluster(Some(near(Routing::Overlay))).await.unwrap();
        world
            .run(Place::In(&a), || {
                for (address, headers) in addresses(&far_replica(1)).into_iter().zip([28, 48]) {
                    let ping = |bytes: u32| {
                        let size = (bytes - headers).to_string();
                        let arguments = ["-c", "1", "-W", "2", "-M", "do", "-s", &size, &address.to_string()];
                        Command::new("ping").args(arguments).status().unwrap().success()
                    };
                    assert!(ping(1350));
                    assert!(!ping(1351));
                    let route =
                        Command::new("ip").args(["route", "get", &address.to_string()]).output().unwrap();
                    let route = String::from_utf8(route.stdout).unwrap();
                    assert!(route.contains("mtu 1350"), "{route}");
                }
                talk(addresses(&far_replica(1)), 1);
            })
            .join()
            .unwrap();
        // What may be cut is cut, and put together again.
        let b = datapath.ensure_endpoint(replica(2)).await.unwrap();
        world
            .run(Place::In(&b), || {
                let arguments = ["-c", "1", "-W", "5", "-M", "dont", "-s", "1422", "10.200.2.1"];
                assert!(Command::new("ping").args(arguments).status().unwrap().success());
                talk(addresses(&far_replica(1)), 1);
            })
            .join()
            .unwrap();
    });
}

#[test]
fn traffic_between_nodes_goes_on_while_their_daemons_restart() {
    in_a_world(async |world| {
        let (mut datapath, other) = joined(world, Routing::Overlay).await;
        far_server(&other, 1).await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let asking = addresses(&far_replica(1)).map(|address| {
            let stop = Arc::clone(&stop);
            world.run(Place::In(&a), move || {
                let socket = datagrams(address);
                let (mut stream, _) = connect((address, 80).into()).unwrap();
                let mut asked = 0;
                while !stop.load(Ordering::Relaxed) {
                    ask(&socket, (address, 80).into()).unwrap();
                    assert_eq!(echo(&mut stream).unwrap(), 1);
                    asked += 1;
                }
                asked
            })
        });
        for _ in 0..3 {
            drop(datapath);
            datapath = world.open().await;
            datapath.set_cluster(Some(near(Routing::Overlay))).await.unwrap();
            datapath.replace_remote_endpoints((1..4).map(far_remote).collect()).await.unwrap();
            let config = other.world.config.clone();
            let reopen = other.world.run(Place::OnNode, move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let datapath = Datapath::open(config).await.unwrap();
                    datapath.set_cluster(Some(far(Routing::Overlay))).await.unwrap();
                    datapath.replace_remote_endpoints((1..4).map(remote).collect()).await.unwrap();
                });
            });
            reopen.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        for asking in asking {
            let asked = asking.join().unwrap();
            assert!(asked > 100, "{asked}");
        }
    });
}

/// An overlay packet with a small UDP datagram to the other node's first replica.
fn vxlan(source: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![8, 0, 0, 0, 0, 1, 1, 0];
    packet.extend([6, 0, 0, 0, 0, 1, 6, 0, 0, 0, 0, 2, 8, 0]);
    packet.extend([0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(source);
    packet.extend([10, 200, 2, 1, 0x12, 0x34, 0, 80, 0, 9, 0, 0, b'x']);
    packet
}

#[test]
fn what_no_node_sent_or_whose_sender_is_elsewhere_is_dropped_with_its_reason() {
    in_a_world(async |world| {
        let (datapath, other) = joined(world, Routing::Overlay).await;
        far_server(&other, 1).await;
        datapath.set_cluster(None).await.unwrap();
        let send = |from: &str, packet: Vec<u8>| {
            let socket = UdpSocket::bind(format!("{from}:0")).unwrap();
            socket.send_to(&packet, (OUTSIDE_V4, 4789)).unwrap();
        };
        let dropped = async |reason| other.datapath.statistics().await.unwrap().dropped(reason);
        // The sender is a node, and what is inside is of its replica: one that passes, so that the others could.
        send("192.0.2.1", vxlan([10, 200, 1, 1]));
        let statistics = other.datapath.statistics().await.unwrap();
        assert!(statistics.pairs.iter().any(|pair| pair.source == replica(1).identity), "{statistics:?}");
        ip("addr add 192.0.2.7/24 dev up0");
        send("192.0.2.7", vxlan([10, 200, 1, 1]));
        assert_eq!(dropped(DropReason::UnknownNode).await, 1);
        for source in [[10, 200, 2, 2], [10, 200, 3, 1]] {
            send("192.0.2.1", vxlan(source));
        }
        assert_eq!(dropped(DropReason::SpoofedSource).await, 2);
        let mut garbage = vxlan([10, 200, 1, 1]);
        garbage.truncate(40);
        send("192.0.2.1", garbage);
        assert_eq!(dropped(DropReason::Truncated).await, 1);
    });
}

#[test]
fn leaving_the_cluster_leaves_nothing_of_it() {
    in_a_world(async |world| {
        let outside = world.outside();
        let datapath = world.open().await;
        datapath.set_cluster(None).await.unwrap();
        let before = state();
        datapath.set_cluster(Some(near(Routing::Overlay))).await.unwrap();
        datapath.set_remote_endpoints(vec![far_remote(1), far_remote(2)], Vec::new()).await.unwrap();
        datapath
            .set_remote_endpoints(vec![far_remote(1)], vec![(far_replica(2).ipv4, far_replica(2).ipv6)])
            .await
            .unwrap();
        assert_ne!(state(), before);
        let links = || {
            let pins = std::fs::read_dir(world.config.bpffs.join(format!("v{ABI_VERSION}/links"))).unwrap();
            let names = pins.map(|pin| pin.unwrap().file_name().into_string().unwrap());
            names.filter(|pin| pin.contains("underlay") || pin.contains("overlay")).count()
        };
        // At the interface to the outside one each way, and at the overlay's own.
        assert_eq!(links(), 3);
        // Again, and again after a restart: nothing changes.
        let joined = state();
        datapath.set_cluster(Some(near(Routing::Overlay))).await.unwrap();
        drop(datapath);
        let datapath = world.open().await;
        assert_eq!(state(), joined);
        datapath.set_cluster(Some(near(Routing::Overlay))).await.unwrap();
        assert_eq!((state(), links()), (joined, 3));
        let addresses = datapath.statistics().await.unwrap().map(name::ADDRESS_EXACT_V4).unwrap().entries;
        assert_eq!(addresses, 1);
        datapath.set_cluster(None).await.unwrap();
        assert_eq!((state(), links()), (before, 2));
        let map = aya::maps::MapData::from_pin(world.map_path(name::NODE_STATE)).unwrap();
        let states = aya::maps::Array::<_, NodeState>::try_from(aya::maps::Map::Array(map)).unwrap();
        assert!(states.iter().all(|state| state.unwrap() == NodeState::default()));
        let addresses = datapath.statistics().await.unwrap().map(name::ADDRESS_EXACT_V4).unwrap().entries;
        assert_eq!(addresses, 0);
        drop(outside);
    });
}

#[test]
fn a_specification_that_cannot_be_met_changes_nothing() {
    in_a_world(async |world| {
        let _outside = world.outside();
        let datapath = world.open().await;
        let before = state();
        let wrong = |change: fn(&mut ClusterSpec)| {
            let mut spec = near(Routing::Overlay);
            change(&mut spec);
            datapath.set_cluster(Some(spec))
        };
        for refused in [
            wrong(|spec| spec.own = 0).await,
            wrong(|spec| spec.address = OUTSIDE_V4).await,
            wrong(|spec| spec.nodes[0].number = 1).await,
            wrong(|spec| spec.nodes[0].number = 1024).await,
            wrong(|spec| spec.nodes[0].ranges.0 = "10.200.1.128/25".parse().unwrap()).await,
            wrong(|spec| spec.nodes[0].ranges.1 = "fd00:9::/64".parse().unwrap()).await,
        ] {
            assert!(matches!(refused, Err(Error::Spec { .. })), "{refused:?}");
        }
        let socket = UdpSocket::bind("0.0.0.0:4789").unwrap();
        let refused = datapath.set_cluster(Some(near(Routing::Overlay))).await;
        let Err(Error::OverlayPortTaken { port: 4789, holder }) = refused else { panic!("{refused:?}") };
        assert!(holder.ends_with(&format!("({})", std::process::id())), "{holder}");
        drop(socket);
        assert_eq!(state(), before);
        ip("link add vx0 type vxlan id 7 dstport 4789 dev up0");
        ip("link set vx0 up");
        let refused = datapath.set_cluster(Some(near(Routing::Overlay))).await;
        let Err(Error::OverlayPortTaken { port: 4789, holder }) = refused else { panic!("{refused:?}") };
        assert_eq!(holder, "the interface vx0");
        ip("link del vx0");
        assert_eq!(state(), before);
        datapath.set_cluster(Some(near(Routing::Overlay))).await.unwrap();
    });
}
