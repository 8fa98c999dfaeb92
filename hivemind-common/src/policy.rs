//! Policies as the maps hold them, and the one function that decides by them, run by the programs and by tests alike.
//!
//! Each endpoint names a policy by number ([`crate::endpoint::EndpointState::policy`]); a policy is never changed, only
//! replaced by one with another number. Its entries lie in one longest-prefix trie, keyed policy, direction, tier and peer,
//! protocol, port, in that order: one lookup answers for one peer, whatever its protocol and ports. At most three are
//! made of a tier for a connection's first packet in each direction: for any peer, for the peer's identity, and, if the tier
//! has prefixes at all, for the longest of them that holds the peer's address. The answer of the greatest precedence
//! counts; among equals a denial does.
//!
//! The tiers are those of Kubernetes' network policy API: [`ADMIN`], [`NAMESPACE`], [`BASELINE`]. An answer may be to ask the next one
//! ([`PASS`]). The second is there always, and says whether there is a first; so where there is no other, nothing more is
//! looked up. A fourth, [`AUDIT`], does not decide: what it denies is allowed, under the rule that would deny it.
//!
//! There is always an answer for any peer: the policy's default. A policy without one is not written yet, and lets
//! nothing through.

/// The peer that stands for every peer.
pub const ANY_PEER: u32 = 0;
/// Bit of [`PolicyKey::peer`]: connections that the endpoint makes; without it those that it takes.
pub const EGRESS: u32 = 1 << 31;
/// Bit of [`PolicyKey::peer`]: the rest is the number of a prefix within the policy, not an identity.
pub const PREFIX_PEER: u32 = 1 << 30;
/// Tier in [`PolicyKey::peer`]: the policies of namespaces.
pub const NAMESPACE: u32 = 0;
/// Tier in [`PolicyKey::peer`]: policies of the whole cluster that are asked before.
pub const ADMIN: u32 = 1 << 28;
/// Tier in [`PolicyKey::peer`]: policies of the whole cluster that are asked after.
pub const BASELINE: u32 = 2 << 28;
/// Tier in [`PolicyKey::peer`]: as [`NAMESPACE`] would be with the policies that only tell what they would deny.
pub const AUDIT: u32 = 3 << 28;
/// The bits of [`PolicyKey::peer`] that say the tier.
pub const TIERS: u32 = 3 << 28;
/// The bits of [`PolicyKey::peer`] that say direction and tier.
pub const SIDE: u32 = EGRESS | TIERS;
/// How many bits a policy's number has, and a prefix's: those below the tier's.
pub const NUMBER_BITS: u32 = 28;

/// Bits of a [`PolicyKey`] that say policy and peer; the protocol's eight and the port's sixteen follow.
pub const PEER_BITS: u32 = 64;
/// Bits of a whole [`PolicyKey`] that count.
pub const KEY_BITS: u32 = PEER_BITS + 8 + 16;
/// Bits of a [`PrefixKey`] before the address.
pub const SET_BITS: u32 = 32;

/// The rule where no policy governs an end.
pub const RULE_NONE: u32 = 0;
/// The rule by which the node's own processes always reach its replicas.
pub const RULE_HOST: u32 = 1;
/// Bits of a rule's number that say which rule of its policy's direction it is.
pub const RULE_INDEX_BITS: u32 = 11;

/// The number of a rule: of which policy (1 to 2²⁰ - 1), of which direction ([`EGRESS`] or zero), and which one, counted
/// from zero (below 2,046); no index is the policy's default.
#[inline(always)]
pub const fn rule_number(policy: u32, direction: u32, index: Option<u32>) -> u32 {
    let egress = (direction == EGRESS) as u32;
    let index = match index {
        Some(index) => index + 1,
        None => 0,
    };
    policy << (RULE_INDEX_BITS + 1) | egress << RULE_INDEX_BITS | index
}

/// What a rule's number says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RuleParts {
    /// The policy's number.
    pub policy: u32,
    /// Whether the rule is about connections that an endpoint makes.
    pub egress: bool,
    /// Which rule of the direction; none is the policy's default.
    pub index: Option<u32>,
}

/// What a rule's number says, unless it is no policy's: [`RULE_NONE`] and [`RULE_HOST`].
pub const fn rule_parts(rule: u32) -> Option<RuleParts> {
    let policy = rule >> (RULE_INDEX_BITS + 1);
    if policy == 0 {
        return None;
    }
    let egress = rule >> RULE_INDEX_BITS & 1 != 0;
    let index = (rule & ((1 << RULE_INDEX_BITS) - 1)).checked_sub(1);
    Some(RuleParts { policy, egress, index })
}

/// Data of the keys of `policy`, after the number of bits that count.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PolicyKey {
    /// The policy's number, never zero.
    pub policy: u32,
    /// An identity, or a prefix's number with [`PREFIX_PEER`]; with [`EGRESS`] for that direction.
    pub peer: u32,
    /// Protocol, then port in network order, then zero; as bytes in memory order.
    pub transport: [u8; 4],
}

impl PolicyKey {
    /// The key of one connection's protocol and port (in network order).
    #[inline(always)]
    pub fn of(policy: u32, peer: u32, protocol: u8, port: u16) -> Self {
        let [high, low] = port.to_ne_bytes();
        Self { policy, peer, transport: [protocol, high, low, 0] }
    }
}

/// `verdict` of a [`PolicyEntry`]: the connection may be made.
pub const ALLOW: u8 = 1;
/// `verdict` of a [`PolicyEntry`]: it may not.
pub const DENY: u8 = 2;
/// `verdict` of a [`PolicyEntry`]: the next tier says. In the last one it is as [`ALLOW`].
pub const PASS: u8 = 3;
/// `flags` of a [`PolicyEntry`] for any peer: the direction has prefixes to look at in this tier.
pub const HAS_PREFIXES: u8 = 1;
/// `flags` of a [`PolicyEntry`] for any peer, in the tier [`NAMESPACE`]: the direction has the tier [`ADMIN`].
pub const HAS_ADMIN: u8 = 4;
/// `flags` of a [`PolicyEntry`] for any peer, in the tier [`NAMESPACE`]: the direction has the tier [`AUDIT`].
pub const HAS_AUDIT: u8 = 8;
/// `flags` of what [`decide`] returns: the entry is that of a prefix.
pub const BY_PREFIX: u8 = 2;

/// Value of `policy`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PolicyEntry {
    /// The rule that says so.
    pub rule: u32,
    /// The greatest counts.
    pub precedence: u32,
    /// [`ALLOW`], [`DENY`] or [`PASS`].
    pub verdict: u8,
    /// [`HAS_PREFIXES`], [`HAS_ADMIN`] and [`HAS_AUDIT`].
    pub flags: u8,
    /// Always zero.
    pub padding: [u8; 2],
}

/// Data of the keys of `policy_cidr_v4` and `policy_cidr_v6`, after the number of bits that count.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PrefixKey<A> {
    /// The policy's number; its directions and tiers have sets of their own: see [`prefix_set`].
    pub set: u32,
    /// The address.
    pub address: A,
}

/// The set of prefixes of a policy's direction and tier.
#[inline(always)]
pub fn prefix_set(policy: u32, side: u32) -> u32 {
    policy | side
}

/// Answers for one peer: the longest entry that matches its protocol and port, and the number of the prefix that holds
/// an address. The programs ask maps, tests ask vectors.
pub trait Lookup {
    /// The entry for `peer`, which has the bits of direction, tier and kind.
    fn entry(&self, peer: u32) -> Option<PolicyEntry>;
    /// The number of the longest prefix of a direction and tier that holds the other end's address.
    fn prefix(&self, side: u32) -> Option<u32>;
    /// What [`strongest`] finds. Programs have it in one place.
    #[inline(always)]
    fn strongest(&self, side: u32, identity: u32) -> Option<PolicyEntry> {
        strongest(self, side, identity)
    }
}

/// The entry that decides about a connection with a peer of `identity` in `direction` ([`EGRESS`] or zero), or `None` if the
/// policy is not written: then nothing may pass. Its verdict is [`ALLOW`] or [`DENY`]; what is allowed and would be denied by
/// a policy that only tells bears that one's rule.
#[inline(always)]
pub fn decide(lookup: &impl Lookup, direction: u32, identity: u32) -> Option<PolicyEntry> {
    let mut decided = lookup.strongest(direction | NAMESPACE, identity)?;
    let flags = decided.flags;
    if flags & HAS_ADMIN != 0 {
        let admin = lookup.strongest(direction | ADMIN, identity)?;
        if admin.verdict != PASS {
            return Some(admin);
        }
    }
    if decided.verdict == PASS {
        decided = lookup.strongest(direction | BASELINE, identity)?;
        if decided.verdict == PASS {
            decided.verdict = ALLOW;
        }
    }
    if flags & HAS_AUDIT != 0 && decided.verdict == ALLOW {
        let audit = lookup.strongest(direction | AUDIT, identity)?;
        if audit.verdict == DENY {
            decided.rule = audit.rule;
        }
    }
    Some(decided)
}

/// The entry of the greatest precedence that a tier has for a peer, with the flags of what it has for any peer, and
/// [`BY_PREFIX`] if it is a prefix's. `None` if there is nothing for any peer.
#[inline(always)]
pub fn strongest<L: Lookup + ?Sized>(lookup: &L, side: u32, identity: u32) -> Option<PolicyEntry> {
    let any = lookup.entry(side | ANY_PEER)?;
    let mut best = any;
    if identity != ANY_PEER {
        best = stronger(best, lookup.entry(side | identity));
    }
    best.flags = any.flags;
    if any.flags & HAS_PREFIXES != 0
        && let Some(prefix) = lookup.prefix(side)
    {
        let entry = lookup.entry(side | PREFIX_PEER | prefix);
        let entry = entry.map(|entry| PolicyEntry { flags: any.flags | BY_PREFIX, ..entry });
        best = stronger(best, entry);
    }
    Some(best)
}

#[inline(always)]
fn stronger(best: PolicyEntry, other: Option<PolicyEntry>) -> PolicyEntry {
    match other {
        Some(other) if other.precedence > best.precedence => other,
        Some(other)
            if other.precedence == best.precedence && best.verdict != DENY && other.verdict == DENY =>
        {
            other
        }
        _ => best,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Table {
        entries: BTreeMap<u32, PolicyEntry>,
        prefix: Option<u32>,
    }

    impl Lookup for Table {
        fn entry(&self, peer: u32) -> Option<PolicyEntry> {
            self.entries.get(&peer).copied()
        }
        fn prefix(&self, _: u32) -> Option<u32> {
            self.prefix
        }
    }

    fn entry(verdict: u8, precedence: u32, rule: u32, flags: u8) -> PolicyEntry {
        PolicyEntry { rule, precedence, verdict, flags, padding: [0; 2] }
    }

    #[test]
    fn a_policy_that_is_not_written_decides_nothing() {
        let mut table = Table::default();
        table.entries.insert(300, entry(ALLOW, 1, 9, 0));
        assert_eq!(decide(&table, 0, 300), None);
    }

    #[test]
    fn the_default_counts_until_something_stronger_is_said() {
        let mut table = Table::default();
        table.entries.insert(ANY_PEER, entry(DENY, 0, 7, 0));
        table.entries.insert(300, entry(ALLOW, 1, 8, 0));
        assert_eq!(decide(&table, 0, 300).unwrap().rule, 8);
        assert_eq!(decide(&table, 0, 301).unwrap().rule, 7);
        assert_eq!(decide(&table, EGRESS, 300), None, "the other direction has entries of its own");
    }

    #[test]
    fn among_equals_a_denial_counts() {
        let mut table = Table::default();
        table.entries.insert(ANY_PEER, entry(ALLOW, 5, 1, 0));
        table.entries.insert(300, entry(DENY, 5, 2, 0));
        assert_eq!(decide(&table, 0, 300).unwrap().verdict, DENY);
        table.entries.insert(ANY_PEER, entry(DENY, 5, 1, 0));
        table.entries.insert(300, entry(ALLOW, 5, 2, 0));
        assert_eq!(decide(&table, 0, 300).unwrap().verdict, DENY);
    }

    #[test]
    fn prefixes_are_looked_at_only_where_the_policy_says_that_it_has_some() {
        let mut table = Table { prefix: Some(4), ..Table::default() };
        table.entries.insert(ANY_PEER, entry(DENY, 0, 7, 0));
        table.entries.insert(PREFIX_PEER | 4, entry(ALLOW, 1, 8, 0));
        assert_eq!(decide(&table, 0, 2).unwrap().rule, 7);
        table.entries.insert(ANY_PEER, entry(DENY, 0, 7, HAS_PREFIXES));
        assert_eq!(decide(&table, 0, 2).unwrap().rule, 8);
        table.prefix = None;
        assert_eq!(decide(&table, 0, 2).unwrap().rule, 7);
    }

    #[test]
    fn tiers_are_asked_in_their_order_until_one_does_not_pass() {
        let mut table = Table::default();
        table.entries.insert(ANY_PEER, entry(DENY, 0, 1, 0));
        table.entries.insert(ADMIN | ANY_PEER, entry(ALLOW, 0, 2, 0));
        assert_eq!(decide(&table, 0, 300).unwrap().rule, 1, "nothing says that there is another");
        table.entries.insert(ANY_PEER, entry(DENY, 0, 1, HAS_ADMIN));
        assert_eq!(decide(&table, 0, 300).unwrap().rule, 2);
        table.entries.insert(ADMIN | ANY_PEER, entry(PASS, 0, 2, 0));
        table.entries.insert(ADMIN | 300, entry(DENY, 1, 3, 0));
        assert_eq!(decide(&table, 0, 300).unwrap().rule, 3);
        assert_eq!(decide(&table, 0, 301).unwrap().rule, 1);
        table.entries.insert(ANY_PEER, entry(PASS, 0, 1, HAS_ADMIN));
        assert_eq!(decide(&table, 0, 301), None, "the next one is not written");
        table.entries.insert(BASELINE | ANY_PEER, entry(PASS, 0, 4, 0));
        table.entries.insert(BASELINE | 302, entry(DENY, 1, 5, 0));
        let last = decide(&table, 0, 301).unwrap();
        assert_eq!((last.verdict, last.rule), (ALLOW, 4));
        assert_eq!(decide(&table, 0, 302).unwrap().rule, 5);
    }

    #[test]
    fn what_a_policy_that_only_tells_would_deny_is_allowed_under_its_rule() {
        let mut table = Table::default();
        table.entries.insert(ANY_PEER, entry(ALLOW, 0, 1, HAS_AUDIT));
        table.entries.insert(AUDIT | ANY_PEER, entry(DENY, 0, 9, 0));
        table.entries.insert(AUDIT | 300, entry(ALLOW, 1, 8, 0));
        table.entries.insert(301, entry(DENY, 1, 2, 0));
        let of = |identity| decide(&table, 0, identity).map(|entry| (entry.verdict, entry.rule)).unwrap();
        assert_eq!([of(300), of(301), of(302)], [(ALLOW, 1), (DENY, 2), (ALLOW, 9)]);
        table.entries.insert(ANY_PEER, entry(PASS, 0, 1, HAS_AUDIT));
        table.entries.insert(BASELINE | ANY_PEER, entry(ALLOW, 0, 4, 0));
        let of = |identity| decide(&table, 0, identity).map(|entry| (entry.verdict, entry.rule)).unwrap();
        assert_eq!([of(300), of(302)], [(ALLOW, 4), (ALLOW, 9)]);
    }

    proptest! {
        #[test]
        fn a_rules_number_says_what_it_was_made_of(
            policy in 1u32..1 << 20, egress: bool, index in prop::option::of(0u32..2046)
        ) {
            let number = rule_number(policy, if egress { EGRESS } else { 0 }, index);
            prop_assert_eq!(rule_parts(number), Some(RuleParts { policy, egress, index }));
        }
    }

    #[test]
    fn the_rules_that_are_no_policys_have_no_parts() {
        assert_eq!(rule_parts(RULE_NONE), None);
        assert_eq!(rule_parts(RULE_HOST), None);
    }

    #[test]
    fn a_key_holds_its_port_in_network_order_behind_the_protocol() {
        assert_eq!(PolicyKey::of(1, 2, 6, 0x1234_u16.to_be()).transport, [6, 0x12, 0x34, 0]);
    }
}
