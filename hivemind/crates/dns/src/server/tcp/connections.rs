//! The connections that are open, and which of them goes when there are too many.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_CLIENT_MAX};

/// All open connections, of all addresses that are served.
#[derive(Debug, Default)]
pub(in crate::server) struct Connections {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// Counts the changes, so that the longest idle connection is the one with the least number.
    clock: u64,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    client: IpAddr,
    /// When it last changed between idle and busy.
    changed: u64,
    is_busy: bool,
    eviction: Arc<Notify>,
}

/// What became of a new connection.
#[derive(Debug)]
pub(super) struct Admission {
    /// Nothing if there was no room for it.
    pub(super) registration: Option<Registration>,
    /// How many connections were closed for want of room.
    pub(super) closed: u64,
}

/// A connection's place; dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Registration {
    connections: Arc<Connections>,
    eviction: Arc<Notify>,
}

impl Connections {
    /// Takes a place for a connection of `client`, an idle connection's if need be. One is idle while its query has not
    /// been read to the end.
    pub(super) fn admit(self: &Arc<Self>, client: IpAddr) -> Admission {
        let mut open = self.open();
        let is_full = open.entries.len() >= CONNECTIONS_MAX;
        let victims_client = if open.count(client) >= CONNECTIONS_PER_CLIENT_MAX {
            Some(client)
        } else if is_full {
            open.greediest()
        } else {
            None
        };
        let mut closed = 0;
        if let Some(victims_client) = victims_client {
            closed = 1;
            let Some(at) = open.longest_idle(victims_client) else {
                return Admission { registration: None, closed };
            };
            // A permit is kept for who does not listen yet.
            open.entries.swap_remove(at).eviction.notify_one();
        }
        let eviction = Arc::new(Notify::new());
        open.clock += 1;
        let entry = Entry { client, changed: open.clock, is_busy: false, eviction: Arc::clone(&eviction) };
        open.entries.push(entry);
        Admission { registration: Some(Registration { connections: Arc::clone(self), eviction }), closed }
    }

    /// What is guarded is whole between calls, so that a panic elsewhere does not spoil it.
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn count(&self, client: IpAddr) -> usize {
        self.entries.iter().filter(|entry| entry.client == client).count()
    }

    /// The client with the most connections.
    fn greediest(&self) -> Option<IpAddr> {
        let mut counts = HashMap::new();
        for entry in &self.entries {
            *counts.entry(entry.client).or_insert(0_usize) += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(client, _)| client)
    }

    fn longest_idle(&self, client: IpAddr) -> Option<usize> {
        let idle =
            self.entries.iter().enumerate().filter(|(_, entry)| entry.client == client && !entry.is_busy);
        idle.min_by_key(|(_, entry)| entry.changed).map(|(at, _)| at)
    }

    fn position(&self, eviction: &Arc<Notify>) -> Option<usize> {
        self.entries.iter().position(|entry| Arc::ptr_eq(&entry.eviction, eviction))
    }
}

impl Registration {
    /// Says whether the connection has a query to be answered; it is not closed then for another.
    pub(super) fn set_busy(&self, is_busy: bool) {
        let mut open = self.connections.open();
        open.clock += 1;
        let clock = open.clock;
        if let Some(at) = open.position(&self.eviction) {
            (open.entries[at].is_busy, open.entries[at].changed) = (is_busy, clock);
        }
    }

    /// Returns when the connection has to go.
    pub(super) async fn evicted(&self) {
        self.eviction.notified().await;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        if let Some(at) = open.position(&self.eviction) {
            open.entries.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(number: usize) -> IpAddr {
        [10, 0, 0, u8::try_from(number).unwrap()].into()
    }

    fn admitted(connections: &Arc<Connections>, number: usize) -> (Option<Registration>, u64) {
        let Admission { registration, closed } = connections.admit(client(number));
        (registration, closed)
    }

    fn is_evicted(registration: &Registration) -> bool {
        registration.connections.open().position(&registration.eviction).is_none()
    }

    #[test]
    fn one_more_of_a_client_closes_its_longest_idle_one() {
        let connections = Arc::new(Connections::default());
        let other = admitted(&connections, 2).0.unwrap();
        let own: Vec<_> =
            (0..CONNECTIONS_PER_CLIENT_MAX).map(|_| admitted(&connections, 1).0.unwrap()).collect();
        own[0].set_busy(true);
        own[1].set_busy(true);
        own[1].set_busy(false);
        let (more, closed) = admitted(&connections, 1);
        assert!(more.is_some() && closed == 1);
        assert!(is_evicted(&own[2]), "the first is busy, and the second was a moment ago");
        assert!(own.iter().filter(|one| is_evicted(one)).count() == 1 && !is_evicted(&other));
    }

    #[test]
    fn a_client_whose_connections_are_all_busy_gets_no_other() {
        let connections = Arc::new(Connections::default());
        let own: Vec<_> =
            (0..CONNECTIONS_PER_CLIENT_MAX).map(|_| admitted(&connections, 1).0.unwrap()).collect();
        own.iter().for_each(|one| one.set_busy(true));
        assert!(matches!(admitted(&connections, 1), (None, 1)));
        assert!(matches!(admitted(&connections, 2), (Some(_), 0)));
    }

    #[test]
    fn when_all_places_are_taken_the_client_with_the_most_gives_one() {
        let connections = Arc::new(Connections::default());
        let clients = CONNECTIONS_MAX / CONNECTIONS_PER_CLIENT_MAX;
        let all: Vec<_> = (0..CONNECTIONS_MAX)
            .map(|number| admitted(&connections, if number == 0 { 9 } else { number % clients }).0.unwrap())
            .collect();
        let (more, closed) = admitted(&connections, 8);
        assert!(more.is_some() && closed == 1);
        assert!(!is_evicted(&all[0]), "it is its client's only one");
        assert_eq!(connections.open().entries.len(), CONNECTIONS_MAX);
        drop((all, more));
        assert!(connections.open().entries.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

        #[test]
        fn there_are_never_more_than_the_limits(
            steps in proptest::collection::vec((0..9_usize, any::<u8>()), 0..900)
        ) {
            let connections = Arc::new(Connections::default());
            let mut all = Vec::new();
            for (number, what) in steps {
                match what % 8 {
                    0 if !all.is_empty() => drop(all.swap_remove(usize::from(what) % all.len())),
                    1 if !all.is_empty() => {
                        let one: &Registration = &all[usize::from(what) % all.len()];
                        one.set_busy(what > 100);
                    }
                    _ => all.extend(admitted(&connections, number).0),
                }
                let open = connections.open();
                prop_assert!(open.entries.len() <= CONNECTIONS_MAX);
                prop_assert!(open.count(client(number)) <= CONNECTIONS_PER_CLIENT_MAX);
            }
        }
    }
}
