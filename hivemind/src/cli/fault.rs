//! How commands end: exit codes, and errors as people and programs read them.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use hivemind_manifest::Fault;
use hivemind_model::{ApiError, ErrorCode, LogLine, Problem, Problems};
use serde::Serialize;

use super::place;

/// The exit code after Ctrl-C: 128 and the number of SIGINT.
const INTERRUPTED: u8 = 130;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// An error to be told.
    #[error("{}", .0.error)]
    Told(Box<Told>),
    /// Nobody reads what is printed; to be passed over in silence, as by any filter.
    #[error("nobody reads the output")]
    BrokenPipe,
    /// The user pressed Ctrl-C; what that means has been told.
    #[error("interrupted")]
    Interrupted,
}

/// An error, and what belongs to it.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    /// The error.
    #[serde(flatten)]
    pub(crate) error: ApiError,
    /// The last lines that the replica at fault wrote.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) log: Vec<LogLine>,
    /// What is wrong with files as a whole; it is in the error, too.
    #[serde(skip)]
    pub(crate) unread: Vec<Problem>,
    /// Where in files the faults are, if they are in files.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "place::as_json")]
    pub(crate) faults: Vec<Fault>,
}

/// How a command ends. Most end with `ExitCode::SUCCESS`.
pub(crate) type Outcome = Result<ExitCode, Failure>;

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Failure::Told(Box::new(Told::of(error)))
    }
}

impl Told {
    /// Of an error by itself.
    pub(crate) fn of(error: ApiError) -> Self {
        Told { error, log: Vec::new(), unread: Vec::new(), faults: Vec::new() }
    }
}

impl From<Vec<Fault>> for Failure {
    /// Of faults in files; there has to be one.
    fn from(faults: Vec<Fault>) -> Self {
        Failure::of_files(Vec::new(), faults)
    }
}

impl Failure {
    /// Of files that cannot be read and of faults in others; there has to be one.
    pub(crate) fn of_files(unread: Vec<Problem>, faults: Vec<Fault>) -> Self {
        let mut problems = Problems::default();
        for Problem { code, field, message, hint } in
            unread.iter().cloned().chain(faults.iter().map(Fault::problem))
        {
            problems.add(code, field, message, hint);
        }
        let error = problems
            .into_result()
            .err()
            .unwrap_or_else(|| ApiError::new(ErrorCode::Internal, "a command failed without a fault", ""));
        Failure::Told(Box::new(Told { unread, faults, ..Told::of(error) }))
    }
}

impl From<io::Error> for Failure {
    /// Of an error in writing to the standard output.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::BrokenPipe;
        }
        let message = format!("the output cannot be written: {error}");
        ApiError::new(ErrorCode::FileFailed, message, "check where the output goes to").into()
    }
}

/// An error of this program's own.
pub(crate) fn fault(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> Failure {
    ApiError::new(code, message, hint).into()
}

/// Tells an error on standard error; returns the exit code of its kind.
pub(crate) fn report(error: &ApiError) -> ExitCode {
    report_failure(&error.clone().into(), false)
}

/// Tells why a command failed, on standard error, as JSON if `as_json`; returns the exit code of the error's kind.
pub(crate) fn report_failure(failure: &Failure, as_json: bool) -> ExitCode {
    let told = match failure {
        Failure::Told(told) => told,
        Failure::BrokenPipe => return ExitCode::SUCCESS,
        Failure::Interrupted => return ExitCode::from(INTERRUPTED),
    };
    let text = if as_json {
        serde_json::to_string(told).map(|json| json + "\n").unwrap_or_else(|_| render(told, Colours::Off))
    } else {
        render(told, Colours::for_stderr())
    };
    // Where even the error cannot be written, the exit code has to do.
    let _ = io::stderr().lock().write_all(text.as_bytes());
    ExitCode::from(told.error.code.kind().exit_code())
}

/// Whether to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colours {
    /// On a terminal that did not ask for none.
    On,
    /// Elsewhere, and where `NO_COLOR` is set (no-color.org).
    Off,
}

impl Colours {
    /// For what goes to standard error.
    pub(crate) fn for_stderr() -> Self {
        Colours::of(io::stderr().is_terminal())
    }

    /// For what goes to standard output.
    pub(crate) fn for_stdout() -> Self {
        Colours::of(io::stdout().is_terminal())
    }

    fn of(terminal: bool) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_none_or(|v| v == "dumb");
        if terminal && !unwanted { Colours::On } else { Colours::Off }
    }

    /// `text` in the colour of an ANSI `code`.
    pub(crate) fn paint(self, code: &str, text: &str) -> String {
        match self {
            Colours::On => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            Colours::Off => text.to_owned(),
        }
    }
}

/// The error as text: every fault with its code, its place and what to do.
fn render(told: &Told, colours: Colours) -> String {
    let error = &told.error;
    let mut text = String::new();
    if !told.faults.is_empty() {
        let unread = told.unread.iter().map(|problem| of_problem(problem, colours));
        let faults = told.faults.iter().map(|fault| place::render(fault, "error", "1;31", colours));
        return unread.chain(faults).collect();
    }
    if error.problems.is_empty() {
        let field = error.field.as_deref().unwrap_or_default();
        text.push_str(&one(error.code, &error.message, field, &error.hint, colours));
    }
    text.extend(error.problems.iter().map(|problem| of_problem(problem, colours)));
    if let Some(first) = told.log.first() {
        text.push_str(&format!("  last lines of {}:\n", first.replica));
        for line in &told.log {
            text.push_str(&format!("    {}\n", line.message));
        }
    }
    text
}

fn of_problem(problem: &Problem, colours: Colours) -> String {
    let Problem { code, field, message, hint } = problem;
    one(*code, message, field, hint, colours)
}

fn one(code: ErrorCode, message: &str, field: &str, hint: &str, colours: Colours) -> String {
    let head = colours.paint("1;31", &format!("error[{code}]"));
    let mut text = format!("{head}: {message}\n");
    if !field.is_empty() {
        text.push_str(&format!("  at: {field}\n"));
    }
    if !hint.is_empty() {
        text.push_str(&format!("  hint: {hint}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_where_and_what_to_do() {
        let error =
            ApiError::new(ErrorCode::AppExists, "an app named \"web\" exists already", "choose another name")
                .at("--name");
        let told = Told::of(error);
        assert_eq!(
            render(&told, Colours::Off),
            "error[HM0301]: an app named \"web\" exists already\n  at: --name\n  hint: choose another name\n"
        );
        assert!(render(&told, Colours::On).starts_with("\u{1b}[1;31merror[HM0301]\u{1b}[0m: an app"));
    }

    #[test]
    fn several_faults_are_told_one_by_one() {
        let mut problems = Problems::default();
        problems.add(ErrorCode::InvalidName, "--name", "\"Web\" is not a valid name", "use a-z");
        problems.add(ErrorCode::OutOfRange, "--replicas", "too many", "");
        let told = Told::of(problems.into_result().unwrap_err());
        assert_eq!(
            render(&told, Colours::Off),
            "error[HM0101]: \"Web\" is not a valid name\n  at: --name\n  hint: use a-z\n\
             error[HM0103]: too many\n  at: --replicas\n"
        );
    }

    #[test]
    fn the_log_of_the_replica_at_fault_follows_the_error() {
        let line = |message: &str| LogLine {
            replica: "web-k3f9q".into(),
            container: None,
            time: jiff::Timestamp::UNIX_EPOCH,
            stream: "stderr".into(),
            message: message.into(),
        };
        let told = Told {
            log: vec![line("one"), line("two")],
            ..Told::of(ApiError::new(ErrorCode::CrashLoop, "it ends again and again", ""))
        };
        assert_eq!(
            render(&told, Colours::Off),
            "error[HM0408]: it ends again and again\n  last lines of web-k3f9q:\n    one\n    two\n"
        );
        let json = serde_json::to_value(&told).unwrap();
        assert_eq!((&json["code"], &json["log"][1]["message"]), (&"HM0408".into(), &"two".into()));
    }

    #[test]
    fn output_that_nobody_reads_is_no_error() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(matches!(failure, Failure::BrokenPipe));
    }
}
