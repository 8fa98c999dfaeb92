//! What is translated packet by packet: clients that no socket hook sees, and what leaves the node and comes in.

use crate::{
    services::servers,
    talk::{ask, connect, datagrams, serve_tcp, serve_udp},
    world::{
        NODE_V4, NODE_V6, OUTSIDE_V4, OUTSIDE_V6, PATIENCE, Place, admit_all, in_a_world, replica, service,
    },
};
use hivemind_common::{drop_reason::DropReason, name};
use hivemind_datapath::{
    Config, Datapath, Guarded, Protocol, PublishedPort, ServicePort, ServicePorts, ServiceSpec, Whose,
};
use hivemind_policy::{TableEntry, TablePrefix, Tables, Transport};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};
use std::{
    collections::{HashMap, HashSet},
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant},
};

/// Longer than a packet between machines may be, and than what two carry.
const LONG: usize = 4_000;

fn both(spec: &ServiceSpec) -> [IpAddr; 2] {
    [spec.address_v4.into(), spec.address_v6.into()]
}

fn outside() -> [IpAddr; 2] {
    [OUTSIDE_V4.into(), OUTSIDE_V6.into()]
}

fn node() -> [IpAddr; 2] {
    [NODE_V4.into(), NODE_V6.into()]
}

async fn assert_nothing_dropped(datapath: &Datapath) {
    let drops = datapath.statistics().await.unwrap().drops;
    // Kernels ask their neighbours who else listens to what.
    let lost = drops.iter().filter(|drop| drop.packets > 0 && drop.reason != DropReason::NotUnicast);
    assert_eq!(lost.count(), 0, "{drops:?}");
}

/// Talks to number 1 at port 80 of these addresses, by TCP and UDP.
fn talks(to: [IpAddr; 2]) {
    for address in to {
        let target = SocketAddr::new(address, 80);
        assert_eq!(connect(target).unwrap().1, 1);
        assert_eq!(ask(&datagrams(address), target).unwrap(), (1, target));
    }
}

/// Sends a long datagram and expects it back, behind one byte more.
fn ask_long(socket: &UdpSocket, to: SocketAddr) -> SocketAddr {
    let sent = vec![7; LONG];
    socket.send_to(&sent, to).unwrap();
    let mut answer = [0; 2 * LONG];
    let (count, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!(answer[1..count], sent);
    from
}

#[test]
fn a_client_that_no_hook_sees_reaches_a_service_and_is_answered_by_it() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[1, 2, 3]).await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        let web = service(1, &[1, 2, 3]);
        datapath.set_service(web.clone()).await.unwrap();
        let talk = move || {
            for address in both(&web) {
                let target = SocketAddr::new(address, 80);
                let mut counts = HashMap::new();
                for _ in 0..90 {
                    let (stream, name) = connect(target).unwrap();
                    // The kernel of the client knows nothing but the service.
                    assert_eq!(stream.peer_addr().unwrap(), target);
                    *counts.entry(name).or_insert(0) += 1;
                }
                assert!([1, 2, 3].iter().all(|name| counts[name] > 8), "{counts:?}");
                let socket = datagrams(address);
                let (name, from) = ask(&socket, target).unwrap();
                assert_eq!(from, target);
                for _ in 0..10 {
                    assert_eq!(ask(&socket, target).unwrap(), (name, target), "a flow stays where it is");
                }
                assert_eq!(ask_long(&socket, target), target);
            }
        };
        world.run_unseen(Place::In(&client), talk.clone()).join().unwrap();
        world.run_unseen(Place::OnNode, talk).join().unwrap();
        assert_nothing_dropped(&datapath).await;
    });
}

#[test]
fn another_namespace_reaches_services_by_the_node() {
    in_a_world(async |world| {
        let neighbour = world.outside();
        let datapath = world.open().await;
        servers(world, &datapath, &[1]).await;
        let web = service(1, &[1]);
        datapath.set_service(web.clone()).await.unwrap();
        neighbour
            .run(move || {
                talks(both(&web));
            })
            .join()
            .unwrap();
    });
}

#[test]
fn a_replica_meets_itself_through_its_own_service() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        let own = servers(world, &datapath, &[1]).await;
        let web = service(1, &[1]);
        datapath.set_service(web.clone()).await.unwrap();
        // Nobody keeps an endpoint from itself.
        datapath.set_policy(replica(1).identity, Arc::new(closed())).await.unwrap();
        world
            .run_unseen(Place::In(&own[0]), move || {
                talks(both(&web));
            })
            .join()
            .unwrap();
    });
}

/// Tables that let nothing in or out.
fn closed() -> Tables {
    let mut tables = Tables::open();
    for entry in &mut tables.entries {
        entry.value.verdict = hivemind_common::policy::DENY;
    }
    tables
}

#[test]
fn a_service_without_endpoints_refuses_whoever_asks_at_once() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        let empty = service(1, &[]);
        datapath.set_service(empty.clone()).await.unwrap();
        let few = ServiceSpec {
            ports: ServicePorts::List(vec![ServicePort {
                port: 80,
                protocol: Protocol::Tcp,
                target_port: 80,
            }]),
            ..service(2, &[9])
        };
        datapath.set_service(few.clone()).await.unwrap();
        let refused = move || {
            // Without an endpoint, a port that there is none at, and an address that is nobody's.
            let nobody = service(77, &[]);
            for address in both(&empty).into_iter().chain(both(&few)).chain(both(&nobody)) {
                let began = Instant::now();
                let target = SocketAddr::new(address, 81);
                let error = TcpStream::connect_timeout(&target, PATIENCE).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{target}: {error}");
                let socket = datagrams(address);
                socket.connect(target).unwrap();
                socket.send(b"x").unwrap();
                let error = socket.recv(&mut [0; 16]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{target}: {error}");
                assert!(began.elapsed() < PATIENCE / 2);
            }
        };
        world.run_unseen(Place::In(&client), refused.clone()).join().unwrap();
        world.run_unseen(Place::OnNode, refused).join().unwrap();
        let statistics = datapath.statistics().await.unwrap();
        assert_eq!(statistics.dropped(DropReason::NoBackend), 24);
        let refused = |whose| {
            let mut drops = statistics.endpoint_drops.iter();
            let found = drops.find(|drop| drop.whose == whose && drop.reason == DropReason::NoBackend);
            found.map_or(0, |drop| drop.packets)
        };
        // Its half, besides what its kernel asks its neighbours.
        assert_eq!(refused(Whose::Endpoint("replica-9".to_owned())), 12);
        assert_eq!((refused(Whose::Host), refused(Whose::Outside)), (12, 0));
    });
}

#[test]
fn what_leaves_has_the_nodes_address_and_a_port_of_its_own() {
    in_a_world(async |world| {
        let neighbour = world.outside();
        let datapath = world.open().await;
        let (a, b) = (
            datapath.ensure_endpoint(replica(1)).await.unwrap(),
            datapath.ensure_endpoint(replica(2)).await.unwrap(),
        );
        let listeners =
            neighbour.run(|| outside().map(|at| TcpListener::bind((at, 80)).unwrap())).join().unwrap();
        neighbour.run(|| outside().map(|at| serve_udp((at, 80).into(), 5))).join().unwrap();
        for (listener, to) in listeners.into_iter().zip(outside()) {
            // The same port of both, to the same destination.
            let call = move || call_from(4242, (to, 80).into());
            let calls = [
                world.run(Place::In(&a), call).join().unwrap(),
                world.run(Place::In(&b), call).join().unwrap(),
            ];
            let mut ports = HashSet::new();
            for _ in &calls {
                let (stream, from) = listener.accept().unwrap();
                assert!(node().contains(&from.ip()), "{from}");
                assert!((61_000..=65_535).contains(&from.port()), "{from}");
                ports.insert(from.port());
                drop(stream);
            }
            assert_eq!(ports.len(), 2);
        }
        world
            .run(Place::In(&a), || {
                for to in outside() {
                    let socket = datagrams(to);
                    assert_eq!(ask(&socket, (to, 80).into()).unwrap().0, 5);
                    assert_eq!(ask_long(&socket, (to, 80).into()), (to, 80).into());
                    crate::world::run_program("ping", &["-c", "1", "-W", "5", &to.to_string()]);
                }
            })
            .join()
            .unwrap();
        assert_nothing_dropped(&datapath).await;
    });
}

/// A connection from this port.
fn call_from(port: u16, to: SocketAddr) -> TcpStream {
    let (family, own): (_, SocketAddr) = match to {
        SocketAddr::V4(_) => (AddressFamily::Inet, ([0, 0, 0, 0], port).into()),
        SocketAddr::V6(_) => (AddressFamily::Inet6, ([0_u16; 8], port).into()),
    };
    let socket = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    socket::setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(own)).unwrap();
    socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
    socket.into()
}

/// A datagram socket at this port.
fn datagrams_from(port: u16, like: IpAddr) -> UdpSocket {
    let own: SocketAddr = match like {
        IpAddr::V4(_) => ([0, 0, 0, 0], port).into(),
        IpAddr::V6(_) => ([0_u16; 8], port).into(),
    };
    let socket = UdpSocket::bind(own).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// From one port, by the service and to its only endpoint itself, in either order: both at once, each keeps to itself.
#[test]
fn a_client_asks_by_the_service_and_the_endpoint_itself_from_one_port() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[1]).await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        let web = service(1, &[1]);
        datapath.set_service(web.clone()).await.unwrap();
        let server = replica(1);
        let itself: [IpAddr; 2] = [server.ipv4.into(), server.ipv6.into()];
        let talk = move || {
            for (served, itself) in both(&web).into_iter().zip(itself) {
                let [served, itself] = [served, itself].map(|address| SocketAddr::new(address, 80));
                for (port, order) in [(4_001, [served, itself]), (4_002, [itself, served])] {
                    // The second is bound where the first is: allowed, since they go to different addresses.
                    let mut calls = order.map(|to| {
                        let stream = call_from(port, to);
                        stream.set_read_timeout(Some(PATIENCE)).unwrap();
                        (stream, to)
                    });
                    for _ in 0..3 {
                        for (stream, to) in &mut calls {
                            assert_eq!(crate::talk::echo(stream).unwrap(), 1, "from {port} to {to}");
                        }
                    }
                    // The end of one is not the end of the other.
                    let [(first, _), (mut second, _)] = calls;
                    drop(first);
                    assert_eq!(crate::talk::echo(&mut second).unwrap(), 1);
                    assert_eq!(crate::talk::echo(&mut second).unwrap(), 1);
                    let socket = datagrams_from(port, served.ip());
                    for _ in 0..3 {
                        for to in order {
                            assert_eq!(ask(&socket, to).unwrap(), (1, to));
                        }
                    }
                }
            }
        };
        world.run_unseen(Place::In(&client), talk.clone()).join().unwrap();
        world.run_unseen(Place::OnNode, talk).join().unwrap();
        assert_nothing_dropped(&datapath).await;
    });
}

#[test]
fn errors_about_translated_packets_find_their_way_back() {
    in_a_world(async |world| {
        let neighbour = world.outside();
        let datapath = world.open().await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        datapath.ensure_endpoint(replica(1)).await.unwrap();
        let spec = ServiceSpec {
            published: vec![PublishedPort { host_port: 8080, protocol: Protocol::Udp, target_port: 80 }],
            ..service(1, &[1])
        };
        datapath.set_service(spec.clone()).await.unwrap();
        let refused = |targets: Vec<SocketAddr>| {
            move || {
                for target in targets {
                    let socket = datagrams(target.ip());
                    socket.connect(target).unwrap();
                    socket.send(b"x").unwrap();
                    let error = socket.recv(&mut [0; 16]).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{target}: {error}");
                }
            }
        };
        // Nobody listens outside, and nobody in the replica: its kernel says so in the service's name, and in the node's.
        let out = outside().map(|address| SocketAddr::new(address, 9)).to_vec();
        world.run(Place::In(&client), refused(out)).join().unwrap();
        let served = both(&spec).map(|address| SocketAddr::new(address, 80)).to_vec();
        world.run_unseen(Place::In(&client), refused(served)).join().unwrap();
        let published = node().map(|address| SocketAddr::new(address, 8080)).to_vec();
        neighbour.run(refused(published)).join().unwrap();
        let statistics = datapath.statistics().await.unwrap();
        assert_eq!(statistics.dropped(DropReason::UnrelatedError), 0);
    });
}

#[test]
fn a_narrow_way_is_told_to_whoever_sends_through_it() {
    in_a_world(async |world| {
        let neighbour = world.outside();
        let datapath = world.open().await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        neighbour.run(|| outside().map(|at| serve_udp((at, 80).into(), 5))).join().unwrap();
        crate::world::ip(&format!("route add {OUTSIDE_V4}/32 dev up0 mtu 1300"));
        world
            .run(Place::In(&client), || {
                let to = SocketAddr::new(OUTSIDE_V4.into(), 80);
                let socket = datagrams(to.ip());
                socket.connect(to).unwrap();
                let sent = vec![7; 1_380];
                let deadline = Instant::now() + PATIENCE;
                // The first is answered with an error, by which the kernel learns how long packets may be.
                while socket.send(&sent).is_ok() && Instant::now() < deadline {
                    let mut answer = [0; 2_000];
                    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                    if socket.recv(&mut answer).is_ok() {
                        break;
                    }
                }
                assert!(Instant::now() < deadline, "neither an answer nor an error");
            })
            .join()
            .unwrap();
    });
}

#[test]
fn a_published_port_takes_datagrams_in_pieces_and_refuses_when_nobody_is_there() {
    in_a_world(async |world| {
        let neighbour = world.outside();
        let datapath = world.open().await;
        servers(world, &datapath, &[1]).await;
        let published = vec![
            PublishedPort { host_port: 8080, protocol: Protocol::Udp, target_port: 80 },
            PublishedPort { host_port: 8080, protocol: Protocol::Tcp, target_port: 80 },
        ];
        let spec = ServiceSpec { published, ..service(1, &[1]) };
        datapath.set_service(spec.clone()).await.unwrap();
        neighbour
            .run(|| {
                for address in node() {
                    let target = SocketAddr::new(address, 8080);
                    let socket = datagrams(address);
                    assert_eq!(ask(&socket, target).unwrap(), (1, target));
                    assert_eq!(ask_long(&socket, target), target);
                    assert_eq!(connect(target).unwrap().1, 1);
                }
            })
            .join()
            .unwrap();
        datapath.set_service(ServiceSpec { backends: Vec::new(), ..spec }).await.unwrap();
        neighbour
            .run(|| {
                for address in node() {
                    let target = SocketAddr::new(address, 8080);
                    let error = TcpStream::connect_timeout(&target, PATIENCE).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{target}: {error}");
                    let socket = datagrams(address);
                    socket.connect(target).unwrap();
                    socket.send(b"x").unwrap();
                    let error = socket.recv(&mut [0; 16]).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{target}: {error}");
                }
            })
            .join()
            .unwrap();
    });
}

#[test]
fn datagrams_move_on_when_their_endpoint_leaves_and_connections_stay() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[1, 2]).await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        datapath.set_service(service(1, &[1])).await.unwrap();
        let targets = both(&service(1, &[])).map(|address| SocketAddr::new(address, 80));
        let mut open = world
            .run_unseen(Place::In(&client), move || {
                targets.map(|target| {
                    let socket = datagrams(target.ip());
                    assert_eq!(ask(&socket, target).unwrap(), (1, target));
                    (socket, connect(target).unwrap().0)
                })
            })
            .join()
            .unwrap();
        datapath.set_service(service(1, &[2])).await.unwrap();
        for ((socket, stream), target) in open.iter_mut().zip(targets) {
            assert_eq!(ask(socket, target).unwrap(), (2, target));
            assert_eq!(crate::talk::echo(stream).unwrap(), 1);
        }
    });
}

#[test]
fn replicas_reach_what_is_guarded_only_by_a_rule_for_its_address() {
    in_a_world(async |world| {
        let _neighbour = world.outside();
        let config = Config {
            guarded: Guarded { addresses: vec![OUTSIDE_V4.into()], ports: vec![(4483, Protocol::Tcp)] },
            unmasked: vec!["2001:db8::/64".parse().unwrap()],
            ..world.config.clone()
        };
        let datapath = Datapath::open(config).await.unwrap();
        admit_all(&datapath).await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        world
            .run(Place::OnNode, || node().map(|at| [80, 4483].map(|port| serve_tcp((at, port).into(), 3))))
            .join()
            .unwrap();
        let guarded = || {
            let reach = |address: IpAddr, port| {
                TcpStream::connect_timeout(&(address, port).into(), Duration::from_millis(300))
                    .map_err(|e| e.kind())
                    .err()
            };
            [
                reach(NODE_V4.into(), 80),
                reach(NODE_V4.into(), 4483),
                reach(NODE_V6.into(), 4483),
                reach(OUTSIDE_V4.into(), 81),
            ]
        };
        let dropped = Some(ErrorKind::TimedOut);
        assert_eq!(world.run(Place::In(&client), guarded).join().unwrap(), [None, dropped, dropped, dropped]);
        assert!(datapath.statistics().await.unwrap().dropped(DropReason::Guarded) >= 3);
        let mut tables = Tables::open();
        let value =
            tables.entries.iter().find(|entry| entry.peer == hivemind_common::policy::EGRESS).unwrap().value;
        for entry in &mut tables.entries {
            entry.value.flags |= hivemind_common::policy::HAS_PREFIXES;
        }
        let peer = hivemind_common::policy::EGRESS | hivemind_common::policy::PREFIX_PEER | 1;
        let value = hivemind_common::policy::PolicyEntry { precedence: value.precedence + 1, ..value };
        tables.entries.push(TableEntry { peer, transport: Transport::Any, value });
        for net in ["192.0.2.0/24", "2001:db8::/64"] {
            tables.prefixes.push(TablePrefix {
                side: hivemind_common::policy::EGRESS,
                net: net.parse().unwrap(),
                number: 1,
            });
        }
        datapath.set_policy(replica(9).identity, Arc::new(tables)).await.unwrap();
        let refused = Some(ErrorKind::ConnectionRefused);
        assert_eq!(world.run(Place::In(&client), guarded).join().unwrap(), [None, None, None, refused]);
        assert!(datapath.statistics().await.unwrap().map(name::TRANSLATION_V4).unwrap().entries > 0);
    });
}

#[test]
fn who_asks_for_a_replicas_own_address_is_answered_from_it() {
    in_a_world(async |world| {
        let neighbour = world.outside();
        let datapath = world.open().await;
        servers(world, &datapath, &[1]).await;
        neighbour
            .run(|| {
                talks(crate::world::addresses(&replica(1)));
                for address in crate::world::addresses(&replica(1)) {
                    crate::world::run_program("ping", &["-c", "1", "-W", "5", &address.to_string()]);
                }
            })
            .join()
            .unwrap();
        assert_eq!(datapath.statistics().await.unwrap().map(name::TRANSLATION_V4).unwrap().entries, 0);
    });
}

#[test]
fn replicas_keep_their_addresses_where_the_node_was_told_so() {
    in_a_world(async |world| {
        let neighbour = world.outside();
        let config = Config { unmasked: vec!["192.0.2.0/24".parse().unwrap()], ..world.config.clone() };
        let datapath = Datapath::open(config).await.unwrap();
        admit_all(&datapath).await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        let listeners =
            neighbour.run(|| outside().map(|at| TcpListener::bind((at, 80)).unwrap())).join().unwrap();
        let _calls = world
            .run(Place::In(&client), || outside().map(|to| TcpStream::connect((to, 80)).unwrap()))
            .join()
            .unwrap();
        assert_eq!(listeners[0].accept().unwrap().1.ip(), replica(9).ipv4);
        assert_eq!(listeners[1].accept().unwrap().1.ip(), NODE_V6);
    });
}
