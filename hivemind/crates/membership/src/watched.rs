//! The nodes of the list and what they were seen in: foca's members, told as [`View`]s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Peer;
use crate::core::Clock;
use crate::identity::{Identity, NodeNumber};
use crate::limits::UNKNOWN_FOR;
use crate::rtt::RoundTrips;
use crate::view::{MemberView, State, View};

/// After which a suspicion is past being refuted or confirmed: nobody waits for it any more.
const SUSPICION_STALE: Duration = Duration::from_secs(4);

/// How often at most round-trip times alone make a new view.
const MEASURED_INTERVAL: Duration = Duration::from_secs(1);

struct Record {
    peer: Peer,
    listed: Instant,
    state: State,
    generation: u64,
    incarnation: u16,
    since: Instant,
    /// When the state or the incarnation was new.
    told_at: Instant,
}

impl Record {
    fn new(peer: &Peer, now: Instant) -> Self {
        Self {
            peer: peer.clone(),
            listed: now,
            state: State::Unknown,
            generation: 0,
            incarnation: 0,
            since: now,
            told_at: now,
        }
    }

    fn is_reachable(&self) -> bool {
        matches!(self.state, State::Alive | State::Suspect)
    }

    /// What is said of it, by foca's member of that number.
    fn told(&self, now: Instant, member: Option<&foca::Member<Identity>>) -> (State, u64, u16) {
        // Another node had this number before: what is known is not of this one.
        let Some(member) = member.filter(|member| member.id().address == self.peer.address) else {
            let silent = now.saturating_duration_since(self.listed) >= UNKNOWN_FOR;
            return (if silent { State::Dead } else { State::Unknown }, 0, 0);
        };
        let state = match member.state() {
            _ if member.id().leaving => State::Left,
            foca::State::Alive => State::Alive,
            foca::State::Suspect => State::Suspect,
            foca::State::Down => State::Dead,
        };
        (state, member.id().generation, member.incarnation())
    }
}

pub(crate) struct Watched {
    clock: Clock,
    own: Record,
    records: BTreeMap<NodeNumber, Record>,
    revision: u64,
    taken: Option<u64>,
    /// Round-trip times were measured since the last view was taken.
    measured: bool,
    taken_at: Instant,
}

impl Watched {
    pub(crate) fn new(own: &Peer, generation: u64, clock: Clock) -> Self {
        let now = clock.start();
        let own = Record { state: State::Alive, generation, ..Record::new(own, now) };
        Self {
            clock,
            own,
            records: BTreeMap::new(),
            revision: 0,
            taken: None,
            measured: false,
            taken_at: now,
        }
    }

    /// Takes over the list; what is known of a node that stays as it was stays known.
    pub(crate) fn set_peers(&mut self, now: Instant, peers: &BTreeMap<NodeNumber, Peer>) {
        self.records.retain(|number, record| peers.get(number) == Some(&record.peer));
        for (number, peer) in peers {
            self.records.entry(*number).or_insert_with(|| Record::new(peer, now));
        }
        self.revision += 1;
    }

    /// Looks at foca's members; tells which nodes have begun another life.
    pub(crate) fn look<'a>(
        &mut self,
        now: Instant,
        own_generation: u64,
        members: impl Iterator<Item = &'a foca::Member<Identity>>,
    ) -> Vec<NodeNumber> {
        let members: BTreeMap<_, _> = members.map(|member| (member.id().number, member)).collect();
        let mut reborn = Vec::new();
        let mut changed = false;
        for (number, record) in &mut self.records {
            let (state, generation, incarnation) = record.told(now, members.get(number).copied());
            if generation != record.generation {
                reborn.push(*number);
            }
            if state != record.state || generation != record.generation {
                record.since = now;
                changed = true;
            }
            if record.since == now || incarnation != record.incarnation {
                record.told_at = now;
                changed = true;
            }
            (record.state, record.generation, record.incarnation) = (state, generation, incarnation);
        }
        if self.own.generation != own_generation {
            self.own.generation = own_generation;
            self.own.since = now;
            changed = true;
        }
        self.revision += u64::from(changed);
        reborn
    }

    pub(crate) fn leave(&mut self, now: Instant, generation: u64) {
        self.own.state = State::Left;
        self.own.generation = generation;
        self.own.since = now;
        self.revision += 1;
    }

    pub(crate) fn measured(&mut self) {
        self.measured = true;
    }

    /// Those that can be expected to answer, sorted.
    pub(crate) fn reachable(&self) -> Vec<NodeNumber> {
        self.records.iter().filter(|(_, record)| record.is_reachable()).map(|(number, _)| *number).collect()
    }

    /// Those that cannot, sorted.
    pub(crate) fn unreachable(&self) -> Vec<NodeNumber> {
        self.records.iter().filter(|(_, record)| !record.is_reachable()).map(|(number, _)| *number).collect()
    }

    /// Those whose suspicion was neither refuted nor confirmed in time.
    pub(crate) fn stale_suspects(&self, now: Instant) -> Vec<NodeNumber> {
        let stale = |record: &Record| {
            record.state == State::Suspect && now.saturating_duration_since(record.told_at) >= SUSPICION_STALE
        };
        self.records.iter().filter(|(_, record)| stale(record)).map(|(number, _)| *number).collect()
    }

    /// All in the list, sorted.
    pub(crate) fn all(&self) -> Vec<NodeNumber> {
        self.records.keys().copied().collect()
    }

    /// The last life known of that node; 0 if none is.
    pub(crate) fn generation(&self, number: NodeNumber) -> u64 {
        self.records.get(&number).map_or(0, |record| record.generation)
    }

    pub(crate) fn take_view(&mut self, now: Instant, round_trips: &RoundTrips) -> Option<Arc<View>> {
        let measured = self.measured && now.saturating_duration_since(self.taken_at) >= MEASURED_INTERVAL;
        if self.taken == Some(self.revision) && !measured {
            return None;
        }
        self.taken = Some(self.revision);
        self.taken_at = now;
        self.measured = false;
        Some(Arc::new(View {
            revision: self.revision,
            own: self.member_view(&self.own, round_trips),
            members: self.records.values().map(|record| self.member_view(record, round_trips)).collect(),
        }))
    }

    fn member_view(&self, record: &Record, round_trips: &RoundTrips) -> MemberView {
        MemberView {
            number: record.peer.number,
            name: record.peer.name.clone(),
            address: record.peer.address,
            state: record.state,
            generation: record.generation,
            incarnation: record.incarnation,
            since: self.clock.at(record.since),
            rtt: round_trips.get(record.peer.number),
        }
    }
}
