//! What is wrong with the node, in words.

use hivemind_agent::{FlowLogStatistics, FlowLosses};
use hivemind_common::name as map_name;
use hivemind_datapath::MapStatistics;
use hivemind_model::{App, EndConnections, ErrorCode, Problem};
use jiff::{SignedDuration, Timestamp};

/// A map that is fuller than this is told, in percent.
const FILL_MAX_PERCENT: u64 = 90;

/// How long a loss of flows is told.
const LOSS_TOLD_FOR: SignedDuration = SignedDuration::from_mins(5);

/// What is looked at.
pub(crate) struct Seen<'a> {
    pub(crate) apps: &'a [App],
    /// Whether containerd answers.
    pub(crate) containerd: bool,
    pub(crate) maps: &'a [MapStatistics],
    /// Who has the most connections, if that was asked.
    pub(crate) heaviest: &'a [EndConnections],
    pub(crate) losses: FlowLosses,
    pub(crate) flow_log: Option<FlowLogStatistics>,
    /// What is wrong with the cluster.
    pub(crate) cluster: Vec<Problem>,
}

/// All that is wrong.
pub(crate) fn all(seen: Seen<'_>) -> Vec<Problem> {
    let mut all: Vec<_> = seen.apps.iter().filter_map(|app| app.status.problem.clone()).collect();
    all.extend((!seen.containerd).then(containerd));
    all.extend(seen.maps.iter().filter_map(|fill| map(fill, seen.heaviest)));
    all.extend(seen.cluster);
    all.extend(seen.flow_log.and_then(flow_log));
    all.extend(flows(seen.losses, Timestamp::now()));
    all
}

/// Flows cannot be kept on disk.
fn flow_log(statistics: FlowLogStatistics) -> Option<Problem> {
    statistics.is_failing.then(|| {
        problem(
            ErrorCode::StoreFailed,
            format!(
                "flows cannot be kept on disk ({} attempts failed); their totals wait in the kernel",
                statistics.failures
            ),
            "see whether the disk with the data directory has room; it goes on by itself",
        )
    })
}

/// containerd does not answer.
fn containerd() -> Problem {
    problem(
        ErrorCode::ContainerdUnreachable,
        "containerd does not answer; containers go on, but none can be started or stopped".into(),
        "see whether it runs; Hivemind goes on by itself when it is back",
    )
}

/// Whether a map is one of connections, and nearly full.
pub(crate) fn is_full_of_connections(map: &MapStatistics) -> bool {
    is_full(map) && matches!(map.name, map_name::CONNTRACK_V4 | map_name::CONNTRACK_V6)
}

fn is_full(map: &MapStatistics) -> bool {
    let MapStatistics { entries, capacity, .. } = *map;
    capacity != 0 && entries.saturating_mul(100) > capacity.saturating_mul(FILL_MAX_PERCENT)
}

/// A map that is nearly full; of connections, with those who have the most.
fn map(map: &MapStatistics, heaviest: &[EndConnections]) -> Option<Problem> {
    if !is_full(map) {
        return None;
    }
    let MapStatistics { name, entries, capacity } = *map;
    let percent = entries.saturating_mul(100) / capacity;
    let (then, hint) = when_full(name);
    let mut message = format!(
        "the data path's table {name} is {percent} % full ({entries} of {capacity}); when it is full, {then}"
    );
    if is_full_of_connections(map) && !heaviest.is_empty() {
        message.push_str("; most connections have ");
        message.push_str(&hivemind_agent::in_words(heaviest));
    }
    Some(problem(ErrorCode::MapFull, message, hint))
}

/// What happens when a map is full, and what makes room.
fn when_full(map: &str) -> (&'static str, &'static str) {
    match map {
        map_name::CONNTRACK_V4 | map_name::CONNTRACK_V6 => (
            "new connections are refused",
            "see who opens so many (`hivemind flows`); those that are silent leave by themselves",
        ),
        map_name::PAIR => (
            "further pairs are counted together",
            "see who opens connections to so many ports (`hivemind flows`); what is counted for an app goes with it",
        ),
        map_name::RTT => (
            "round trips of further pairs are not measured",
            "what is measured for an app goes with it; nothing else suffers",
        ),
        map_name::VERDICTS => (
            "what further rules decide is counted together",
            "what is counted for a policy goes with it; policies are enforced all the same",
        ),
        map_name::POLICY | map_name::POLICY_PREFIX_V4 | map_name::POLICY_PREFIX_V6 => (
            "policies that change stay as they are",
            "fewer or simpler rules make room, and fewer apps with labels of their own",
        ),
        map_name::SERVICE_V4
        | map_name::SERVICE_V6
        | map_name::SERVICE_TABLE
        | map_name::BACKEND_V4
        | map_name::BACKEND_V6 => (
            "further services, ports and replicas are not reached by name",
            "fewer services, published ports or replicas make room",
        ),
        _ => ("further replicas cannot be started", "fewer replicas on this node make room"),
    }
}

/// Flows that were not told a short while ago.
fn flows(losses: FlowLosses, now: Timestamp) -> Option<Problem> {
    let ago = now.duration_since(losses.last?);
    if ago > LOSS_TOLD_FOR {
        return None;
    }
    let events = losses.events;
    let message = format!(
        "{events} events about flows were not told since the daemon was started, the last {} s ago: more came at once than are \
         told",
        ago.as_secs().max(0)
    );
    Some(problem(
        ErrorCode::FlowsLost,
        message,
        "the list of flows has gaps, totals in /metrics have none; see who opens so many connections (`hivemind flows`)",
    ))
}

fn problem(code: ErrorCode, message: String, hint: &str) -> Problem {
    Problem { code, field: String::new(), message, hint: hint.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hivemind_model::End;

    fn of(name: &'static str, entries: u64, capacity: u64) -> Option<Problem> {
        map(&MapStatistics { name, entries, capacity }, &[])
    }

    #[test]
    fn who_makes_a_table_of_connections_full_is_told_with_it() {
        let end = End { namespace: "shop".into(), app: "web".into(), replica: "web-a1b2c".into() };
        let heaviest = [EndConnections { end, connections: 61_000 }];
        let of = |name| map(&MapStatistics { name, entries: 95, capacity: 100 }, &heaviest).unwrap().message;
        let told = of(map_name::CONNTRACK_V6);
        assert!(told.ends_with("; most connections have shop/web/web-a1b2c 61000"), "{told}");
        assert!(!of(map_name::PAIR).contains("shop"));
    }

    #[test]
    fn a_map_is_told_when_it_is_more_than_nine_tenths_full() {
        assert_eq!(of("conntrack_v4", 900, 1_000), None);
        assert_eq!(of("conntrack_v4", 0, 0), None);
        let told = of(hivemind_common::name::CONNTRACK_V4, 61_000, 65_536).unwrap();
        assert_eq!(told.code, ErrorCode::MapFull);
        let name = hivemind_common::name::CONNTRACK_V4;
        assert!(told.message.contains(&format!("{name} is 93 % full (61000 of 65536)")), "{}", told.message);
        assert!(told.message.contains("new connections are refused") && !told.hint.is_empty());
    }

    #[test]
    fn every_map_says_what_happens_when_it_is_full() {
        for name in hivemind_common::name::MAPS {
            let told = of(name, 100, 100).unwrap();
            assert!(told.message.contains(name) && !told.hint.is_empty(), "{told:?}");
        }
    }

    #[test]
    fn a_loss_of_flows_is_told_for_a_while() {
        let last = Timestamp::UNIX_EPOCH;
        let losses = FlowLosses { events: 12, last: Some(last) };
        let at = |seconds| flows(losses, last + SignedDuration::from_secs(seconds));
        let told = at(42).unwrap();
        assert!(told.message.contains("12 events") && told.message.contains("42 s ago"), "{}", told.message);
        assert_eq!((told.code, at(300).is_some(), at(301)), (ErrorCode::FlowsLost, true, None));
        assert_eq!(flows(FlowLosses::default(), last), None);
    }
}
