//! Which addresses the node's replicas get.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{Ipv4Net, Ipv6Net};

/// All addresses of the node's range are in use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all {0} addresses of the node's range are in use")]
pub struct PoolExhausted(
    /// How many there are.
    pub u32,
);

/// Hands out pairs of an IPv4 and an IPv6 address with the same number within their ranges.
///
/// It goes round: an address that was given back is the last to be given out again, so that what still speaks to the
/// replica that had it does not reach another one soon.
#[derive(Debug)]
pub struct AddressPool {
    range_v4: Ipv4Net,
    range_v6: Ipv6Net,
    used: BTreeSet<u32>,
    last: u32,
}

impl AddressPool {
    /// A pool over the node's ranges. The first and the last address of the IPv4 range are never given out.
    pub fn new(range_v4: Ipv4Net, range_v6: Ipv6Net) -> Self {
        AddressPool { range_v4, range_v6, used: BTreeSet::new(), last: 0 }
    }

    /// The highest number that may be given out; the lowest is 1.
    fn highest(&self) -> u32 {
        let bits = 32 - u32::from(self.range_v4.prefix_len());
        (1_u64 << bits).saturating_sub(2).try_into().unwrap_or(u32::MAX - 1)
    }

    fn pair(&self, number: u32) -> (Ipv4Addr, Ipv6Addr) {
        let v4 = Ipv4Addr::from_bits(self.range_v4.network().to_bits() + number);
        let v6 = Ipv6Addr::from_bits(self.range_v6.network().to_bits() + u128::from(number));
        (v4, v6)
    }

    fn number(&self, address: Ipv4Addr) -> Option<u32> {
        self.range_v4.contains(&address).then(|| address.to_bits() - self.range_v4.network().to_bits())
    }

    /// Notes that `address` is in use. An address outside the range is ignored.
    pub fn claim(&mut self, address: Ipv4Addr) {
        if let Some(number) = self.number(address) {
            self.used.insert(number);
            self.last = self.last.max(number);
        }
    }

    /// The next free pair.
    ///
    /// # Errors
    /// When all are in use; nothing changed.
    pub fn take(&mut self) -> Result<(Ipv4Addr, Ipv6Addr), PoolExhausted> {
        let highest = self.highest();
        let from_last = (self.last + 1..=highest).chain(1..=self.last.min(highest));
        let free =
            from_last.into_iter().find(|number| !self.used.contains(number)).ok_or(PoolExhausted(highest))?;
        self.used.insert(free);
        self.last = free;
        Ok(self.pair(free))
    }

    /// Gives `address` and its pair back.
    pub fn give_back(&mut self, address: Ipv4Addr) {
        if let Some(number) = self.number(address) {
            self.used.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(range: &str) -> AddressPool {
        AddressPool::new(range.parse().unwrap(), "fd00:1::/64".parse().unwrap())
    }

    #[test]
    fn both_addresses_of_a_pair_have_the_same_number() {
        let (v4, v6) = pool("10.200.3.0/24").take().unwrap();
        assert_eq!((v4.to_string(), v6.to_string()), ("10.200.3.1".into(), "fd00:1::1".into()));
    }

    #[test]
    fn an_address_that_was_given_back_is_the_last_to_be_given_out_again() {
        let mut pool = pool("10.200.0.0/29");
        let first = pool.take().unwrap();
        pool.give_back(first.0);
        let others: Vec<_> = (0..5).map(|_| pool.take().unwrap()).collect();
        assert!(!others.contains(&first));
        assert_eq!(pool.take().unwrap(), first);
    }

    #[test]
    fn an_exhausted_pool_says_so_and_recovers() {
        let mut pool = pool("10.200.0.0/29");
        let all: BTreeSet<_> = (0..6).map(|_| pool.take().unwrap().0).collect();
        assert_eq!(all.len(), 6);
        assert!(!all.contains(&Ipv4Addr::new(10, 200, 0, 0)) && !all.contains(&Ipv4Addr::new(10, 200, 0, 7)));
        assert_eq!(pool.take(), Err(PoolExhausted(6)));
        pool.give_back(Ipv4Addr::new(10, 200, 0, 4));
        assert_eq!(pool.take().unwrap().0, Ipv4Addr::new(10, 200, 0, 4));
    }

    #[test]
    fn claimed_addresses_are_not_given_out() {
        let mut pool = pool("10.200.0.0/29");
        pool.claim(Ipv4Addr::new(10, 200, 0, 1));
        pool.claim(Ipv4Addr::new(192, 0, 2, 1));
        assert_ne!(pool.take().unwrap().0, Ipv4Addr::new(10, 200, 0, 1));
    }
}
