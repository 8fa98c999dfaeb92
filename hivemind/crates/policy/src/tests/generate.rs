//! Random worlds, small enough that everything in them meets.

use std::net::IpAddr;

use hivemind_model::{
    ClusterAction, ClusterEgressRule, ClusterIngressRule, ClusterNetworkPolicySpec, ClusterPeer, ClusterPort,
    ClusterPortRange, ClusterPorts, ClusterProtocol, ClusterSubject, ClusterTier, EgressRule, Entity,
    ExtendedEgressRule, ExtendedIngressRule, ExtendedPeer, ExtendedPolicySpec, IcmpFamily, IcmpMessage,
    Identity, IngressRule, IpBlock, LabelExpression, LabelOperator, LabelSelector, NamedPort, Namespace,
    NamespacedPods, NetworkPolicy, NetworkPolicySpec, PolicyAction, PolicyPeer, PolicyPort, PolicyProtocol,
    PolicyType, PortRef, SYSTEM_NAMESPACE,
};
use ipnet::IpNet;
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{select, subsequence},
};

use super::{identity, labels, namespace, policy};
use crate::{Speaks, World};

const NAMESPACES: [&str; 3] = ["blue", "green", "hivemind-system"];
const VALUES: [&str; 3] = ["x", "y", "z"];
const KEYS: [&str; 2] = ["app", "tier"];
/// The numbers of generated identities are the first so many.
pub(super) const IDENTITIES: u32 = 8;
const POLICIES: u32 = 5;
/// Names of ports.
const NAMES: [&str; 2] = ["http", "admin"];
const NODES: [&str; 2] = ["one", "two"];
/// Patterns of domains, of which some mean the same names.
const DOMAINS: [&str; 3] = ["example.org", "*.example.org", "Example.ORG."];

/// Blocks that nest, touch and repeat.
const BLOCKS: [&str; 14] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.200.0.0/14",
    "10.200.0.0/24",
    "10.200.0.0/25",
    "10.200.0.128/25",
    "10.200.0.7/32",
    "192.0.2.0/31",
    "::/0",
    "fd00::/8",
    "fd00:1::/64",
    "fd00:1::8000:0/97",
    "fd00:1::7/128",
    "2001:db8::/32",
];

const PORTS: [u16; 9] = [1, 79, 80, 81, 127, 128, 1_023, 32_768, 65_535];

/// A change of a world.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Namespace(Namespace),
    NoNamespace(&'static str),
    Identity(Identity),
    NoIdentity(u32),
    Policy(Box<NetworkPolicy>),
    NoPolicy(&'static str, u32),
    Node(&'static str, Option<&'static str>, Vec<IpAddr>),
    NoNode(&'static str),
    Domain(&'static str, Vec<IpAddr>),
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => (select(&NAMESPACES), option::of(select(&VALUES)))
            .prop_map(|(name, value)| Change::Namespace(namespace(name, &value.map(|v| ("tier", v)).into_iter().collect::<Vec<_>>()))),
        1 => select(&NAMESPACES).prop_map(Change::NoNamespace),
        6 => any_identity().prop_map(Change::Identity),
        1 => (0..IDENTITIES).prop_map(|n| Change::NoIdentity(Identity::FIRST + n)),
        8 => any_policy().prop_map(|policy| Change::Policy(Box::new(policy))),
        1 => (select(&NAMESPACES), 1..=POLICIES).prop_map(|(name, number)| Change::NoPolicy(name, number)),
        2 => (select(&NODES), option::of(select(&VALUES)), vec(address(), 0..3))
            .prop_map(|(name, value, addresses)| Change::Node(name, value, addresses)),
        1 => select(&NODES).prop_map(Change::NoNode),
        3 => (select(&DOMAINS), vec(address(), 0..4)).prop_map(|(name, addresses)| Change::Domain(name, addresses)),
    ]
}

impl Change {
    pub(super) fn carry_out(&self, world: &mut World) -> crate::Touched {
        match self {
            Change::Namespace(namespace) => world.set_namespace(namespace),
            Change::NoNamespace(name) => world.remove_namespace(name),
            Change::Identity(identity) => world.set_identity(identity),
            Change::NoIdentity(number) => world.remove_identity(*number),
            Change::Policy(policy) => world.set_policy(policy),
            Change::NoPolicy(namespace, number) => {
                world.remove_policy(namespace, &format!("policy-{number}"))
            }
            Change::Node(name, value, addresses) => {
                let pairs: Vec<_> = value.map(|value| ("tier", value)).into_iter().collect();
                world.set_node(name, &labels(&pairs), addresses)
            }
            Change::NoNode(name) => world.remove_node(name),
            Change::Domain(pattern, addresses) => world.set_domain(pattern, addresses.iter().copied()),
        }
    }
}

pub(super) fn world() -> impl Strategy<Value = World> {
    (vec(any_identity(), 4..12), vec(any_policy(), 0..6), vec(change(), 0..6)).prop_map(
        |(identities, policies, changes)| {
            let mut world = World::of(&[], &identities, &policies);
            changes.iter().for_each(|change| drop(change.carry_out(&mut world)));
            world
        },
    )
}

fn any_identity() -> impl Strategy<Value = Identity> {
    let port = (select(&NAMES), select(&PORTS), any_protocol())
        .prop_map(|(name, port, protocol)| NamedPort { name: name.to_owned(), port, protocol });
    let ports = prop_oneof![1 => Just(Vec::new()), 1 => vec(port, 1..3)];
    let keys = subsequence([&KEYS[..], &[hivemind_model::NAMESPACE_NAME_LABEL]].concat(), 0..=KEYS.len() + 1);
    let keys = prop_oneof![3 => Just(None), 2 => keys.prop_map(Some)];
    (
        0..IDENTITIES,
        select(&NAMESPACES),
        option::of(select(&VALUES)),
        option::of(select(&VALUES)),
        ports,
        keys,
    )
        .prop_map(|(number, namespace, app, tier, mut ports, keys)| {
            let pairs = [app.map(|v| ("app", v)), tier.map(|v| ("tier", v))];
            let pairs: Vec<_> = pairs.into_iter().flatten().collect();
            let mut identity = identity(Identity::FIRST + number, namespace, &pairs);
            ports.sort();
            identity.spec.ports = ports;
            identity.spec.keys = keys.map(|keys| keys.into_iter().map(str::to_owned).collect());
            if let Some(keys) = &identity.spec.keys {
                identity.spec.labels.retain(|key, _| keys.contains(key));
            }
            identity
        })
}

fn any_policy() -> impl Strategy<Value = NetworkPolicy> {
    prop_oneof![4 => kubernetes_policy(), 4 => extended_policy(), 5 => cluster_policy()]
}

fn any_protocol() -> impl Strategy<Value = PolicyProtocol> {
    select(vec![PolicyProtocol::Tcp, PolicyProtocol::Udp, PolicyProtocol::Sctp])
}

fn extended_policy() -> impl Strategy<Value = NetworkPolicy> {
    let action = || select(vec![PolicyAction::Allow, PolicyAction::Allow, PolicyAction::Deny]);
    let parts = || (action(), ports(), messages(), extended_peers());
    let ingress = vec(
        parts().prop_map(|(action, ports, icmp, mut from)| {
            from.iter_mut().for_each(|peer| drop(peer.domain_name.take()));
            from.retain(|peer| *peer != ExtendedPeer::default());
            ExtendedIngressRule { action, from, ports, icmp }
        }),
        0..4,
    );
    let egress = vec(
        parts().prop_map(|(action, ports, icmp, to)| ExtendedEgressRule { action, to, ports, icmp }),
        0..4,
    );
    let audit = prop_oneof![3 => Just(false), 1 => Just(true)];
    (1..=POLICIES, select(&NAMESPACES), any_selector(), policy_types(), ingress, egress, audit).prop_map(
        |(number, namespace, pod_selector, policy_types, ingress, egress, audit)| {
            let spec = ExtendedPolicySpec {
                pod_selector,
                policy_types,
                ingress,
                egress,
                audit,
                ..Default::default()
            };
            policy(number, namespace, spec)
        },
    )
}

fn messages() -> impl Strategy<Value = Vec<IcmpMessage>> {
    let family = select(vec![IcmpFamily::IPv4, IcmpFamily::IPv6]);
    let kind = option::of((select(vec![0_i64, 8, 128, 255]), option::of(select(vec![0_i64, 1]))));
    let message = (family, kind).prop_map(|(family, kind)| IcmpMessage {
        family,
        kind: kind.map(|(kind, _)| kind),
        code: kind.and_then(|(_, code)| code),
    });
    prop_oneof![3 => Just(Vec::new()), 1 => vec(message, 1..3)]
}

fn extended_peers() -> impl Strategy<Value = Vec<ExtendedPeer>> {
    let entity = select(vec![Entity::Host, Entity::Node, Entity::World, Entity::Cluster])
        .prop_map(|entity| ExtendedPeer { entity: Some(entity), ..ExtendedPeer::default() });
    let domain = select(&DOMAINS)
        .prop_map(|name| ExtendedPeer { domain_name: Some(name.to_owned()), ..ExtendedPeer::default() });
    let plain = peers().prop_map(|peers| {
        let PolicyPeer { pod_selector, namespace_selector, ip_block } =
            peers.into_iter().next().unwrap_or_else(|| PolicyPeer {
                pod_selector: Some(LabelSelector::default()),
                ..PolicyPeer::default()
            });
        ExtendedPeer { pod_selector, namespace_selector, ip_block, ..ExtendedPeer::default() }
    });
    prop_oneof![1 => Just(Vec::new()), 4 => vec(prop_oneof![4 => plain, 2 => entity, 2 => domain], 1..4)]
}

fn cluster_policy() -> impl Strategy<Value = NetworkPolicy> {
    let action = || select(vec![ClusterAction::Accept, ClusterAction::Deny, ClusterAction::Pass]);
    let ingress = vec(
        (action(), vec(cluster_peer(false), 1..3), protocols()).prop_map(|(action, from, protocols)| {
            ClusterIngressRule { name: String::new(), action, from, protocols }
        }),
        0..4,
    );
    let egress = vec(
        (action(), vec(cluster_peer(true), 1..3), protocols()).prop_map(|(action, to, protocols)| {
            ClusterEgressRule { name: String::new(), action, to, protocols }
        }),
        0..4,
    );
    let subject = prop_oneof![
        any_selector().prop_map(|selector| ClusterSubject { namespaces: Some(selector), pods: None }),
        namespaced().prop_map(|pods| ClusterSubject { namespaces: None, pods: Some(pods) }),
    ];
    let tier = select(vec![ClusterTier::Admin, ClusterTier::Baseline]);
    (1..=POLICIES, tier, 0_i64..3, subject, ingress, egress).prop_map(
        |(number, tier, priority, subject, ingress, egress)| {
            let spec = ClusterNetworkPolicySpec { tier, priority, subject, ingress, egress };
            policy(number, SYSTEM_NAMESPACE, spec)
        },
    )
}

fn namespaced() -> impl Strategy<Value = NamespacedPods> {
    (any_selector(), any_selector())
        .prop_map(|(namespace_selector, pod_selector)| NamespacedPods { namespace_selector, pod_selector })
}

fn cluster_peer(is_egress: bool) -> impl Strategy<Value = ClusterPeer> {
    let inside = prop_oneof![
        any_selector()
            .prop_map(|selector| ClusterPeer { namespaces: Some(selector), ..ClusterPeer::default() }),
        namespaced().prop_map(|pods| ClusterPeer { pods: Some(pods), ..ClusterPeer::default() }),
    ];
    let texts = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
    let outside = prop_oneof![
        any_selector().prop_map(|selector| ClusterPeer { nodes: Some(selector), ..ClusterPeer::default() }),
        vec(select(&BLOCKS), 1..3)
            .prop_map(move |networks| ClusterPeer { networks: texts(networks), ..ClusterPeer::default() }),
        vec(select(&DOMAINS), 1..3)
            .prop_map(move |names| ClusterPeer { domain_names: texts(names), ..ClusterPeer::default() }),
    ];
    prop_oneof![3 => inside, (if is_egress { 3 } else { 0 }) => outside]
}

fn protocols() -> impl Strategy<Value = Vec<ClusterProtocol>> {
    let range = option::of((select(&PORTS), option::of(select(&PORTS))));
    let port = (any_protocol(), range).prop_map(|(protocol, range)| {
        let port = range.map(|(first, last)| match last.filter(|last| *last > first) {
            Some(last) => {
                let range = ClusterPortRange { start: first.into(), end: last.into() };
                ClusterPort { number: None, range: Some(range) }
            }
            None => ClusterPort { number: Some(first.into()), range: None },
        });
        let ports = Some(ClusterPorts { destination_port: port });
        match protocol {
            PolicyProtocol::Tcp => ClusterProtocol { tcp: ports, ..ClusterProtocol::default() },
            PolicyProtocol::Udp => ClusterProtocol { udp: ports, ..ClusterProtocol::default() },
            PolicyProtocol::Sctp => ClusterProtocol { sctp: ports, ..ClusterProtocol::default() },
        }
    });
    let named = select(&NAMES).prop_map(|name| ClusterProtocol {
        destination_named_port: Some(name.to_owned()),
        ..ClusterProtocol::default()
    });
    prop_oneof![2 => Just(Vec::new()), 3 => vec(prop_oneof![3 => port, 1 => named], 1..4)]
}

fn policy_types() -> impl Strategy<Value = Vec<PolicyType>> {
    select(vec![
        vec![],
        vec![PolicyType::Ingress],
        vec![PolicyType::Egress],
        vec![PolicyType::Ingress, PolicyType::Egress],
    ])
}

fn kubernetes_policy() -> impl Strategy<Value = NetworkPolicy> {
    let ingress = vec((ports(), peers()).prop_map(|(ports, from)| IngressRule { ports, from }), 0..4);
    let egress = vec((ports(), peers()).prop_map(|(ports, to)| EgressRule { ports, to }), 0..4);
    (1..=POLICIES, select(&NAMESPACES), any_selector(), policy_types(), ingress, egress).prop_map(
        |(number, namespace, pod_selector, policy_types, ingress, egress)| {
            policy(number, namespace, NetworkPolicySpec { pod_selector, policy_types, ingress, egress })
        },
    )
}

fn any_selector() -> impl Strategy<Value = LabelSelector> {
    let operator = select(vec![
        LabelOperator::In,
        LabelOperator::NotIn,
        LabelOperator::Exists,
        LabelOperator::DoesNotExist,
    ]);
    let expression =
        (select(&KEYS), operator, vec(select(&VALUES), 1..3)).prop_map(|(key, operator, values)| {
            let takes_values = matches!(operator, LabelOperator::In | LabelOperator::NotIn);
            let values = values.into_iter().filter(|_| takes_values).map(str::to_owned).collect();
            LabelExpression { key: key.to_owned(), operator, values }
        });
    prop_oneof![
        2 => Just(LabelSelector::default()),
        3 => (select(&KEYS), select(&VALUES)).prop_map(|(key, value)| LabelSelector {
            match_labels: labels(&[(key, value)]),
            ..LabelSelector::default()
        }),
        2 => vec(expression, 1..3)
            .prop_map(|match_expressions| LabelSelector { match_expressions, ..LabelSelector::default() }),
        1 => select(&NAMESPACES).prop_map(|name| LabelSelector {
            match_labels: labels(&[(hivemind_model::NAMESPACE_NAME_LABEL, name)]),
            ..LabelSelector::default()
        }),
    ]
}

fn ports() -> impl Strategy<Value = Vec<PolicyPort>> {
    let range = option::of((select(&PORTS), option::of(select(&PORTS))));
    let numbered = (any_protocol(), range).prop_map(|(protocol, range)| {
        let port = range.map(|(first, _)| PortRef::Number(first.into()));
        let end_port = range.and_then(|(first, last)| last.filter(|last| *last >= first));
        PolicyPort { protocol, port, end_port }
    });
    let named = (any_protocol(), select(&NAMES)).prop_map(|(protocol, name)| PolicyPort {
        protocol,
        port: Some(PortRef::Name(name.to_owned())),
        end_port: None,
    });
    prop_oneof![1 => Just(Vec::new()), 2 => vec(prop_oneof![4 => numbered, 1 => named], 1..4)]
}

fn peers() -> impl Strategy<Value = Vec<PolicyPeer>> {
    let selectors =
        (option::of(any_selector()), option::of(any_selector())).prop_map(|(pods, namespaces)| PolicyPeer {
            pod_selector: pods.or_else(|| namespaces.is_none().then(LabelSelector::default)),
            namespace_selector: namespaces,
            ip_block: None,
        });
    let block = (select(&BLOCKS), vec(select(&BLOCKS), 0..6)).prop_map(|(cidr, except)| {
        let whole: IpNet = cidr.parse().unwrap();
        let within = |text: &&str| {
            let net: IpNet = text.parse().unwrap();
            net != whole && whole.contains(&net)
        };
        let except = except.into_iter().filter(within).map(str::to_owned).collect();
        PolicyPeer { ip_block: Some(IpBlock { cidr: cidr.to_owned(), except }), ..PolicyPeer::default() }
    });
    prop_oneof![1 => Just(Vec::new()), 4 => vec(prop_oneof![selectors, block], 1..4)]
}

/// The first and last address of every block, and those beside them.
pub(super) fn address() -> impl Strategy<Value = IpAddr> {
    (select(&BLOCKS), 0..4).prop_map(|(block, at)| {
        let net: IpNet = block.parse().unwrap();
        let step = |address: IpAddr, by: i8| match address {
            IpAddr::V4(v4) => IpAddr::V4(u32::from(v4).wrapping_add_signed(by.into()).into()),
            IpAddr::V6(v6) => IpAddr::V6(u128::from(v6).wrapping_add_signed(by.into()).into()),
        };
        match at {
            0 => net.network(),
            1 => net.broadcast(),
            2 => step(net.network(), -1),
            _ => step(net.broadcast(), 1),
        }
    })
}

/// Identities of replicas, reserved ones, none, and one that nobody knows.
pub(super) fn other_identity() -> impl Strategy<Value = u32> {
    prop_oneof![6 => (0..IDENTITIES).prop_map(|n| Identity::FIRST + n), 2 => 0_u32..6, 1 => Just(9_999)]
}

pub(super) fn speaks() -> impl Strategy<Value = Speaks> {
    let protocol = prop_oneof![4 => Just(6), 2 => Just(17), 1 => Just(132), 1 => Just(1), 1 => any::<u8>()];
    let near = (select(&PORTS), 0_u16..3).prop_map(|(port, near)| port.wrapping_add(near).wrapping_sub(1));
    let message = select(vec![0_u16, 0x0800, 0x0801, 0x8000, 0x8001, 0xff00]);
    let port = prop_oneof![3 => near, 1 => message];
    let protocol = prop_oneof![6 => protocol, 1 => Just(58)];
    (protocol, port).prop_map(|(protocol, port)| Speaks { protocol, port })
}
