//! From policies to the tables of one identity.
//!
//! Policies only ever allow, so what all rules of all policies that select an identity allow is put together. What is left
//! to do is to say it in few entries: [`transports`] turns ranges of ports into prefixes and leaves out what a broader
//! entry says already, [`blocks`] flattens blocks of addresses, of which only the longest that holds an address counts, so
//! that each block carries what all the blocks around it allow.
//!
//! In the place of equals the rule of the lowest number is named: that of the policy that was made first.

mod blocks;
mod transports;

use std::collections::BTreeMap;

use hivemind_common::policy::{
    ALLOW, ANY_PEER, DENY, EGRESS, HAS_PREFIXES, PREFIX_PEER, PolicyEntry, RULE_HOST, RULE_NONE, rule_number,
};
use hivemind_model::Identity;

use self::{blocks::Blocks, transports::Transports};
use crate::{
    rules::{Peer, Policy},
    tables::{TableEntry, TablePrefix, Tables, Transport},
    world::World,
};

/// Precedence of what is true where nothing else is said.
const BY_DEFAULT: u32 = 0;
/// Precedence of what a policy's rule says.
const BY_RULE: u32 = 1;
/// Precedence of what no policy can change.
const ALWAYS: u32 = 2;

/// What the data path has to hold for `identity`. `None` if the world has no such identity.
///
/// The cost grows with the rules of the policies that select it and with the peers that those name, not with the world.
pub fn compile(identity: u32, world: &World) -> Option<Tables> {
    let policies = world.policies_of(world.identity(identity)?);
    let mut tables = Tables::default();
    for direction in [0, EGRESS] {
        compile_direction(direction, &policies, world, &mut tables);
    }
    tables.entries.sort_unstable_by_key(|entry| (entry.peer, entry.transport));
    tables.prefixes.sort_unstable();
    Some(tables)
}

fn compile_direction(direction: u32, policies: &[&Policy], world: &World, tables: &mut Tables) {
    let governing: Vec<_> =
        policies.iter().filter_map(|policy| Some((*policy, policy.rules(direction)?))).collect();
    let Some((first, _)) = governing.first() else {
        tables.entries.push(entry(direction | ANY_PEER, Transport::Any, RULE_NONE, ALLOW, BY_DEFAULT));
        return;
    };
    let mut allowed = Allowed::default();
    for (policy, rules) in &governing {
        for (index, rule) in (0_u32..).zip(*rules) {
            let number = rule_number(policy.number, direction, Some(index));
            let transports = Transports::of_rule(rule.ports.as_deref(), number);
            match &rule.peers {
                None => allowed.any.add(&transports),
                Some(peers) => {
                    peers
                        .iter()
                        .for_each(|peer| allowed.add(peer, &policy.namespace, number, &transports, world));
                }
            }
        }
    }
    let default = rule_number(first.number, direction, None);
    let start = tables.entries.len();
    allowed.write(direction, default, tables);
    if direction != EGRESS {
        tables.entries.push(entry(Identity::HOST, Transport::Any, RULE_HOST, ALLOW, ALWAYS));
    }
    if tables.prefixes.iter().any(|prefix| prefix.egress == (direction == EGRESS)) {
        let any = tables.entries[start..].iter_mut().filter(|e| e.peer == direction | ANY_PEER);
        any.for_each(|entry| entry.value.flags |= HAS_PREFIXES);
    }
}

fn entry(peer: u32, transport: Transport, rule: u32, verdict: u8, precedence: u32) -> TableEntry {
    TableEntry {
        peer,
        transport,
        value: PolicyEntry { rule, precedence, verdict, flags: 0, padding: [0; 2] },
    }
}

/// What the rules of a direction allow, by peer.
#[derive(Default)]
struct Allowed {
    any: Transports,
    identities: BTreeMap<u32, Transports>,
    blocks: Blocks,
}

impl Allowed {
    fn add(&mut self, peer: &Peer, namespace: &str, rule: u32, transports: &Transports, world: &World) {
        match peer {
            Peer::Replicas { namespaces, pods } => {
                for identity in world.peers(namespace, namespaces.as_ref(), pods.as_ref()) {
                    self.identities.entry(identity).or_default().add(transports);
                }
            }
            Peer::Block { whole, except } => self.blocks.add(*whole, except, rule, transports),
        }
    }

    fn write(self, direction: u32, default: u32, tables: &mut Tables) {
        let any = self.any.reduced(&Transports::default());
        if !any.allows_everything() {
            tables.entries.push(entry(direction | ANY_PEER, Transport::Any, default, DENY, BY_DEFAULT));
        }
        for (identity, transports) in self.identities {
            push(direction | identity, &transports.reduced(&any), tables);
        }
        let flat = self.blocks.flatten(&any);
        for (number, transports) in (1_u32..).zip(&flat.contents) {
            push(direction | PREFIX_PEER | number, transports, tables);
        }
        tables.prefixes.extend(flat.prefixes.into_iter().map(|(net, content)| TablePrefix {
            egress: direction == EGRESS,
            net,
            number: content + 1,
        }));
        push(direction | ANY_PEER, &any, tables);
    }
}

fn push(peer: u32, transports: &Transports, tables: &mut Tables) {
    let entries = transports.iter().map(|(transport, rule)| entry(peer, transport, rule, ALLOW, BY_RULE));
    tables.entries.extend(entries);
}
