use crate::{
    talk::{ask, connect, datagrams, serve_tcp, serve_udp},
    world::{PATIENCE, Place, World, addresses, backend, eventually, in_a_world, replica, service},
};
use hivemind_common::{
    family::{Address4, Address6},
    name,
    service::Backend,
};
use hivemind_datapath::{Datapath, Endpoint, Error, Protocol, ServicePort, ServicePorts, ServiceSpec};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// Endpoints that answer with their number on TCP and UDP port 80, in both families.
pub(crate) async fn servers(world: &World, datapath: &Datapath, numbers: &[u8]) -> Vec<Endpoint> {
    let mut made = Vec::new();
    for &number in numbers {
        let endpoint = datapath.ensure_endpoint(replica(number)).await.unwrap();
        world
            .run(Place::In(&endpoint), move || {
                for address in addresses(&replica(number)) {
                    serve_tcp((address, 80).into(), number);
                    serve_udp((address, 80).into(), number);
                }
            })
            .join()
            .unwrap();
        made.push(endpoint);
    }
    made
}

fn both(spec: &ServiceSpec) -> [IpAddr; 2] {
    [spec.address_v4.into(), spec.address_v6.into()]
}

#[test]
fn connections_to_a_service_spread_over_its_backends_and_show_its_address() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[1, 2, 3]).await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        let web = service(1, &[1, 2, 3]);
        datapath.set_service(web.clone()).await.unwrap();
        let counts = world
            .run(Place::In(&client), move || {
                both(&web).map(|address| {
                    let mut counts = HashMap::new();
                    for _ in 0..300 {
                        let target = SocketAddr::new(address, 80);
                        let (stream, name) = connect(target).unwrap();
                        assert_eq!(stream.peer_addr().unwrap(), target);
                        *counts.entry(name).or_insert(0) += 1;
                    }
                    counts
                })
            })
            .join()
            .unwrap();
        for counts in counts {
            // 300 draws of one third: 100 ± 8.2; seven deviations never happen.
            assert!([1, 2, 3].iter().all(|name| (42..158).contains(&counts[name])), "{counts:?}");
        }
    });
}

#[test]
fn a_process_of_the_node_reaches_services_too_even_by_mapped_addresses() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[1]).await;
        datapath.set_service(service(1, &[1])).await.unwrap();
        world
            .run(Place::OnNode, || {
                assert_eq!(connect("10.204.0.1:80".parse().unwrap()).unwrap().1, 1);
                let target: SocketAddr = "[::ffff:10.204.0.1]:80".parse().unwrap();
                let (stream, name) = connect(target).unwrap();
                assert_eq!((name, stream.peer_addr().unwrap()), (1, target));
            })
            .join()
            .unwrap();
    });
}

#[test]
fn a_service_without_backends_refuses_at_once() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        let empty = service(1, &[]);
        datapath.set_service(empty.clone()).await.unwrap();
        world
            .run(Place::In(&client), move || {
                for address in both(&empty) {
                    let target = SocketAddr::new(address, 80);
                    assert_eq!(connect(target).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
                    let sent = datagrams(address).send_to(b"x", target);
                    assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
                }
            })
            .join()
            .unwrap();
    });
}

#[test]
fn datagrams_to_a_service_stay_with_one_backend_and_seem_answered_by_the_service() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[1, 2, 3]).await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        let names = service(1, &[1, 2, 3]);
        datapath.set_service(names.clone()).await.unwrap();
        let seen = world
            .run(Place::In(&client), move || {
                let mut seen = HashMap::new();
                for address in both(&names) {
                    let target = SocketAddr::new(address, 80);
                    for _ in 0..30 {
                        let socket = datagrams(address);
                        let (first, from) = ask(&socket, target).unwrap();
                        assert_eq!(from, target);
                        for _ in 0..5 {
                            assert_eq!(ask(&socket, target).unwrap(), (first, target));
                        }
                        *seen.entry(first).or_insert(0) += 1;
                    }
                }
                seen
            })
            .join()
            .unwrap();
        assert_eq!(seen.len(), 3, "{seen:?}");
    });
}

#[test]
fn a_listed_port_leads_to_its_target_and_others_lead_nowhere() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[1]).await;
        let port = ServicePort { port: 8080, protocol: Protocol::Tcp, target_port: 80 };
        let spec = ServiceSpec { ports: ServicePorts::List(vec![port]), ..service(1, &[1]) };
        datapath.set_service(spec).await.unwrap();
        world
            .run(Place::OnNode, || {
                assert_eq!(connect("10.204.0.1:8080".parse().unwrap()).unwrap().1, 1);
                assert!(connect("10.204.0.1:80".parse().unwrap()).is_err());
            })
            .join()
            .unwrap();
    });
}

#[test]
fn new_connections_follow_a_change_and_weights_count() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[1, 2]).await;
        let only = |world: &World, count: usize| {
            world
                .run(Place::OnNode, move || {
                    let mut counts = HashMap::new();
                    for _ in 0..count {
                        *counts.entry(connect("10.204.0.1:80".parse().unwrap()).unwrap().1).or_insert(0) += 1;
                    }
                    counts
                })
                .join()
                .unwrap()
        };
        for (members, expected) in [(vec![1], 1), (vec![2], 2), (vec![1], 1)] {
            datapath.set_service(service(1, &members)).await.unwrap();
            assert_eq!(only(world, 20), HashMap::from([(expected, 20)]));
        }
        let mut canary = service(1, &[1, 2]);
        canary.backends[1].weight = 0;
        datapath.set_service(canary.clone()).await.unwrap();
        assert_eq!(only(world, 20), HashMap::from([(1, 20)]));
        canary.backends[0].weight = 9;
        canary.backends[1].weight = 1;
        datapath.set_service(canary).await.unwrap();
        let counts = only(world, 400);
        // One tenth of 400 is 40 ± 6.
        assert!((5..85).contains(&counts[&2]), "{counts:?}");
        datapath.remove_service(1).await.unwrap();
        let gone = world.run(Place::OnNode, || connect("10.204.0.1:80".parse().unwrap()).is_err());
        assert!(gone.join().unwrap());
    });
}

#[test]
fn a_full_table_of_cells_is_refused_and_freed_cells_are_used_again() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        // 8192 cells: a service of sixty backends takes six thousand and more.
        let large = |last: u8| ServiceSpec {
            backends: (1..=60).map(|n| backend(n + last)).collect(),
            ..service(1, &[])
        };
        datapath.set_service(large(0)).await.unwrap();
        let second = ServiceSpec { id: 2, ..service(2, &[]) };
        let too_large = ServiceSpec { backends: large(0).backends, ..second };
        assert!(matches!(datapath.set_service(too_large).await, Err(Error::MapFull { .. })));
        assert_eq!(datapath.services().len(), 1);
        datapath.remove_service(1).await.unwrap();
        datapath.set_service(large(1)).await.unwrap();
        assert_eq!(datapath.services(), [large(1)]);
    });
}

#[test]
fn a_service_whose_address_is_taken_is_refused() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        datapath.set_service(service(1, &[1])).await.unwrap();
        let other = ServiceSpec { id: 2, ..service(1, &[1]) };
        assert!(matches!(datapath.set_service(other).await, Err(Error::Spec { .. })));
    });
}

#[test]
fn what_a_service_took_is_given_back_though_no_other_changes() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        datapath.set_service(service(1, &[1, 2])).await.unwrap();
        let fill = async || {
            let statistics = datapath.statistics().await.unwrap();
            let entries = |map: &str| statistics.map(map).unwrap().entries;
            let cells = entries(name::SERVICE_TABLE);
            let services = [entries(name::SERVICE_V4), entries(name::SERVICE_V6)];
            let backends = [
                world.hash::<u32, Backend<Address4>>(name::BACKEND_V4).keys().count(),
                world.hash::<u32, Backend<Address6>>(name::BACKEND_V6).keys().count(),
            ];
            (cells, services, backends)
        };
        let before = fill().await;
        datapath.set_service(service(2, &[3, 4, 5])).await.unwrap();
        let both = fill().await;
        assert_eq!((both.1, both.2), ([2, 2], [5, 5]));
        let became = async |what: &str, wanted: &(u64, [u64; 2], [usize; 2])| {
            let deadline = Instant::now() + PATIENCE;
            while fill().await != *wanted {
                assert!(Instant::now() < deadline, "{what}: {:?}, not {wanted:?}", fill().await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        datapath.set_service(service(1, &[2])).await.unwrap();
        datapath.set_service(service(1, &[1, 2])).await.unwrap();
        became("what a changed service took", &both).await;
        datapath.remove_service(2).await.unwrap();
        // A program that began before may still read them.
        assert_eq!(fill().await.2, both.2);
        became("what a removed service took", &before).await;
    });
}

#[test]
fn what_a_service_took_is_given_back_after_the_data_path_is_opened_again() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        datapath.set_service(service(1, &[1, 2])).await.unwrap();
        datapath.remove_service(1).await.unwrap();
        drop(datapath);
        let _datapath = world.open().await;
        eventually("no backends are left", || {
            world.hash::<u32, Backend<Address4>>(name::BACKEND_V4).keys().count() == 0
                && world.hash::<u32, Backend<Address6>>(name::BACKEND_V6).keys().count() == 0
        });
    });
}
