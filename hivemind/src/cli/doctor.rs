//! `doctor`: whether this machine has what Hivemind needs, and how to get what it lacks. Works without a daemon.
//!
//! [`machine`] reads the machine into a value; [`checks`] judges that value and does no I/O.

mod checks;
mod machine;

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::{
    Session,
    fault::{Colours, Outcome},
    output::{self, Format, FormatArgs},
};

/// The exit code if the machine lacks something: that of errors of the environment.
const LACKING: u8 = 6;

/// Flags of `doctor`.
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 all is there (there may be warnings), 6 something is missing.

Examples:
  sudo hivemind doctor
  sudo hivemind doctor -o json | jq -r '.[] | select(.level != \"ok\") | .remedy'")]
pub(crate) struct DoctorArgs {
    /// The daemon's data directory
    #[arg(long, env = "HIVEMIND_DATA_DIR", value_name = "DIR", default_value = "/var/lib/hivemind")]
    data_dir: PathBuf,
    /// containerd's socket
    #[arg(
        long,
        env = "HIVEMIND_CONTAINERD_SOCKET",
        value_name = "PATH",
        default_value = "/run/containerd/containerd.sock"
    )]
    containerd_socket: PathBuf,
    /// The port of the API and dashboard
    #[arg(long, env = "HIVEMIND_WEB_PORT", value_name = "PORT", default_value_t = 4483)]
    web_port: u16,
    #[command(flatten)]
    pub(crate) output: FormatArgs,
}

/// How well one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// Hivemind works, but something may not.
    Warn,
    /// Hivemind does not work without it.
    Fail,
}

/// What is known of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The thing.
    pub(crate) check: &'static str,
    /// How well it is.
    pub(crate) level: Level,
    /// What was found, and what that means.
    pub(crate) found: String,
    /// How to get it; empty if all is well.
    pub(crate) remedy: String,
}

impl DoctorArgs {
    /// Looks at the machine and prints what it finds.
    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        let places = machine::Places {
            data_dir: &self.data_dir,
            containerd_socket: &self.containerd_socket,
            web_port: self.web_port,
        };
        // The port is ours if our daemon answers; that it does is all that is asked of it.
        let daemon_answers = session.client.health().await.is_ok();
        let machine = machine::read(&places, daemon_answers);
        let findings = checks::all(&machine);
        output::print(&match self.output.format {
            Format::Json => output::json(&findings)?,
            Format::Yaml => output::yaml(&findings)?,
            Format::Name => findings.iter().map(|f| format!("{}\n", f.check)).collect(),
            Format::Table | Format::Wide => describe(&findings, Colours::for_stdout()),
        })?;
        let lacking = findings.iter().any(|f| f.level == Level::Fail);
        Ok(if lacking { ExitCode::from(LACKING) } else { ExitCode::SUCCESS })
    }
}

fn describe(findings: &[Finding], colours: Colours) -> String {
    let width = findings.iter().map(|f| f.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { check, level, found, remedy } in findings {
        let mark = match level {
            Level::Ok => colours.paint("32", "ok  "),
            Level::Warn => colours.paint("33", "warn"),
            Level::Fail => colours.paint("1;31", "fail"),
        };
        text.push_str(&format!("{mark}  {check:<width$}  {found}\n"));
        if !remedy.is_empty() {
            text.push_str(&format!("      {:<width$}  -> {remedy}\n", ""));
        }
    }
    let count = |level| findings.iter().filter(|f| f.level == level).count();
    let (failed, warned) = (count(Level::Fail), count(Level::Warn));
    text.push_str(&match (failed, warned) {
        (0, 0) => "\nThis machine has all that Hivemind needs.\n".to_owned(),
        (0, _) => format!("\nThis machine has all that Hivemind needs; warnings: {warned}.\n"),
        _ => format!("\nThis machine lacks something; failed: {failed}, warnings: {warned}.\n"),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_told_with_what_to_do() {
        let finding = |check, level, remedy: &str| Finding {
            check,
            level,
            found: "found".into(),
            remedy: remedy.into(),
        };
        let findings = [finding("kernel", Level::Ok, ""), finding("runc", Level::Fail, "apt install runc")];
        assert_eq!(
            describe(&findings, Colours::Off),
            "ok    kernel  found\n\
             fail  runc    found\n\
             \x20             -> apt install runc\n\
             \nThis machine lacks something; failed: 1, warnings: 0.\n"
        );
    }
}
