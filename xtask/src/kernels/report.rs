//! What a guest said: which tests ran, how they ended, what they printed.

use std::fmt::Write as _;
use std::time::Duration;

/// What a guest says when its kernel has started.
pub(super) const STARTED: &str = "@ hivemind started";
const PREFIX: &str = "@ hivemind ";
const BEGIN: &str = "@ hivemind begin ";
const TEST: &str = "@ hivemind test ";
const END: &str = "@ hivemind end ";
const FINISHED: &str = "@ hivemind finished";
/// How the test that loads all programs begins what it tells.
const LOADED: &str = "loaded: ";

/// The test programs that a guest runs: the packet table, and what makes endpoints.
pub(super) const RUNS: [&str; 2] = ["packets", "endpoints"];

/// How a guest did.
pub(super) struct Report {
    /// The kernel.
    pub(super) release: String,
    runs: Vec<Run>,
    /// It came to its end by itself.
    is_finished: bool,
    took: Duration,
    /// Not all tests were meant to run.
    is_filtered: bool,
    lines: Vec<String>,
}

/// The tests of a program that ran.
#[derive(Default)]
struct Run {
    name: String,
    /// How many there are.
    tests: u32,
    passed: u32,
    seconds: u64,
    /// All came to an end.
    is_finished: bool,
    /// What it printed, without what tests printed that passed.
    lines: Vec<String>,
}

impl Report {
    /// Reads a console.
    pub(super) fn read(release: &str, lines: Vec<String>, took: Duration, is_filtered: bool) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        for line in &lines {
            match (line.strip_prefix(BEGIN), runs.last_mut()) {
                (Some(begin), _) => runs.push(Run::begin(begin)),
                (None, Some(run)) if !run.is_finished => run.take(line),
                _ => {}
            }
        }
        let is_finished = lines.iter().any(|line| line.contains(FINISHED));
        Self { release: release.to_owned(), runs, is_finished, took, is_filtered, lines }
    }

    /// Whether all ran and nothing failed.
    pub(super) fn is_good(&self) -> bool {
        let is_good = |name| self.run(name).is_some_and(Run::is_good);
        let ran = |name| self.run(name).is_some_and(|run| run.tests > 0);
        let enough = if self.is_filtered {
            RUNS.iter().any(|name| ran(name))
        } else {
            RUNS.iter().all(|name| ran(name))
        };
        self.is_finished && enough && RUNS.iter().all(|name| is_good(name))
    }

    /// Prints what was said by what failed; all, if the machine did not come to its end.
    pub(super) fn print_failures(&self) {
        if !self.is_finished {
            println!("The guest ended before its tests did. All that it said:");
            self.lines.iter().for_each(|line| println!("{line}"));
            return;
        }
        for run in self.runs.iter().filter(|run| !run.is_good()) {
            println!("\n-- {} on {}", run.name, self.release);
            run.lines.iter().filter(|line| !line.starts_with(PREFIX)).for_each(|line| println!("{line}"));
        }
    }

    fn run(&self, name: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.name == name)
    }

    /// What the test that loads all programs told of them.
    fn loaded(&self) -> Option<&str> {
        self.runs.iter().flat_map(|run| &run.lines).find_map(|line| line.strip_prefix(LOADED))
    }
}

impl Run {
    /// From `NAME TESTS`.
    fn begin(text: &str) -> Self {
        let (name, tests) = text.split_once(' ').unwrap_or((text, ""));
        Self { name: name.to_owned(), tests: tests.trim().parse().unwrap_or_default(), ..Self::default() }
    }

    fn take(&mut self, line: &str) {
        if let Some(end) = line.strip_prefix(END) {
            self.seconds =
                end.rsplit(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default();
            self.is_finished = true;
        } else if let Some(test) = line.strip_prefix(TEST) {
            // NAME STATUS SECONDS TEST
            self.passed += u32::from(test.split(' ').nth(1) == Some("0"));
        }
        self.lines.push(line.to_owned());
    }

    fn is_good(&self) -> bool {
        self.is_finished && self.passed == self.tests
    }

    fn outcome(&self) -> String {
        format!("{} of {} ({} s)", self.passed, self.tests, self.seconds)
    }
}

/// The reports one a line.
pub(super) fn table(reports: &[Report]) -> String {
    let mut table = String::new();
    let mut row = |cells: [&str; 5]| {
        let [kernel, loaded, packets, endpoints, all] = cells;
        // Writing into a String cannot fail.
        let _ = writeln!(table, "  {kernel:<50} {loaded:<56} {packets:<18} {endpoints:<18} {all:>7}");
    };
    row(["kernel", "programs", "packet table", "endpoints", "all"]);
    for report in reports {
        let outcome = |name| report.run(name).map_or_else(|| "not run".to_owned(), Run::outcome);
        let all = format!("{:.1} s", report.took.as_secs_f64());
        row([
            &report.release,
            report.loaded().unwrap_or("not loaded"),
            &outcome(RUNS[0]),
            &outcome(RUNS[1]),
            &all,
        ]);
    }
    table
}

#[cfg(test)]
mod checks {
    use super::*;

    fn report(text: &str) -> Report {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        Report::read("6.1", lines, Duration::from_secs(61), false)
    }

    const PACKETS: &str = "@ hivemind started 6.1\n@ hivemind begin packets 2\n@ hivemind test packets 0 1 a::b\n\
        loaded: 13 programs in 9 ms\n@ hivemind test packets 0 7 a::c\n@ hivemind end packets 8\n";
    const ENDPOINTS: &str = "@ hivemind begin endpoints 2\n@ hivemind test endpoints 0 3 d\n\
        @ hivemind test endpoints 101 9 e\n-- e: status 101\nwhy\n@ hivemind end endpoints 9\n";
    const FINISHED: &str = "@ hivemind finished";

    #[test]
    fn a_guest_is_good_when_all_of_its_tests_passed() {
        let report = report(&format!("{PACKETS}{}{FINISHED}", ENDPOINTS.replace("101", "0")));
        assert!(report.is_good());
        let table = table(&[report]);
        assert!(table.contains("13 programs in 9 ms") && table.contains("2 of 2 (8 s)"), "{table}");
    }

    #[test]
    fn what_failed_or_never_ran_or_has_no_test_is_not_good() {
        let failed = report(&format!("{PACKETS}{ENDPOINTS}{FINISHED}"));
        assert!(!failed.is_good());
        assert!(table(&[failed]).contains("1 of 2 (9 s)"));
        let passed = ENDPOINTS.replace("101", "0");
        assert!(!report(&format!("{PACKETS}{FINISHED}")).is_good());
        assert!(!report(&format!("{PACKETS}{passed}")).is_good());
        let missing = passed.replace("endpoints 2", "endpoints 3");
        assert!(!report(&format!("{PACKETS}{missing}{FINISHED}")).is_good());
        let empty = "@ hivemind begin endpoints 0\n@ hivemind end endpoints 0\n";
        assert!(!report(&format!("{PACKETS}{empty}{FINISHED}")).is_good());
        let ended = report("@ hivemind begin packets 51\nKernel panic");
        assert!(!ended.is_good());
        assert!(table(&[ended]).contains("not loaded"));
    }
}
