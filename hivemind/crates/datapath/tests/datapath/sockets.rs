//! What becomes of sockets when the endpoint at their other end leaves.

use crate::{
    cluster::{far_server, joined},
    services::servers,
    talk::{ask, connect, datagrams, echo},
    world::{PATIENCE, Place, addresses, far_replica, in_a_world, replica, service},
};
use hivemind_datapath::{BackendSpec, Protocol, PublishedPort, Routing, ServiceSpec};
use std::{
    io::{self, ErrorKind, Read},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    time::{Duration, Instant},
};

/// How soon a client of an endpoint that left is with another.
const SOON: Duration = Duration::from_secs(1);

fn both(spec: &ServiceSpec) -> [IpAddr; 2] {
    [spec.address_v4.into(), spec.address_v6.into()]
}

/// One request of a connected socket.
fn request(socket: &UdpSocket) -> io::Result<u8> {
    socket.send(b"x")?;
    let mut answer = [0; 2];
    socket.recv(&mut answer)?;
    Ok(answer[0])
}

/// A client that asks without pause over one connected socket, and connects another after an error, until nobody listens.
/// Tells who answered, or what went wrong.
fn keep_asking(target: SocketAddr, told: &mpsc::SyncSender<Result<u8, i32>>) {
    let open = || {
        let socket = datagrams(target.ip());
        socket.connect(target).unwrap();
        socket
    };
    let mut socket = open();
    loop {
        let answer = request(&socket).map_err(|error| error.raw_os_error().unwrap());
        if answer.is_err() {
            socket = open();
        }
        if told.send(answer).is_err() {
            return;
        }
    }
}

#[test]
fn a_connected_udp_client_is_with_another_endpoint_within_a_second_after_one_error() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[1, 2, 3]).await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        let names = service(1, &[1, 2, 3]);
        let mut targets: Vec<_> = both(&names).map(|address| SocketAddr::new(address, 80)).into();
        targets.push("[::ffff:10.204.0.1]:80".parse().unwrap());
        for target in targets {
            for is_on_node in [false, true] {
                datapath.set_service(names.clone()).await.unwrap();
                let place = if is_on_node { Place::OnNode } else { Place::In(&client) };
                let (teller, told) = mpsc::sync_channel(0);
                let asking = world.run(place, move || keep_asking(target, &teller));
                let first = told.recv_timeout(PATIENCE).unwrap().unwrap();
                // The endpoint itself goes on: nothing but its leaving tells the client.
                let left: Vec<u8> = [1, 2, 3].into_iter().filter(|number| *number != first).collect();
                datapath.set_service(service(1, &left)).await.unwrap();
                let since = Instant::now();
                let mut errors = Vec::new();
                let other = loop {
                    match told.recv_timeout(PATIENCE).unwrap() {
                        Ok(number) if number == first => {
                            assert!(since.elapsed() < SOON, "{target}: still with {first}");
                        }
                        Ok(number) => break number,
                        Err(error) => errors.push(error),
                    }
                };
                assert!(since.elapsed() < SOON, "{target}: {:?}", since.elapsed());
                assert!(left.contains(&other));
                // The second of a socket that had been disconnected, but not yet told why, when it sent.
                let expected = [libc::ECONNABORTED, libc::EDESTADDRREQ];
                assert!(errors.len() == 1 && expected.contains(&errors[0]), "{target}: {errors:?}");
                // It stays there.
                assert!((0..20).all(|_| told.recv_timeout(PATIENCE).unwrap() == Ok(other)));
                drop(told);
                asking.join().unwrap();
            }
        }
    });
}

#[test]
fn a_client_of_a_published_port_on_the_node_is_told_as_well() {
    in_a_world(async |world| {
        let _outside = world.outside();
        let datapath = world.open().await;
        servers(world, &datapath, &[1, 2]).await;
        let published = vec![PublishedPort { host_port: 8080, protocol: Protocol::Udp, target_port: 80 }];
        datapath.set_service(ServiceSpec { published: published.clone(), ..service(1, &[1]) }).await.unwrap();
        let open = || {
            ["127.0.0.1:8080", "[::1]:8080", "192.0.2.1:8080", "[2001:db8::1]:8080"].map(|target| {
                let target: SocketAddr = target.parse().unwrap();
                let socket = datagrams(target.ip());
                socket.connect(target).unwrap();
                assert_eq!(request(&socket).unwrap(), 1);
                socket
            })
        };
        let sockets = world.run(Place::OnNode, open).join().unwrap();
        datapath.set_service(ServiceSpec { published, ..service(1, &[2]) }).await.unwrap();
        for socket in sockets {
            let ended = socket.recv(&mut [0; 2]).unwrap_err();
            assert_eq!(ended.kind(), ErrorKind::ConnectionAborted);
        }
    });
}

#[test]
fn sockets_that_the_leaving_does_not_concern_are_left_alone() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[1, 2]).await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        datapath.set_service(service(1, &[1])).await.unwrap();
        datapath.set_service(service(2, &[1])).await.unwrap();
        let connected = |target: SocketAddr| {
            let open = move || {
                let socket = datagrams(target.ip());
                socket.connect(target).unwrap();
                assert_eq!(request(&socket).unwrap(), 1);
                socket
            };
            world.run(Place::In(&client), open).join().unwrap()
        };
        let served = connected("10.204.0.1:80".parse().unwrap());
        // To the endpoint itself; for another service; of TCP; and not connected.
        let direct = connected("10.200.1.1:80".parse().unwrap());
        let other = connected("10.204.0.2:80".parse().unwrap());
        let loose = datagrams("10.204.0.1".parse().unwrap());
        let open = || connect("10.204.0.1:80".parse().unwrap()).unwrap().0;
        let mut stream = world.run(Place::In(&client), open).join().unwrap();
        datapath.set_service(service(1, &[2])).await.unwrap();
        let ended = served.recv(&mut [0; 2]).unwrap_err();
        assert_eq!(ended.kind(), ErrorKind::ConnectionAborted);
        assert_eq!(request(&direct).unwrap(), 1);
        assert_eq!(request(&other).unwrap(), 1);
        assert_eq!(echo(&mut stream).unwrap(), 1);
        let asked = world.run(Place::In(&client), move || {
            drop(loose);
            ask(&datagrams("10.204.0.1".parse().unwrap()), "10.204.0.1:80".parse().unwrap()).unwrap().0
        });
        assert_eq!(asked.join().unwrap(), 2);
    });
}

/// Waits for the end of a connection.
fn end_of(mut stream: TcpStream) -> ErrorKind {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read(&mut [0; 1]).map(|count| panic!("{count} bytes of nobody")).unwrap_err().kind()
}

#[test]
fn tcp_goes_on_with_an_endpoint_that_left_and_ends_when_it_is_taken_down() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[1, 2]).await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        let web = service(1, &[1]);
        datapath.set_service(web.clone()).await.unwrap();
        let mut targets: Vec<_> = both(&web).map(|address| SocketAddr::new(address, 80)).into();
        targets.extend(addresses(&replica(1)).map(|address| SocketAddr::new(address, 80)));
        targets.push("[::ffff:10.204.0.1]:80".parse().unwrap());
        let open = move || targets.into_iter().map(|to| connect(to).unwrap().0).collect::<Vec<_>>();
        let mut streams = world.run(Place::In(&client), open.clone()).join().unwrap();
        streams.extend(world.run(Place::OnNode, open.clone()).join().unwrap());
        streams.extend(world.run_unseen(Place::In(&client), open.clone()).join().unwrap());
        streams.extend(world.run_unseen(Place::OnNode, open).join().unwrap());
        // Another's connection, which has nothing to do with it.
        let bystander = || connect("10.200.1.2:80".parse().unwrap()).unwrap().0;
        let mut bystander = world.run(Place::In(&client), bystander).join().unwrap();
        datapath.set_service(service(1, &[2])).await.unwrap();
        assert!(streams.iter_mut().all(|stream| echo(stream).unwrap() == 1));
        datapath.remove_endpoint("replica-1").await.unwrap();
        let since = Instant::now();
        for stream in streams {
            let peer = stream.peer_addr();
            assert_eq!(end_of(stream), ErrorKind::ConnectionAborted, "{peer:?}");
        }
        assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
        assert_eq!(echo(&mut bystander).unwrap(), 2);
        let again = || connect("10.204.0.1:80".parse().unwrap()).unwrap().1;
        assert_eq!(world.run(Place::In(&client), again).join().unwrap(), 2);
    });
}

#[test]
fn a_server_goes_on_listening_when_clients_are_taken_down_whose_connections_it_has_closed() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[1]).await;
        let server = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let own = addresses(&replica(1)).map(|address| SocketAddr::new(address, 81));
        let listen = move || own.map(|address| TcpListener::bind(address).unwrap());
        let listeners = world.run(Place::In(&server), listen).join().unwrap();
        for n in [9, 8, 7] {
            let client = datapath.ensure_endpoint(replica(n)).await.unwrap();
            let call = move || own.map(|to| TcpStream::connect_timeout(&to, PATIENCE).unwrap());
            // Closed by the client, then by the server: nothing is left of them but what is remembered on the way.
            drop(world.run(Place::In(&client), call).join().unwrap());
            for listener in &listeners {
                assert_eq!(listener.accept().unwrap().0.read(&mut [0; 1]).unwrap(), 0);
            }
            // The end of one that stands tells when all of this client's have been looked at.
            let _streams = world.run(Place::In(&client), call).join().unwrap();
            let held = listeners.each_ref().map(|listener| listener.accept().unwrap().0);
            datapath.remove_endpoint(&replica(n).id).await.unwrap();
            assert_eq!(held.map(end_of), [ErrorKind::ConnectionAborted; 2]);
        }
    });
}

#[test]
fn connections_with_another_nodes_replica_end_when_that_is_gone() {
    in_a_world(async |world| {
        let (datapath, other) = joined(world, Routing::Overlay).await;
        far_server(&other, 1).await;
        let client = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let spec = far_replica(1);
        let backends = vec![BackendSpec { ipv4: spec.ipv4, ipv6: spec.ipv6, weight: 1 }];
        let web = ServiceSpec { backends, ..service(1, &[]) };
        datapath.set_service(web.clone()).await.unwrap();
        let open = move || both(&web).map(|address| connect((address, 80).into()).unwrap().0);
        let streams = world.run(Place::In(&client), open).join().unwrap();
        datapath.set_remote_endpoints(Vec::new(), vec![(spec.ipv4, spec.ipv6)]).await.unwrap();
        for stream in streams {
            assert_eq!(end_of(stream), ErrorKind::ConnectionAborted);
        }
    });
}
