use crate::{
    talk::{ask, serve_udp},
    world::{Place, admit_all, eventually, in_a_world, replica},
};
use hivemind_common::{
    conntrack::{Entry, Key},
    family::Address4,
    name,
};
use hivemind_datapath::{DropReason, Whose};
use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

#[test]
fn expired_connections_are_collected_while_no_daemon_runs() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let b = datapath.ensure_endpoint(replica(2)).await.unwrap();
        let target: SocketAddr = "10.200.1.2:9".parse().unwrap();
        world.run(Place::In(&b), move || serve_udp(target, 2)).join().unwrap();
        world
            .run(Place::In(&a), move || {
                for _ in 0..2 {
                    let socket = UdpSocket::bind("10.200.1.1:0").unwrap();
                    ask(&socket, target).unwrap();
                }
            })
            .join()
            .unwrap();
        drop(datapath);
        let mut connections = world.hash::<Key<Address4>, Entry>(name::CONNTRACK_V4);
        let found: Vec<_> = connections.iter().map(Result::unwrap).collect();
        assert_eq!(found.len(), 2);
        let (expired, mut entry) = found[0];
        entry.expires_ns = 1;
        connections.insert(expired, entry, 0).unwrap();
        eventually("the expired connection is gone", || connections.get(&expired, 0).is_err());
        assert!(connections.get(&found[1].0, 0).is_ok(), "a live connection was collected too");
    });
}

#[test]
fn a_full_table_refuses_new_flows_and_keeps_the_old_ones() {
    in_a_world(async |world| {
        let mut config = world.config.clone();
        config.sizes.conntrack = 16;
        let datapath = hivemind_datapath::Datapath::open(config).await.unwrap();
        admit_all(&datapath).await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let b = datapath.ensure_endpoint(replica(2)).await.unwrap();
        let target: SocketAddr = "10.200.1.2:9".parse().unwrap();
        world.run(Place::In(&b), move || serve_udp(target, 2)).join().unwrap();
        let (first, _others) = world
            .run(Place::In(&a), move || {
                let first = UdpSocket::bind("10.200.1.1:0").unwrap();
                first.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                ask(&first, target).unwrap();
                // Kept open: an answer to a closed one would be a flow of its own, an ICMP error.
                let others: Vec<_> = (0..60).map(|_| UdpSocket::bind("10.200.1.1:0").unwrap()).collect();
                for other in &others {
                    other.send_to(b"x", target).unwrap();
                }
                (first, others)
            })
            .join()
            .unwrap();
        let statistics = datapath.statistics().await.unwrap();
        let fill = statistics.map(name::CONNTRACK_V4).unwrap();
        assert!(fill.capacity == 16 && fill.entries <= 16, "{fill:?}");
        assert_eq!(statistics.dropped(DropReason::ConntrackFull) + fill.entries, 61);
        assert_eq!(ask(&first, target).unwrap().0, 2);
        // Whose they are: the one that asked has them all, and the one that was asked.
        let uses = datapath.heaviest(5).await.unwrap();
        let named: Vec<_> = uses.iter().map(|found| (&found.whose, found.connections)).collect();
        let [a_id, b_id] = [1, 2].map(|n| Whose::Endpoint(replica(n).id));
        assert_eq!(named, [(&a_id, fill.entries), (&b_id, fill.entries)]);
        assert_eq!(datapath.heaviest(1).await.unwrap().len(), 1);
        // Room is made as soon as something expires, without anybody's help.
        let mut connections = world.hash::<Key<Address4>, Entry>(name::CONNTRACK_V4);
        let kept = first.local_addr().unwrap().port().to_be();
        let found: Vec<_> = connections.iter().map(Result::unwrap).collect();
        for (key, mut entry) in found {
            if !key.ports.contains(&kept) {
                entry.expires_ns = 1;
                connections.insert(key, entry, 0).unwrap();
            }
        }
        let again = world.run(Place::In(&a), move || {
            let socket = UdpSocket::bind("10.200.1.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            eventually("a new flow is accepted", || ask(&socket, target).is_ok());
        });
        again.join().unwrap();
    });
}
