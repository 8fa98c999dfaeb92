use crate::{
    services::servers,
    talk::{connect, serve_tcp},
    world::{NODE_V4, NODE_V6, OUTSIDE_V4, PATIENCE, Place, in_a_world, replica, service},
};
use hivemind_datapath::{Error, Protocol, PublishedPort, ServiceSpec};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr, TcpListener},
    time::Duration,
};
use tokio::time::timeout;

fn published(host_port: u16, backends: &[u8]) -> ServiceSpec {
    let port = PublishedPort { host_port, protocol: Protocol::Tcp, target_port: 80 };
    ServiceSpec { published: vec![port], ..service(1, backends) }
}

#[test]
fn a_published_port_answers_from_outside_and_spreads() {
    in_a_world(async |world| {
        let outside = world.outside();
        let datapath = world.open().await;
        servers(world, &datapath, &[1, 2]).await;
        datapath.set_service(published(8080, &[1, 2])).await.unwrap();
        for node in [IpAddr::V4(NODE_V4), IpAddr::V6(NODE_V6)] {
            let ask = move || {
                let mut counts = HashMap::new();
                for _ in 0..64 {
                    let (_, name) = connect((node, 8080).into()).unwrap();
                    *counts.entry(name).or_insert(0) += 1;
                }
                counts
            };
            let counts = outside.run(ask).join().unwrap();
            assert!(counts[&1] > 8 && counts[&2] > 8, "{counts:?}");
        }
        datapath.set_service(published(8080, &[])).await.unwrap();
        let refused = outside.run(|| connect((NODE_V4, 8080).into()).is_err()).join().unwrap();
        assert!(refused);
    });
}

#[test]
fn a_published_port_answers_on_localhost_and_on_the_nodes_address() {
    in_a_world(async |world| {
        let _outside = world.outside();
        let datapath = world.open().await;
        servers(world, &datapath, &[1]).await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        datapath.set_service(published(8080, &[1])).await.unwrap();
        let targets: Vec<SocketAddr> =
            ["127.0.0.1:8080", "[::1]:8080", "192.0.2.1:8080", "[2001:db8::1]:8080"]
                .map(|target| target.parse().unwrap())
                .to_vec();
        let by_host = targets.clone();
        world
            .run(Place::OnNode, move || {
                for target in by_host {
                    let (stream, name) = connect(target).unwrap();
                    assert_eq!((name, stream.peer_addr().unwrap()), (1, target));
                }
            })
            .join()
            .unwrap();
        // A replica's own loopback is its own; the node's address is everybody's.
        world
            .run(Place::In(&client), move || {
                assert!(connect(targets[0]).is_err() && connect(targets[1]).is_err());
                assert_eq!(connect(targets[2]).unwrap().1, 1);
                assert_eq!(connect(targets[3]).unwrap().1, 1);
            })
            .join()
            .unwrap();
    });
}

#[test]
fn a_port_that_is_taken_changes_nothing() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        datapath.set_service(service(1, &[1])).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        let refused = datapath.set_service(published(8080, &[2])).await;
        assert!(matches!(refused, Err(Error::PortTaken { port: 8080, protocol: Protocol::Tcp })));
        assert_eq!(datapath.services(), [service(1, &[1])]);
        let checked = datapath.check_port(8080, Protocol::Tcp).await;
        assert!(matches!(checked, Err(Error::PortTaken { port: 8080, protocol: Protocol::Tcp })));
        datapath.check_port(8080, Protocol::Udp).await.unwrap();
        drop(listener);
        datapath.check_port(8080, Protocol::Tcp).await.unwrap();
        drop(TcpListener::bind("0.0.0.0:8080").expect("a check keeps the port"));
        datapath.set_service(published(8080, &[2])).await.unwrap();
        assert!(TcpListener::bind("0.0.0.0:8080").is_err(), "the port is not reserved");
        datapath.check_port(8080, Protocol::Tcp).await.expect("a port of our own counts as taken");
        let other = ServiceSpec { published: published(8080, &[]).published, ..service(2, &[]) };
        assert!(matches!(datapath.set_service(other).await, Err(Error::PortTaken { port: 8080, .. })));
        datapath.remove_service(1).await.unwrap();
        TcpListener::bind("0.0.0.0:8080").unwrap();
    });
}

#[test]
fn an_interface_that_comes_later_is_told_and_leads_in_and_out() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[1]).await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        datapath.set_service(published(8080, &[1])).await.unwrap();
        let mut changes = datapath.network_changes().unwrap();
        // What becomes of interfaces that were made before, the kernel may tell up to a second later (`linkwatch`).
        let (settled, quiet) = (Duration::from_millis(1_500), Duration::from_millis(200));
        while timeout(settled, changes.next()).await.is_ok() {}
        // An endpoint of our own is no news.
        datapath.ensure_endpoint(replica(2)).await.unwrap();
        assert!(timeout(quiet, changes.next()).await.is_err());
        let outside = world.outside();
        outside.run(|| serve_tcp((OUTSIDE_V4, 80).into(), 7)).join().unwrap();
        timeout(PATIENCE, changes.next()).await.expect("nothing was told").unwrap();
        datapath.refresh_node_addresses().await.unwrap();
        assert_eq!(outside.run(|| connect((NODE_V4, 8080).into()).unwrap().1).join().unwrap(), 1);
        let out = world.run(Place::In(&client), || connect((OUTSIDE_V4, 80).into()).unwrap().1);
        assert_eq!(out.join().unwrap(), 7);
    });
}
