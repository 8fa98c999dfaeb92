//! `policy suggest`: the least policies that allow what was seen.

use clap::Args;
use hivemind_client::PolicySuggestOptions;

use super::{at_flag, commented};
use crate::cli::{
    Session,
    fault::Failure,
    output::{self, Format, FormatArgs},
};

/// Flags of `policy suggest`.
#[derive(Args, Debug)]
#[command(
    after_help = "It reads the records of flows that the nodes keep by minute, and prints one policy for each app, as policy apply \
takes it, each rule with what speaks for it. What was denied becomes no rule. An app of which nothing was seen gets no policy.

Nothing is applied. What happens less often than the records reach back is not in it: read it before you apply it.

Examples:
  hivemind policy suggest db                                 by what was seen within a day
  hivemind policy suggest -n shop --since 7d > shop.yaml     every app of a namespace
  hivemind policy apply -f shop.yaml --dry-run
  hivemind policy suggest db -o json                         with the evidence as data"
)]
pub(crate) struct SuggestArgs {
    /// The app, or its id; every app of the namespace if it is left out
    #[arg(value_name = "APP")]
    app: Option<String>,
    /// By what was seen from then on: a time (RFC 3339), or how long ago, such as 30m, 24h or 7d
    #[arg(long, value_name = "WHEN", default_value = "24h")]
    since: String,
    /// By what was seen before then; in the same way
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    #[command(flatten)]
    pub(crate) output: FormatArgs,
}

pub(crate) async fn run(session: &Session, args: &SuggestArgs) -> Result<(), Failure> {
    let options = PolicySuggestOptions {
        app: args.app.clone(),
        namespace: Some(session.namespace.clone()),
        since: Some(args.since.clone()),
        until: args.until.clone(),
    };
    let suggestion = session.client.suggest_policies(&options).await.map_err(at_flag)?;
    output::print(&match args.output.format {
        Format::Json => output::json(&suggestion)?,
        Format::Name => suggestion.policies.iter().map(|one| output::name_line(&one.policy)).collect(),
        Format::Yaml | Format::Table | Format::Wide => commented::documents(&suggestion)?,
    })
}
