//! What foca wants to be woken for, bounded by construction.
//!
//! Foca marks what it schedules with a token and ignores what bears an old one, so of each recurring kind only the newest
//! matters; and of the suspicions of one identity, which does at most what the earliest does, only the earliest. So there
//! is one slot for each kind and one for each member.

use std::collections::BTreeMap;
use std::time::Instant;

use foca::{Timer, TimerToken};

use crate::identity::{Identity, NodeNumber};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    IndirectProbe,
    Probe,
    Suspicion(NodeNumber),
    Announce,
    Gossip,
    AnnounceDown,
    Forget(NodeNumber),
}

impl Slot {
    fn of(timer: &Timer<Identity>) -> Self {
        match timer {
            Timer::SendIndirectProbe { .. } => Self::IndirectProbe,
            Timer::ProbeRandomMember(_) => Self::Probe,
            Timer::ChangeSuspectToDown { member_id, .. } => Self::Suspicion(member_id.number),
            Timer::PeriodicAnnounce(_) => Self::Announce,
            Timer::PeriodicGossip(_) => Self::Gossip,
            Timer::PeriodicAnnounceDown(_) => Self::AnnounceDown,
            Timer::RemoveDown(identity) => Self::Forget(identity.number),
        }
    }
}

fn suspicion(timer: &Timer<Identity>) -> Option<(&Identity, u16, TimerToken)> {
    match timer {
        Timer::ChangeSuspectToDown { member_id, incarnation, token } => {
            Some((member_id, *incarnation, *token))
        }
        _ => None,
    }
}

/// The slots and what is in them.
#[derive(Default)]
pub(crate) struct Timers {
    slots: BTreeMap<Slot, (Instant, Timer<Identity>)>,
}

impl Timers {
    pub(crate) fn insert(&mut self, due: Instant, timer: Timer<Identity>) {
        let slot = Slot::of(&timer);
        let kept = self
            .slots
            .get(&slot)
            .is_some_and(|(_, old)| suspicion(old).is_some() && suspicion(old) == suspicion(&timer));
        if !kept {
            self.slots.insert(slot, (due, timer));
        }
    }

    /// When the first one is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.slots.values().map(|(due, _)| *due).min()
    }

    /// Takes the first one that is due at `now`. Of those due at once the indirect probe comes before the next probe.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Timer<Identity>> {
        let (slot, _) = self
            .slots
            .iter()
            .map(|(slot, (due, _))| (*slot, *due))
            .filter(|(_, due)| *due <= now)
            .min_by_key(|(slot, due)| (*due, *slot))?;
        self.slots.remove(&slot).map(|(_, timer)| timer)
    }
}
