use crate::{
    talk::{ask, connect, datagrams, echo, serve_tcp, serve_udp},
    world::{NODE_V4, NODE_V6, OUTSIDE_V4, OUTSIDE_V6, Place, addresses, in_a_world, ip, replica},
};
use aya::maps::{Array, Map, MapData};
use hivemind_common::{endpoint::NO_GENERATION, name};
use hivemind_datapath::{DropReason, EndpointSpec, Error};
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

#[test]
fn replicas_reach_one_another_past_the_hosts_stack() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let b = datapath.ensure_endpoint(replica(2)).await.unwrap();
        world
            .run(Place::In(&b), || {
                for address in addresses(&replica(2)) {
                    serve_tcp((address, 80).into(), 2);
                    serve_udp((address, 53).into(), 2);
                }
            })
            .join()
            .unwrap();
        let before = (world.sent_by_stack(&a.interface), world.sent_by_stack(&b.interface));
        world
            .run(Place::In(&a), || {
                for address in addresses(&replica(2)) {
                    let (mut stream, name) = connect((address, 80).into()).unwrap();
                    assert_eq!((name, stream.peer_addr().unwrap().ip()), (2, address));
                    for _ in 0..100 {
                        assert_eq!(echo(&mut stream).unwrap(), 2);
                    }
                    let socket = datagrams(address);
                    for _ in 0..100 {
                        assert_eq!(ask(&socket, (address, 53).into()).unwrap().0, 2);
                    }
                }
            })
            .join()
            .unwrap();
        let after = (world.sent_by_stack(&a.interface), world.sent_by_stack(&b.interface));
        // 800 packets each way; the host itself may say hello to a new interface (MLD), no more.
        assert!(after.0 - before.0 < 10 && after.1 - before.1 < 10, "{before:?} {after:?}");
        let statistics = datapath.statistics().await.unwrap();
        assert_eq!(statistics.map(name::CONNTRACK_V4).unwrap().entries, 2);
        assert_eq!(statistics.map(name::CONNTRACK_V6).unwrap().entries, 2);
    });
}

#[test]
fn a_spoofed_source_is_dropped_and_counted() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let b = datapath.ensure_endpoint(replica(2)).await.unwrap();
        let sink = world.run(Place::In(&b), || UdpSocket::bind("0.0.0.0:9").unwrap()).join().unwrap();
        world
            .run(Place::In(&a), || {
                ip("addr add 10.200.1.77/32 dev lo");
                let liar = UdpSocket::bind("10.200.1.77:7").unwrap();
                for _ in 0..5 {
                    liar.send_to(b"boo", "10.200.1.2:9").unwrap();
                }
                let honest = UdpSocket::bind("10.200.1.1:7").unwrap();
                honest.send_to(b"hello", "10.200.1.2:9").unwrap();
            })
            .join()
            .unwrap();
        let mut bytes = [0; 16];
        let (count, from) = sink.recv_from(&mut bytes).unwrap();
        assert_eq!((&bytes[..count], from), (&b"hello"[..], "10.200.1.1:7".parse().unwrap()));
        let statistics = datapath.statistics().await.unwrap();
        assert_eq!(statistics.dropped(DropReason::SpoofedSource), 5);
    });
}

#[test]
fn a_spoofed_mac_address_is_dropped_and_counted() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let b = datapath.ensure_endpoint(replica(2)).await.unwrap();
        world.run(Place::In(&b), || serve_udp("10.200.1.2:9".parse().unwrap(), 2)).join().unwrap();
        world
            .run(Place::In(&a), || {
                ip("link set eth0 address 02:00:00:00:00:99");
                // The kernel forgets neighbours with the old address.
                ip("neigh replace 169.254.1.1 lladdr 06:68:00:00:00:01 dev eth0 nud permanent");
                let socket = UdpSocket::bind("10.200.1.1:7").unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                assert!(ask(&socket, "10.200.1.2:9".parse().unwrap()).is_err());
            })
            .join()
            .unwrap();
        assert!(datapath.statistics().await.unwrap().dropped(DropReason::SpoofedMac) > 0);
    });
}

#[test]
fn an_endpoint_without_a_generation_forwards_nothing_on_old_flows_either() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let b = datapath.ensure_endpoint(replica(2)).await.unwrap();
        let target: SocketAddr = "10.200.1.2:9".parse().unwrap();
        world.run(Place::In(&b), move || serve_udp(target, 2)).join().unwrap();
        let socket = world
            .run(Place::In(&a), move || {
                let socket = UdpSocket::bind("10.200.1.1:7").unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                assert_eq!(ask(&socket, target).unwrap().0, 2);
                socket
            })
            .join()
            .unwrap();
        let map = MapData::from_pin(world.map_path(name::GENERATION)).unwrap();
        let mut generation: Array<_, u64> = Array::try_from(Map::Array(map)).unwrap();
        let real = generation.get(&b.index, 0).unwrap();
        generation.set(b.index, NO_GENERATION, 0).unwrap();
        socket.send_to(b"x", target).unwrap();
        assert_eq!(datapath.statistics().await.unwrap().dropped(DropReason::NoEndpoint), 1);
        generation.set(b.index, real, 0).unwrap();
        assert_eq!(ask(&socket, target).unwrap().0, 2);
    });
}

#[test]
fn a_flow_to_a_reused_address_reaches_the_new_endpoint_and_nobody_else() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let target: SocketAddr = "10.200.1.2:9".parse().unwrap();
        let b = datapath.ensure_endpoint(replica(2)).await.unwrap();
        world.run(Place::In(&b), move || serve_udp(target, 2)).join().unwrap();
        let socket = world
            .run(Place::In(&a), move || {
                let socket = UdpSocket::bind("10.200.1.1:7").unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                assert_eq!(ask(&socket, target).unwrap().0, 2);
                socket
            })
            .join()
            .unwrap();
        datapath.remove_endpoint("replica-2").await.unwrap();
        // Another endpoint takes the interface's index first, so that a stale entry would go astray.
        let stranger = datapath.ensure_endpoint(replica(3)).await.unwrap();
        assert_eq!(stranger.index, b.index);
        let heard = world.run(Place::In(&stranger), || UdpSocket::bind("0.0.0.0:9").unwrap()).join().unwrap();
        let successor = EndpointSpec { id: "successor".to_owned(), ..replica(2) };
        let c = datapath.ensure_endpoint(successor).await.unwrap();
        world.run(Place::In(&c), move || serve_udp(target, 3)).join().unwrap();
        assert_eq!(ask(&socket, target).unwrap().0, 3);
        heard.set_nonblocking(true).unwrap();
        assert!(heard.recv_from(&mut [0; 16]).is_err(), "the stranger heard something");
    });
}

#[test]
fn no_packet_of_the_node_is_lost_while_an_endpoint_changes_over_to_its_lasting_links() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let target: SocketAddr = "10.200.1.1:9".parse().unwrap();
        world.run(Place::In(&a), move || serve_udp(target, 1)).join().unwrap();
        let links = [name::FROM_REPLICA, name::TO_REPLICA].map(|program| world.link_path(&a, program));
        let asked = world
            .run(Place::OnNode, move || {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
                let mut asked = 0;
                let mut settled = None;
                // Until a while after the second link stands: then the filters are gone too.
                while settled.is_none_or(|settled: Instant| settled.elapsed() < Duration::from_millis(200)) {
                    ask(&socket, target).unwrap_or_else(|error| panic!("question {asked}: {error}"));
                    asked += 1;
                    if settled.is_none() && links.iter().all(|link| link.exists()) {
                        settled = Some(Instant::now());
                    }
                }
                asked
            })
            .join()
            .unwrap();
        assert!(asked > 100, "only {asked} questions were asked");
    });
}

#[test]
fn an_address_that_nobody_has_is_answered_with_an_error_at_once() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        world
            .run(Place::In(&a), || {
                for nobody in ["10.200.1.99:80", "[fd00:1:0:1::99]:80", "10.203.9.9:80"] {
                    let error = connect(nobody.parse().unwrap()).unwrap_err();
                    let expected = [Some(libc::EHOSTUNREACH), Some(libc::ENETUNREACH)];
                    assert!(expected.contains(&error.raw_os_error()), "{nobody}: {error}");
                }
            })
            .join()
            .unwrap();
    });
}

#[test]
fn what_leaves_the_cluster_is_masqueraded_and_answered() {
    in_a_world(async |world| {
        let outside = world.outside();
        let datapath = world.open().await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let listeners = outside
            .run(|| {
                let v4 = std::net::TcpListener::bind((OUTSIDE_V4, 80)).unwrap();
                let v6 = std::net::TcpListener::bind((OUTSIDE_V6, 80)).unwrap();
                [v4, v6]
            })
            .join()
            .unwrap();
        let seen = outside.run(move || listeners.map(|listener| listener.accept().unwrap().1.ip()));
        world
            .run(Place::In(&a), || {
                for address in [IpAddr::V4(OUTSIDE_V4), IpAddr::V6(OUTSIDE_V6)] {
                    std::net::TcpStream::connect((address, 80)).unwrap();
                }
            })
            .join()
            .unwrap();
        assert_eq!(seen.join().unwrap(), [IpAddr::V4(NODE_V4), IpAddr::V6(NODE_V6)]);
    });
}

#[test]
fn replicas_reach_the_dns_addresses_on_the_node() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let (v4, v6) = world.config.dns;
        for address in [IpAddr::V4(v4), IpAddr::V6(v6)] {
            serve_udp((address, 53).into(), 9);
        }
        world
            .run(Place::In(&a), move || {
                for address in [IpAddr::V4(v4), IpAddr::V6(v6)] {
                    let server = (address, 53).into();
                    assert_eq!(ask(&datagrams(address), server).unwrap(), (9, server));
                }
            })
            .join()
            .unwrap();
    });
}

#[test]
fn an_endpoint_is_made_once_and_refused_if_it_cannot_be() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        let first = datapath.ensure_endpoint(replica(1)).await.unwrap();
        assert_eq!(datapath.ensure_endpoint(replica(1)).await.unwrap(), first);
        let same_address = EndpointSpec { id: "other".to_owned(), ..replica(1) };
        let elsewhere = EndpointSpec { ipv4: "10.9.9.9".parse().unwrap(), ..replica(2) };
        let badly_named = EndpointSpec { id: "../etc".to_owned(), ..replica(3) };
        for wrong in [same_address, elsewhere, badly_named] {
            assert!(matches!(datapath.ensure_endpoint(wrong).await, Err(Error::Spec { .. })));
        }
        assert_eq!(datapath.endpoints().len(), 1);
        datapath.remove_endpoint("replica-1").await.unwrap();
        datapath.remove_endpoint("replica-1").await.unwrap();
        assert!(datapath.endpoints().is_empty());
        assert!(!first.netns.exists());
    });
}

#[test]
fn many_endpoints_are_made_at_once() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        let (one, two, three, four) = tokio::join!(
            datapath.ensure_endpoint(replica(1)),
            datapath.ensure_endpoint(replica(2)),
            datapath.ensure_endpoint(replica(3)),
            datapath.ensure_endpoint(replica(3)),
        );
        let mut indexes: Vec<_> = [&one, &two, &three].map(|made| made.as_ref().unwrap().index).to_vec();
        indexes.sort_unstable();
        assert_eq!(indexes, [1, 2, 3]);
        assert_eq!(three.unwrap(), four.unwrap());
    });
}
