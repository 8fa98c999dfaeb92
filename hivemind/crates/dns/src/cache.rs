//! A bounded cache of what was answered.
//!
//! Entries stand in a ring of fixed capacity. When it is full, a hand goes round: an entry that was used since
//! the hand last passed is spared once, the first that was not, or that has expired, makes room. That is the
//! CLOCK algorithm (Corbató, *A Paging Experiment with the Multics System*, 1968): nearly as good as least
//! recently used, without a list to relink at each hit.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Values by the bytes of [`KeyBytes`](crate::wire::KeyBytes).
#[derive(Debug)]
pub(crate) struct Cache<V> {
    capacity: usize,
    index: HashMap<Arc<[u8]>, usize>,
    ring: Vec<Slot<V>>,
    hand: usize,
}

#[derive(Debug)]
struct Slot<V> {
    key: Arc<[u8]>,
    value: V,
    stored: Instant,
    lifetime: Duration,
    used: bool,
}

impl<V> Slot<V> {
    fn expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.stored) >= self.lifetime
    }
}

impl<V: Clone> Cache<V> {
    /// An empty cache of at most `capacity` values; memory is taken as they come.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, index: HashMap::new(), ring: Vec::new(), hand: 0 }
    }

    /// How many values there are, expired ones that have not made room included.
    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    /// How many values fit.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The value under `key` and its age, unless it has expired.
    pub(crate) fn get(&mut self, key: &[u8], now: Instant) -> Option<(V, Duration)> {
        let slot = &mut self.ring[*self.index.get(key)?];
        if slot.expired(now) {
            return None;
        }
        slot.used = true;
        Some((slot.value.clone(), now.saturating_duration_since(slot.stored)))
    }

    /// Keeps `value` for `lifetime`, in place of an older one under the same key.
    pub(crate) fn insert(&mut self, key: &[u8], value: V, lifetime: Duration, now: Instant) {
        if self.capacity == 0 || lifetime.is_zero() {
            return;
        }
        if let Some(&at) = self.index.get(key) {
            let key = Arc::clone(&self.ring[at].key);
            self.ring[at] = Slot { key, value, stored: now, lifetime, used: false };
            return;
        }
        let key: Arc<[u8]> = key.into();
        let slot = Slot { key: Arc::clone(&key), value, stored: now, lifetime, used: false };
        if self.ring.len() < self.capacity {
            self.index.insert(key, self.ring.len());
            self.ring.push(slot);
        } else {
            let at = self.make_room(now);
            self.index.remove(&self.ring[at].key);
            self.index.insert(key, at);
            self.ring[at] = slot;
        }
    }

    /// The position of the entry to give up. Ends after at most two rounds: the first clears every mark.
    fn make_room(&mut self, now: Instant) -> usize {
        loop {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.ring.len();
            let slot = &mut self.ring[at];
            if !slot.used || slot.expired(now) {
                return at;
            }
            slot.used = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(number: u32) -> [u8; 4] {
        number.to_be_bytes()
    }

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn a_value_is_given_with_its_age_until_its_lifetime_is_over() {
        let mut cache = Cache::new(4);
        let start = Instant::now();
        cache.insert(&key(1), 1, seconds(10), start);
        let (_, age) = cache.get(&key(1), start + seconds(9)).unwrap();
        assert_eq!(age, seconds(9));
        assert!(cache.get(&key(1), start + seconds(10)).is_none());
        assert!(cache.get(&key(2), start).is_none());
    }

    #[test]
    fn a_full_cache_gives_up_the_expired_and_the_unused_before_the_used() {
        let mut cache = Cache::new(3);
        let start = Instant::now();
        for number in 0..3 {
            cache.insert(&key(number), 0, seconds(if number == 1 { 1 } else { 100 }), start);
            cache.get(&key(number), start);
        }
        let later = start + seconds(2);
        cache.insert(&key(3), 0, seconds(100), later);
        assert!(cache.get(&key(1), later).is_none(), "the expired one made room");
        assert!(cache.get(&key(0), later).is_some() && cache.get(&key(2), later).is_some());
    }

    #[test]
    fn a_value_that_is_used_outlives_a_flood_of_values_that_are_not() {
        let mut cache = Cache::new(8);
        let now = Instant::now();
        cache.insert(&key(0), 0, seconds(100), now);
        for number in 1..1000 {
            assert!(cache.get(&key(0), now).is_some(), "gone after {number}");
            cache.insert(&key(number), 0, seconds(100), now);
        }
    }

    #[test]
    fn nothing_is_kept_without_capacity_or_without_a_lifetime() {
        let now = Instant::now();
        for (capacity, lifetime) in [(0, 10), (10, 0)] {
            let mut cache = Cache::new(capacity);
            cache.insert(&key(1), 1, seconds(lifetime), now);
            assert!(cache.get(&key(1), now).is_none());
        }
    }

    proptest! {
        #[test]
        fn the_cache_keeps_its_bound_and_never_gives_an_old_or_foreign_value(
            steps in proptest::collection::vec((0..12_u32, any::<u8>(), 0..5_u64, any::<bool>()), 1..200)
        ) {
            let mut cache = Cache::new(5);
            let mut model: HashMap<u32, (u8, Instant)> = HashMap::new();
            let mut now = Instant::now();
            for (number, content, lifetime, write) in steps {
                now += Duration::from_millis(300);
                if write {
                    cache.insert(&key(number), content, seconds(lifetime), now);
                    if lifetime > 0 {
                        model.insert(number, (content, now + seconds(lifetime)));
                    }
                } else if let Some((found, _)) = cache.get(&key(number), now) {
                    let (expected, expiry) = model[&number];
                    prop_assert_eq!(found, expected);
                    prop_assert!(now < expiry);
                }
                prop_assert!(cache.ring.len() <= 5 && cache.index.len() == cache.ring.len());
            }
        }
    }
}
