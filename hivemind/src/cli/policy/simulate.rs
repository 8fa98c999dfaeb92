//! `policy simulate`: what other policies would make of recorded flows.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use hivemind_model::{
    AppliedPolicies, NetworkPolicy, PolicyChange, PolicyName, PolicySimulation, RuleRef, SimulatePolicies,
    SimulatedPair, SimulatedRest,
};
use jiff::Timestamp;

use super::{
    apply, at_flag, find,
    record::{count, reach, short},
};
use crate::cli::{
    Session,
    fault::Outcome,
    output::{self, Format, FormatArgs},
    table::Table,
    units::{age, size},
};

/// The exit code with --check if something would be denied.
const WOULD_DENY: u8 = 1;

/// Flags of `policy simulate`.
#[derive(Args, Debug)]
#[command(
    after_help = "The flows that all nodes have recorded are judged by the policies as they are and as they would be, and those are \
listed of which the verdict would change: denied (they are allowed now), allowed (they are denied now), or depends (it is not \
the same for all replicas of an app). Nothing is changed. Faults and warnings are those of policy apply.

Apps are judged by their replicas as they are now. Addresses outside have the name that was last answered with them; of what \
was not recorded, only that is told which is so whatever it was, and the rest is counted. Pings and other ICMP are judged as \
echo requests. What several nodes recorded may be the same connections: then a number is 60-120, at least and at most.

Examples:
  hivemind policy simulate -f rules.yaml
  hivemind policy simulate -f policies/ --since 2d --check      fail if something would be denied
  hivemind policy simulate --delete only-client

Exit codes: 0 told, 1 with --check: something would be denied, or depends, 2 a fault in a file, 3 there is no such policy, 4 a \
name is taken, 7 no daemon."
)]
pub(crate) struct SimulateArgs {
    /// A file, a folder, or - for the standard input; may be repeated
    #[arg(
        long = "file",
        visible_alias = "filename",
        short = 'f',
        value_name = "FILE",
        required_unless_present = "delete"
    )]
    files: Vec<PathBuf>,
    /// As if this policy were deleted; may be repeated
    #[arg(long, value_name = "NAME")]
    delete: Vec<String>,
    /// Flows that were recorded since then: 30m, 1h, 2d ago, or a time (RFC 3339)
    #[arg(long, value_name = "TIME", default_value = "1h")]
    since: String,
    /// Flows that were recorded before then; as --since [default: now]
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Fail if something would be denied that is allowed now
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    pub(crate) output: FormatArgs,
}

pub(crate) async fn run(session: &Session, args: &SimulateArgs) -> Outcome {
    let documents = if args.files.is_empty() { Vec::new() } else { apply::read(session, &args.files)? };
    let words: Vec<&str> = args.delete.iter().map(String::as_str).collect();
    let deleted = if words.is_empty() { Vec::new() } else { find(session, &words).await? };
    let wanted = SimulatePolicies {
        items: documents.iter().map(|document| document.policy.clone()).collect(),
        delete: deleted.iter().map(name).collect(),
    };
    let sent = session.client.simulate_policies(&wanted, Some(&args.since), args.until.as_deref()).await;
    let simulation = sent.map_err(|error| apply::at_places(at_flag(error), &documents))?;
    let applied = AppliedPolicies { items: simulation.items.clone() };
    apply::warn(&applied, &documents, args.output.format);
    output::print(&match args.output.format {
        Format::Json => output::json(&simulation)?,
        Format::Yaml => output::yaml(&simulation)?,
        Format::Name => names(&simulation),
        format => told(&simulation, format == Format::Wide, Timestamp::now()),
    })?;
    let denies = simulation.changes.iter().any(|pair| pair.change != PolicyChange::Allowed);
    Ok(if args.check && denies { ExitCode::from(WOULD_DENY) } else { ExitCode::SUCCESS })
}

fn name(policy: &NetworkPolicy) -> PolicyName {
    PolicyName { namespace: policy.metadata.namespace.clone(), name: policy.metadata.name.clone() }
}

fn names(simulation: &PolicySimulation) -> String {
    let line = |pair: &SimulatedPair| {
        format!("{} {} {} {}\n", word(pair.change), pair.source, pair.destination, port(pair))
    };
    simulation.changes.iter().map(line).collect()
}

fn told(simulation: &PolicySimulation, wide: bool, now: Timestamp) -> String {
    let mut text = String::new();
    let is_empty = simulation.nodes.iter().all(|reach| reach.first.is_none());
    if is_empty {
        text += "no flows were recorded in that time: nothing is known of what would change (a minute is recorded at its end)\n";
    } else if simulation.changes.is_empty() {
        text += "of what was recorded, nothing is known to change (a minute is recorded at its end)\n";
    } else {
        text += &table(simulation, wide, now);
    }
    if simulation.more_changes > 0 {
        text += &format!("and {} more\n", simulation.more_changes);
    }
    if !is_empty {
        text.push('\n');
        text += &rest(simulation);
    }
    text + &reach(&simulation.nodes, &simulation.missing)
}

fn table(simulation: &PolicySimulation, wide: bool, now: Timestamp) -> String {
    let mut header = vec!["VERDICT", "FROM", "TO", "PORT", "CONNECTIONS", "LAST SEEN", "RULE"];
    if wide {
        header.extend(["RULE NOW", "FIRST SEEN", "BYTES"]);
    }
    let mut table = Table::new(header);
    for pair in &simulation.changes {
        let mut cells = vec![
            word(pair.change).to_owned(),
            short(&pair.source),
            destination(pair),
            port(pair),
            count(pair.connections, |number| number.to_string()),
            format!("{} ago", age(pair.last, now)),
            rules(&pair.after),
        ];
        if wide {
            let more = if pair.has_more_bytes { "+" } else { "" };
            cells.push(rules(&pair.before));
            cells.push(format!("{} ago", age(pair.first, now)));
            cells.push(format!("{}{more}", count(pair.bytes, size)));
        }
        table.row(cells);
    }
    table.render()
}

/// What is not in the table, in sum.
fn rest(simulation: &PolicySimulation) -> String {
    let line = |rest: &SimulatedRest, what: &str| match rest.pairs {
        0 => String::new(),
        pairs => {
            let noun = if pairs == 1 { "pair" } else { "pairs" };
            let connections = count(rest.connections, |number| number.to_string());
            format!("{what}: {pairs} {noun}, {connections} connections\n")
        }
    };
    let mut text = line(&simulation.unchanged, "unchanged");
    text += &line(&simulation.unknown, "unknown, since an address or its name was not recorded");
    text += &line(&simulation.gone, "not judged, since an end is no more or has no replica");
    if simulation.beyond > 0 {
        text += &format!("not judged, since there were too many: {} connections\n", simulation.beyond);
    }
    text
}

fn word(change: PolicyChange) -> &'static str {
    match change {
        PolicyChange::Denied => "denied",
        PolicyChange::Allowed => "allowed",
        PolicyChange::Depends => "depends",
    }
}

fn destination(pair: &SimulatedPair) -> String {
    let to = short(&pair.destination);
    if pair.domain.is_empty() { to } else { format!("{} ({to})", pair.domain) }
}

fn port(pair: &SimulatedPair) -> String {
    pair.port.map_or_else(|| pair.protocol.clone(), |port| format!("{port}/{}", pair.protocol))
}

/// `only-client/ingress[0]`, as flows name it.
fn rules(rules: &[RuleRef]) -> String {
    let one = |rule: &RuleRef| {
        let index = rule.index.map(|index| format!("[{index}]")).unwrap_or_default();
        let policy = short(&format!("{}/{}", rule.namespace, rule.policy));
        format!("{policy}/{}{index}", rule.direction)
    };
    match rules {
        [] => "no policy".to_owned(),
        rules => rules.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use hivemind_model::{SimulationReach, TrafficCount};

    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + minute * 60).unwrap()
    }

    fn simulation() -> PolicySimulation {
        let rule = |index| RuleRef {
            namespace: "default".to_owned(),
            policy: "only-client".to_owned(),
            direction: "ingress".to_owned(),
            index,
        };
        let exactly = |number| TrafficCount { least: number, most: number };
        let denied = SimulatedPair {
            change: PolicyChange::Denied,
            source: "default/other".to_owned(),
            destination: "default/web".to_owned(),
            domain: String::new(),
            protocol: "tcp".to_owned(),
            port: Some(80),
            connections: TrafficCount { least: 60, most: 120 },
            bytes: exactly(4_200),
            has_more_bytes: false,
            first: at(10),
            last: at(57),
            before: Vec::new(),
            after: vec![rule(None)],
        };
        let allowed = SimulatedPair {
            change: PolicyChange::Allowed,
            source: "shop/web".to_owned(),
            destination: "192.0.2.7".to_owned(),
            domain: "api.example.org".to_owned(),
            protocol: "icmp".to_owned(),
            port: None,
            connections: exactly(3),
            bytes: exactly(100),
            has_more_bytes: true,
            before: vec![rule(Some(0))],
            after: Vec::new(),
            ..denied.clone()
        };
        let reach = |node: &str, first, last| SimulationReach { node: node.to_owned(), first, last };
        let rest = |pairs, number| SimulatedRest { pairs, connections: exactly(number) };
        PolicySimulation {
            since: at(0),
            until: at(60),
            nodes: vec![reach("one", Some(at(10)), Some(at(59))), reach("two", None, None)],
            missing: vec!["node three".to_owned(), "log".to_owned()],
            changes: vec![denied, allowed],
            more_changes: 0,
            unchanged: rest(12, 340),
            unknown: rest(1, 7),
            gone: rest(0, 0),
            beyond: 5,
            items: Vec::new(),
        }
    }

    #[test]
    fn what_would_change_is_a_table_and_what_is_not_known_is_told_below() {
        let expected = "\
VERDICT   FROM       TO                            PORT     CONNECTIONS   LAST SEEN   RULE
denied    other      web                           80/tcp   60-120        3m ago      only-client/ingress
allowed   shop/web   api.example.org (192.0.2.7)   icmp     3             3m ago      no policy

unchanged: 12 pairs, 340 connections
unknown, since an address or its name was not recorded: 1 pair, 7 connections
not judged, since there were too many: 5 connections
recorded on one: 2026-01-01T00:10Z to 2026-01-01T00:59Z
recorded on two: nothing
missing: the records of node three, in whole or in part
missing: some of a node's log cannot be read
";
        assert_eq!(told(&simulation(), false, at(60)), expected);
        let wide = told(&simulation(), true, at(60));
        let last = wide.lines().nth(2).unwrap_or_default();
        assert!(last.ends_with("only-client/ingress[0]   50m ago      100 B+"), "{wide}");
    }

    #[test]
    fn no_record_is_told_from_no_change() {
        let mut none =
            PolicySimulation { changes: Vec::new(), missing: Vec::new(), beyond: 0, ..simulation() };
        (none.unknown, none.unchanged) = (SimulatedRest::default(), SimulatedRest::default());
        assert!(told(&none, false, at(60)).starts_with(
            "of what was recorded, nothing is known to change (a minute is recorded at its end)\n"
        ));
        none.nodes.iter_mut().for_each(|reach| (reach.first, reach.last) = (None, None));
        assert_eq!(
            told(&none, false, at(60)),
            "no flows were recorded in that time: nothing is known of what would change (a minute is recorded at its end)\n\
             recorded on one: nothing\nrecorded on two: nothing\n"
        );
    }

    #[test]
    fn for_loops_it_is_a_line_for_each() {
        assert_eq!(
            names(&simulation()),
            "denied default/other default/web 80/tcp\nallowed shop/web 192.0.2.7 icmp\n"
        );
    }
}
