//! `policy matrix`: who may speak to whom, beside who does.

use clap::Args;
use hivemind_client::PolicyMatrixOptions;
use hivemind_model::{
    MatrixOpen, MatrixPair, MatrixPorts, MatrixRange, MatrixUse, PolicyCheckVerdict, PolicyMatrix,
    TrafficCount,
};

use super::{
    at_flag,
    record::{count, reach, short},
};
use crate::cli::{
    Session,
    fault::Failure,
    output::{self, Format, FormatArgs},
    table::Table,
};

/// How many ends a cell of the table names.
const ENDS_MAX: usize = 3;
/// How many ports or ranges of ports a cell of the table tells.
const PORTS_MAX: usize = 4;

/// Flags of `policy matrix`.
#[derive(Args, Debug)]
#[command(
    after_help = "What the policies of both ends allow now stands beside what the nodes have recorded: what passed, what is allowed and was \
never used, and what was tried and denied. Rows are of two ends of which something was recorded, those with the most denied attempts \
first; then of ends of which nothing was and of which the same is allowed. Two ends with nothing allowed and nothing recorded have no row.

Ends are apps, host (the processes of nodes; a node's own always reach its replicas and are left out), dns, and world, which is \
everything outside. \"for some\" is what is allowed for some replicas of an app, or some addresses, and not for all. \"anybody\" is every end \
that no policy of its own keeps from it. What was denied and is allowed by now says so, and what passed and would not by now.

Examples:
  hivemind policy matrix
  hivemind policy matrix -A --since 7d           of all namespaces
  hivemind policy matrix -n shop -o wide         every end and every port, however many
  hivemind policy matrix -o json                 as data"
)]
pub(crate) struct MatrixArgs {
    /// Of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Beside what was recorded since then: 30m, 1h, 2d ago, or a time (RFC 3339)
    #[arg(long, value_name = "TIME", default_value = "1h")]
    since: String,
    /// Beside what was recorded before then; as --since [default: now]
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    #[command(flatten)]
    pub(crate) output: FormatArgs,
}

pub(crate) async fn run(session: &Session, args: &MatrixArgs) -> Result<(), Failure> {
    let options = PolicyMatrixOptions {
        namespace: (!args.all_namespaces).then(|| session.namespace.clone()),
        since: Some(args.since.clone()),
        until: args.until.clone(),
    };
    let matrix = session.client.policy_matrix(&options).await.map_err(at_flag)?;
    output::print(&match args.output.format {
        Format::Json => output::json(&matrix)?,
        Format::Yaml => output::yaml(&matrix)?,
        Format::Name => names(&matrix),
        Format::Table => told(&matrix, Cells { ends: ENDS_MAX, ports: PORTS_MAX }),
        Format::Wide => told(&matrix, Cells { ends: usize::MAX, ports: usize::MAX }),
    })
}

/// One line for each pair, or for those that are told together, and what became of its ports.
fn names(matrix: &PolicyMatrix) -> String {
    let all = Cells { ends: usize::MAX, ports: usize::MAX };
    let mut text = String::new();
    let mut line = |what: &str, from: &str, to: &str, ports: Vec<String>| {
        let ports: Vec<String> = ports.iter().map(|port| port.replace(' ', "-")).collect();
        if !ports.is_empty() {
            text += &format!("{what} {from} {to} {}\n", ports.join(","));
        }
    };
    for pair in &matrix.pairs {
        let (from, to) = (&*pair.source, &*pair.destination);
        line("used", from, to, pair.used.iter().map(port).collect());
        line("denied", from, to, pair.denied.iter().map(port).collect());
        line("unused", from, to, all.words(&pair.unused, ""));
        line("unused-by-some", from, to, all.words(&pair.unused_by_some, ""));
    }
    for open in &matrix.open {
        let (from, to) = (open.sources.join(","), open.destinations.join(","));
        line("unused", &from, &to, all.words(&open.allowed, ""));
        line("unused-by-some", &from, &to, all.words(&open.some, ""));
    }
    let anybody = || "anybody".to_owned();
    for (from, to) in [(anybody(), matrix.open_from_all.join(",")), (matrix.open_to_all.join(","), anybody())]
    {
        if !from.is_empty() && !to.is_empty() {
            line("unused", &from, &to, vec!["everything".to_owned()]);
        }
    }
    text
}

fn told(matrix: &PolicyMatrix, cells: Cells) -> String {
    let mut text = String::new();
    if matrix.nodes.iter().all(|reach| reach.first.is_none()) {
        text += "no flows were recorded in that time: what is allowed is known, and not what is used\n";
    }
    let table = cells.table(matrix);
    if table.is_empty() {
        text += "nothing is allowed, and nothing was tried\n";
    }
    text += &table;
    if matrix.more_pairs > 0 || matrix.more_open > 0 {
        let (pairs, open) = (matrix.more_pairs, matrix.more_open);
        text += &format!(
            "and {pairs} more with something recorded, {open} more that are open; ask for one namespace\n"
        );
    }
    text.push('\n');
    text += &summary(matrix);
    text + &reach(&matrix.nodes, &matrix.missing)
}

/// How much a cell tells.
#[derive(Clone, Copy, Debug)]
struct Cells {
    ends: usize,
    ports: usize,
}

impl Cells {
    fn table(self, matrix: &PolicyMatrix) -> String {
        let mut table = Table::new(["FROM", "TO", "USED", "NEVER USED", "DENIED"]);
        let mut rows = 0;
        let mut row = |cells: Vec<String>| {
            rows += 1;
            table.row(cells);
        };
        for pair in &matrix.pairs {
            row(self.pair(pair));
        }
        for MatrixOpen { sources, destinations, allowed, some } in &matrix.open {
            let open = self.open(allowed, some);
            row(vec![self.ends(sources), self.ends(destinations), String::new(), open, String::new()]);
        }
        let anybody = || "anybody".to_owned();
        let open = || "everything: no policy".to_owned();
        if !matrix.open_from_all.is_empty() {
            let to = self.ends(&matrix.open_from_all);
            row(vec![anybody(), to, String::new(), open(), String::new()]);
        }
        if !matrix.open_to_all.is_empty() {
            let from = self.ends(&matrix.open_to_all);
            row(vec![from, anybody(), String::new(), open(), String::new()]);
        }
        if rows == 0 { String::new() } else { table.render() }
    }

    fn pair(self, pair: &MatrixPair) -> Vec<String> {
        let is_any = pair.allowed.ranges.first().is_some_and(|range| range.protocol == "any");
        let unused = match (pair.judged, is_any && !pair.unused.is_empty() && !pair.used.is_empty()) {
            (false, _) => "not judged".to_owned(),
            (true, true) => "everything else".to_owned(),
            (true, false) => self.open(&pair.unused, &pair.unused_by_some),
        };
        vec![
            short(&pair.source),
            short(&pair.destination),
            self.uses(&pair.used, pair.more_used, PolicyCheckVerdict::Allowed),
            unused,
            self.uses(&pair.denied, pair.more_denied, PolicyCheckVerdict::Denied),
        ]
    }

    fn ends(self, ends: &[String]) -> String {
        joined(ends.iter().map(|end| short(end)).collect(), self.ends, 0)
    }

    fn open(self, all: &MatrixPorts, some: &MatrixPorts) -> String {
        let mut words = self.words(all, "");
        words.extend(self.words(some, " for some"));
        joined(words, self.ports, all.more.saturating_add(some.more))
    }

    fn words(self, ports: &MatrixPorts, ending: &str) -> Vec<String> {
        ports.ranges.iter().map(|one| format!("{}{ending}", range(one))).collect()
    }

    /// Recorded ports with their numbers, and with what policies say of them now if that is not what `expected` says.
    fn uses(self, uses: &[MatrixUse], more: u64, expected: PolicyCheckVerdict) -> String {
        let one = |one: &MatrixUse| {
            let number = match one.connections {
                TrafficCount { most: 0, .. } => "ongoing".to_owned(),
                connections => count(connections, |number| number.to_string()),
            };
            let now = match one.now.filter(|now| *now != expected) {
                None => "",
                Some(PolicyCheckVerdict::Allowed) => ", now allowed",
                Some(PolicyCheckVerdict::Denied) => ", now denied",
                Some(PolicyCheckVerdict::Depends) => ", now for some",
            };
            format!("{} ({number}{now})", port(one))
        };
        joined(uses.iter().map(one).collect(), self.ports, more)
    }
}

/// The first words of a cell, and how many more there are.
fn joined(words: Vec<String>, max: usize, more: u64) -> String {
    let left = u64::try_from(words.len().saturating_sub(max)).unwrap_or(u64::MAX).saturating_add(more);
    let mut text = words.into_iter().take(max).collect::<Vec<_>>().join(", ");
    if left > 0 {
        text += &format!(" and {left} more");
    }
    text
}

fn port(one: &MatrixUse) -> String {
    match one.port {
        Some(port) => format!("{port}/{}", one.protocol),
        None if one.protocol.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("protocol {}", one.protocol)
        }
        None => one.protocol.clone(),
    }
}

/// `5432/tcp`, `8000-8099/udp`, `tcp`, `icmp type 8`, `other protocols`, `everything`.
fn range(range: &MatrixRange) -> String {
    let protocol = &range.protocol;
    let (Some(first), Some(last)) = (range.first, range.last) else {
        return match protocol.as_str() {
            "any" => "everything".to_owned(),
            "other" => "other protocols".to_owned(),
            protocol => protocol.to_owned(),
        };
    };
    if !protocol.starts_with("icmp") {
        return match first == last {
            true => format!("{first}/{protocol}"),
            false => format!("{first}-{last}/{protocol}"),
        };
    }
    let [[kind, code], [last_kind, last_code]] = [first, last].map(u16::to_be_bytes);
    match (kind == last_kind, (code, last_code)) {
        (true, (0, u8::MAX)) => format!("{protocol} type {kind}"),
        (true, _) if code == last_code => format!("{protocol} type {kind} code {code}"),
        (true, _) => format!("{protocol} type {kind} codes {code}-{last_code}"),
        (false, (0, u8::MAX)) => format!("{protocol} types {kind}-{last_kind}"),
        (false, _) => format!("{protocol} type {kind} code {code} to type {last_kind} code {last_code}"),
    }
}

/// What the table comes to, and what is not in it.
fn summary(matrix: &PolicyMatrix) -> String {
    let number = |of: &dyn Fn(&MatrixPair) -> bool| matrix.pairs.iter().filter(|pair| of(pair)).count();
    let used = number(&|pair| !pair.used.is_empty());
    let is_wider = |pair: &MatrixPair| !pair.unused.is_empty() || !pair.unused_by_some.is_empty();
    let wider = number(&|pair| !pair.used.is_empty() && is_wider(pair));
    let denied = number(&|pair| !pair.denied.is_empty());
    let open: usize =
        matrix.open.iter().map(|open| open.sources.len().saturating_mul(open.destinations.len())).sum();
    let mut text = format!(
        "{}; of pairs {used} used ({wider} of them open to more), {denied} denied, {open} open and never used, {} closed\n",
        counted(matrix.apps, "app"),
        matrix.closed
    );
    let (into, out) = (matrix.open_from_all.len() as u64, matrix.open_to_all.len() as u64);
    if into > 0 || out > 0 {
        text += &format!(
            "no policy limits what comes in to {}, and what goes out of {}\n",
            counted(into, "app"),
            counted(out, "app")
        );
    }
    for (number, what) in [
        (
            matrix.unjudged,
            "pairs were not judged, since there are too many, or policies name too many domains",
        ),
        (matrix.gone, "recorded pairs have an end that is no more, or an app without replicas"),
        (matrix.unknown, "recorded pairs have an end, or a protocol, that nobody knows"),
        (matrix.beyond, "connections are in no row, since there were too many different ones"),
    ] {
        if number > 0 {
            text += &format!("{number} {what}\n");
        }
    }
    text
}

fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

#[cfg(test)]
mod tests {
    use hivemind_model::SimulationReach;
    use jiff::Timestamp;

    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + minute * 60).unwrap()
    }

    fn tcp(first: u16, last: u16) -> MatrixRange {
        MatrixRange { protocol: "tcp".to_owned(), first: Some(first), last: Some(last) }
    }

    fn of(ranges: &[MatrixRange]) -> MatrixPorts {
        MatrixPorts { ranges: ranges.to_vec(), more: 0 }
    }

    fn any() -> MatrixPorts {
        of(&[MatrixRange { protocol: "any".to_owned(), first: None, last: None }])
    }

    fn used(port: u16, least: u64, most: u64, now: PolicyCheckVerdict) -> MatrixUse {
        let connections = TrafficCount { least, most };
        let bytes = TrafficCount::default();
        MatrixUse {
            protocol: "tcp".to_owned(),
            port: Some(port),
            connections,
            bytes_sent: bytes,
            bytes_received: bytes,
            now: Some(now),
        }
    }

    fn pair(source: &str, destination: &str) -> MatrixPair {
        MatrixPair {
            source: source.to_owned(),
            destination: destination.to_owned(),
            judged: true,
            allowed: MatrixPorts::default(),
            some: MatrixPorts::default(),
            used: Vec::new(),
            more_used: 0,
            denied: Vec::new(),
            more_denied: 0,
            unused: MatrixPorts::default(),
            unused_by_some: MatrixPorts::default(),
        }
    }

    fn names_of(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn matrix() -> PolicyMatrix {
        use PolicyCheckVerdict::{Allowed, Denied, Depends};
        let denied = MatrixPair {
            denied: vec![used(22, 3, 3, Denied), used(5_432, 2, 2, Depends), used(9, 1, 1, Allowed)],
            some: of(&[tcp(5_432, 5_432)]),
            unused_by_some: of(&[tcp(5_432, 5_432)]),
            ..pair("default/web", "default/db")
        };
        let wider = MatrixPair {
            allowed: of(&[tcp(5_432, 5_439)]),
            used: vec![used(80, 1, 1, Denied), used(5_432, 60, 120, Allowed)],
            more_used: 7,
            unused: of(&[tcp(5_433, 5_439)]),
            ..pair("shop/batch", "default/db")
        };
        let open = MatrixPair {
            allowed: any(),
            used: vec![used(443, 0, 0, Allowed)],
            unused: of(&[tcp(0, 442), tcp(444, 65_535)]),
            ..pair("default/web", "world")
        };
        let group = MatrixOpen {
            sources: names_of(&["default/a", "default/b", "default/c", "default/d", "world"]),
            destinations: names_of(&["default/web"]),
            allowed: of(&[tcp(80, 80)]),
            some: of(&[MatrixRange {
                protocol: "icmp".to_owned(),
                first: Some(8 << 8),
                last: Some(8 << 8 | 255),
            }]),
        };
        PolicyMatrix {
            since: at(0),
            until: at(60),
            nodes: vec![SimulationReach { node: "one".to_owned(), first: Some(at(10)), last: Some(at(59)) }],
            missing: Vec::new(),
            apps: 7,
            pairs: vec![denied, wider, open],
            more_pairs: 0,
            open: vec![group],
            more_open: 0,
            open_from_all: names_of(&["default/a"]),
            open_to_all: names_of(&["default/a", "default/web"]),
            closed: 9,
            unjudged: 0,
            gone: 2,
            unknown: 0,
            beyond: 0,
        }
    }

    #[test]
    fn what_is_open_stands_beside_what_is_used_and_what_is_denied() {
        let expected = "\
FROM                 TO        USED                                                 NEVER USED                    DENIED
web                  db        -                                                    5432/tcp for some             22/tcp (3), 5432/tcp (2, now for some), 9/tcp (1, now allowed)
shop/batch           db        80/tcp (1, now denied), 5432/tcp (60-120) and 7 more   5433-5439/tcp                 -
web                  world     443/tcp (ongoing)                                    everything else               -
a, b, c and 2 more   web       -                                                    80/tcp, icmp type 8 for some   -
anybody              a         -                                                    everything: no policy         -
a, web               anybody   -                                                    everything: no policy         -

7 apps; of pairs 2 used (2 of them open to more), 1 denied, 5 open and never used, 9 closed
no policy limits what comes in to 1 app, and what goes out of 2 apps
2 recorded pairs have an end that is no more, or an app without replicas
recorded on one: 2026-01-01T00:10Z to 2026-01-01T00:59Z
";
        let told = told(&matrix(), Cells { ends: 3, ports: 4 });
        let words = |text: &str| -> Vec<Vec<String>> {
            let line = |line: &str| {
                line.split("   ").map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
            };
            text.lines().map(line).collect()
        };
        assert_eq!(words(&told), words(expected), "{told}");
        let wide = super::told(&matrix(), Cells { ends: usize::MAX, ports: usize::MAX });
        assert!(wide.contains("\na, b, c, d, world   web  "), "{wide}");
    }

    #[test]
    fn without_records_only_what_is_allowed_is_known() {
        let mut none = PolicyMatrix { pairs: Vec::new(), gone: 0, ..matrix() };
        none.nodes[0].first = None;
        let told = told(&none, Cells { ends: 3, ports: 4 });
        assert!(told.starts_with("no flows were recorded in that time: "), "{told}");
        assert!(
            told.contains("recorded on one: nothing\n") && told.contains("everything: no policy"),
            "{told}"
        );
    }

    #[test]
    fn messages_of_icmp_and_protocols_without_ports_have_words() {
        let words = |protocol: &str, first, last| {
            range(&MatrixRange { protocol: protocol.to_owned(), first: Some(first), last: Some(last) })
        };
        assert_eq!(words("icmp", 0x0300, 0x0303), "icmp type 3 codes 0-3");
        assert_eq!(words("icmp", 0x0301, 0x0301), "icmp type 3 code 1");
        assert_eq!(words("icmpv6", 0x0000, 0x7fff), "icmpv6 types 0-127");
        assert_eq!(words("icmp", 0x0001, 0x0300), "icmp type 0 code 1 to type 3 code 0");
        assert_eq!(words("udp", 1, 9), "1-9/udp");
        let other = MatrixRange { protocol: "other".to_owned(), first: None, last: None };
        assert_eq!(range(&other), "other protocols");
    }

    #[test]
    fn for_loops_it_is_a_line_for_what_became_of_the_ports_of_a_pair() {
        let lines = names(&matrix());
        let first: Vec<&str> = lines.lines().take(3).collect();
        assert_eq!(
            first,
            [
                "denied default/web default/db 22/tcp,5432/tcp,9/tcp",
                "unused-by-some default/web default/db 5432/tcp",
                "used shop/batch default/db 80/tcp,5432/tcp",
            ]
        );
        assert!(lines.ends_with("unused default/a,default/web anybody everything\n"), "{lines}");
    }
}
