//! Room for what waits, shared among clients.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::WAITING_PER_MODEST_CLIENT_MAX;

/// A bounded number of places. One that is taken by many clients has a few more for those that have hardly any, so that
/// no client can keep all others out.
#[derive(Debug)]
pub(super) struct Room {
    shared: usize,
    reserve: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// A place that is taken until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    client: IpAddr,
    /// The client had few places when it took this one.
    pub(super) is_modest: bool,
}

impl Room {
    pub(super) fn new(shared: usize, reserve: usize) -> Arc<Self> {
        Arc::new(Self { shared, reserve, taken: Mutex::default() })
    }

    /// A place for `client`, if there is one for it.
    pub(super) fn enter(self: &Arc<Self>, client: IpAddr) -> Option<Place> {
        let mut taken = self.taken();
        let own = taken.by_client.get(&client).copied().unwrap_or(0);
        let is_modest = own < WAITING_PER_MODEST_CLIENT_MAX;
        let limit = self.shared + if is_modest { self.reserve } else { 0 };
        if taken.total >= limit {
            return None;
        }
        taken.total += 1;
        taken.by_client.insert(client, own + 1);
        Some(Place { room: Arc::clone(self), client, is_modest })
    }

    /// What is guarded is whole between calls, so that a panic elsewhere does not spoil it.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.taken();
        taken.total -= 1;
        match taken.by_client.get_mut(&self.client) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.by_client.remove(&self.client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    #[test]
    fn who_takes_all_places_does_not_keep_others_out_and_places_come_back() {
        let room = Room::new(20, 6);
        let greedy: Vec<_> = (0..40).filter_map(|_| room.enter(client(1))).collect();
        assert_eq!(greedy.len(), 20);
        let modest: Vec<_> = (0..40).filter_map(|_| room.enter(client(2))).collect();
        assert_eq!(modest.len(), WAITING_PER_MODEST_CLIENT_MAX);
        let last: Vec<_> = (0..40).filter_map(|_| room.enter(client(3))).collect();
        assert_eq!(last.len(), 6 - WAITING_PER_MODEST_CLIENT_MAX);
        drop((greedy, modest, last));
        assert!(room.taken().by_client.is_empty());
        assert_eq!((0..40).filter_map(|_| room.enter(client(2))).collect::<Vec<_>>().len(), 20);
    }

    proptest! {
        #[test]
        fn the_count_is_that_of_the_places_and_never_above_the_limit(
            steps in proptest::collection::vec((0..6_u8, any::<bool>()), 0..200)
        ) {
            let room = Room::new(10, 4);
            let mut places = Vec::new();
            for (number, enters) in steps {
                if enters {
                    places.extend(room.enter(client(number)));
                } else {
                    places.pop();
                }
                let taken = room.taken();
                prop_assert_eq!(taken.total, places.len());
                prop_assert_eq!(taken.by_client.values().sum::<usize>(), places.len());
                prop_assert!(taken.total <= 14);
            }
        }
    }
}
