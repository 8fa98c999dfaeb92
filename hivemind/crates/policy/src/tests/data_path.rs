//! The data path's lookups, over tables instead of maps.

use hivemind_common::policy::{
    ALLOW, ANY_PEER, EGRESS, HAS_PREFIXES, Lookup, PREFIX_PEER, PolicyEntry, decide,
};

use crate::{OtherEnd, Speaks, Tables};

struct Tries<'a> {
    tables: &'a Tables,
    direction: u32,
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

    fn prefix(&self) -> Option<u32> {
        let of_direction = self.tables.prefixes.iter().filter(|p| p.egress == (self.direction == EGRESS));
        let holding = of_direction.filter(|prefix| prefix.net.contains(&self.other.address));
        holding.max_by_key(|prefix| prefix.net.prefix_len()).map(|prefix| prefix.number)
    }
}

/// Whether the data path lets a connection pass, and by which rule.
pub(super) fn verdict(tables: &Tables, direction: u32, other: OtherEnd, speaks: Speaks) -> (bool, u32) {
    let tries = Tries { tables, direction, other, speaks };
    let entry = decide(&tries, direction, other.identity).expect("tables have a default");
    (entry.verdict == ALLOW, entry.rule)
}

/// What every table promises besides the right verdicts.
pub(super) fn assert_well_formed(tables: &Tables) {
    let keys: Vec<_> = tables.entries.iter().map(|entry| (entry.peer, entry.transport)).collect();
    assert!(keys.is_sorted() && keys.windows(2).all(|pair| pair[0] != pair[1]), "entries: {keys:?}");
    let nets: Vec<_> = tables.prefixes.iter().map(|prefix| (prefix.egress, prefix.net)).collect();
    assert!(nets.is_sorted() && nets.windows(2).all(|pair| pair[0] != pair[1]), "prefixes: {nets:?}");
    for direction in [0, EGRESS] {
        let any = tables.entries.iter().filter(|entry| entry.peer == direction | ANY_PEER);
        let has_prefixes = tables.prefixes.iter().any(|prefix| prefix.egress == (direction == EGRESS));
        assert!(any.clone().any(|entry| entry.transport.bits() == 0), "no default");
        assert!(any.clone().all(|entry| (entry.value.flags & HAS_PREFIXES != 0) == has_prefixes));
    }
    for prefix in &tables.prefixes {
        assert!(prefix.net == prefix.net.trunc() && (1..PREFIX_PEER).contains(&prefix.number));
    }
}
