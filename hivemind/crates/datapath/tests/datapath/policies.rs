use crate::{
    services::servers,
    talk::{ask, connect, datagrams, echo, serve_tcp, serve_udp},
    world::{
        NODE_V4, PATIENCE, Place, World, addresses, admit_all, eventually, in_a_world, replica, service,
    },
};
use aya::maps::{Array, LpmTrie, Map, MapData, lpm_trie::Key};
use hivemind_common::{
    ABI_VERSION, name,
    packet::TCP,
    policy::{ALLOW, ANY_PEER, DENY, EGRESS, PolicyEntry, PolicyKey, rule_number},
};
use hivemind_datapath::{
    Datapath, DropReason, Endpoint, Error, FlowEvent, FlowEvents, FlowItem, FlowKind, Protocol,
    PublishedPort, ServiceSpec,
};
use hivemind_policy::{TableEntry, Tables, Transport};
use std::{
    collections::BTreeSet,
    fs::File,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    sync::Arc,
    time::Duration,
};

/// Long enough for an answer on one machine, short enough to wait for one that never comes.
const SILENCE: Duration = Duration::from_millis(150);

pub(crate) const RULE: u32 = rule_number(3, 0, Some(0));

pub(crate) fn closed(direction: u32) -> Tables {
    let mut tables = Tables::open();
    for entry in &mut tables.entries {
        if entry.peer == direction | ANY_PEER {
            entry.value.verdict = DENY;
            entry.value.rule = rule_number(3, direction, None);
        }
    }
    tables
}

/// Lets one peer in at one TCP port, and nobody else anywhere.
pub(crate) fn letting_in(peer: u32, port: u16) -> Tables {
    let mut tables = closed(0);
    let value = PolicyEntry { rule: RULE, precedence: 1, verdict: ALLOW, ..PolicyEntry::default() };
    let transport = Transport::Ports { protocol: TCP, port, bits: 16 };
    tables.entries.push(TableEntry { peer, transport, value });
    tables.entries.sort_by_key(|entry| (entry.peer, entry.transport));
    tables
}

pub(crate) async fn set(datapath: &Datapath, n: u8, tables: Tables) {
    datapath.set_policy(replica(n).identity, Arc::new(tables)).await.unwrap();
}

fn is_reachable(to: SocketAddr) -> bool {
    TcpStream::connect_timeout(&to, SILENCE).is_ok()
}

/// Which of these addresses an endpoint reaches by TCP.
pub(crate) fn reached(world: &World, from: &Endpoint, to: Vec<SocketAddr>) -> Vec<bool> {
    world.run(Place::In(from), move || to.into_iter().map(is_reachable).collect()).join().unwrap()
}

fn generation(world: &World, index: u32) -> u64 {
    let map = MapData::from_pin(world.map_path(name::GENERATION)).unwrap();
    Array::<_, u64>::try_from(Map::Array(map)).unwrap().get(&index, 0).unwrap()
}

async fn entries(datapath: &Datapath) -> u64 {
    datapath.statistics().await.unwrap().map(name::POLICY).unwrap().entries
}

#[test]
fn an_endpoint_without_a_policy_forwards_nothing_until_it_gets_one() {
    in_a_world(async |world| {
        let datapath = Datapath::open(world.config.clone()).await.unwrap();
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let b = datapath.ensure_endpoint(replica(2)).await.unwrap();
        world.run(Place::In(&b), || serve_tcp("10.200.1.2:80".parse().unwrap(), 2)).join().unwrap();
        let target = vec!["10.200.1.2:80".parse().unwrap()];
        assert_eq!(reached(world, &a, target.clone()), [false]);
        set(&datapath, 1, Tables::open()).await;
        assert_eq!(reached(world, &a, target.clone()), [false], "the other end has none yet");
        set(&datapath, 2, Tables::open()).await;
        assert_eq!(reached(world, &a, target.clone()), [true]);
        assert!(datapath.statistics().await.unwrap().dropped(DropReason::NoPolicy) >= 2);
        datapath.remove_policy(replica(2).identity).await.unwrap();
        assert_eq!(reached(world, &a, target), [false]);
    });
}

#[test]
fn a_peer_is_let_in_by_its_identity_at_its_port_in_both_families() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        let made = servers(world, &datapath, &[2]).await;
        let (a, c) = (
            datapath.ensure_endpoint(replica(1)).await.unwrap(),
            datapath.ensure_endpoint(replica(3)).await.unwrap(),
        );
        world
            .run(Place::In(&made[0]), || {
                for address in addresses(&replica(2)) {
                    serve_tcp((address, 81).into(), 2);
                }
            })
            .join()
            .unwrap();
        set(&datapath, 2, letting_in(replica(1).identity, 80)).await;
        let to: Vec<SocketAddr> = addresses(&replica(2))
            .into_iter()
            .flat_map(|address| [(address, 80).into(), (address, 81).into()])
            .collect();
        assert_eq!(reached(world, &a, to.clone()), [true, false, true, false]);
        assert_eq!(reached(world, &c, to), [false; 4]);
        // What is governed may still make connections of its own, and hear the answers.
        world.run(Place::In(&a), || serve_tcp("10.200.1.1:90".parse().unwrap(), 1)).join().unwrap();
        let own = world.run(Place::In(&made[0]), || connect("10.200.1.1:90".parse().unwrap()).unwrap().1);
        assert_eq!(own.join().unwrap(), 1);
    });
}

#[test]
fn connections_that_are_made_follow_a_new_policy_at_once_and_back() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[2]).await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let (socket, mut stream) = world
            .run(Place::In(&a), || {
                let socket = datagrams("10.200.1.2".parse().unwrap());
                ask(&socket, "10.200.1.2:80".parse().unwrap()).unwrap();
                (socket, connect("10.200.1.2:80".parse().unwrap()).unwrap().0)
            })
            .join()
            .unwrap();
        let target: SocketAddr = "10.200.1.2:80".parse().unwrap();
        for (n, tables) in [(1, closed(EGRESS)), (2, closed(0))] {
            set(&datapath, n, tables).await;
            socket.set_read_timeout(Some(SILENCE)).unwrap();
            assert!(ask(&socket, target).is_err(), "a datagram passed after the policy was set");
            stream.set_read_timeout(Some(SILENCE)).unwrap();
            assert!(echo(&mut stream).is_err(), "a segment passed after the policy was set");
            set(&datapath, n, Tables::open()).await;
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            assert_eq!(ask(&socket, target).unwrap().0, 2);
            // TCP sends again what was lost: the connection goes on where it was.
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut answer = [0; 2];
            std::io::Read::read_exact(&mut stream, &mut answer).unwrap();
            assert_eq!(echo(&mut stream).unwrap(), 2);
        }
    });
}

#[test]
fn a_replica_that_comes_by_the_host_is_still_known_for_who_it_is() {
    in_a_world(async |world| {
        let _outside = world.outside();
        let datapath = world.open().await;
        servers(world, &datapath, &[2]).await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let c = datapath.ensure_endpoint(replica(3)).await.unwrap();
        let port = PublishedPort { host_port: 8080, protocol: Protocol::Tcp, target_port: 80 };
        datapath.set_service(ServiceSpec { published: vec![port], ..service(1, &[2]) }).await.unwrap();
        set(&datapath, 2, letting_in(replica(1).identity, 80)).await;
        // Not in the cgroup, so that no socket hook goes around the host.
        let by_the_host = |from: &Endpoint| {
            let netns = File::open(&from.netns).unwrap();
            let attempt = std::thread::spawn(move || {
                nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                is_reachable((NODE_V4, 8080).into())
            });
            attempt.join().unwrap()
        };
        assert!(by_the_host(&a));
        assert!(!by_the_host(&c));
        assert!(datapath.statistics().await.unwrap().dropped(DropReason::PolicyIngress) > 0);
    });
}

#[test]
fn a_well_known_address_has_the_identity_that_it_was_given() {
    in_a_world(async |world| {
        let dns = world.config.dns.0;
        let datapath = world.open().await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        serve_udp((dns, 53).into(), 9);
        let mut tables = closed(EGRESS);
        let value = PolicyEntry { precedence: 1, verdict: ALLOW, ..PolicyEntry::default() };
        tables.entries.push(TableEntry { peer: EGRESS | 5, transport: Transport::Any, value });
        set(&datapath, 1, tables).await;
        let socket = world
            .run(Place::In(&a), || {
                let socket = UdpSocket::bind("10.200.1.1:0").unwrap();
                socket.set_read_timeout(Some(SILENCE)).unwrap();
                socket
            })
            .join()
            .unwrap();
        let server = (dns, 53).into();
        assert!(ask(&socket, server).is_err());
        datapath.set_identities(vec![(IpAddr::V4(dns), 5)]).await.unwrap();
        assert_eq!(ask(&socket, server).unwrap().0, 9);
        datapath.set_identities(Vec::new()).await.unwrap();
        assert!(ask(&socket, server).is_err(), "the address kept an identity that was taken away");
    });
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[2]).await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let before = entries(&datapath).await;
        let mut large = closed(0);
        for port in 0..1_100 {
            let transport = Transport::Ports { protocol: TCP, port, bits: 16 };
            let value = PolicyEntry { verdict: ALLOW, precedence: 1, ..PolicyEntry::default() };
            large.entries.push(TableEntry { peer: replica(3).identity, transport, value });
        }
        let refused = datapath.set_policy(replica(2).identity, Arc::new(large.clone())).await;
        assert!(matches!(refused, Err(Error::MapFull { map: name::POLICY, capacity: 1024 })), "{refused:?}");
        assert_eq!(entries(&datapath).await, before);
        assert_eq!(reached(world, &a, vec!["10.200.1.2:80".parse().unwrap()]), [true]);
        // Something that fits only where older ones have gone, again and again.
        large.entries.truncate(400);
        for precedence in 2..10 {
            large.entries[3].value.precedence = precedence;
            set(&datapath, 2, large.clone()).await;
        }
        assert_eq!(reached(world, &a, vec!["10.200.1.2:80".parse().unwrap()]), [false]);
        set(&datapath, 2, Tables::open()).await;
        let gone = async { while entries(&datapath).await != before {} };
        tokio::time::timeout(PATIENCE, gone).await.expect("old entries stay in the map");
    });
}

#[test]
fn policies_hold_while_no_daemon_runs_and_after_it_comes_back() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        let b = servers(world, &datapath, &[2]).await.remove(0);
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let c = datapath.ensure_endpoint(replica(3)).await.unwrap();
        set(&datapath, 2, letting_in(replica(1).identity, 80)).await;
        let holds = || {
            let to: Vec<SocketAddr> = vec!["10.200.1.2:80".parse().unwrap()];
            assert_eq!(reached(world, &a, to.clone()), [true]);
            assert_eq!(reached(world, &c, to), [false]);
        };
        holds();
        drop(datapath);
        holds();
        // What a daemon that was killed had half written.
        let map = MapData::from_pin(world.map_path(name::POLICY)).unwrap();
        let mut policy: LpmTrie<_, PolicyKey, PolicyEntry> = LpmTrie::try_from(Map::LpmTrie(map)).unwrap();
        let stray = Key::new(64, PolicyKey { policy: 7_777, peer: 300, transport: [0; 4] });
        policy.insert(&stray, PolicyEntry::default(), 0).unwrap();
        let before = generation(world, b.index);
        let datapath = Datapath::open(world.config.clone()).await.unwrap();
        assert!(policy.get(&stray, 0).is_err(), "what nobody is judged by was not removed");
        holds();
        set(&datapath, 2, letting_in(replica(1).identity, 80)).await;
        assert_eq!(generation(world, b.index), before, "equal tables changed something");
        set(&datapath, 2, letting_in(replica(3).identity, 80)).await;
        assert_ne!(generation(world, b.index), before);
        let to: Vec<SocketAddr> = vec!["10.200.1.2:80".parse().unwrap()];
        assert_eq!(reached(world, &a, to.clone()), [false]);
        assert_eq!(reached(world, &c, to), [true]);
        let statistics = datapath.statistics().await.unwrap();
        assert_eq!(statistics.dropped(DropReason::NoPolicy), 0);
    });
}

#[test]
fn no_datagram_is_lost_while_policies_are_replaced_by_others_that_allow_it() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[2]).await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let asking = world.run(Place::In(&a), || {
            let target: SocketAddr = "10.200.1.2:80".parse().unwrap();
            let mut asked = 0;
            let socket = datagrams(target.ip());
            let until = std::time::Instant::now() + Duration::from_secs(3);
            while std::time::Instant::now() < until {
                // An old connection, and a new one each time.
                assert_eq!(ask(&socket, target).unwrap().0, 2);
                // Not so many that the table of connections fills up.
                if asked < 1_500 {
                    assert_eq!(ask(&datagrams(target.ip()), target).unwrap().0, 2);
                }
                asked += 1;
            }
            asked
        });
        let mut precedence = 0;
        while !asking.is_finished() {
            precedence += 1;
            for n in [1, 2] {
                let mut tables = Tables::open();
                tables.entries[0].value.precedence = precedence;
                set(&datapath, n, tables).await;
            }
        }
        let statistics = datapath.statistics().await.unwrap();
        // A new interface says hello to multicast listeners.
        let drops = statistics.drops.iter().filter(|drop| drop.reason != DropReason::NotUnicast);
        assert_eq!(drops.map(|drop| drop.packets).sum::<u64>(), 0, "{:?}", statistics.drops);
        assert!(asking.join().unwrap() > 100 && precedence > 20);
    });
}

async fn next(events: &mut FlowEvents, is_it: impl Fn(&FlowEvent) -> bool) -> FlowEvent {
    let wait = async {
        loop {
            match events.next().await.unwrap() {
                FlowItem::Event(event) if is_it(&event) => return event,
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap()
}

#[test]
fn flows_are_told_with_both_ends_and_counted_to_the_last_segment() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        let b = servers(world, &datapath, &[2]).await.remove(0);
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        set(&datapath, 2, letting_in(replica(1).identity, 90)).await;
        let mut events = datapath.flow_events();
        let listener = world
            .run(Place::In(&b), || std::net::TcpListener::bind("10.200.1.2:90").unwrap())
            .join()
            .unwrap();
        let mut client =
            world.run(Place::In(&a), || TcpStream::connect("10.200.1.2:90").unwrap()).join().unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let begun = next(&mut events, |event| event.kind == FlowKind::New).await;
        assert_eq!((begun.source.identity, begun.destination.identity), (257, 258));
        assert_eq!(begun.destination.address, Some(replica(2).ipv4.into()));
        assert_eq!((begun.destination.port, begun.ingress_rule), (90, RULE));
        let age = jiff::Timestamp::now().duration_since(begun.time);
        assert!(age.abs() < jiff::SignedDuration::from_secs(5), "told as of {age} ago");
        // Much at once, which the kernel carries in packets that it would cut only on a wire.
        let writing = std::thread::spawn(move || {
            std::io::Write::write_all(&mut client, &vec![7; 4_000_000]).unwrap();
            client
        });
        let mut bytes = vec![0; 4_000_000];
        std::io::Read::read_exact(&mut server, &mut bytes).unwrap();
        let client = writing.join().unwrap();
        let live = datapath.connections(100).await.unwrap();
        let live = live.iter().find(|flow| flow.source.port == begun.source.port).unwrap();
        assert_eq!(live.kind, FlowKind::Live);
        let [there, nobody] = [2, 9].map(|number| IpAddr::from(replica(number).ipv4));
        let used = datapath.addresses_in_use([there, nobody, replica(1).ipv4.into()].into()).await.unwrap();
        assert_eq!(used, [there].into(), "only what connections were begun with");
        let pair = || async {
            let statistics = datapath.statistics().await.unwrap();
            let mut pairs = statistics.pairs.into_iter();
            pairs.find(|pair| pair.port == 90 && pair.allowed).unwrap().totals
        };
        // The last acknowledgement may be on its way.
        let mut agree = false;
        for _ in 0..100 {
            let (out, back) = (segments_out(&client), segments_out(&server) + 1);
            agree = agree || pair().await.packets == [out, back];
        }
        assert!(agree, "{:?} {} {}", pair().await, segments_out(&client), segments_out(&server));
        let totals = pair().await;
        assert!(totals.bytes[0] > 4_000_000 && totals.connections == 1, "{totals:?}");
        drop((client, server));
        let closed = next(&mut events, |event| event.kind == FlowKind::Closed).await;
        assert_eq!(closed.source, begun.source);
        // The two clocks are read one after the other, each time.
        let apart = closed.began.unwrap().duration_since(begun.began.unwrap());
        assert!(apart.abs() < jiff::SignedDuration::from_millis(100), "{apart}");
        assert!(closed.bytes[0] > 4_000_000);
        // Denied, and told why.
        assert_eq!(reached(world, &a, vec!["10.200.1.2:80".parse().unwrap()]), [false]);
        let denied = DropReason::PolicyIngress;
        let told = next(&mut events, |event| event.kind == FlowKind::Dropped(denied)).await;
        assert_eq!((told.source.identity, told.destination.port), (257, 80));
        assert_eq!(told.ingress_rule, rule_number(3, 0, None));
        // The kernel's own TCP was listened to.
        let statistics = datapath.statistics().await.unwrap();
        let trips = statistics.round_trips.iter().find(|trips| (trips.local, trips.peer) == (257, 258));
        assert!(trips.is_some_and(|trips| trips.buckets.iter().sum::<u64>() > 0), "{statistics:?}");
        datapath.forget_identities(BTreeSet::from([257])).await.unwrap();
        let statistics = datapath.statistics().await.unwrap();
        assert!(statistics.pairs.iter().all(|pair| pair.source != 257 && pair.destination != 257));
        assert!(statistics.round_trips.iter().all(|trips| trips.local != 257 && trips.peer != 257));
    });
}

#[test]
fn a_flood_of_denied_packets_is_counted_whole_and_losses_are_told() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        datapath.ensure_endpoint(replica(2)).await.unwrap();
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        set(&datapath, 1, closed(EGRESS)).await;
        let mut events = datapath.flow_events();
        let flood = world.run(Place::In(&a), || {
            let socket = UdpSocket::bind("10.200.1.1:0").unwrap();
            for _ in 0..20_000 {
                socket.send_to(b"x", "10.200.1.2:9").unwrap();
            }
        });
        flood.join().unwrap();
        let statistics = datapath.statistics().await.unwrap();
        assert_eq!(statistics.dropped(DropReason::PolicyEgress), 20_000);
        let denied = statistics.pairs.iter().find(|pair| pair.port == 9 && !pair.allowed).unwrap();
        assert_eq!((denied.totals.packets, denied.totals.connections), ([20_000, 0], 20_000));
        let class = statistics.events.iter().find(|class| class.class == "policy_egress").unwrap();
        assert_eq!(class.told + class.lost, 20_000);
        assert!(class.told < 5_000 && class.lost > 0, "{class:?}");
        // The table of connections is not what a flood of refused ones fills.
        assert_eq!(statistics.map(name::CONNTRACK_V4).unwrap().entries, 0);
        let lost = async {
            loop {
                if let FlowItem::LostInKernel(lost) = events.next().await.unwrap() {
                    return lost;
                }
            }
        };
        // Losses are looked at when something is told.
        let told = world.run(Place::In(&a), || {
            let socket = UdpSocket::bind("10.200.1.1:0").unwrap();
            for _ in 0..50 {
                socket.send_to(b"x", "10.200.1.2:9").unwrap();
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        assert!(tokio::time::timeout(PATIENCE, lost).await.unwrap() > 0);
        told.join().unwrap();
    });
}

/// Segments that a socket has sent (`tcpi_segs_out` of `struct tcp_info`, <linux/tcp.h>).
fn segments_out(stream: &TcpStream) -> u64 {
    const OFFSET: usize = 136;
    let mut info = [0_u8; 256];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the option writes at most `length` bytes into an array that outlives the call.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    assert!(result == 0 && length as usize >= OFFSET + 4);
    u32::from_ne_bytes(info[OFFSET..OFFSET + 4].try_into().unwrap()).into()
}

#[test]
fn an_endpoint_made_after_its_policy_is_judged_by_it_from_its_first_packet() {
    in_a_world(async |world| {
        let datapath = Datapath::open(world.config.clone()).await.unwrap();
        admit_all(&datapath).await;
        set(&datapath, 1, closed(EGRESS)).await;
        servers(world, &datapath, &[2]).await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        assert_eq!(reached(world, &a, vec!["10.200.1.2:80".parse().unwrap()]), [false]);
        eventually("the endpoint has its link", || {
            world.config.bpffs.join(format!("v{ABI_VERSION}/links/hm2-from_replica")).exists()
        });
        assert_eq!(reached(world, &a, vec!["10.200.1.2:80".parse().unwrap()]), [false]);
    });
}
