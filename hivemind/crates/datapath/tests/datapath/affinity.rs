//! Services that remember which endpoint a client had.

use crate::{
    services::servers,
    talk::{ask, connect, datagrams_from},
    world::{
        NODE_V4, NODE_V6, OUTSIDE_V4, OUTSIDE_V6, Place, World, backend, eventually, in_a_world, replica,
        service,
    },
};
use hivemind_common::{
    name,
    service::{Affinity, AffinityKey},
};
use hivemind_datapath::{BackendSpec, Endpoint, Protocol, PublishedPort, ServiceSpec};
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::atomic::{AtomicU16, Ordering},
};

const HOURS_S: u32 = 3 * 3600;
/// Shorter than any machine has been up, and longer than a few connections take.
const SHORT_S: u32 = 5;
const SECOND_NS: u64 = 1_000_000_000;
/// Draws among three endpoints, all of which give the same one once in 10^9 times.
const DRAWS: usize = 20;

fn sticky(backends: &[u8]) -> ServiceSpec {
    ServiceSpec { affinity_s: NonZeroU32::new(HOURS_S), ..service(1, backends) }
}

/// The next port from which nobody has sent: a flow stays with its endpoint for as long as it is known, and those that the kernel
/// draws come up again.
fn new_port() -> u16 {
    static PORT: AtomicU16 = AtomicU16::new(10_000);
    PORT.fetch_add(1, Ordering::Relaxed)
}

/// Asks once by TCP and once by UDP at each address; returns who answered.
fn asked(addresses: [IpAddr; 2]) -> [HashSet<u8>; 2] {
    addresses.map(|address| {
        let target = SocketAddr::new(address, 80);
        HashSet::from([
            connect(target).unwrap().1,
            ask(&datagrams_from(address, new_port()), target).unwrap().0,
        ])
    })
}

fn of_service() -> [IpAddr; 2] {
    let spec = service(1, &[]);
    [spec.address_v4.into(), spec.address_v6.into()]
}

fn asked_by(world: &World, place: Place<'_>, sees: bool) -> [HashSet<u8>; 2] {
    let work = || asked(of_service());
    if sees { world.run(place, work) } else { world.run_unseen(place, work) }.join().unwrap()
}

/// The only one of them.
fn one(answered: &HashSet<u8>) -> u8 {
    assert_eq!(answered.len(), 1, "{answered:?}");
    *answered.iter().next().unwrap()
}

/// The same with a time that a test can let pass.
fn briefly_sticky(backends: &[u8]) -> ServiceSpec {
    ServiceSpec { affinity_s: NonZeroU32::new(SHORT_S), ..service(1, backends) }
}

fn remembered(world: &World) -> HashMap<AffinityKey, Affinity> {
    world.hash::<AffinityKey, Affinity>(name::AFFINITY).iter().map(Result::unwrap).collect()
}

/// Lets the short time pass for what is remembered: it is made older than it is.
fn age(world: &World) {
    let all = remembered(world);
    assert!(!all.is_empty());
    let mut map = world.hash::<AffinityKey, Affinity>(name::AFFINITY);
    for (key, value) in all {
        let used_ns = value.used_ns.checked_sub(u64::from(SHORT_S) * SECOND_NS).unwrap();
        map.insert(key, Affinity { used_ns, ..value }, 0).unwrap();
    }
}

#[test]
fn a_replica_gets_the_endpoint_that_it_had_in_both_families_until_it_stayed_away_too_long() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[1, 2, 3]).await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        datapath.set_service(sticky(&[1, 2, 3])).await.unwrap();
        let ask = || {
            let [v4, v6] = asked_by(world, Place::In(&client), true);
            // The client is the namespace, not an address: it is the same one in both families.
            assert_eq!(v4, v6);
            one(&v4)
        };
        let first = ask();
        assert!((0..DRAWS).all(|_| ask() == first));
        // It is counted from the last connection.
        let before = remembered(world);
        // The programs' clock has ticks of some milliseconds.
        eventually("the last connection counts", || {
            assert_eq!(ask(), first);
            let after = remembered(world);
            before.iter().all(|(client, seen)| after[client].used_ns > seen.used_ns)
        });
        // What has passed counts by the time that the service says now.
        age(world);
        assert_eq!(ask(), first);
        datapath.set_service(briefly_sticky(&[1, 2, 3])).await.unwrap();
        let drawn = (0..DRAWS).map(|_| {
            age(world);
            ask()
        });
        assert!(drawn.collect::<HashSet<_>>().len() > 1, "it is remembered for longer than it should be");
    });
}

#[test]
fn who_sends_packets_gets_the_endpoint_that_its_address_had() {
    in_a_world(async |world| {
        let outside = world.outside();
        let datapath = world.open().await;
        servers(world, &datapath, &[1, 2, 3]).await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        let published = [Protocol::Tcp, Protocol::Udp].map(|protocol| PublishedPort {
            host_port: 80,
            protocol,
            target_port: 80,
        });
        datapath
            .set_service(ServiceSpec { published: published.to_vec(), ..sticky(&[1, 2, 3]) })
            .await
            .unwrap();
        let by_replica = || asked_by(world, Place::In(&client), false).map(|answered| one(&answered));
        let by_outside = || {
            let asked = outside.run(|| asked([NODE_V4.into(), NODE_V6.into()])).join().unwrap();
            asked.map(|answered| one(&answered))
        };
        let first = (by_replica(), by_outside());
        assert!((0..DRAWS).all(|_| (by_replica(), by_outside()) == first));
        let clients: HashSet<_> = remembered(world).into_keys().collect();
        let known = |address: [u32; 4], family| AffinityKey { client: address, service: 1, family };
        let expected = [
            (replica(9).ipv4.into(), 4),
            (replica(9).ipv6.into(), 6),
            (IpAddr::V4(OUTSIDE_V4), 4),
            (IpAddr::V6(OUTSIDE_V6), 6),
        ];
        assert_eq!(clients, expected.map(|(address, family)| known(words(address), family)).into());
        datapath
            .set_service(ServiceSpec { published: published.to_vec(), ..briefly_sticky(&[1, 2, 3]) })
            .await
            .unwrap();
        let drawn = (0..DRAWS).map(|_| {
            age(world);
            (by_replica(), by_outside())
        });
        assert!(drawn.collect::<HashSet<_>>().len() > 1, "it is remembered for longer than it should be");
    });
}

/// An address as the programs keep it.
fn words(address: IpAddr) -> [u32; 4] {
    use hivemind_common::family::{Address, Address4, Address6};
    match address {
        IpAddr::V4(address) => Address4::from_octets(address.octets()).words(),
        IpAddr::V6(address) => Address6::from_octets(address.octets()).words(),
    }
}

#[test]
fn a_client_goes_elsewhere_when_its_endpoint_leaves_and_stays_there() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[1, 2, 3]).await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        for sees in [true, false] {
            datapath.set_service(sticky(&[1, 2, 3])).await.unwrap();
            let ask = || asked_by(world, Place::In(&client), sees).map(|answered| one(&answered));
            let first = ask();
            let left: Vec<u8> = [1, 2, 3].into_iter().filter(|number| !first.contains(number)).collect();
            datapath.set_service(sticky(&left)).await.unwrap();
            let second = ask();
            assert!(second.iter().all(|number| left.contains(number)));
            assert!((0..DRAWS).all(|_| ask() == second));
            // Who was there before has no claim.
            datapath.set_service(sticky(&[1, 2, 3])).await.unwrap();
            assert!((0..DRAWS).all(|_| ask() == second));
        }
    });
}

#[test]
fn what_is_remembered_outlives_the_daemon_and_a_change_of_the_service() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[1, 2, 3]).await;
        let client = datapath.ensure_endpoint(replica(9)).await.unwrap();
        datapath.set_service(sticky(&[1, 2, 3])).await.unwrap();
        let ask = || asked_by(world, Place::In(&client), true).map(|answered| one(&answered));
        let first = ask();
        drop(datapath);
        assert_eq!(ask(), first);
        let datapath = world.open().await;
        assert_eq!(datapath.services(), [sticky(&[1, 2, 3])]);
        assert!((0..DRAWS).all(|_| ask() == first));
        let mut heavier = sticky(&[1, 2, 3]);
        heavier.backends = [1, 2, 3].map(|number| BackendSpec { weight: 7, ..backend(number) }).into();
        datapath.set_service(heavier).await.unwrap();
        assert!((0..DRAWS).all(|_| ask() == first));
        // Without it, nothing is remembered.
        datapath.set_service(service(1, &[1, 2, 3])).await.unwrap();
        let drawn: HashSet<_> = (0..DRAWS).map(|_| asked_by_sockets(world, &client)).collect();
        assert!(drawn.len() > 1);
    });
}

/// Who answered a connection.
fn asked_by_sockets(world: &World, client: &Endpoint) -> u8 {
    world.run(Place::In(client), || connect(SocketAddr::new(of_service()[0], 80)).unwrap().1).join().unwrap()
}
