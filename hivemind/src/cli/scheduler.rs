//! `scheduler`: where replicas go, and why.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use hivemind_model::ErrorCode;
use hivemind_scheduler::Decision;
use serde_json::Value;

use super::{
    NameArgs, Session,
    fault::{Failure, Outcome, fault},
    output::{self, Format, FormatArgs},
};

/// Commands on the scheduler.
#[derive(Subcommand, Debug)]
pub(crate) enum SchedulerCommand {
    /// Say where a new replica of an app would go now, and why
    #[command(
        after_help = "The best node comes first, with its score: each part as score×weight. Below stand the nodes that could not be, with \
all reasons. Nothing is changed.

Examples:
  hivemind scheduler explain web-app
  hivemind scheduler explain web-app -n shop -o json | jq -r '.outcome.node'"
    )]
    Explain(ExplainArgs),
}

/// Flags of `scheduler explain`.
#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    output: FormatArgs,
}

impl SchedulerCommand {
    pub(crate) fn format(&self) -> Format {
        match self {
            SchedulerCommand::Explain(args) => args.output.format,
        }
    }

    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        let SchedulerCommand::Explain(args) = self;
        let word = args.name.get();
        let app = session.app(word.strip_prefix("app/").unwrap_or(word)).await?.metadata;
        // Kept as it came, so that programs see also what this version of the command line does not know.
        let decision: Value = session.client.placement(&app.namespace, &app.name).await?;
        output::print(&match args.output.format {
            Format::Json => output::json(&decision)?,
            Format::Yaml => output::yaml(&decision)?,
            Format::Name => read(decision)?.node().map(|node| format!("node/{node}\n")).unwrap_or_default(),
            Format::Table | Format::Wide => read(decision)?.words(),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn read(decision: Value) -> Result<Decision, Failure> {
    serde_json::from_value(decision).map_err(|error| {
        fault(
            ErrorCode::Internal,
            format!("the daemon's decision cannot be read: {error}"),
            "use a command line and a daemon of the same version: hivemind --version, hivemind status; or -o json",
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_decision_is_read_as_the_api_sends_it() {
        let sent = json!({
            "replica": "web-k3f9q",
            "app": { "namespace": "default", "name": "web" },
            "outcome": { "kind": "bound", "node": "b" },
            "nodes": [
                { "node": "a", "verdict": { "kind": "refused", "reasons": [ { "kind": "cordoned" } ] } },
                { "node": "b", "verdict": { "kind": "feasible", "scores": [], "total": 7 } }
            ],
            "rttNotMeasured": 0,
            "rttDefaultUs": 1000,
            "later": true
        });
        let words = read(sent).unwrap().words();
        assert!(words.starts_with("A replica of default/web goes to b.\n"), "{words}");
        assert!(words.contains("  a  is cordoned\n"), "{words}");
        assert!(read(json!({})).is_err());
    }
}
