//! For which names addresses outside were answered, as the node's DNS server sees it.
//!
//! It is for people to read: any replica can have any name answered with any address that its owner chooses, and an address that
//! several names have is told under the last of them.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

/// How many addresses are known; for one more, the one goes that has been known for longest.
const ADDRESSES_MAX: usize = 4_096;

/// The name that was asked last, by the address that it was answered with. A new daemon knows none.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    names: HashMap<IpAddr, Arc<str>>,
    /// The same addresses, those first that have been known for longest.
    order: VecDeque<IpAddr>,
}

impl Answered {
    /// Takes note of an answer.
    pub(crate) fn note(&mut self, name: &str, addresses: &[IpAddr]) {
        let name: Arc<str> = name.into();
        for address in addresses {
            if self.names.insert(*address, Arc::clone(&name)).is_none() {
                self.order.push_back(*address);
            }
        }
        while self.order.len() > ADDRESSES_MAX {
            self.order.pop_front().map(|oldest| self.names.remove(&oldest));
        }
    }

    /// The name, in lower case and without the last dot.
    pub(crate) fn name(&self, address: IpAddr) -> Option<&Arc<str>> {
        self.names.get(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_under_the_name_that_was_answered_last_until_there_are_too_many() {
        let address = |number: usize| IpAddr::from(u32::try_from(number).unwrap().to_be_bytes());
        let mut answered = Answered::default();
        answered.note("a.example", &[address(0), address(1)]);
        answered.note("b.example", &[address(1)]);
        let name = |answered: &Answered, number| answered.name(address(number)).map(ToString::to_string);
        assert_eq!(name(&answered, 0).as_deref(), Some("a.example"));
        assert_eq!(name(&answered, 1).as_deref(), Some("b.example"));
        for number in 2..=ADDRESSES_MAX {
            answered.note("c.example", &[address(number)]);
        }
        assert_eq!(name(&answered, 0), None, "it has been known for longest");
        assert_eq!(name(&answered, 1).as_deref(), Some("b.example"));
        assert_eq!((answered.names.len(), answered.order.len()), (ADDRESSES_MAX, ADDRESSES_MAX));
    }
}
