//! What is known of policies: which identity has which, and what the maps hold. No kernel here.

use super::rows;
use hivemind_common::policy::EGRESS;
use hivemind_policy::Tables;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// No policy: the endpoint forwards nothing.
pub(crate) const NO_POLICY: u32 = 0;

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

    /// The tables by which the identity's endpoints are judged.
    pub(crate) fn of(&self, identity: u32) -> Option<&Tables> {
        self.written.get(self.numbers.get(&identity)?).map(|tables| &**tables)
    }

    /// A number that nothing has.
    pub(crate) fn draw(&mut self) -> u32 {
        loop {
            // The top bit of a key tells the directions apart.
            self.last = if self.last >= EGRESS - 1 { 1 } else { self.last + 1 };
            if !self.written.contains_key(&self.last) && !self.is_named(self.last) {
                return self.last;
            }
        }
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
        let live: BTreeSet<u32> =
            self.numbers.values().copied().chain(self.endpoints.values().map(|found| found.1)).collect();
        let gone = self
            .written
            .iter()
            .filter(|(number, _)| !live.contains(number) && !self.unassigned.contains(number));
        gone.map(|(number, tables)| (*number, Arc::clone(tables))).collect()
    }

    /// Entries in each map: entries, IPv4 prefixes, IPv6 prefixes.
    pub(crate) fn fill(&self) -> [u32; 3] {
        self.written
            .values()
            .map(|tables| rows::count(tables))
            .fold([0; 3], |sum, one| [sum[0] + one[0], sum[1] + one[1], sum[2] + one[2]])
    }

    fn is_named(&self, number: u32) -> bool {
        self.numbers.values().any(|found| *found == number)
            || self.endpoints.values().any(|found| found.1 == number)
    }
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
        let mut table = PolicyTable { last: EGRESS - 2, ..PolicyTable::default() };
        table.adopt(1, Tables::open());
        table.adopt_endpoint(1, 300, 2);
        assert_eq!((table.draw(), table.draw()), (EGRESS - 1, 3));
    }
}
