//! Figures about the maps and about what was dropped.

use crate::{EventStatistics, PairStatistics, PairTotals, RoundTripStatistics, VerdictStatistics};
use hivemind_common::drop_reason::DropReason;

/// A snapshot of the data path's figures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statistics {
    /// Fill of each map that can fill up.
    pub maps: Vec<MapStatistics>,
    /// Packets dropped since the maps were made, for every reason, zeros too.
    pub drops: Vec<DropStatistics>,
    /// The same by whose they were: of each endpoint that stands, of the host, of the outside; without zeros, sorted.
    pub endpoint_drops: Vec<EndpointDrops>,
    /// Totals of pairs, sorted by identities, protocol and port.
    pub pairs: Vec<PairStatistics>,
    /// Which counters of pairs these are: within one boot of the machine, counters that were made anew have another number.
    pub counters_id: u32,
    /// The same of the counters of drops: tables are made anew each by itself.
    pub drops_id: u32,
    /// Totals of what found no pair of its own.
    pub other_pairs: PairTotals,
    /// What the rules of policies decided, sorted by rule; of those in force also where that is nothing yet.
    pub verdicts: Vec<VerdictStatistics>,
    /// Round trips, sorted by identities.
    pub round_trips: Vec<RoundTripStatistics>,
    /// Events by class.
    pub events: Vec<EventStatistics>,
}

/// Fill of one map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapStatistics {
    /// The map's name.
    pub name: &'static str,
    /// Entries in it.
    pub entries: u64,
    /// Entries that fit.
    pub capacity: u64,
}

/// Packets dropped for one reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DropStatistics {
    /// The reason.
    pub reason: DropReason,
    /// Packets, all CPUs together.
    pub packets: u64,
}

/// Whose something is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Whose {
    /// The endpoint's of this name.
    Endpoint(String),
    /// The node's own, and no endpoint's.
    Host,
    /// It came in from outside, and is no endpoint's.
    Outside,
}

/// Packets of one end that were dropped for one reason: of an endpoint, what it sent and what was on its way to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointDrops {
    /// Whose they were.
    pub whose: Whose,
    /// The reason.
    pub reason: DropReason,
    /// Packets, all CPUs together, since the endpoint was made.
    pub packets: u64,
}

/// How many connections one end has in the tables of connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionUse {
    /// Whose they are; of two endpoints, one counts for both.
    pub whose: Whose,
    /// Connections that live, or are refused by a policy and remembered for that.
    pub connections: u64,
}

impl Statistics {
    /// Packets dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.iter().filter(|drop| drop.reason == reason).map(|drop| drop.packets).sum()
    }

    /// The map of this name.
    pub fn map(&self, name: &str) -> Option<&MapStatistics> {
        self.maps.iter().find(|map| map.name == name)
    }
}
