//! A bounded cache of upstreams' answers.
//!
//! Entries stand in a ring of fixed capacity. When it is full, a hand goes round: an entry that was used since
//! the hand last passed is spared once, the first that was not, or that has expired, makes room. That is the
//! CLOCK algorithm (Corbató, *A Paging Experiment with the Multics System*, 1968): nearly as good as least
//! recently used, without a list to relink at each hit.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::rr::{LowerName, RecordType};

/// What makes two questions the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) name: LowerName,
    pub(crate) record_type: RecordType,
    /// The client wants DNSSEC records.
    pub(crate) dnssec_ok: bool,
    /// The client validates by itself.
    pub(crate) checking_disabled: bool,
}

/// An upstream's answer in wire format, without id and EDNS.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) wire: Box<[u8]>,
    /// How long it may be kept; zero if not at all.
    pub(crate) lifetime: Duration,
}

#[derive(Debug)]
pub(crate) struct Cache {
    capacity: usize,
    index: HashMap<Arc<Key>, usize>,
    ring: Vec<Slot>,
    hand: usize,
}

#[derive(Debug)]
struct Slot {
    key: Arc<Key>,
    answer: Arc<Answer>,
    stored: Instant,
    used: bool,
}

impl Slot {
    fn expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.stored) >= self.answer.lifetime
    }
}

impl Cache {
    /// An empty cache of at most `capacity` answers; memory is taken as they come.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, index: HashMap::new(), ring: Vec::new(), hand: 0 }
    }

    /// The answer to `key` and its age, unless it has expired.
    pub(crate) fn get(&mut self, key: &Key, now: Instant) -> Option<(Arc<Answer>, Duration)> {
        let slot = &mut self.ring[*self.index.get(key)?];
        if slot.expired(now) {
            return None;
        }
        slot.used = true;
        Some((Arc::clone(&slot.answer), now.saturating_duration_since(slot.stored)))
    }

    /// Keeps `answer`, in place of an older one to the same question.
    pub(crate) fn insert(&mut self, key: Arc<Key>, answer: Arc<Answer>, now: Instant) {
        if self.capacity == 0 || answer.lifetime.is_zero() {
            return;
        }
        let slot = Slot { key: Arc::clone(&key), answer, stored: now, used: false };
        if let Some(&at) = self.index.get(&key) {
            self.ring[at] = slot;
        } else if self.ring.len() < self.capacity {
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
    use hickory_proto::rr::Name;
    use proptest::prelude::*;

    fn key(number: u32) -> Arc<Key> {
        let name = LowerName::new(&Name::from_ascii(format!("n{number}.example.")).unwrap());
        Arc::new(Key { name, record_type: RecordType::A, dnssec_ok: false, checking_disabled: false })
    }

    fn answer(content: u8, seconds: u64) -> Arc<Answer> {
        Arc::new(Answer { wire: Box::new([content]), lifetime: Duration::from_secs(seconds) })
    }

    #[test]
    fn an_answer_is_given_with_its_age_until_its_lifetime_is_over() {
        let mut cache = Cache::new(4);
        let start = Instant::now();
        cache.insert(key(1), answer(1, 10), start);
        let (_, age) = cache.get(&key(1), start + Duration::from_secs(9)).unwrap();
        assert_eq!(age, Duration::from_secs(9));
        assert!(cache.get(&key(1), start + Duration::from_secs(10)).is_none());
        assert!(cache.get(&key(2), start).is_none());
    }

    #[test]
    fn a_full_cache_gives_up_the_expired_and_the_unused_before_the_used() {
        let mut cache = Cache::new(3);
        let start = Instant::now();
        for number in 0..3 {
            cache.insert(key(number), answer(0, if number == 1 { 1 } else { 100 }), start);
            cache.get(&key(number), start);
        }
        let later = start + Duration::from_secs(2);
        cache.insert(key(3), answer(0, 100), later);
        assert!(cache.get(&key(1), later).is_none(), "the expired one made room");
        assert!(cache.get(&key(0), later).is_some() && cache.get(&key(2), later).is_some());
    }

    #[test]
    fn an_answer_that_is_used_outlives_a_flood_of_answers_that_are_not() {
        let mut cache = Cache::new(8);
        let now = Instant::now();
        cache.insert(key(0), answer(0, 100), now);
        for number in 1..1000 {
            assert!(cache.get(&key(0), now).is_some(), "gone after {number}");
            cache.insert(key(number), answer(0, 100), now);
        }
    }

    #[test]
    fn nothing_is_kept_without_capacity_or_without_a_lifetime() {
        let now = Instant::now();
        for (capacity, seconds) in [(0, 10), (10, 0)] {
            let mut cache = Cache::new(capacity);
            cache.insert(key(1), answer(1, seconds), now);
            assert!(cache.get(&key(1), now).is_none());
        }
    }

    proptest! {
        #[test]
        fn the_cache_keeps_its_bound_and_never_gives_an_old_or_foreign_answer(
            steps in proptest::collection::vec((0..12_u32, any::<u8>(), 0..5_u64, any::<bool>()), 1..200)
        ) {
            let mut cache = Cache::new(5);
            let mut model: HashMap<u32, (u8, Instant)> = HashMap::new();
            let mut now = Instant::now();
            for (number, content, seconds, write) in steps {
                now += Duration::from_millis(300);
                if write {
                    cache.insert(key(number), answer(content, seconds), now);
                    if seconds > 0 {
                        model.insert(number, (content, now + Duration::from_secs(seconds)));
                    }
                } else if let Some((found, _)) = cache.get(&key(number), now) {
                    let (expected, expiry) = model[&number];
                    prop_assert_eq!(found.wire[0], expected);
                    prop_assert!(now < expiry);
                }
                prop_assert!(cache.ring.len() <= 5 && cache.index.len() == cache.ring.len());
            }
        }
    }
}
