//! Random worlds and packets: the kernel's verdict, by the tables of the compiler, against what the policies mean.

use super::random::{PROTOCOLS, Random, WORLD, frame, own};
use super::*;
use hivemind_model::{
    EgressRule, Identity, IngressRule, IpBlock, LabelSelector, Metadata, Namespace, NetworkPolicy,
    NetworkPolicySpec, NetworkPolicyStatus, PolicyPeer, PolicyPort, PolicyProtocol, PolicyType, PortRef,
};
use hivemind_policy::{OtherEnd, Speaks, World, compile, judge};
use ipnet::IpNet;
use std::{collections::BTreeMap, net::IpAddr};

const WORLDS: u32 = 150;
const PACKETS: u32 = 30;
const NAMESPACES: [&str; 2] = ["blue", "green"];
const VALUES: [&str; 2] = ["x", "y"];
/// Blocks in which [`Random::outside`] draws, and the replicas' own.
const BLOCKS: [&str; 8] = [
    "0.0.0.0/0",
    "198.51.0.0/22",
    "198.51.1.0/25",
    "198.51.2.128/25",
    "10.0.0.0/24",
    "2001:db8::/32",
    "2001:db8:100::/40",
    "fd00::/8",
];

impl Random {
    fn labels(&mut self, key: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(key.to_owned(), self.of(&VALUES).to_owned())])
    }

    fn selector(&mut self, key: &str) -> LabelSelector {
        let match_labels = if self.below(3) == 0 { BTreeMap::new() } else { self.labels(key) };
        LabelSelector { match_labels, ..LabelSelector::default() }
    }

    fn peers(&mut self) -> Vec<PolicyPeer> {
        let count = self.below(3);
        let peer = |random: &mut Self| match random.below(4) {
            0 => PolicyPeer { pod_selector: Some(random.selector("app")), ..PolicyPeer::default() },
            1 => PolicyPeer {
                pod_selector: Some(random.selector("app")),
                namespace_selector: Some(random.selector("tier")),
                ip_block: None,
            },
            _ => {
                let cidr = random.of(&BLOCKS);
                let whole: IpNet = cidr.parse().unwrap();
                let mut except = Vec::new();
                let hole = random.of(&BLOCKS);
                let net: IpNet = hole.parse().unwrap();
                if net != whole && whole.contains(&net) {
                    except.push(hole.to_owned());
                }
                let ip_block = Some(IpBlock { cidr: cidr.to_owned(), except });
                PolicyPeer { ip_block, ..PolicyPeer::default() }
            }
        };
        (0..count).map(|_| peer(self)).collect()
    }

    fn ports(&mut self) -> Vec<PolicyPort> {
        let count = self.below(3);
        let port = |random: &mut Self| {
            let first = random.port();
            let last = first + random.below(12) as u16;
            let range = random.of(&[None, Some((first, None)), Some((first, Some(last)))]);
            PolicyPort {
                protocol: random.of(&[PolicyProtocol::Tcp, PolicyProtocol::Udp, PolicyProtocol::Sctp]),
                port: range.map(|(first, _)| PortRef::Number(first.into())),
                end_port: range.and_then(|(_, last)| last),
            }
        };
        (0..count).map(|_| port(self)).collect()
    }

    fn policy(&mut self, number: u32) -> NetworkPolicy {
        let policy_types = match self.below(4) {
            0 => vec![PolicyType::Ingress],
            1 => vec![PolicyType::Egress],
            _ => vec![PolicyType::Ingress, PolicyType::Egress],
        };
        let (takes, makes) = (self.below(3), self.below(3));
        let spec = NetworkPolicySpec {
            pod_selector: self.selector("app"),
            policy_types,
            ingress: (0..takes).map(|_| IngressRule { ports: self.ports(), from: self.peers() }).collect(),
            egress: (0..makes).map(|_| EgressRule { ports: self.ports(), to: self.peers() }).collect(),
        };
        NetworkPolicy {
            metadata: Metadata::new(self.of(&NAMESPACES), format!("policy-{number}")),
            spec,
            status: NetworkPolicyStatus { number, ..NetworkPolicyStatus::default() },
        }
    }

    fn world(&mut self) -> World {
        let namespaces = NAMESPACES.map(|name| {
            let mut namespace = Namespace::new(name);
            namespace.metadata.labels.extend(self.labels("tier"));
            namespace
        });
        let identities = [1, 2]
            .map(|index| Identity::new(identity(index), self.of(&NAMESPACES), "app", self.labels("app")));
        let policies: Vec<_> = (1..=self.below(6)).map(|number| self.policy(number)).collect();
        World::of(&namespaces, &identities, &policies)
    }
}

/// What one packet is about, as both ends see it.
struct Meeting {
    /// The endpoint whose policy is asked, the direction, and who is at the other end.
    asked: Vec<(u32, PolicyType, OtherEnd)>,
    program: &'static str,
    frame: Vec<u8>,
    speaks: Speaks,
    /// What the program returns if the packet passes.
    pass: u32,
}

impl Meeting {
    fn of(random: &mut Random) -> Self {
        let is_v6 = random.below(2) == 0;
        let speaks = Speaks { protocol: random.of(&PROTOCOLS), port: random.port() };
        let ports = [40_000, speaks.port];
        let replica = |index: u8| OtherEnd { identity: identity(index.into()), address: own(is_v6, index) };
        let outside = OtherEnd { identity: WORLD, address: random.outside(is_v6) };
        let between = |from: IpAddr, to: IpAddr| frame(from, to, speaks.protocol, ports);
        match random.below(3) {
            0 => Self {
                asked: vec![
                    (identity(1), PolicyType::Egress, replica(2)),
                    (identity(2), PolicyType::Ingress, replica(1)),
                ],
                program: name::FROM_REPLICA,
                frame: between(own(is_v6, 1), own(is_v6, 2)),
                speaks,
                pass: REDIRECT,
            },
            1 => Self {
                asked: vec![(identity(1), PolicyType::Egress, outside)],
                program: name::FROM_REPLICA,
                frame: between(own(is_v6, 1), outside.address),
                speaks,
                pass: OK,
            },
            _ => Self {
                asked: vec![(identity(1), PolicyType::Ingress, outside)],
                program: name::TO_REPLICA,
                frame: between(outside.address, own(is_v6, 1)),
                speaks,
                pass: OK,
            },
        }
    }
}

#[test]
fn the_kernel_decides_as_kubernetes_documentation_says() {
    let mut bench = Bench::new();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut verdicts = [0; 2];
    for round in 0..WORLDS {
        let world = random.world();
        let compiled = [1, 2].map(|index| compile(identity(index), &world).unwrap());
        let numbers = [1, 2].map(|index| {
            bench.set_policy(index, &compiled[index as usize - 1]);
            bench.generation
        });
        for _ in 0..PACKETS {
            let meeting = Meeting::of(&mut random);
            let judgements: Vec<_> = meeting
                .asked
                .iter()
                .map(|&(asked, direction, other)| judge(&world, asked, direction, other, meeting.speaks))
                .collect();
            let allowed = judgements.iter().all(|judgement| judgement.allowed);
            let verdict = bench.run(meeting.program, &meeting.frame).0;
            assert_eq!(
                verdict == meeting.pass,
                allowed,
                "round {round}: {:?} {:?} {judgements:?}\n{:#?}",
                meeting.asked,
                meeting.speaks,
                world.policies().collect::<Vec<_>>()
            );
            verdicts[usize::from(allowed)] += 1;
            if allowed {
                let is_v6 = meeting.asked[0].2.address.is_ipv6();
                let rules = bench.rules_of_the_only_connection(is_v6);
                for judgement in &judgements {
                    let said = judgement.rules.iter().any(|rule| rules.contains(rule));
                    assert!(said, "round {round}: {rules:?} {judgement:?}");
                }
            }
        }
        for (index, number) in [1_u32, 2].into_iter().zip(numbers) {
            bench.set_policy(index, &Tables::open());
            bench.erase_policy(number, &compiled[index as usize - 1]);
            let open = bench.generation;
            assert!(open > number);
        }
    }
    assert!(verdicts.iter().all(|&count| count > 500), "one-sided: {verdicts:?}");
}
