//! What is known of endpoints: their names, indexes and addresses. No kernel here.

use crate::{EndpointInfo, EndpointSpec};
use std::{
    collections::{BTreeSet, HashMap},
    net::{Ipv4Addr, Ipv6Addr},
};

/// Why an endpoint cannot enter the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// All indexes are in use.
    Full,
    /// Another endpoint has one of the addresses.
    AddressTaken {
        /// Which endpoint.
        by: String,
    },
    /// The endpoint exists with other addresses or another identity.
    Different,
}

/// What to do about an endpoint that is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Admission {
    /// It stands as asked.
    Exists(EndpointInfo),
    /// It is to be made, with this index, which is now taken.
    Make(u32),
}

/// Endpoints that stand, and indexes of those in the making.
#[derive(Debug, Default)]
pub(crate) struct EndpointTable {
    by_id: HashMap<String, EndpointInfo>,
    by_ipv4: HashMap<Ipv4Addr, String>,
    by_ipv6: HashMap<Ipv6Addr, String>,
    taken: BTreeSet<u32>,
    index_max: u32,
}

impl EndpointTable {
    /// A table of indexes from 1 to `index_max`; zero is the outside.
    pub(crate) fn new(index_max: u32) -> Self {
        Self { index_max, ..Self::default() }
    }

    /// Keeps an index from being given out.
    pub(crate) fn take_index(&mut self, index: u32) {
        self.taken.insert(index);
    }

    /// Decides what to do about an endpoint that is asked for.
    pub(crate) fn admit(&mut self, spec: &EndpointSpec) -> Result<Admission, Refusal> {
        if let Some(found) = self.by_id.get(&spec.id) {
            return if found.spec == *spec {
                Ok(Admission::Exists(found.clone()))
            } else {
                Err(Refusal::Different)
            };
        }
        if let Some(by) = self.by_ipv4.get(&spec.ipv4).or_else(|| self.by_ipv6.get(&spec.ipv6)) {
            return Err(Refusal::AddressTaken { by: by.clone() });
        }
        let index = (1..=self.index_max).find(|index| !self.taken.contains(index)).ok_or(Refusal::Full)?;
        self.taken.insert(index);
        self.by_ipv4.insert(spec.ipv4, spec.id.clone());
        self.by_ipv6.insert(spec.ipv6, spec.id.clone());
        Ok(Admission::Make(index))
    }

    /// Takes back the addresses and the index of an endpoint that could not be made.
    pub(crate) fn abandon(&mut self, spec: &EndpointSpec, index: u32) {
        self.by_ipv4.remove(&spec.ipv4);
        self.by_ipv6.remove(&spec.ipv6);
        self.taken.remove(&index);
    }

    /// Enters an endpoint that stands.
    pub(crate) fn insert(&mut self, info: EndpointInfo) {
        self.taken.insert(info.endpoint.index);
        self.by_ipv4.insert(info.spec.ipv4, info.spec.id.clone());
        self.by_ipv6.insert(info.spec.ipv6, info.spec.id.clone());
        self.by_id.insert(info.spec.id.clone(), info);
    }

    /// The endpoint of this name.
    pub(crate) fn get(&self, id: &str) -> Option<&EndpointInfo> {
        self.by_id.get(id)
    }

    /// Forgets an endpoint and frees its addresses and index.
    pub(crate) fn remove(&mut self, id: &str) {
        if let Some(info) = self.by_id.remove(id) {
            self.abandon(&info.spec, info.endpoint.index);
        }
    }

    /// All endpoints that stand, by index.
    pub(crate) fn all(&self) -> Vec<EndpointInfo> {
        let mut all: Vec<_> = self.by_id.values().cloned().collect();
        all.sort_by_key(|info| info.endpoint.index);
        all
    }

    /// How many stand.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Endpoint;

    fn spec(id: &str, last: u8) -> EndpointSpec {
        EndpointSpec {
            id: id.to_owned(),
            ipv4: [10, 0, 0, last].into(),
            ipv6: [0xfd00, 0, 0, 0, 0, 0, 0, last.into()].into(),
            identity: 7,
        }
    }

    fn made(table: &mut EndpointTable, spec: &EndpointSpec) -> u32 {
        let Ok(Admission::Make(index)) = table.admit(spec) else { panic!("not admitted") };
        let endpoint = Endpoint { index, interface: format!("hm{index}"), netns: spec.id.clone().into() };
        table.insert(EndpointInfo { spec: spec.clone(), endpoint });
        index
    }

    #[test]
    fn an_endpoint_is_made_once_and_found_afterwards() {
        let mut table = EndpointTable::new(4);
        assert_eq!(made(&mut table, &spec("a", 1)), 1);
        assert!(matches!(table.admit(&spec("a", 1)), Ok(Admission::Exists(_))));
        assert_eq!(table.admit(&spec("a", 2)), Err(Refusal::Different));
        assert_eq!(table.admit(&spec("b", 1)), Err(Refusal::AddressTaken { by: "a".to_owned() }));
    }

    #[test]
    fn indexes_are_bounded_and_come_back() {
        let mut table = EndpointTable::new(2);
        made(&mut table, &spec("a", 1));
        assert_eq!(table.admit(&spec("b", 2)), Ok(Admission::Make(2)));
        assert_eq!(table.admit(&spec("c", 3)), Err(Refusal::Full));
        table.abandon(&spec("b", 2), 2);
        assert_eq!(made(&mut table, &spec("c", 2)), 2);
        table.remove("a");
        assert_eq!(made(&mut table, &spec("d", 1)), 1);
    }
}
