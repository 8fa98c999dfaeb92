//! Pairs and their totals: reading them, and giving the numbers of those that are no more to others.
//!
//! A number that no pair has lies on the stack `pair_free`, from which the programs take one for a new pair. When an
//! identity is gone, its pairs go too: first the pair, so that no program finds its number any more; then, once every
//! program that had found it is through, the number's counters are emptied and it goes back onto the stack. Entries of
//! connections that still hold the number do no harm: an end of theirs is gone, so they are judged anew before they count.
//! Should the daemon die in between, those numbers stay unused until the maps are made anew.

use crate::{
    Error, EventStatistics, PairStatistics, PairTotals, RoundTripStatistics,
    bpffs::Pins,
    grace,
    maps::{failed, open},
    telemetry::{classes, pair_counters::PairTable},
};
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues, Stack};
use hivemind_common::{
    name,
    policy::ALLOW,
    telemetry::{EventBudget, PAIR_OTHER, PairKey, RttHistogram, RttKey},
};
use std::{collections::BTreeSet, io};

/// The maps of pairs, of round trips and of what was told.
pub(crate) struct Pairs {
    numbers: HashMap<MapData, PairKey, u32>,
    free: Stack<MapData, u32>,
    counters: PairTable,
    round_trips: PerCpuHashMap<MapData, RttKey, RttHistogram>,
    budgets: PerCpuArray<MapData, EventBudget>,
}

impl Pairs {
    /// Opens the pins that loading the object has made or found.
    pub(crate) fn open(pins: &Pins) -> Result<Self, Error> {
        let round_trips = Map::PerCpuHashMap(open(pins, name::RTT)?);
        Ok(Self {
            numbers: HashMap::try_from(Map::HashMap(open(pins, name::PAIR)?)).map_err(failed(name::PAIR))?,
            free: Stack::try_from(Map::Stack(open(pins, name::PAIR_FREE)?))
                .map_err(failed(name::PAIR_FREE))?,
            counters: PairTable::new(open(pins, name::PAIR_COUNTERS)?)?,
            round_trips: PerCpuHashMap::try_from(round_trips).map_err(failed(name::RTT))?,
            budgets: PerCpuArray::try_from(Map::PerCpuArray(open(pins, name::EVENT_BUDGETS)?))
                .map_err(failed(name::EVENT_BUDGETS))?,
        })
    }

    /// The kernel's number of the map of counters, which no other map has before the next boot.
    pub(crate) fn counters_id(&self) -> u32 {
        self.counters.id
    }

    fn list(&self) -> Result<Vec<(PairKey, u32)>, Error> {
        self.numbers.iter().filter_map(skip_gone(name::PAIR)).collect()
    }

    /// Forgets the pairs and round trips that one of these identities is an end of.
    pub(crate) fn forget(&mut self, gone: &BTreeSet<u32>) -> Result<(), Error> {
        let is_gone = |key: &PairKey| gone.contains(&key.source) || gone.contains(&key.destination);
        let pairs: Vec<_> = self.list()?.into_iter().filter(|(key, _)| is_gone(key)).collect();
        if !pairs.is_empty() {
            let counters = self.counters.look()?;
            for (key, _) in &pairs {
                crate::maps::forget(&mut self.numbers, name::PAIR, key)?;
            }
            grace::wait();
            for (_, number) in pairs {
                counters.empty(number);
                self.free.push(number, 0).map_err(failed(name::PAIR_FREE))?;
            }
        }
        self.forget_round_trips(gone)
    }

    fn forget_round_trips(&mut self, gone: &BTreeSet<u32>) -> Result<(), Error> {
        let keys: Vec<RttKey> =
            self.round_trips.keys().collect::<Result<_, _>>().map_err(failed(name::RTT))?;
        for key in keys.into_iter().filter(|key| gone.contains(&key.local) || gone.contains(&key.peer)) {
            match self.round_trips.remove(&key) {
                Err(MapError::KeyNotFound) => {}
                Err(MapError::SyscallError(error)) if is_missing(&error.io_error) => {}
                result => result.map_err(failed(name::RTT))?,
            }
        }
        Ok(())
    }

    /// Totals of all pairs, and of those that found no number together.
    pub(crate) fn totals(&self) -> Result<(Vec<PairStatistics>, PairTotals), Error> {
        let mut pairs = Vec::new();
        let counters = self.counters.look()?;
        for (key, number) in self.list()? {
            pairs.push(PairStatistics {
                source: key.source,
                destination: key.destination,
                protocol: key.protocol,
                port: u16::from_be(key.port),
                allowed: key.verdict == ALLOW,
                totals: counters.totals(number),
            });
        }
        pairs.sort_by_key(|pair| (pair.source, pair.destination, pair.protocol, pair.port, pair.allowed));
        Ok((pairs, counters.totals(PAIR_OTHER)))
    }

    /// Round trips by pair of identities.
    pub(crate) fn round_trips(&self) -> Result<Vec<RoundTripStatistics>, Error> {
        let list: Vec<(RttKey, PerCpuValues<RttHistogram>)> =
            self.round_trips.iter().filter_map(skip_gone(name::RTT)).collect::<Result<_, _>>()?;
        let mut all: Vec<_> = list.into_iter().map(|(key, cpus)| sum(key, &cpus)).collect();
        all.sort_by_key(|pair| (pair.local, pair.peer, pair.node));
        Ok(all)
    }

    /// Events by class.
    pub(crate) fn events(&self) -> Result<Vec<EventStatistics>, Error> {
        let of = |(number, class): (usize, &'static str)| {
            let index = u32::try_from(number).unwrap_or(u32::MAX);
            let budgets = self.budgets.get(&index, 0).map_err(failed(name::EVENT_BUDGETS))?;
            let (told, lost) =
                budgets.iter().fold((0, 0), |(told, lost), cpu| (told + cpu.told, lost + cpu.lost));
            Ok(EventStatistics { class, told, lost })
        };
        classes().enumerate().map(of).collect()
    }
}

/// How many events the kernel did not tell, since the maps were made. What cannot be read counts as none.
pub(crate) fn lost_in_kernel(budgets: &PerCpuArray<MapData, EventBudget>) -> u64 {
    let lost = |class: u32| budgets.get(&class, 0).map_or(0, |cpus| cpus.iter().map(|cpu| cpu.lost).sum());
    (0..budgets.len()).map(lost).sum::<u64>()
}

fn sum(key: RttKey, cpus: &PerCpuValues<RttHistogram>) -> RoundTripStatistics {
    let mut all = RoundTripStatistics {
        local: key.local,
        peer: key.peer,
        node: u16::try_from(key.node).unwrap_or(0),
        buckets: [0; _],
        sum_us: 0,
        retransmits: 0,
    };
    for cpu in cpus.iter() {
        for (total, count) in all.buckets.iter_mut().zip(cpu.buckets) {
            *total += count;
        }
        all.sum_us += cpu.sum_us;
        all.retransmits += cpu.retransmits;
    }
    all
}

/// An entry that went between the look at its key and the look at its value is no error.
pub(crate) fn skip_gone<T>(map: &'static str) -> impl Fn(Result<T, MapError>) -> Option<Result<T, Error>> {
    move |found| match found {
        Err(MapError::KeyNotFound) => None,
        found => Some(found.map_err(failed(map))),
    }
}

pub(crate) fn is_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}
