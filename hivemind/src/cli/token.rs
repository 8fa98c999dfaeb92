//! `token`: what lets in those who do not come over the socket.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use hivemind_model::{ErrorCode, Problems, Token, TokenRole, TokenSpec, check_name};
use jiff::Timestamp;

use super::{
    NameArgs, NamesArgs, Session,
    fault::{Failure, Outcome},
    output::{self, Format, FormatArgs, ListArgs, Row, note},
    units::{age, lifetime},
};

/// Commands on tokens.
#[derive(Subcommand, Debug)]
pub(crate) enum TokenCommand {
    /// Make a token; its secret is printed this once
    #[command(
        after_help = "The secret goes to the standard output, everything else to the standard error. Only a hash of it is kept.

Examples:
  hivemind token create prometheus --role read-only
  hivemind token create ci --role admin --expires 30d
  hivemind token create laptop --role admin > laptop.token"
    )]
    Create(CreateArgs),
    /// List the tokens, without their secrets
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Revoke tokens: whoever is in by them is out at once
    #[command(visible_aliases = ["delete", "rm"])]
    Revoke(NamesArgs),
}

/// Flags of `token create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    name: NameArgs,
    /// What its bearer may do
    #[arg(long, value_enum, default_value_t = Role::ReadOnly)]
    role: Role,
    /// How long it is valid, for example 12h or 30d [default: until it is revoked]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    expires: Option<String>,
    #[command(flatten)]
    output: FormatArgs,
}

/// What the bearer of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Look at everything but tokens; change nothing, start nothing.
    ReadOnly,
    /// Everything.
    Admin,
}

impl TokenCommand {
    pub(crate) fn format(&self) -> Format {
        match self {
            TokenCommand::Create(args) => args.output.format,
            TokenCommand::Ls(args) => args.output.format,
            TokenCommand::Revoke(_) => Format::Table,
        }
    }

    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        match self {
            TokenCommand::Create(args) => create(session, args).await?,
            TokenCommand::Ls(args) => session.print_list::<Token>(*args).await?,
            TokenCommand::Revoke(names) => {
                for token in session.find_all::<Token>(None, &names.get()).await? {
                    let name = &token.metadata.name;
                    session.client.revoke_token(name).await?;
                    output::print(&format!("token/{name} revoked\n"))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn create(session: &Session, args: &CreateArgs) -> Result<(), Failure> {
    let mut problems = Problems::default();
    check_name("--name", args.name.get(), 63, &mut problems);
    let expires_at = expiry(args.expires.as_deref(), Timestamp::now(), &mut problems);
    problems.into_result()?;
    let role = match args.role {
        Role::ReadOnly => TokenRole::ReadOnly,
        Role::Admin => TokenRole::Admin,
    };
    let spec = TokenSpec { role, expires_at, hash: String::new() };
    let new = session.client.create_token(args.name.get(), spec).await?;
    match args.output.format {
        Format::Json => output::print(&output::json(&new)?),
        Format::Yaml => output::print(&output::yaml(&new)?),
        Format::Name | Format::Table | Format::Wide => {
            let name = &new.token.metadata.name;
            note(&format!(
                "token/{name} created, {}, valid {}; its secret is shown this once:",
                role_name(role),
                until(&new.token)
            ));
            output::print(&format!("{}\n", new.secret))
        }
    }
}

fn expiry(text: Option<&str>, now: Timestamp, problems: &mut Problems) -> Option<Timestamp> {
    let text = text?;
    let at = lifetime(text).and_then(|span| now.checked_add(span).ok());
    if at.is_none() {
        let message = format!("{text:?} is not a time that a token can be valid");
        problems.add(
            ErrorCode::OutOfRange,
            "--expires",
            message,
            "give 1m to 3650d, for example 12h, 30d or 1w",
        );
    }
    at
}

fn role_name(role: TokenRole) -> &'static str {
    match role {
        TokenRole::ReadOnly => "read-only",
        TokenRole::Admin => "admin",
    }
}

/// Until when it is valid, to the second.
fn until(token: &Token) -> String {
    match token.spec.expires_at {
        Some(at) => format!("until {at:.0}"),
        None => "until it is revoked".to_owned(),
    }
}

impl Row for Token {
    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["NAME", "ROLE", "VALID", "AGE"];
        header.extend(wide.then_some("ID"));
        header
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let valid = match self.spec.expires_at {
            Some(at) if at <= now => format!("expired {} ago", age(at, now)),
            _ => until(self),
        };
        let mut cells = vec![
            self.metadata.name.clone(),
            role_name(self.spec.role).to_owned(),
            valid,
            age(self.metadata.creation_timestamp, now),
        ];
        cells.extend(wide.then(|| self.metadata.id.clone()));
        cells
    }
}

#[cfg(test)]
mod tests {
    use hivemind_model::Metadata;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_token_expires_when_it_was_said() {
        let now = at("2026-01-01T00:00:00Z");
        let mut problems = Problems::default();
        assert_eq!(expiry(Some("30d"), now, &mut problems), Some(at("2026-01-31T00:00:00Z")));
        assert_eq!(expiry(None, now, &mut problems), None);
        assert!(problems.is_empty());
        assert_eq!(expiry(Some("soon"), now, &mut problems), None);
        assert_eq!(problems.into_result().unwrap_err().field.as_deref(), Some("--expires"));
    }

    #[test]
    fn a_row_tells_how_long_it_is_still_valid() {
        let mut token = Token {
            metadata: Metadata::new("default", "ci"),
            spec: TokenSpec { role: TokenRole::ReadOnly, expires_at: None, hash: String::new() },
        };
        let now = at("2026-01-02T00:00:00Z");
        assert_eq!(token.cells(false, now)[1..3], ["read-only", "until it is revoked"]);
        token.spec.expires_at = Some(at("2026-01-03T00:00:00Z"));
        assert_eq!(token.cells(false, now)[2], "until 2026-01-03T00:00:00Z");
        token.spec.expires_at = Some(at("2026-01-01T00:00:00Z"));
        assert_eq!(token.cells(false, now)[2], "expired 24h ago");
    }
}
