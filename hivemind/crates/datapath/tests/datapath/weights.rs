//! Shares of connections, observed and judged by Pearson's chi-square test.

use crate::{
    services::servers,
    talk::{ask, connect},
    world::{PATIENCE, Place, World, admit_all, in_a_world, replica, service},
};
use hivemind_datapath::{Config, Datapath, MapSizes, ServiceSpec};
use std::net::{SocketAddr, UdpSocket};

/// Weights of the three endpoints.
const WEIGHTS: [u16; 3] = [1, 2, 5];
/// Weights by which the heaviest gets nine tenths of what it should.
const OFF_BY_A_TENTH: [u16; 3] = [7, 14, 27];
/// Connections that are observed at a time. Shares that are off as above make for a statistic of 169 ± 26, five deviations
/// above the limit.
const CONNECTIONS: u16 = 10_000;
/// Three shares have two degrees of freedom, for which the statistic exceeds x with a probability of exp(-x/2): this much
/// once in a million times.
const LIMIT: f64 = 27.631;

fn statistic(counts: [u32; 3]) -> f64 {
    let (total, sum) = (f64::from(counts.iter().sum::<u32>()), f64::from(WEIGHTS.iter().sum::<u16>()));
    let expected = WEIGHTS.map(|weight| total * f64::from(weight) / sum);
    counts
        .into_iter()
        .zip(expected)
        .map(|(count, expected)| (f64::from(count) - expected).powi(2) / expected)
        .sum()
}

fn weighted(weights: [u16; 3]) -> ServiceSpec {
    let mut spec = service(1, &[1, 2, 3]);
    spec.backends.iter_mut().zip(weights).for_each(|(backend, weight)| backend.weight = weight);
    spec
}

/// A data path with room for all connections, three servers, and the service with these weights.
async fn serving(world: &World, weights: [u16; 3]) -> Datapath {
    let sizes = MapSizes { conntrack: 65_536, translations: 65_536, ..world.config.sizes };
    let datapath = Datapath::open(Config { sizes, ..world.config.clone() }).await.unwrap();
    admit_all(&datapath).await;
    servers(world, &datapath, &[1, 2, 3]).await;
    datapath.set_service(weighted(weights)).await.unwrap();
    datapath
}

async fn by_sockets(world: &World, weights: [u16; 3]) -> [u32; 3] {
    let datapath = serving(world, weights).await;
    let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
    let count = || {
        let mut counts = [0; 3];
        for _ in 0..CONNECTIONS {
            let (_, name) = connect("10.204.0.1:80".parse().unwrap()).unwrap();
            counts[usize::from(name) - 1] += 1;
        }
        counts
    };
    world.run(Place::In(&client), count).join().unwrap()
}

/// By datagrams, each from a port of its own.
async fn by_packets(world: &World, weights: [u16; 3]) -> [u32; 3] {
    let datapath = serving(world, weights).await;
    let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
    let count = || {
        let mut counts = [0; 3];
        for port in 0..CONNECTIONS {
            let own: SocketAddr = ([0_u16; 8], 10_000 + port).into();
            let socket = UdpSocket::bind(own).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let (name, _) = ask(&socket, "[fd00:2::1]:80".parse().unwrap()).unwrap();
            counts[usize::from(name) - 1] += 1;
        }
        counts
    };
    world.run_unseen(Place::In(&client), count).join().unwrap()
}

#[test]
fn connections_of_sockets_are_shared_by_weight() {
    in_a_world(async |world| {
        let counts = by_sockets(world, WEIGHTS).await;
        assert!(statistic(counts) < LIMIT, "{counts:?}: {}", statistic(counts));
    });
}

#[test]
fn shares_of_sockets_that_are_off_by_a_tenth_are_noticed() {
    in_a_world(async |world| {
        let counts = by_sockets(world, OFF_BY_A_TENTH).await;
        assert!(statistic(counts) > LIMIT, "{counts:?}: {}", statistic(counts));
    });
}

#[test]
fn connections_that_no_hook_sees_are_shared_by_weight() {
    in_a_world(async |world| {
        let counts = by_packets(world, WEIGHTS).await;
        assert!(statistic(counts) < LIMIT, "{counts:?}: {}", statistic(counts));
    });
}

#[test]
fn shares_of_packets_that_are_off_by_a_tenth_are_noticed() {
    in_a_world(async |world| {
        let counts = by_packets(world, OFF_BY_A_TENTH).await;
        assert!(statistic(counts) > LIMIT, "{counts:?}: {}", statistic(counts));
    });
}

#[test]
fn an_endpoint_without_weight_gets_no_connection_of_either_kind() {
    in_a_world(async |world| {
        let counts = by_sockets(world, [1, 0, 1]).await;
        assert_eq!(counts[1], 0, "{counts:?}");
    });
    in_a_world(async |world| {
        let counts = by_packets(world, [1, 0, 1]).await;
        assert_eq!(counts[1], 0, "{counts:?}");
    });
}
