//! From policies to the tables of one identity.
//!
//! Each tier of each direction becomes a list of what rules say, each with a precedence: in the tiers of the whole cluster
//! their order, among policies of namespaces that denials come before what is allowed. What is left to do is to say it in few
//! entries: [`transports`] turns ranges of ports into prefixes and leaves out what a broader entry says already, [`blocks`]
//! flattens blocks of addresses, of which only the longest that holds an address counts, so that each block carries what
//! all the blocks around it say.
//!
//! In the place of equals the rule of the lowest number is named: that of the policy that was made first.

mod blocks;
mod transports;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use hivemind_common::policy::{
    ADMIN, ALLOW, ANY_PEER, AUDIT, BASELINE, DENY, EGRESS, HAS_ADMIN, HAS_AUDIT, HAS_PREFIXES, NAMESPACE,
    PASS, PREFIX_PEER, PolicyEntry, RULE_HOST, rule_number,
};
use hivemind_model::{Entity, Identity, IdentitySpec, NamedPort};

use self::{
    blocks::Blocks,
    transports::{Said, Transports},
};
use crate::{
    rules::{Action, Direction, Peer, Policy, Rule},
    tables::{TableEntry, TablePrefix, Tables, Transport},
    world::World,
};

/// Precedence of what is true where nothing else is said.
const BY_DEFAULT: u32 = 0;
/// Precedence of what a policy of a namespace allows.
const BY_RULE: u32 = 1;
/// Precedence of what a policy of a namespace denies.
const BY_DENIAL: u32 = 2;
/// Precedence of what no policy can change: more than a direction has rules.
const ALWAYS: u32 = 1 << 31;

/// What the data path has to hold for `identity`. `None` if the world has no such identity.
///
/// The cost grows with the rules of the policies that select it and with the peers that those name, not with the world.
pub fn compile(identity: u32, world: &World) -> Option<Tables> {
    let own = world.identity(identity)?;
    Some(compile_own(own, &world.policies_of(own), world))
}

fn compile_own(own: &IdentitySpec, policies: &[&Policy], world: &World) -> Tables {
    let mut tables = Tables::default();
    for direction in [0, EGRESS] {
        Compilation { world, own, direction, policies }.write(&mut tables);
    }
    tables.entries.sort_unstable_by_key(|entry| (entry.peer, entry.transport));
    tables.prefixes.sort_unstable();
    tables
}

/// Compiles identities of one world. What is equal is made once: the tables of those whom the same policies select, and whose
/// ports have the same names.
#[derive(Debug)]
pub struct Compiler<'a> {
    world: &'a World,
    /// By the places of policies, which stay while the world is borrowed.
    made: HashMap<(Vec<usize>, &'a [NamedPort]), Arc<Tables>>,
}

impl<'a> Compiler<'a> {
    /// One that has made nothing yet.
    pub fn new(world: &'a World) -> Self {
        Compiler { world, made: HashMap::new() }
    }

    /// As [`compile`].
    pub fn compile(&mut self, identity: u32) -> Option<Arc<Tables>> {
        let own = self.world.identity(identity)?;
        let policies = self.world.policies_of(own);
        let places = policies.iter().map(|policy| std::ptr::from_ref::<Policy>(policy).addr()).collect();
        let made = self.made.entry((places, own.ports.as_slice()));
        Some(Arc::clone(made.or_insert_with(|| Arc::new(compile_own(own, &policies, self.world)))))
    }
}

/// One direction of one identity.
struct Compilation<'a> {
    world: &'a World,
    /// Of it only the names of its ports matter, besides the policies: [`Compiler`] relies on it.
    own: &'a IdentitySpec,
    direction: u32,
    policies: &'a [&'a Policy],
}

/// What a tier says: its default, and what its rules say, each with its policy.
struct Tier<'a> {
    default: Said,
    rules: Vec<(&'a Policy, &'a Rule, Said)>,
}

impl<'a> Compilation<'a> {
    fn write(&self, tables: &mut Tables) {
        let (admin, baseline) = (self.ordered(ADMIN), self.ordered(BASELINE));
        let undecided = if baseline.is_some() { PASS } else { ALLOW };
        let own = self.additive(|policy| !policy.is_audit);
        let is_audited = self.governing(|policy| policy.is_audit).next().is_some();
        let audit = if is_audited { self.additive(|_| true) } else { None };
        let start = tables.entries.len();
        let is_governed = own.is_some() || admin.is_some() || baseline.is_some();
        let open = Tier { default: Said { verdict: undecided, ..Said::NOTHING }, rules: Vec::new() };
        self.write_tier(NAMESPACE, own.unwrap_or(open), undecided, is_governed, tables);
        let mut flags = 0;
        if let Some(tier) = admin {
            flags |= HAS_ADMIN;
            self.write_tier(ADMIN, tier, PASS, true, tables);
        }
        if let Some(tier) = baseline {
            self.write_tier(BASELINE, tier, PASS, true, tables);
        }
        if let Some(tier) = audit {
            flags |= HAS_AUDIT;
            self.write_tier(AUDIT, tier, ALLOW, true, tables);
        }
        let first = self.direction | NAMESPACE | ANY_PEER;
        let any = tables.entries[start..].iter_mut().filter(|entry| entry.peer == first);
        any.for_each(|entry| entry.value.flags |= flags);
    }

    /// The policies for which `counts` holds that govern the direction in the tier of namespaces.
    fn governing(
        &self,
        counts: impl Fn(&Policy) -> bool,
    ) -> impl Iterator<Item = (&'a Policy, &'a Direction)> {
        let direction = self.direction;
        self.policies
            .iter()
            .filter(move |policy| policy.tier == NAMESPACE && counts(policy))
            .filter_map(move |policy| Some((*policy, policy.direction(direction)?)))
    }

    /// The tier of namespaces: what any rule denies is denied, then what any rule allows is allowed, and then it depends on
    /// whether any policy closes the direction. `None` if no policy governs it.
    fn additive(&self, counts: impl Fn(&Policy) -> bool) -> Option<Tier<'a>> {
        let governing: Vec<_> = self.governing(counts).collect();
        if governing.is_empty() {
            return None;
        }
        let closing = governing.iter().find(|(_, said)| said.closes);
        let default = match closing {
            None => Said::NOTHING,
            Some((policy, _)) => Said {
                precedence: BY_DEFAULT,
                verdict: DENY,
                rule: rule_number(policy.number, self.direction, None),
            },
        };
        let mut rules = Vec::new();
        for (policy, said) in governing {
            for (index, rule) in (0_u32..).zip(&said.rules) {
                let number = rule_number(policy.number, self.direction, Some(index));
                let (precedence, verdict) =
                    if rule.action == Action::Deny { (BY_DENIAL, DENY) } else { (BY_RULE, ALLOW) };
                rules.push((policy, rule, Said { precedence, verdict, rule: number }));
            }
        }
        Some(Tier { default, rules })
    }

    /// A tier of the whole cluster: the first rule that matches decides. `None` if no policy of the tier governs the direction.
    fn ordered(&self, tier: u32) -> Option<Tier<'a>> {
        let policies = self.policies.iter().filter(|policy| policy.tier == tier);
        let rules: Vec<_> = policies
            .filter_map(|policy| Some((*policy, policy.direction(self.direction)?)))
            .flat_map(|(policy, said)| {
                (0_u32..).zip(&said.rules).map(move |(index, rule)| (policy, index, rule))
            })
            .collect();
        if rules.is_empty() {
            return None;
        }
        let precedences = (1..ALWAYS).take(rules.len()).collect::<Vec<_>>().into_iter().rev();
        let rules = rules.into_iter().zip(precedences).map(|((policy, index, rule), precedence)| {
            let verdict = match rule.action {
                Action::Allow => ALLOW,
                Action::Deny => DENY,
                Action::Pass => PASS,
            };
            let number = rule_number(policy.number, self.direction, Some(index));
            (policy, rule, Said { precedence, verdict, rule: number })
        });
        Some(Tier { default: Said { verdict: PASS, ..Said::NOTHING }, rules: rules.collect() })
    }

    /// Writes what a tier says. Where its default is nothing, that is `otherwise`.
    fn write_tier(&self, tier: u32, said: Tier<'_>, otherwise: u8, is_governed: bool, tables: &mut Tables) {
        let side = self.direction | tier;
        let mut known = Known::default();
        for (policy, rule, said) in &said.rules {
            self.add(policy, rule, *said, &mut known);
        }
        let mut default = said.default;
        if default.verdict == 0 {
            default.verdict = otherwise;
        }
        let start = tables.entries.len();
        known.write(side, default, tables);
        if self.direction != EGRESS && is_governed {
            let host = Said { precedence: ALWAYS, verdict: ALLOW, rule: RULE_HOST };
            tables.entries.retain(|entry| entry.peer != side | Identity::HOST);
            tables.entries.push(entry(side | Identity::HOST, Transport::Any, host));
        }
        if tables.prefixes.iter().any(|prefix| prefix.side == side) {
            let any = tables.entries[start..].iter_mut().filter(|entry| entry.peer == side | ANY_PEER);
            any.for_each(|entry| entry.value.flags |= HAS_PREFIXES);
        }
    }

    fn add(&self, policy: &Policy, rule: &Rule, said: Said, known: &mut Known) {
        let taker = if self.direction == EGRESS { None } else { Some(self.own) };
        let plain = Transports::of_rule(rule.transports.as_deref(), taker, said);
        let by_name = self.direction == EGRESS && rule.has_names();
        let to = |identity: u32, known: &mut Known| {
            let own = by_name.then(|| {
                Transports::of_rule(rule.transports.as_deref(), self.world.identity(identity), said)
            });
            known.identities.entry(identity).or_default().add(own.as_ref().unwrap_or(&plain));
        };
        let Some(peers) = &rule.peers else {
            known.any.add(&plain);
            if by_name {
                self.world.everybody().for_each(|identity| to(identity, known));
            }
            return;
        };
        for peer in peers {
            match peer {
                Peer::Replicas { namespaces, pods } => {
                    let peers = self.world.peers(&policy.namespace, namespaces.as_ref(), pods.as_ref());
                    peers.into_iter().for_each(|identity| to(identity, known));
                }
                Peer::Entity(entity) => {
                    own_identities(*entity).iter().for_each(|identity| to(*identity, known));
                    if *entity == Entity::Cluster {
                        self.world.everybody().for_each(|identity| to(identity, known));
                    }
                }
                Peer::Block { whole, except } => known.blocks.add(*whole, except, said.rule, &plain),
                Peer::Nodes(selector) => {
                    let addresses = self.world.node_addresses(selector);
                    addresses.for_each(|address| known.blocks.add(address.into(), &[], said.rule, &plain));
                }
                Peer::Domain(pattern) => {
                    let addresses = self.world.domain_addresses(pattern).into_iter();
                    addresses.for_each(|address| known.blocks.add(address.into(), &[], said.rule, &plain));
                }
            }
        }
    }
}

/// The identities of an entity that are no replicas'.
fn own_identities(entity: Entity) -> &'static [u32] {
    match entity {
        Entity::Host => &[Identity::HOST],
        Entity::Node => &[Identity::HOST, Identity::NODE],
        Entity::World => &[Identity::WORLD],
        Entity::Cluster => &[Identity::HOST, Identity::NODE],
    }
}

fn entry(peer: u32, transport: Transport, said: Said) -> TableEntry {
    let Said { precedence, verdict, rule } = said;
    TableEntry {
        peer,
        transport,
        value: PolicyEntry { rule, precedence, verdict, flags: 0, padding: [0; 2] },
    }
}

/// What the rules of a tier say, by peer.
#[derive(Default)]
struct Known {
    any: Transports,
    identities: BTreeMap<u32, Transports>,
    blocks: Blocks,
}

impl Known {
    fn write(self, side: u32, default: Said, tables: &mut Tables) {
        let any = self.any.reduced(&Transports::default());
        if !any.says_everything() {
            tables.entries.push(entry(side | ANY_PEER, Transport::Any, default));
        }
        for (identity, transports) in self.identities {
            push(side | identity, &transports.reduced(&any), tables);
        }
        let flat = self.blocks.flatten(&any);
        for (number, transports) in (1_u32..).zip(&flat.contents) {
            push(side | PREFIX_PEER | number, transports, tables);
        }
        tables.prefixes.extend(flat.prefixes.into_iter().map(|(net, content)| TablePrefix {
            side,
            net,
            number: content + 1,
        }));
        push(side | ANY_PEER, &any, tables);
    }
}

fn push(peer: u32, transports: &Transports, tables: &mut Tables) {
    tables.entries.extend(transports.iter().map(|(transport, said)| entry(peer, transport, said)));
}
