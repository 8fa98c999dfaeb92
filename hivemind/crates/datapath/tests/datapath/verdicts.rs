use crate::{
    policies::{RULE, closed, letting_in, reached, set},
    services::servers,
    talk::{ask, serve_udp},
    world::{PATIENCE, Place, addresses, in_a_world, replica},
};
use hivemind_common::{
    packet::TCP,
    policy::{ALLOW, PolicyEntry, rule_number},
};
use hivemind_datapath::{Datapath, VerdictStatistics};
use hivemind_policy::{TableEntry, Transport};
use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
    thread,
};

const DEFAULT: u32 = rule_number(3, 0, None);

async fn counted(datapath: &Datapath) -> Vec<(Option<u32>, bool, u64)> {
    let told = |verdict: VerdictStatistics| (verdict.rule, verdict.allowed, verdict.connections);
    datapath.statistics().await.unwrap().verdicts.into_iter().map(told).collect()
}

fn with_others(own: &[(u32, bool, u64)]) -> Vec<(Option<u32>, bool, u64)> {
    let own = own.iter().map(|&(rule, allowed, connections)| (Some(rule), allowed, connections));
    own.chain([(None, false, 0), (None, true, 0)]).collect()
}

#[test]
fn what_rules_decided_is_kept_over_daemons_and_forgotten_with_the_policy() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[2]).await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let c = datapath.ensure_endpoint(replica(3)).await.unwrap();
        assert_eq!(counted(&datapath).await, with_others(&[]));
        set(&datapath, 2, letting_in(replica(1).identity, 80)).await;
        let nothing = with_others(&[(DEFAULT, false, 0), (RULE, true, 0)]);
        assert_eq!(counted(&datapath).await, nothing, "rules in force that decided nothing are told");
        let to: Vec<SocketAddr> =
            addresses(&replica(2)).into_iter().map(|address| (address, 80).into()).collect();
        assert_eq!(reached(world, &a, to.clone()), [true; 2]);
        assert_eq!(reached(world, &c, to.clone()), [false; 2]);
        drop(datapath);
        assert_eq!(reached(world, &a, to.clone()), [true; 2]);
        let datapath = Datapath::open(world.config.clone()).await.unwrap();
        assert_eq!(counted(&datapath).await, with_others(&[(DEFAULT, false, 2), (RULE, true, 4)]));
        datapath.forget_verdicts(BTreeSet::from([2, 4])).await.unwrap();
        assert_eq!(counted(&datapath).await, with_others(&[(DEFAULT, false, 2), (RULE, true, 4)]));
        datapath.forget_verdicts(BTreeSet::from([3])).await.unwrap();
        assert_eq!(counted(&datapath).await, nothing);
        assert_eq!(reached(world, &a, to), [true; 2]);
        assert_eq!(counted(&datapath).await, with_others(&[(DEFAULT, false, 0), (RULE, true, 2)]));
    });
}

#[test]
fn no_verdict_is_lost_when_processors_count_for_the_same_rule_at_once() {
    const THREADS: u16 = 4;
    const EACH: u16 = 250;
    in_a_world(async |world| {
        let datapath = world.open().await;
        let made = servers(world, &datapath, &[2]).await;
        let to: SocketAddr = (addresses(&replica(2))[0], 53).into();
        world.run(Place::In(&made[0]), move || serve_udp(to, 2)).join().unwrap();
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let mut tables = closed(0);
        let value = PolicyEntry { rule: RULE, precedence: 1, verdict: ALLOW, ..PolicyEntry::default() };
        tables.entries.push(TableEntry { peer: replica(1).identity, transport: Transport::Any, value });
        tables.entries.sort_by_key(|entry| (entry.peer, entry.transport));
        set(&datapath, 2, tables).await;
        let many = move || {
            thread::scope(|scope| {
                for thread in 0..THREADS {
                    scope.spawn(move || {
                        // From a port of its own, each is a connection of its own.
                        for port in 0..EACH {
                            let socket = UdpSocket::bind(("0.0.0.0", 20_000 + thread * EACH + port)).unwrap();
                            socket.set_read_timeout(Some(PATIENCE)).unwrap();
                            assert_eq!(ask(&socket, to).unwrap().0, 2);
                        }
                    });
                }
            });
        };
        // A thread of the scope is in the network of the one that made it.
        world.run(Place::In(&a), many).join().unwrap();
        let expected = with_others(&[(DEFAULT, false, 0), (RULE, true, u64::from(THREADS * EACH))]);
        assert_eq!(counted(&datapath).await, expected);
    });
}

#[test]
fn more_rules_than_there_is_room_for_count_together() {
    // As many as fit, and ten.
    const RULES: u32 = 74;
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[2]).await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let mut tables = closed(0);
        for index in 0..RULES {
            let rule = rule_number(3, 0, Some(index));
            let value = PolicyEntry { rule, precedence: 1, verdict: ALLOW, ..PolicyEntry::default() };
            let transport = Transport::Ports { protocol: TCP, port: 1_000 + index as u16, bits: 16 };
            tables.entries.push(TableEntry { peer: replica(1).identity, transport, value });
        }
        tables.entries.sort_by_key(|entry| (entry.peer, entry.transport));
        set(&datapath, 2, tables).await;
        let address = addresses(&replica(2))[0];
        // Nobody listens there: each is allowed, and refused by the replica itself.
        reached(world, &a, (0..RULES as u16).map(|index| (address, 1_000 + index).into()).collect());
        let counted = counted(&datapath).await;
        let sum: u64 =
            counted.iter().filter(|(_, allowed, _)| *allowed).map(|(.., connections)| connections).sum();
        assert_eq!(sum, u64::from(RULES));
        assert_eq!(counted.last(), Some(&(None, true, 10)));
        let map = datapath.statistics().await.unwrap();
        let map = map.map("verdicts").unwrap();
        assert_eq!((map.entries, map.capacity), (66, 66));
    });
}
