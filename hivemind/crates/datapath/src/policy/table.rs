//! What is known of policies: which identity has which, and what the maps hold. No kernel here.

use super::rows;
use hivemind_common::policy::{AUDIT, DENY, NUMBER_BITS, RULE_NONE, TIERS};
use hivemind_policy::{TableEntry, Tables};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// No policy: the endpoint forwards nothing.
pub(crate) const NO_POLICY: u32 = 0;
/// The greatest number of a policy.
const NUMBER_MAX: u32 = (1 << NUMBER_BITS) - 1;

/// Identities, their policies' numbers, and the endpoints that name them.
#[derive(Debug, Default)]
pub(crate) struct PolicyTable {
    /// The number of the policy that an identity's endpoints shall have.
    numbers: BTreeMap<u32, u32>,
    /// What the maps hold, by number.
    written: BTreeMap<u32, Arc<Tables>>,
    /// Of these, the ones that are being written and that nobody has yet.
    unassigned: BTreeSet<u32>,
    /// Endpoints whose state is in the maps: their identity, and the number in that state.
    endpoints: BTreeMap<u32, (u32, u32)>,
    last: u32,
}

impl PolicyTable {
    /// Notes what the maps were found to hold.
    pub(crate) fn adopt(&mut self, number: u32, tables: Tables) {
        self.last = self.last.max(number);
        self.written.insert(number, Arc::new(rows::sorted(tables)));
    }

    /// Notes an endpoint as the maps were found to hold it. Its identity has its policy, unless that is not in the maps.
    pub(crate) fn adopt_endpoint(&mut self, index: u32, identity: u32, number: u32) {
        self.endpoints.insert(index, (identity, number));
        self.last = self.last.max(number);
        if self.written.contains_key(&number) {
            self.numbers.insert(identity, number);
        }
    }

    /// The number for an endpoint that is about to enter the maps with it.
    pub(crate) fn enter(&mut self, index: u32, identity: u32) -> u32 {
        let number = self.numbers.get(&identity).copied().unwrap_or(NO_POLICY);
        self.endpoints.insert(index, (identity, number));
        number
    }

    /// Forgets an endpoint that has left the maps.
    pub(crate) fn leave(&mut self, index: u32) {
        self.endpoints.remove(&index);
    }

    /// Whether the identity and all its endpoints are judged by equal tables already.
    pub(crate) fn stands(&self, identity: u32, tables: &Tables) -> bool {
        let Some(number) = self.numbers.get(&identity) else { return false };
        self.written.get(number).is_some_and(|written| **written == *tables)
            && self.endpoints.values().all(|(other, theirs)| *other != identity || theirs == number)
    }

    /// Whether the identity has a policy.
    pub(crate) fn has(&self, identity: u32) -> bool {
        self.numbers.contains_key(&identity)
    }

    /// Lends the identity the number that `other` has, if it has none. It is kept until it is assigned.
    pub(crate) fn lend(&mut self, identity: u32, other: u32) -> Option<u32> {
        let number = self.numbers.get(&other).copied().filter(|_| !self.has(identity))?;
        self.unassigned.insert(number);
        Some(number)
    }

    /// A number that nothing has.
    pub(crate) fn draw(&mut self) -> u32 {
        loop {
            // The bits above tell directions and tiers apart.
            self.last = if self.last >= NUMBER_MAX { 1 } else { self.last + 1 };
            if !self.written.contains_key(&self.last) && !self.is_named(self.last) {
                return self.last;
            }
        }
    }

    /// The number under which the maps hold these tables already, for an identity or an endpoint that is judged by them. It
    /// is kept until it is assigned.
    pub(crate) fn share(&mut self, tables: &Tables) -> Option<u32> {
        let number = self
            .live()
            .into_iter()
            .find(|number| self.written.get(number).is_some_and(|written| **written == *tables))?;
        self.unassigned.insert(number);
        Some(number)
    }

    /// Notes tables that are about to be written. They are kept until they are assigned or erased.
    pub(crate) fn write(&mut self, number: u32, tables: Arc<Tables>) {
        self.written.insert(number, tables);
        self.unassigned.insert(number);
    }

    /// Notes that nothing of a number is in the maps any more.
    pub(crate) fn erase(&mut self, number: u32) {
        self.written.remove(&number);
        self.unassigned.remove(&number);
    }

    /// Names the policy of an identity. Returns its endpoints that have another one.
    pub(crate) fn assign(&mut self, identity: u32, number: u32) -> Vec<u32> {
        self.unassigned.remove(&number);
        if number == NO_POLICY {
            self.numbers.remove(&identity);
        } else {
            self.numbers.insert(identity, number);
        }
        let others = self.endpoints.iter().filter(|(_, found)| found.0 == identity && found.1 != number);
        others.map(|(index, _)| *index).collect()
    }

    /// Notes that an endpoint's state names this policy now.
    pub(crate) fn switch(&mut self, index: u32, number: u32) {
        if let Some(found) = self.endpoints.get_mut(&index) {
            found.1 = number;
        }
    }

    /// What the maps hold of policies that nobody has any more.
    pub(crate) fn retired(&self) -> Vec<(u32, Arc<Tables>)> {
        let live = self.live();
        let gone = self
            .written
            .iter()
            .filter(|(number, _)| !live.contains(number) && !self.unassigned.contains(number));
        gone.map(|(number, tables)| (*number, Arc::clone(tables))).collect()
    }

    /// The rules by which somebody is judged, with whether they let connections pass.
    pub(crate) fn rules(&self) -> BTreeSet<(u32, bool)> {
        let tables = self.live().into_iter().filter_map(|number| self.written.get(&number));
        let entries = tables.flat_map(|tables| &tables.entries).filter(|entry| entry.value.rule != RULE_NONE);
        // What passes a connection on allows it in the end, and what only tells that it would deny it does, too.
        let lets_pass = |entry: &TableEntry| entry.value.verdict != DENY || entry.peer & TIERS == AUDIT;
        entries.map(|entry| (entry.value.rule, lets_pass(entry))).collect()
    }

    /// Entries in each map: entries, IPv4 prefixes, IPv6 prefixes.
    pub(crate) fn fill(&self) -> [u32; 3] {
        self.written.values().map(|tables| rows::count(tables)).fold([0; 3], sum)
    }

    /// The most entries that each map holds while these are set one after the other, if what nobody is judged by any more is
    /// removed when room is needed.
    pub(crate) fn peak(&self, all: &[(u32, Arc<Tables>)]) -> [u32; 3] {
        // Tables with how many have them; identities with which they have.
        let mut groups: Vec<(&Tables, u32)> = Vec::new();
        let mut places = BTreeMap::new();
        let mut group_of = BTreeMap::new();
        for number in self.live() {
            let Some(tables) = self.written.get(&number) else { continue };
            places.insert(number, groups.len());
            // An endpoint that has not been switched yet holds on to its own.
            let holds = self
                .endpoints
                .values()
                .any(|(identity, theirs)| *theirs == number && self.numbers.get(identity) != Some(theirs));
            groups.push((tables, holds.into()));
        }
        for (identity, number) in &self.numbers {
            let Some(&place) = places.get(number) else { continue };
            groups[place].1 += 1;
            group_of.insert(*identity, place);
        }
        let mut fill = groups.iter().fold([0; 3], |fill, (tables, _)| sum(fill, rows::count(tables)));
        let mut peak = fill;
        for (identity, tables) in all {
            let found = groups.iter().position(|(theirs, users)| *users > 0 && **theirs == **tables);
            let before = group_of.get(identity).copied();
            if found.is_some() && found == before {
                continue;
            }
            let place = found.unwrap_or_else(|| {
                groups.push((tables, 0));
                fill = sum(fill, rows::count(tables));
                groups.len() - 1
            });
            groups[place].1 += 1;
            group_of.insert(*identity, place);
            peak = [0, 1, 2].map(|i| peak[i].max(fill[i]));
            if let Some(before) = before {
                groups[before].1 -= 1;
                if groups[before].1 == 0 {
                    let count = rows::count(groups[before].0);
                    fill = [0, 1, 2].map(|i| fill[i].saturating_sub(count[i]));
                }
            }
        }
        peak
    }

    /// The numbers that identities and endpoints have.
    fn live(&self) -> BTreeSet<u32> {
        self.numbers.values().copied().chain(self.endpoints.values().map(|found| found.1)).collect()
    }

    fn is_named(&self, number: u32) -> bool {
        self.numbers.values().any(|found| *found == number)
            || self.endpoints.values().any(|found| found.1 == number)
    }
}

fn sum(fill: [u32; 3], more: [u32; 3]) -> [u32; 3] {
    [0, 1, 2].map(|i| fill[i].saturating_add(more[i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(table: &mut PolicyTable, identity: u32, tables: Tables) -> (u32, Vec<u32>) {
        let number = table.draw();
        table.write(number, Arc::new(tables));
        let endpoints = table.assign(identity, number);
        (number, endpoints)
    }

    #[test]
    fn an_endpoint_has_its_identitys_policy_whichever_came_first() {
        let mut table = PolicyTable::default();
        assert_eq!(table.enter(1, 300), NO_POLICY);
        let (number, endpoints) = set(&mut table, 300, Tables::open());
        assert_eq!(endpoints, [1]);
        table.switch(1, number);
        assert_eq!(table.enter(2, 300), number);
        assert_eq!(table.enter(3, 301), NO_POLICY);
        assert!(table.stands(300, &Tables::open()) && !table.stands(301, &Tables::open()));
    }

    #[test]
    fn a_policy_is_retired_only_when_no_endpoint_names_it() {
        let mut table = PolicyTable::default();
        let (first, _) = set(&mut table, 300, Tables::open());
        table.enter(1, 300);
        let (second, endpoints) = set(&mut table, 300, Tables::open());
        assert_eq!((endpoints, table.retired().len()), (vec![1], 0));
        table.switch(1, second);
        assert_eq!(table.retired().into_iter().map(|gone| gone.0).collect::<Vec<_>>(), [first]);
        table.erase(first);
        assert_eq!((table.retired().len(), table.fill()), (0, [2, 0, 0]));
    }

    #[test]
    fn a_policy_that_is_being_written_is_not_retired_before_somebody_has_it() {
        let mut table = PolicyTable::default();
        let number = table.draw();
        table.write(number, Arc::new(Tables::open()));
        assert!(table.retired().is_empty());
        table.assign(300, number);
        assert!(table.retired().is_empty());
        table.assign(300, NO_POLICY);
        assert_eq!(table.retired().into_iter().map(|gone| gone.0).collect::<Vec<_>>(), [number]);
        let unfinished = table.draw();
        table.write(unfinished, Arc::new(Tables::open()));
        table.erase(unfinished);
        assert_eq!((table.retired().len(), table.written.contains_key(&unfinished)), (1, false));
    }

    #[test]
    fn equal_tables_are_shared_by_those_who_are_judged_by_them_and_by_nobody_later() {
        let mut table = PolicyTable::default();
        assert_eq!(table.share(&Tables::open()), None);
        let (number, _) = set(&mut table, 300, Tables::open());
        assert_eq!(table.share(&Tables::open()), Some(number));
        // Between finding and having it, the first one goes.
        table.assign(300, NO_POLICY);
        assert!(table.retired().is_empty());
        table.assign(301, number);
        assert!(table.stands(301, &Tables::open()) && table.retired().is_empty());
        table.assign(301, NO_POLICY);
        assert_eq!(table.retired().len(), 1);
        assert_eq!(table.share(&Tables::open()), None, "it may be gone any moment");
    }

    #[test]
    fn room_is_needed_once_for_equal_tables_and_for_the_old_beside_the_new() {
        let mut table = PolicyTable::default();
        let with = |entries: usize| {
            let mut tables = Tables::open();
            let more = tables.entries[0];
            tables.entries.resize(entries, more);
            Arc::new(tables)
        };
        let all = |entries, identities: &[u32]| -> Vec<_> {
            identities.iter().map(|identity| (*identity, with(entries))).collect()
        };
        assert_eq!(table.peak(&all(10, &[300, 301])), [10, 0, 0]);
        set(&mut table, 300, Tables::clone(&with(10)));
        let number = table.share(&with(10)).unwrap();
        table.assign(301, number);
        assert_eq!(table.peak(&all(10, &[300, 301])), [10, 0, 0], "nothing changes");
        assert_eq!(table.peak(&all(7, &[300, 301])), [17, 0, 0]);
        assert_eq!(table.peak(&[(300, with(7)), (301, with(5))]), [22, 0, 0]);
        assert_eq!(table.peak(&[(300, with(7)), (301, with(7)), (300, with(5))]), [17, 0, 0]);
        table.enter(1, 300);
        table.assign(300, NO_POLICY);
        table.assign(301, NO_POLICY);
        assert_eq!(table.peak(&all(7, &[300])), [17, 0, 0], "an endpoint has it still");
    }

    #[test]
    fn an_endpoint_left_behind_by_a_daemon_that_was_killed_is_switched_too() {
        let mut table = PolicyTable::default();
        table.adopt(4, Tables::open());
        table.adopt(5, Tables::open());
        table.adopt_endpoint(1, 300, 4);
        table.adopt_endpoint(2, 300, 5);
        assert!(!table.stands(300, &Tables::open()));
        let (number, endpoints) = set(&mut table, 300, Tables::open());
        assert_eq!((number, endpoints), (6, vec![1, 2]));
    }

    #[test]
    fn a_number_in_use_is_never_drawn_again() {
        let mut table = PolicyTable { last: NUMBER_MAX - 1, ..PolicyTable::default() };
        table.adopt(1, Tables::open());
        table.adopt_endpoint(1, 300, 2);
        assert_eq!((table.draw(), table.draw()), (NUMBER_MAX, 3));
    }
}
