//! What policies said, by rule: reading it, and forgetting what is of policies that are no more.
//!
//! The programs make a rule's entry when it decides for the first time. What finds no room they count for all others
//! together, whose entries are made here, before any program runs.

use crate::{
    Error, VerdictStatistics,
    bpffs::Pins,
    maps::{failed, open},
    telemetry::pairs::{is_missing, skip_gone},
};
use aya::{
    maps::{Map, MapData, MapError, PerCpuHashMap, PerCpuValues},
    util::nr_cpus,
};
use hivemind_common::{
    name,
    policy::{ALLOW, DENY, rule_parts},
    verdict::{RULE_OTHER, VerdictKey},
};
use std::collections::BTreeSet;

/// `BPF_NOEXIST` of <linux/bpf.h>.
const IF_MISSING: u64 = 1;

/// Entries of what finds no room.
pub(crate) const OTHERS: u32 = 2;

/// The map of verdicts.
pub(crate) struct Verdicts {
    counts: PerCpuHashMap<MapData, VerdictKey, u64>,
}

impl Verdicts {
    /// Opens the pin that loading the object has made or found, and makes the entries of all others together.
    pub(crate) fn open(pins: &Pins) -> Result<Self, Error> {
        let map = Map::PerCpuHashMap(open(pins, name::VERDICTS)?);
        let mut counts = PerCpuHashMap::try_from(map).map_err(failed(name::VERDICTS))?;
        let cpus = nr_cpus().map_err(|(what, error)| Error::system(what)(error))?;
        for verdict in [ALLOW, DENY] {
            let key = VerdictKey { rule: RULE_OTHER, verdict: verdict.into() };
            let nothing = PerCpuValues::try_from(vec![0_u64; cpus]);
            let nothing = nothing.map_err(Error::system("empty the verdicts of other rules"))?;
            match counts.insert(key, nothing, IF_MISSING) {
                Err(MapError::SyscallError(error)) if is_there(&error.io_error) => {}
                result => result.map_err(failed(name::VERDICTS))?,
            }
        }
        Ok(Self { counts })
    }

    /// All counts, in no order.
    pub(crate) fn totals(&self) -> Result<Vec<VerdictStatistics>, Error> {
        let found: Vec<(VerdictKey, PerCpuValues<u64>)> =
            self.counts.iter().filter_map(skip_gone(name::VERDICTS)).collect::<Result<_, _>>()?;
        let told = |(key, cpus): (VerdictKey, PerCpuValues<u64>)| VerdictStatistics {
            rule: (key.rule != RULE_OTHER).then_some(key.rule),
            allowed: key.verdict == u32::from(ALLOW),
            connections: cpus.iter().sum(),
        };
        Ok(found.into_iter().map(told).collect())
    }

    /// Forgets what was counted for the rules of these policies.
    pub(crate) fn forget(&mut self, policies: &BTreeSet<u32>) -> Result<(), Error> {
        let keys: Vec<VerdictKey> =
            self.counts.keys().collect::<Result<_, _>>().map_err(failed(name::VERDICTS))?;
        let is_gone = |key: &VerdictKey| {
            key.rule != RULE_OTHER && rule_parts(key.rule).is_some_and(|rule| policies.contains(&rule.policy))
        };
        for key in keys.into_iter().filter(is_gone) {
            match self.counts.remove(&key) {
                Err(MapError::KeyNotFound) => {}
                Err(MapError::SyscallError(error)) if is_missing(&error.io_error) => {}
                result => result.map_err(failed(name::VERDICTS))?,
            }
        }
        Ok(())
    }
}

/// What was counted, and that nothing was for those of these rules of which nothing is there; sorted by rule.
pub(crate) fn with_idle(
    mut counted: Vec<VerdictStatistics>,
    rules: BTreeSet<(u32, bool)>,
) -> Vec<VerdictStatistics> {
    let known: BTreeSet<_> =
        counted.iter().filter_map(|verdict| Some((verdict.rule?, verdict.allowed))).collect();
    let idle = rules.difference(&known);
    counted.extend(idle.map(|&(rule, allowed)| VerdictStatistics {
        rule: Some(rule),
        allowed,
        connections: 0,
    }));
    counted.sort_by_key(|verdict| (verdict.rule.is_none(), verdict.rule, verdict.allowed));
    counted
}

fn is_there(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::EEXIST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_decided_nothing_yet_is_told_with_nothing_and_others_as_they_were_counted() {
        let of = |rule, allowed, connections| VerdictStatistics { rule, allowed, connections };
        let counted = vec![of(None, true, 0), of(Some(9), true, 5), of(Some(4), false, 7)];
        let rules = [(9, true), (9, false), (3, true)].into();
        let told = with_idle(counted, rules);
        let expected = [
            of(Some(3), true, 0),
            of(Some(4), false, 7),
            of(Some(9), false, 0),
            of(Some(9), true, 5),
            of(None, true, 0),
        ];
        assert_eq!(told, expected);
    }
}
