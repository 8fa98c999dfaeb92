//! The data path's lookups, over tables instead of maps.

use hivemind_common::policy::{
    ADMIN, ALLOW, ANY_PEER, AUDIT, BASELINE, DENY, EGRESS, HAS_ADMIN, HAS_AUDIT, HAS_PREFIXES, Lookup,
    NAMESPACE, NUMBER_BITS, PASS, PolicyEntry, SIDE, decide,
};

use crate::{OtherEnd, Speaks, Tables};

struct Tries<'a> {
    tables: &'a Tables,
    other: OtherEnd,
    speaks: Speaks,
}

impl Lookup for Tries<'_> {
    fn entry(&self, peer: u32) -> Option<PolicyEntry> {
        let of_peer = self.tables.entries.iter().filter(|entry| entry.peer == peer);
        let matching =
            of_peer.filter(|entry| entry.transport.contains(self.speaks.protocol, self.speaks.port));
        matching.max_by_key(|entry| entry.transport.bits()).map(|entry| entry.value)
    }

    fn prefix(&self, side: u32) -> Option<u32> {
        let of_side = self.tables.prefixes.iter().filter(|prefix| prefix.side == side);
        let holding = of_side.filter(|prefix| prefix.net.contains(&self.other.address));
        holding.max_by_key(|prefix| prefix.net.prefix_len()).map(|prefix| prefix.number)
    }
}

/// Whether the data path lets a connection pass, and by which rule.
pub(super) fn verdict(tables: &Tables, direction: u32, other: OtherEnd, speaks: Speaks) -> (bool, u32) {
    let tries = Tries { tables, other, speaks };
    let entry = decide(&tries, direction, other.identity).expect("tables have a default");
    assert!(matches!(entry.verdict, ALLOW | DENY), "{entry:?}");
    (entry.verdict == ALLOW, entry.rule)
}

/// What every table promises besides the right verdicts.
pub(super) fn assert_well_formed(tables: &Tables) {
    let keys: Vec<_> = tables.entries.iter().map(|entry| (entry.peer, entry.transport)).collect();
    assert!(keys.is_sorted() && keys.windows(2).all(|pair| pair[0] != pair[1]), "entries: {keys:?}");
    let nets: Vec<_> = tables.prefixes.iter().map(|prefix| (prefix.side, prefix.net)).collect();
    assert!(nets.is_sorted() && nets.windows(2).all(|pair| pair[0] != pair[1]), "prefixes: {nets:?}");
    for direction in [0, EGRESS] {
        let of =
            |tier: u32| tables.entries.iter().filter(move |entry| entry.peer == direction | tier | ANY_PEER);
        for tier in [NAMESPACE, ADMIN, BASELINE, AUDIT] {
            let side = direction | tier;
            let has_prefixes = tables.prefixes.iter().any(|prefix| prefix.side == side);
            assert_eq!(
                of(tier).next().is_some(),
                of(tier).any(|entry| entry.transport.bits() == 0),
                "no default"
            );
            assert!(of(tier).next().is_some() || !has_prefixes);
            assert!(of(tier).all(|entry| (entry.value.flags & HAS_PREFIXES != 0) == has_prefixes));
        }
        assert!(of(NAMESPACE).next().is_some());
        let has = |flag: u8, tier| {
            assert!(of(NAMESPACE).all(|entry| (entry.value.flags & flag != 0) == of(tier).next().is_some()));
        };
        has(HAS_ADMIN, ADMIN);
        has(HAS_AUDIT, AUDIT);
        let first = tables.entries.iter().filter(|entry| entry.peer & SIDE == direction | NAMESPACE);
        assert!(of(BASELINE).next().is_some() || first.clone().all(|entry| entry.value.verdict != PASS));
    }
    for prefix in &tables.prefixes {
        assert!(prefix.net == prefix.net.trunc() && (1..1 << NUMBER_BITS).contains(&prefix.number));
    }
}
