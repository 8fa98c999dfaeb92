//! Whom and what a rule is about, in a world as it is, so that rules can be held against each other.

use std::collections::BTreeSet;

use hivemind_model::{Entity, LabelSelector};
use ipnet::IpNet;

use crate::{
    rules::{Peer, Policy, Rule, Speech},
    world::World,
};

/// The peers of a rule, and what they speak.
pub(super) struct Reach<'a> {
    /// `None`: everything.
    speech: Option<&'a [Speech]>,
    everybody: bool,
    identities: BTreeSet<u32>,
    /// Blocks, each with its exceptions.
    blocks: Vec<(IpNet, &'a [IpNet])>,
    nodes: Vec<&'a LabelSelector>,
    domains: Vec<&'a str>,
    entities: BTreeSet<Entity>,
}

impl<'a> Reach<'a> {
    pub(super) fn of(policy: &Policy, rule: &'a Rule, world: &World) -> Self {
        let mut reach = Reach {
            speech: rule.transports.as_deref(),
            everybody: rule.peers.is_none(),
            identities: BTreeSet::new(),
            blocks: Vec::new(),
            nodes: Vec::new(),
            domains: Vec::new(),
            entities: BTreeSet::new(),
        };
        for peer in rule.peers.iter().flatten() {
            match peer {
                Peer::Replicas { namespaces, pods } => {
                    reach.identities.extend(world.peers(
                        &policy.namespace,
                        namespaces.as_ref(),
                        pods.as_ref(),
                    ));
                }
                Peer::Block { whole, except } => reach.blocks.push((*whole, except)),
                Peer::Entity(entity) => reach.add_entity(*entity, world),
                Peer::Nodes(selector) => reach.nodes.push(selector),
                Peer::Domain(pattern) => reach.domains.push(pattern),
            }
        }
        let any = |is: fn(&IpNet) -> bool| {
            reach.blocks.iter().any(|(net, except)| net.prefix_len() == 0 && except.is_empty() && is(net))
        };
        reach.everybody |= any(|net| matches!(net, IpNet::V4(_))) && any(|net| matches!(net, IpNet::V6(_)));
        reach
    }

    fn add_entity(&mut self, entity: Entity, world: &World) {
        self.entities.insert(entity);
        if entity == Entity::Cluster {
            self.identities.extend(world.everybody());
            self.entities.insert(Entity::Node);
        }
        if matches!(entity, Entity::Cluster | Entity::Node) {
            self.entities.insert(Entity::Host);
        }
    }

    /// Whether it is about nobody now.
    fn is_nobody(&self) -> bool {
        let Reach { everybody, identities, blocks, nodes, domains, entities, .. } = self;
        !everybody
            && identities.is_empty()
            && blocks.is_empty()
            && nodes.is_empty()
            && domains.is_empty()
            && entities.is_empty()
    }

    /// Whether every connection that `other` is about is one that this is about. False where that cannot be told.
    pub(super) fn covers(&self, other: &Reach<'_>) -> bool {
        self.covers_speech(other) && !other.is_nobody() && self.covers_peers(other)
    }

    fn covers_speech(&self, other: &Reach<'_>) -> bool {
        let Some(own) = self.speech else { return true };
        let Some(others) = other.speech else { return false };
        others.iter().all(|said| own.iter().any(|own| is_within(said, own)))
    }

    fn covers_peers(&self, other: &Reach<'_>) -> bool {
        if self.everybody || other.everybody {
            return self.everybody;
        }
        let has_block = |(net, except): &(IpNet, &[IpNet])| {
            self.blocks.iter().any(|(own, left_out)| {
                own.contains(net) && (left_out.is_empty() || (own == net && left_out == except))
            })
        };
        let has_node = |wanted: &&LabelSelector| self.nodes.iter().any(|own| own.is_empty() || own == wanted);
        other.identities.is_subset(&self.identities)
            && other.blocks.iter().all(has_block)
            && other.nodes.iter().all(has_node)
            && other.domains.iter().all(|domain| self.domains.contains(domain))
            && other.entities.is_subset(&self.entities)
    }

    /// Whether there are connections that both are about. False where that cannot be told.
    pub(super) fn meets(&self, other: &Reach<'_>) -> bool {
        self.meets_speech(other) && !self.is_nobody() && !other.is_nobody() && self.meets_peers(other)
    }

    fn meets_speech(&self, other: &Reach<'_>) -> bool {
        match (self.speech, other.speech) {
            (Some(own), Some(others)) => own.iter().any(|own| others.iter().any(|said| overlap(own, said))),
            _ => true,
        }
    }

    fn meets_peers(&self, other: &Reach<'_>) -> bool {
        let has_block = |(net, except): &(IpNet, &[IpNet])| {
            except.is_empty()
                && self
                    .blocks
                    .iter()
                    .any(|(own, left_out)| left_out.is_empty() && (own.contains(net) || net.contains(own)))
        };
        self.everybody
            || other.everybody
            || !self.identities.is_disjoint(&other.identities)
            || other.blocks.iter().any(has_block)
            || other.nodes.iter().any(|selector| self.nodes.contains(selector))
            || other.domains.iter().any(|domain| self.domains.contains(domain))
            || !self.entities.is_disjoint(&other.entities)
    }
}

fn is_within(inner: &Speech, outer: &Speech) -> bool {
    match (inner, outer) {
        (Speech::Ports(inner), Speech::Ports(outer)) => {
            inner.protocol == outer.protocol && outer.first <= inner.first && inner.last <= outer.last
        }
        (Speech::Named { name, protocol }, Speech::Named { name: other, protocol: of }) => {
            name == other && (of.is_none() || of == protocol)
        }
        _ => false,
    }
}

fn overlap(one: &Speech, other: &Speech) -> bool {
    match (one, other) {
        (Speech::Ports(one), Speech::Ports(other)) => {
            one.protocol == other.protocol && one.first <= other.last && other.first <= one.last
        }
        (Speech::Named { name, protocol }, Speech::Named { name: other, protocol: of }) => {
            name == other && (of.is_none() || protocol.is_none() || of == protocol)
        }
        _ => false,
    }
}
