//! `node token`: what lets machines join the cluster.

use std::io::{self, IsTerminal};

use clap::{Args, Subcommand};
use hivemind_model::{ApiError, ErrorCode, JoinToken, JoinTokenRequest, NewJoinToken, Problems};
use jiff::Timestamp;

use crate::cli::{
    NamesArgs, Session,
    fault::Failure,
    output::{self, Format, FormatArgs, ListArgs, Row, note},
    units::{age, lifetime},
};

/// How many machines may join by one token, at most.
const USES_MAX: u32 = 1000;

/// How long one is valid at most, in seconds: a year.
const VALID_S_MAX: u64 = 365 * 86_400;

/// Commands on join tokens.
#[derive(Subcommand, Debug)]
pub(crate) enum TokenCommand {
    /// Make a join token; its secret is printed this once
    #[command(
        after_help = "The secret goes to the standard output; what to do with it, to the standard error. Only a hash of it is kept. With the \
first token the server begins to listen for other machines.

Examples:
  hivemind node token create
  hivemind node token create --uses 10 --expires 1h
  hivemind node token create > join.token                      then, there: hivemind daemon --join ADDRESS --token @join.token"
    )]
    Create(CreateArgs),
    /// List the join tokens, without their secrets
    #[command(visible_alias = "list")]
    Ls(FormatArgs),
    /// Delete join tokens: nobody joins by them any more; who has joined stays
    #[command(visible_alias = "rm")]
    Delete(NamesArgs),
}

/// Flags of `node token create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// How many machines may join by it, 1 to 1000
    #[arg(long, value_name = "N", default_value = "1", allow_hyphen_values = true)]
    uses: String,
    /// How long it is valid, from 1m to 365d, for example 30m or 7d
    #[arg(long, value_name = "TIME", default_value = "24h", allow_hyphen_values = true)]
    expires: String,
    #[command(flatten)]
    output: FormatArgs,
}

impl TokenCommand {
    pub(super) fn format(&self) -> Format {
        match self {
            TokenCommand::Create(args) => args.output.format,
            TokenCommand::Ls(args) => args.format,
            TokenCommand::Delete(_) => Format::Table,
        }
    }

    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        match self {
            TokenCommand::Create(args) => create(session, args).await,
            TokenCommand::Ls(output) => {
                session.print_list::<JoinToken>(ListArgs { output: *output, ..ListArgs::default() }).await
            }
            TokenCommand::Delete(names) => {
                for token in session.find_all::<JoinToken>(None, &names.get()).await? {
                    let name = &token.metadata.name;
                    session.client.delete_join_token(name).await?;
                    output::print(&format!("join token {name} deleted\n"))?;
                }
                Ok(())
            }
        }
    }
}

async fn create(session: &Session, args: &CreateArgs) -> Result<(), Failure> {
    let request = request(&args.uses, &args.expires)?;
    let new = session.client.create_join_token(&request).await.map_err(at_flags)?;
    match args.output.format {
        Format::Json => output::print(&output::json(&new)?),
        Format::Yaml => output::print(&output::yaml(&new)?),
        Format::Name | Format::Table | Format::Wide => {
            note(&explain(&new, io::stderr().is_terminal()));
            output::print(&format!("{}\n", new.secret))
        }
    }
}

/// What the flags mean; all that is wrong with them at once.
fn request(uses: &str, expires: &str) -> Result<JoinTokenRequest, ApiError> {
    let mut problems = Problems::default();
    let count = uses.parse().ok().filter(|count| (1..=USES_MAX).contains(count));
    if count.is_none() {
        let message = format!("{uses:?} is not a number of machines that may join");
        problems.add(ErrorCode::OutOfRange, "--uses", message, format!("give 1 to {USES_MAX}"));
    }
    let span = lifetime(expires).and_then(|span| u64::try_from(span.as_secs()).ok());
    let valid_s = span.filter(|seconds| *seconds <= VALID_S_MAX);
    if valid_s.is_none() {
        let message = format!("{expires:?} is not a time that a join token can be valid");
        let hint = "give 1m to 365d, for example 30m, 24h or 7d";
        problems.add(ErrorCode::OutOfRange, "--expires", message, hint);
    }
    problems.into_result()?;
    Ok(JoinTokenRequest { uses: count.unwrap_or_default(), valid_s: valid_s.unwrap_or_default() })
}

/// The API's fields are flags here.
fn at_flags(mut error: ApiError) -> Failure {
    let flag = |field: &str| match field {
        "uses" => "--uses".to_owned(),
        "validS" => "--expires".to_owned(),
        other => other.to_owned(),
    };
    error.field = error.field.as_deref().map(flag);
    error.problems.iter_mut().for_each(|problem| problem.field = flag(&problem.field));
    error.into()
}

/// What the token is, and what to do with it. Where the standard error is not a terminal it may be kept as a log: the secret
/// is not in it.
fn explain(new: &NewJoinToken, terminal: bool) -> String {
    let spec = &new.token.spec;
    let who = if spec.uses == 1 { "1 machine".to_owned() } else { format!("{} machines", spec.uses) };
    let secret = if terminal { &new.secret } else { "TOKEN" };
    format!(
        "join token {} created: {who} may join by it until {:.0}; its secret is shown this once. On the other machine:\n  sudo hivemind daemon --join {} --token {secret}",
        new.token.metadata.name, spec.expires_at, new.address
    )
}

impl Row for JoinToken {
    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["NAME", "USES LEFT", "VALID", "AGE"];
        header.extend(wide.then_some("ID"));
        header
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let at = self.spec.expires_at;
        let mut cells = vec![
            self.metadata.name.clone(),
            self.spec.uses.to_string(),
            if at <= now { format!("expired {} ago", age(at, now)) } else { format!("until {at:.0}") },
            age(self.metadata.creation_timestamp, now),
        ];
        cells.extend(wide.then(|| self.metadata.id.clone()));
        cells
    }
}

#[cfg(test)]
mod tests {
    use hivemind_model::{JoinTokenSpec, Metadata};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn token() -> JoinToken {
        JoinToken {
            metadata: Metadata::new("default", "join-k3f9q"),
            spec: JoinTokenSpec { uses: 1, expires_at: at("2026-01-02T00:00:00Z"), hash: String::new() },
        }
    }

    #[test]
    fn uses_and_times_are_read() {
        let read = |uses, expires| request(uses, expires).map(|r| (r.uses, r.valid_s));
        assert_eq!(read("1", "24h").unwrap(), (1, 86_400));
        assert_eq!(read("1000", "365d").unwrap(), (1000, VALID_S_MAX));
        for (uses, expires, flags) in [
            ("0", "24h", &["--uses"][..]),
            ("1001", "24h", &["--uses"]),
            ("-1", "24h", &["--uses"]),
            ("1", "366d", &["--expires"]),
            ("1", "59s", &["--expires"]),
            ("some", "soon", &["--uses", "--expires"]),
        ] {
            let error = request(uses, expires).unwrap_err();
            let told: Vec<&str> = match error.problems.is_empty() {
                true => error.field.as_deref().into_iter().collect(),
                false => error.problems.iter().map(|p| p.field.as_str()).collect(),
            };
            assert_eq!(told, flags, "{uses} {expires}");
        }
    }

    #[test]
    fn the_command_for_the_other_machine_has_the_secret_only_where_nobody_keeps_it() {
        let new =
            NewJoinToken { token: token(), secret: "hmj_1_2".into(), address: "192.168.1.11:4484".into() };
        assert_eq!(
            explain(&new, true),
            "join token join-k3f9q created: 1 machine may join by it until 2026-01-02T00:00:00Z; its secret is shown \
             this once. On the other machine:\n  sudo hivemind daemon --join 192.168.1.11:4484 --token hmj_1_2"
        );
        assert!(explain(&new, false).ends_with(" --token TOKEN"));
    }

    #[test]
    fn a_row_tells_how_often_and_how_long_it_may_still_be_used() {
        let cells = |now: &str| token().cells(false, at(now))[1..3].to_vec();
        assert_eq!(cells("2026-01-01T00:00:00Z"), ["1", "until 2026-01-02T00:00:00Z"]);
        assert_eq!(cells("2026-01-02T00:01:00Z"), ["1", "expired 60s ago"]);
    }
}
