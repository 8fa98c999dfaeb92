//! Services and published ports whose endpoints are on another node, for clients that no socket hook sees.

use crate::{
    cluster::{far_server, joined, near, talk},
    talk::datagrams,
    world::{
        NODE_V4, NODE_V6, OUTSIDE_V4, OtherNode, PATIENCE, Place, World, far_replica, in_a_world, ip,
        replica, service,
    },
};
use hivemind_datapath::{BackendSpec, Datapath, DropReason, Protocol, PublishedPort, Routing, ServiceSpec};
use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// A port at which nobody answers.
const SILENT: u16 = 9;
/// Longer than a packet between machines may be.
const LONG: usize = 4_000;
/// As long as Ethernet has room for, and longer than the overlay has.
const FULL: usize = 1_500;

/// A service in front of the other node's first replica, published at port 80 and, where nobody answers, at 9.
fn web() -> ServiceSpec {
    let spec = far_replica(1);
    let port = |host_port, protocol| PublishedPort { host_port, protocol, target_port: host_port };
    ServiceSpec {
        backends: vec![BackendSpec { ipv4: spec.ipv4, ipv6: spec.ipv6, weight: 1 }],
        published: vec![
            port(80, Protocol::Tcp),
            port(80, Protocol::Udp),
            port(SILENT, Protocol::Udp),
            port(SILENT, Protocol::Tcp),
        ],
        ..service(1, &[])
    }
}

fn served() -> [IpAddr; 2] {
    [web().address_v4.into(), web().address_v6.into()]
}

/// Where the clients of [`World::client`] find the node.
fn published() -> [IpAddr; 2] {
    ["198.51.100.1".parse().unwrap(), "2001:db8:1::1".parse().unwrap()]
}

/// Sends a long datagram, which is cut on its way, until it comes back: pieces of IPv6 that are too long for the rest of the way
/// are not cut again, but their sender is told.
fn ask_in_pieces(to: [IpAddr; 2]) {
    for address in to {
        let socket = datagrams(address);
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket.connect((address, 80)).unwrap();
        let sent = vec![7; LONG];
        let deadline = Instant::now() + PATIENCE;
        let mut answer = [0; 2 * LONG];
        let count = loop {
            assert!(Instant::now() < deadline, "{address}: neither an answer nor an error that helps");
            if socket.send(&sent).is_ok()
                && let Ok(count) = socket.recv(&mut answer)
            {
                break count;
            }
        };
        assert_eq!(answer[1..count], sent, "{address}");
    }
}

/// Nobody answers at [`SILENT`], and the other node's replica says so in the name of whom was asked.
fn is_refused(to: [IpAddr; 2]) {
    for address in to {
        let target = SocketAddr::new(address, SILENT);
        let error = TcpStream::connect_timeout(&target, PATIENCE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{target}: {error}");
        let socket = datagrams(address);
        // A hook says so at once.
        let answer = socket.connect(target).and_then(|()| {
            socket.send(b"x")?;
            socket.recv(&mut [0; 16])
        });
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{target}: {error}");
    }
}

/// Sends datagrams that fill Ethernet, and are not to be cut on their way, until the kernel has been told how long they may be
/// and cuts them itself.
fn learns_how_long(to: [IpAddr; 2]) {
    for address in to {
        let socket = datagrams(address);
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        socket.connect((address, 80)).unwrap();
        let sent = vec![7; FULL - if address.is_ipv4() { 28 } else { 48 }];
        let deadline = Instant::now() + PATIENCE;
        let mut answer = [0; 2 * FULL];
        loop {
            assert!(Instant::now() < deadline, "{address}: neither an answer nor an error that helps");
            // It is refused while the kernel learns.
            if socket.send(&sent).is_ok()
                && let Ok(count) = socket.recv(&mut answer)
            {
                assert_eq!(answer[1..count], sent);
                break;
            }
        }
    }
}

async fn assert_nothing_dropped(datapaths: [&Datapath; 2], but: &[DropReason]) {
    for datapath in datapaths {
        let drops = datapath.statistics().await.unwrap().drops;
        let lost = drops.iter().filter(|drop| {
            // Kernels ask their neighbours who else listens to what.
            drop.packets > 0 && drop.reason != DropReason::NotUnicast && !but.contains(&drop.reason)
        });
        assert_eq!(lost.count(), 0, "{drops:?}");
    }
}

/// Both nodes with the service, in front of the other one's replica.
async fn serving(world: &World, routing: Routing) -> (Datapath, OtherNode) {
    let (datapath, other) = joined(world, routing).await;
    far_server(&other, 1).await;
    datapath.set_service(web()).await.unwrap();
    other.datapath.set_service(ServiceSpec { published: Vec::new(), ..web() }).await.unwrap();
    (datapath, other)
}

#[test]
fn whom_no_hook_sees_reaches_a_service_whose_endpoint_is_elsewhere() {
    for routing in [Routing::Overlay, Routing::Direct] {
        in_a_world(async move |world| {
            let neighbour = world.client();
            let (datapath, other) = serving(world, routing).await;
            let client = datapath.ensure_endpoint(replica(1)).await.unwrap();
            let work = || {
                talk(served(), 1);
                ask_in_pieces(served());
                is_refused(served());
            };
            world.run_unseen(Place::In(&client), work).join().unwrap();
            world.run_unseen(Place::OnNode, work).join().unwrap();
            // Another network on the node, such as another container engine's.
            neighbour.run(work).join().unwrap();
            // Of what was too long the last piece was not.
            assert_nothing_dropped([&datapath, &other.datapath], &[DropReason::LostFragment]).await;
        });
    }
}

#[test]
fn a_published_port_whose_only_endpoint_is_elsewhere_answers_the_outside() {
    for routing in [Routing::Overlay, Routing::Direct] {
        in_a_world(async move |world| {
            let outside = world.client();
            let (datapath, other) = serving(world, routing).await;
            datapath.refresh_node_addresses().await.unwrap();
            outside
                .run(|| {
                    talk(published(), 1);
                    ask_in_pieces(published());
                    is_refused(published());
                })
                .join()
                .unwrap();
            // As above.
            assert_nothing_dropped([&datapath, &other.datapath], &[DropReason::LostFragment]).await;
        });
    }
}

#[test]
fn who_sends_more_than_the_way_to_another_node_takes_is_told() {
    for routing in [Routing::Overlay, Routing::Direct] {
        in_a_world(async move |world| {
            let outside = world.client();
            let (datapath, other) = serving(world, routing).await;
            datapath.refresh_node_addresses().await.unwrap();
            // Narrower than what the sender's own interfaces have.
            ip(&format!("route add {OUTSIDE_V4}/32 dev up0 mtu 1400"));
            datapath.set_cluster(Some(near(routing))).await.unwrap();
            let client = datapath.ensure_endpoint(replica(1)).await.unwrap();
            world.run_unseen(Place::In(&client), || learns_how_long(served())).join().unwrap();
            outside.run(|| learns_how_long(published())).join().unwrap();
            outside.run(|| learns_how_long(served())).join().unwrap();
            world.run_unseen(Place::OnNode, || learns_how_long(served())).join().unwrap();
            drop(other);
        });
    }
}

#[test]
fn a_service_without_endpoints_refuses_on_every_node() {
    in_a_world(async |world| {
        let (datapath, other) = joined(world, Routing::Overlay).await;
        let empty = service(1, &[]);
        let to = [IpAddr::from(empty.address_v4), empty.address_v6.into()];
        datapath.set_service(empty.clone()).await.unwrap();
        other.datapath.set_service(empty).await.unwrap();
        let near = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let far = other.datapath.ensure_endpoint(far_replica(1)).await.unwrap();
        for (world, endpoint) in [(world, &near), (&other.world, &far)] {
            for place in [Place::In(endpoint), Place::OnNode] {
                world.run_unseen(place, move || is_refused(to)).join().unwrap();
            }
            world.run(Place::In(endpoint), move || is_refused(to)).join().unwrap();
        }
    });
}

#[test]
fn a_replica_meets_itself_by_its_service_and_by_the_port_that_another_node_publishes() {
    for routing in [Routing::Overlay, Routing::Direct] {
        in_a_world(async move |world| {
            let (datapath, other) = serving(world, routing).await;
            let itself = far_server_at(&other);
            other.world.run_unseen(Place::In(&itself), || talk(served(), 1)).join().unwrap();
            // Out by its own node, in by the other one, and back.
            let node = [IpAddr::V4(NODE_V4), NODE_V6.into()];
            other.world.run_unseen(Place::In(&itself), move || talk(node, 1)).join().unwrap();
            // The node that it is on asks by the other one, too.
            other.world.run_unseen(Place::OnNode, move || talk(node, 1)).join().unwrap();
            assert_nothing_dropped([&datapath, &other.datapath], &[]).await;
        });
    }
}

/// The endpoint that [`far_server`] has made.
fn far_server_at(other: &OtherNode) -> hivemind_datapath::Endpoint {
    let spec = far_replica(1);
    other.datapath.endpoints().into_iter().find(|info| info.spec.id == spec.id).unwrap().endpoint
}
