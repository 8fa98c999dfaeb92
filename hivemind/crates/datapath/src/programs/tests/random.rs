//! Random policies and packets: the kernel's verdict against the one function that decides, asked over plain vectors.

use super::policy::value;
use super::*;
use hivemind_common::{
    conntrack::Key,
    policy::{
        ADMIN, ALLOW, ANY_PEER, AUDIT, BASELINE, DENY, EGRESS, HAS_ADMIN, HAS_AUDIT, HAS_PREFIXES, Lookup,
        NAMESPACE, PASS, PREFIX_PEER, decide,
    },
};
use hivemind_policy::{TableEntry, TablePrefix, Transport};
use ipnet::IpNet;
use std::net::IpAddr;

const POLICIES: u32 = 300;
const PACKETS: u32 = 100;
pub(super) const PROTOCOLS: [u8; 3] = [TCP, 17, 132];
/// Whoever is neither a replica nor the node.
pub(super) const WORLD: u32 = 2;

/// Xorshift (Marsaglia, 2003): the same numbers each time.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32 % bound
    }

    pub(super) fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len() as u32) as usize]
    }

    pub(super) fn port(&mut self) -> u16 {
        // Close together, so that prefixes meet them.
        8_000 + self.below(40) as u16
    }

    /// An address of somebody outside, in one of few blocks.
    pub(super) fn outside(&mut self, is_v6: bool) -> IpAddr {
        let (high, low) = (self.below(4) as u8, self.below(256) as u8);
        if is_v6 {
            IpAddr::from([0x20, 1, 0xd, 0xb8, high, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, low])
        } else {
            IpAddr::from([198, 51, high, low])
        }
    }

    fn transport(&mut self) -> Transport {
        let protocol = self.of(&PROTOCOLS);
        match self.below(3) {
            0 => Transport::Any,
            1 => Transport::Protocol(protocol),
            _ => {
                let bits = self.of(&[1, 8, 12, 13, 14, 15, 16]);
                let port = self.port() & u16::MAX << (16 - bits);
                Transport::Ports { protocol, port, bits }
            }
        }
    }

    fn value(&mut self, verdicts: &[u8]) -> PolicyEntry {
        value(self.of(verdicts), self.below(3), 5 << 12 | self.below(2000))
    }

    fn tables(&mut self) -> Tables {
        let mut tables = Tables { entries: Vec::new(), prefixes: Vec::new() };
        for direction in [0, EGRESS] {
            let mut flags = 0;
            if self.below(2) == 0 {
                flags |= HAS_ADMIN;
                self.tier(direction | ADMIN, &[ALLOW, DENY, PASS, PASS], 0, &mut tables);
            }
            if self.below(3) == 0 {
                flags |= HAS_AUDIT;
                self.tier(direction | AUDIT, &[ALLOW, DENY], 0, &mut tables);
            }
            let has_baseline = self.below(2) == 0;
            if has_baseline {
                self.tier(direction | BASELINE, &[ALLOW, DENY, PASS], 0, &mut tables);
            }
            let verdicts: &[u8] = if has_baseline { &[ALLOW, DENY, PASS, PASS] } else { &[ALLOW, DENY] };
            self.tier(direction | NAMESPACE, verdicts, flags, &mut tables);
        }
        tables
    }

    fn tier(&mut self, side: u32, verdicts: &[u8], flags: u8, tables: &mut Tables) {
        let mut default = self.value(verdicts);
        default.flags = flags | self.of(&[0, HAS_PREFIXES, HAS_PREFIXES]);
        tables.entries.push(TableEntry { peer: side | ANY_PEER, transport: Transport::Any, value: default });
        for _ in 0..self.below(30) {
            let peer = match self.below(4) {
                0 => ANY_PEER,
                1 => WORLD,
                2 => identity(2),
                _ => PREFIX_PEER | (1 + self.below(5)),
            };
            let (transport, mut value) = (self.transport(), self.value(verdicts));
            if peer == ANY_PEER {
                // Whichever entry for any peer is found says what else is looked at.
                value.flags = default.flags;
            }
            let peer = side | peer;
            if !tables.entries.iter().any(|entry| entry.peer == peer && entry.transport == transport) {
                tables.entries.push(TableEntry { peer, transport, value });
            }
        }
        for _ in 0..self.below(12) {
            let is_v6 = self.below(2) == 0;
            let bits = if is_v6 { self.of(&[32, 40, 124, 128]) } else { self.of(&[16, 24, 28, 32]) };
            let net = IpNet::new(self.outside(is_v6), bits).unwrap().trunc();
            let number = 1 + self.below(5);
            if !tables.prefixes.iter().any(|prefix| prefix.side == side && prefix.net == net) {
                tables.prefixes.push(TablePrefix { side, net, number });
            }
        }
    }
}

struct Plain<'a> {
    tables: &'a Tables,
    protocol: u8,
    port: u16,
    other: IpAddr,
}

impl Lookup for Plain<'_> {
    fn entry(&self, peer: u32) -> Option<PolicyEntry> {
        let entries = self.tables.entries.iter();
        let matching =
            entries.filter(|entry| entry.peer == peer && entry.transport.contains(self.protocol, self.port));
        matching.max_by_key(|entry| entry.transport.bits()).map(|entry| entry.value)
    }

    fn prefix(&self, side: u32) -> Option<u32> {
        let prefixes = self.tables.prefixes.iter();
        let matching = prefixes.filter(|prefix| prefix.side == side && prefix.net.contains(&self.other));
        matching.max_by_key(|prefix| prefix.net.prefix_len()).map(|prefix| prefix.number)
    }
}

pub(super) fn frame(source: IpAddr, destination: IpAddr, protocol: u8, ports: [u16; 2]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame_v4(source.octets(), destination.octets(), protocol, ports, TCP_SYN)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame_v6(source.octets(), destination.octets(), protocol, ports, TCP_SYN)
        }
        _ => unreachable!("two families in one packet"),
    }
}

pub(super) fn own(is_v6: bool, index: u8) -> IpAddr {
    if is_v6 { address6(index).octets().into() } else { IpAddr::from([10, 0, 0, index]) }
}

#[test]
fn the_kernel_decides_as_the_function_over_vectors_does() {
    let mut bench = Bench::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut verdicts = [0; 2];
    for round in 0..POLICIES {
        let tables = random.tables();
        bench.set_policy(1, &tables);
        let number = bench.generation;
        for _ in 0..PACKETS {
            let is_v6 = random.below(2) == 0;
            let (protocol, port) = (random.of(&PROTOCOLS), random.port());
            let direction = random.of(&[0, EGRESS]);
            let to_endpoint = direction == EGRESS && random.below(4) == 0;
            let (other, peer, pass) = if to_endpoint {
                (own(is_v6, 2), identity(2), REDIRECT)
            } else {
                (random.outside(is_v6), WORLD, OK)
            };
            let plain = Plain { tables: &tables, protocol, port, other };
            let expected = decide(&plain, direction, peer).unwrap();
            let (program, frame) = match direction {
                EGRESS => (name::FROM_REPLICA, frame(own(is_v6, 1), other, protocol, [40_000, port])),
                _ => (name::TO_REPLICA, frame(other, own(is_v6, 1), protocol, [40_000, port])),
            };
            let verdict = bench.run(program, &frame).0;
            let allowed = expected.verdict == ALLOW;
            assert_eq!(
                verdict == pass,
                allowed,
                "round {round}: {direction:#x} {protocol} {port} {other}: {expected:?}\n{tables:#?}"
            );
            verdicts[usize::from(allowed)] += 1;
            if allowed {
                let rules: Vec<u32> = bench.rules_of_the_only_connection(is_v6);
                assert!(rules.contains(&expected.rule), "{rules:?} {expected:?}");
            }
        }
        bench.set_policy(1, &Tables::open());
        bench.erase_policy(number, &tables);
        let open = bench.generation;
        assert!(open > number);
    }
    assert!(verdicts.iter().all(|&count| count > 500), "one-sided: {verdicts:?}");
}

impl Bench {
    pub(super) fn rules_of_the_only_connection(&mut self, is_v6: bool) -> Vec<u32> {
        if is_v6 {
            self.take_rules::<Key<Address6>>(name::CONNTRACK_V6)
        } else {
            self.take_rules::<Key<Address4>>(name::CONNTRACK_V4)
        }
    }

    fn take_rules<K: Pod>(&mut self, map: &str) -> Vec<u32> {
        let mut connections = self.hash::<K, Entry>(map);
        let found: Vec<(K, Entry)> = connections.iter().map(Result::unwrap).collect();
        let [(key, entry)] = found[..] else { panic!("{} connections", found.len()) };
        connections.remove(&key).unwrap();
        entry.rules.to_vec()
    }
}
