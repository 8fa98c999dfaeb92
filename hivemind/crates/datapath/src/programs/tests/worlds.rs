//! Random worlds and packets: the kernel's verdict, by the tables of the compiler, against what the policies mean.

use super::random::{PROTOCOLS, Random, WORLD, frame, own};
use super::*;
use hivemind_model::{
    ClusterAction, ClusterEgressRule, ClusterIngressRule, ClusterNetworkPolicySpec, ClusterPeer, ClusterPort,
    ClusterPortRange, ClusterPorts, ClusterProtocol, ClusterSubject, ClusterTier, EgressRule, Entity,
    ExtendedEgressRule, ExtendedIngressRule, ExtendedPeer, ExtendedPolicySpec, IcmpFamily, IcmpMessage,
    Identity, IngressRule, IpBlock, LabelSelector, Metadata, NamedPort, Namespace, NamespacedPods,
    NetworkPolicy, NetworkPolicySpec, NetworkPolicyStatus, PolicyAction, PolicyPeer, PolicyPort,
    PolicyProtocol, PolicySpec, PolicyType, PortRef, SYSTEM_NAMESPACE,
};
use hivemind_policy::{OtherEnd, Speaks, World, compile, judge};
use ipnet::IpNet;
use std::{collections::BTreeMap, net::IpAddr};

const WORLDS: u32 = 1_000;
const PACKETS: u32 = 100;
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

/// Patterns of domains, and a node's label.
const DOMAINS: [&str; 2] = ["example.org", "*.example.org"];
/// Types and codes of ICMP and of ICMPv6, by family.
const MESSAGES: [[u16; 4]; 2] = [[0x0800, 0x0801, 0x0d00, 0x0a00], [0x8000, 0x8001, 0x9000, 0x9001]];
/// The protocols by family.
const ICMP: [u8; 2] = [1, 58];

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

    fn policy_types(&mut self) -> Vec<PolicyType> {
        match self.below(4) {
            0 => vec![PolicyType::Ingress],
            1 => vec![PolicyType::Egress],
            _ => vec![PolicyType::Ingress, PolicyType::Egress],
        }
    }

    fn policy(&mut self, number: u32) -> NetworkPolicy {
        let (spec, namespace): (PolicySpec, _) = match self.below(3) {
            0 => (self.kubernetes().into(), self.of(&NAMESPACES)),
            1 => (self.extended().into(), self.of(&NAMESPACES)),
            _ => (self.cluster().into(), SYSTEM_NAMESPACE),
        };
        NetworkPolicy {
            metadata: Metadata::new(namespace, format!("policy-{number}")),
            spec,
            status: NetworkPolicyStatus { number, ..NetworkPolicyStatus::default() },
        }
    }

    fn kubernetes(&mut self) -> NetworkPolicySpec {
        let (takes, makes) = (self.below(3), self.below(3));
        NetworkPolicySpec {
            pod_selector: self.selector("app"),
            policy_types: self.policy_types(),
            ingress: (0..takes).map(|_| IngressRule { ports: self.ports(), from: self.peers() }).collect(),
            egress: (0..makes).map(|_| EgressRule { ports: self.ports(), to: self.peers() }).collect(),
        }
    }

    fn extended(&mut self) -> ExtendedPolicySpec {
        let (takes, makes) = (self.below(3), self.below(4));
        let action =
            |random: &mut Self| random.of(&[PolicyAction::Allow, PolicyAction::Allow, PolicyAction::Deny]);
        let ingress = (0..takes).map(|_| ExtendedIngressRule {
            action: action(self),
            from: self.extended_peers(false),
            ports: self.ports(),
            icmp: self.messages(),
        });
        let ingress = ingress.collect();
        let egress = (0..makes).map(|_| ExtendedEgressRule {
            action: action(self),
            to: self.extended_peers(true),
            ports: self.ports(),
            icmp: self.messages(),
        });
        let egress = egress.collect();
        ExtendedPolicySpec {
            pod_selector: self.selector("app"),
            policy_types: self.policy_types(),
            ingress,
            egress,
            audit: self.below(4) == 0,
            ..ExtendedPolicySpec::default()
        }
    }

    fn messages(&mut self) -> Vec<IcmpMessage> {
        let message = |random: &mut Self| {
            let is_v6 = random.below(2);
            let [kind, code] = random.of(&MESSAGES[is_v6 as usize]).to_be_bytes().map(i64::from);
            let said = random.below(3);
            IcmpMessage {
                family: [IcmpFamily::IPv4, IcmpFamily::IPv6][is_v6 as usize],
                kind: (said > 0).then_some(kind),
                code: (said > 1).then_some(code),
            }
        };
        (0..self.below(3).saturating_sub(1)).map(|_| message(self)).collect()
    }

    fn extended_peers(&mut self, is_egress: bool) -> Vec<ExtendedPeer> {
        let mut found = Vec::new();
        for _ in 0..self.below(3) {
            let choice = self.below(if is_egress { 5 } else { 4 });
            let plain = self.peers().into_iter().next();
            found.push(match (choice, plain) {
                (4, _) => {
                    let domain_name = Some(self.of(&DOMAINS).to_owned());
                    ExtendedPeer { domain_name, ..ExtendedPeer::default() }
                }
                (0..=2, Some(PolicyPeer { pod_selector, namespace_selector, ip_block })) => {
                    ExtendedPeer { pod_selector, namespace_selector, ip_block, ..ExtendedPeer::default() }
                }
                _ => {
                    let entity = self.of(&[Entity::Host, Entity::Node, Entity::World, Entity::Cluster]);
                    ExtendedPeer { entity: Some(entity), ..ExtendedPeer::default() }
                }
            });
        }
        found
    }

    fn cluster(&mut self) -> ClusterNetworkPolicySpec {
        let (takes, makes) = (self.below(3), self.below(4));
        let action =
            |random: &mut Self| random.of(&[ClusterAction::Accept, ClusterAction::Deny, ClusterAction::Pass]);
        let ingress = (0..takes).map(|_| ClusterIngressRule {
            name: String::new(),
            action: action(self),
            from: self.cluster_peers(false),
            protocols: self.protocols(),
        });
        let ingress = ingress.collect();
        let egress = (0..makes).map(|_| ClusterEgressRule {
            name: String::new(),
            action: action(self),
            to: self.cluster_peers(true),
            protocols: self.protocols(),
        });
        let egress = egress.collect();
        let subject = match self.below(2) {
            0 => ClusterSubject { namespaces: Some(self.selector("tier")), pods: None },
            _ => ClusterSubject { namespaces: None, pods: Some(self.namespaced()) },
        };
        ClusterNetworkPolicySpec {
            tier: self.of(&[ClusterTier::Admin, ClusterTier::Baseline]),
            priority: self.below(3).into(),
            subject,
            ingress,
            egress,
        }
    }

    fn namespaced(&mut self) -> NamespacedPods {
        NamespacedPods { namespace_selector: self.selector("tier"), pod_selector: self.selector("app") }
    }

    fn cluster_peers(&mut self, is_egress: bool) -> Vec<ClusterPeer> {
        let peer = |random: &mut Self| match random.below(if is_egress { 5 } else { 2 }) {
            0 => ClusterPeer { namespaces: Some(random.selector("tier")), ..ClusterPeer::default() },
            1 => ClusterPeer { pods: Some(random.namespaced()), ..ClusterPeer::default() },
            2 => ClusterPeer { nodes: Some(random.selector("tier")), ..ClusterPeer::default() },
            3 => ClusterPeer { domain_names: vec![random.of(&DOMAINS).to_owned()], ..ClusterPeer::default() },
            _ => ClusterPeer { networks: vec![random.of(&BLOCKS).to_owned()], ..ClusterPeer::default() },
        };
        (0..=self.below(2)).map(|_| peer(self)).collect()
    }

    fn protocols(&mut self) -> Vec<ClusterProtocol> {
        let protocol = |random: &mut Self| {
            let first = i64::from(random.port());
            let range = ClusterPortRange { start: first, end: first + 1 + i64::from(random.below(12)) };
            let destination_port = match random.below(3) {
                0 => None,
                1 => Some(ClusterPort { number: Some(first), range: None }),
                _ => Some(ClusterPort { number: None, range: Some(range) }),
            };
            let ports = Some(ClusterPorts { destination_port });
            match random.below(4) {
                0 => ClusterProtocol { tcp: ports, ..ClusterProtocol::default() },
                1 => ClusterProtocol { udp: ports, ..ClusterProtocol::default() },
                2 => ClusterProtocol { sctp: ports, ..ClusterProtocol::default() },
                _ => ClusterProtocol {
                    destination_named_port: Some("http".to_owned()),
                    ..ClusterProtocol::default()
                },
            }
        };
        (0..self.below(3)).map(|_| protocol(self)).collect()
    }

    fn identity(&mut self, index: u32) -> Identity {
        let mut identity = Identity::new(identity(index), self.of(&NAMESPACES), "app", self.labels("app"));
        if self.below(2) == 0 {
            let (port, protocol) = (self.port(), self.of(&[PolicyProtocol::Tcp, PolicyProtocol::Udp]));
            identity.spec.ports.push(NamedPort { name: "http".to_owned(), port, protocol });
        }
        identity
    }

    fn world(&mut self) -> World {
        let namespaces = NAMESPACES.map(|name| {
            let mut namespace = Namespace::new(name);
            namespace.metadata.labels.extend(self.labels("tier"));
            namespace
        });
        let identities = [1, 2].map(|index| self.identity(index));
        let policies: Vec<_> = (1..=self.below(6)).map(|number| self.policy(number)).collect();
        let mut world = World::of(&namespaces, &identities, &policies);
        let addresses = [0, 1].map(|is_v6| self.outside(is_v6 == 1));
        world.set_node("one", &self.labels("tier"), &addresses);
        for pattern in DOMAINS {
            let count = self.below(4);
            let addresses: Vec<_> = (0..count).map(|n| self.outside(n % 2 == 0)).collect();
            world.set_domain(pattern, addresses);
        }
        world
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
        let mut speaks = Speaks { protocol: random.of(&PROTOCOLS), port: random.port() };
        let mut ports = [40_000, speaks.port];
        if random.below(4) == 0 {
            let family = usize::from(is_v6);
            speaks = Speaks { protocol: ICMP[family], port: random.of(&MESSAGES[family]) };
            // Type and code, and no checksum.
            ports = [speaks.port, 0];
        }
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
fn the_kernel_decides_as_the_policies_of_all_kinds_mean() {
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
                    let meant = if judgement.audit.is_empty() { &judgement.rules } else { &judgement.audit };
                    let said = meant.iter().any(|rule| rules.contains(rule));
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
