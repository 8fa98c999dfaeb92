//! Random worlds, small enough that everything in them meets.

use std::net::IpAddr;

use hivemind_model::{
    EgressRule, Identity, IngressRule, IpBlock, LabelExpression, LabelOperator, LabelSelector, Namespace,
    NetworkPolicy, NetworkPolicySpec, PolicyPeer, PolicyPort, PolicyProtocol, PolicyType, PortRef,
};
use ipnet::IpNet;
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{identity, labels, namespace, policy};
use crate::{Speaks, World};

const NAMESPACES: [&str; 3] = ["blue", "green", "hivemind-system"];
const VALUES: [&str; 3] = ["x", "y", "z"];
const KEYS: [&str; 2] = ["app", "tier"];
/// The numbers of generated identities are the first so many.
pub(super) const IDENTITIES: u32 = 8;
const POLICIES: u32 = 5;

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
        }
    }
}

pub(super) fn world() -> impl Strategy<Value = World> {
    (vec(any_identity(), 4..12), vec(any_policy(), 0..6), vec(change(), 0..4)).prop_map(
        |(identities, policies, changes)| {
            let mut world = World::of(&[], &identities, &policies);
            changes.iter().for_each(|change| drop(change.carry_out(&mut world)));
            world
        },
    )
}

fn any_identity() -> impl Strategy<Value = Identity> {
    (0..IDENTITIES, select(&NAMESPACES), option::of(select(&VALUES)), option::of(select(&VALUES))).prop_map(
        |(number, namespace, app, tier)| {
            let pairs = [app.map(|v| ("app", v)), tier.map(|v| ("tier", v))];
            identity(Identity::FIRST + number, namespace, &pairs.into_iter().flatten().collect::<Vec<_>>())
        },
    )
}

fn any_policy() -> impl Strategy<Value = NetworkPolicy> {
    let types = select(vec![
        vec![],
        vec![PolicyType::Ingress],
        vec![PolicyType::Egress],
        vec![PolicyType::Ingress, PolicyType::Egress],
    ]);
    let ingress = vec((ports(), peers()).prop_map(|(ports, from)| IngressRule { ports, from }), 0..4);
    let egress = vec((ports(), peers()).prop_map(|(ports, to)| EgressRule { ports, to }), 0..4);
    (1..=POLICIES, select(&NAMESPACES), any_selector(), types, ingress, egress).prop_map(
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
    let protocol = select(vec![PolicyProtocol::Tcp, PolicyProtocol::Udp, PolicyProtocol::Sctp]);
    let range = option::of((select(&PORTS), option::of(select(&PORTS))));
    let port = (protocol, range).prop_map(|(protocol, range)| {
        let port = range.map(|(first, _)| PortRef::Number(first.into()));
        let end_port = range.and_then(|(first, last)| last.filter(|last| *last >= first));
        PolicyPort { protocol, port, end_port }
    });
    prop_oneof![1 => Just(Vec::new()), 2 => vec(port, 1..4)]
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
    prop_oneof![6 => (0..IDENTITIES).prop_map(|n| Identity::FIRST + n), 2 => 0_u32..4, 1 => Just(9_999)]
}

pub(super) fn speaks() -> impl Strategy<Value = Speaks> {
    let protocol = prop_oneof![4 => Just(6), 2 => Just(17), 1 => Just(132), 1 => Just(1), 1 => any::<u8>()];
    let port = (select(&PORTS), 0_u16..3).prop_map(|(port, near)| port.wrapping_add(near).wrapping_sub(1));
    (protocol, port).prop_map(|(protocol, port)| Speaks { protocol, port })
}
