//! `context`: daemons elsewhere under names.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use hivemind_client::{Client, Contexts, Remote, Trust};
use hivemind_model::{ApiError, ErrorCode, TokenRole};
use serde::Serialize;

use super::{
    GlobalArgs, NamesArgs,
    fault::{Failure, Outcome, fault},
    near::with_near,
    output::{self, Format, FormatArgs, note},
    table::Table,
};

/// What the daemon of this machine is called.
const LOCAL: &str = "local";

/// The most bytes that a file with a token is read of.
const TOKEN_BYTES_MAX: u64 = 4_096;

/// Commands on contexts.
#[derive(Subcommand, Debug)]
pub(crate) enum ContextCommand {
    /// Keep a daemon elsewhere under a name, once it has answered
    #[command(
        after_help = "A daemon with a certificate of its own making is trusted by the fingerprint of that, which is told when it does \
not match, or by its certificate authority's file. Contexts are kept in ~/.config/hivemind/contexts.toml, which \
only you may read.

Examples:
  hivemind token create laptop --role admin > laptop.token                      on the node
  hivemind context add prod --server https://node-1:4483 --token-file laptop.token --fingerprint SHA256:…
  pass hivemind/prod | hivemind context add prod --server https://node-1:4483 --token-file - --ca-file ca.pem
  hivemind context use prod"
    )]
    Add(Box<AddArgs>),
    /// List the contexts; the one in use is marked
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Use a context from now on; local: the daemon of this machine
    Use(UseArgs),
    /// Remove contexts
    #[command(visible_aliases = ["delete", "remove"])]
    Rm(NamesArgs),
}

/// Flags of `context add`.
#[derive(Args, Debug)]
pub(crate) struct AddArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
    /// Where the daemon is
    #[arg(long, value_name = "URL")]
    server: String,
    /// The token's secret; better in a file or in the variable, since others see command lines
    #[arg(
        long,
        env = "HIVEMIND_TOKEN",
        hide_env_values = true,
        value_name = "SECRET",
        conflicts_with = "token_file"
    )]
    token: Option<String>,
    /// A file with the token's secret; -: the standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Trust what this certificate authority (PEM) has signed
    #[arg(long, value_name = "FILE", conflicts_with = "fingerprint")]
    ca_file: Option<PathBuf>,
    /// Trust the certificate, or the authority, with this SHA-256 fingerprint
    #[arg(long, value_name = "FINGERPRINT")]
    fingerprint: Option<String>,
    /// Use it from now on
    #[arg(long = "use")]
    use_it: bool,
    /// Keep it without asking the daemon
    #[arg(long)]
    no_check: bool,
}

/// Flags of `context ls`.
#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    #[command(flatten)]
    output: FormatArgs,
}

/// Flags of `context use`.
#[derive(Args, Debug)]
pub(crate) struct UseArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
}

impl ContextCommand {
    pub(crate) fn format(&self) -> Format {
        match self {
            ContextCommand::Ls(args) => args.output.format,
            _ => Format::Table,
        }
    }

    pub(crate) async fn run(&self, global: &GlobalArgs) -> Outcome {
        let mut contexts = Contexts::load(Contexts::default_path()?)?;
        match self {
            ContextCommand::Add(args) => add(&mut contexts, args).await?,
            ContextCommand::Ls(args) => {
                let named = global.context.as_deref().filter(|_| global.socket.is_none());
                output::print(&list(&contexts, named, args.output.format)?)?;
            }
            ContextCommand::Use(args) => {
                contexts.choose(&args.name).map_err(|e| like(e, &args.name, &contexts))?;
                contexts.save()?;
                note(&match contexts.current() {
                    Some(name) => format!("commands go to context {name} from now on"),
                    None => "commands go to the daemon of this machine from now on".to_owned(),
                });
            }
            ContextCommand::Rm(names) => remove(&mut contexts, &names.get())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn add(contexts: &mut Contexts, args: &AddArgs) -> Result<(), Failure> {
    let trust = match (&args.ca_file, &args.fingerprint) {
        (Some(file), _) => Trust::CaFile(absolute(file)?),
        (None, Some(text)) => {
            let parsed = text.parse();
            Trust::Fingerprint(parsed.map_err(|e: ApiError| Failure::from(e.at("--fingerprint")))?)
        }
        (None, None) => Trust::System,
    };
    let remote = Remote { url: args.server.clone(), token: token(args)?, trust };
    let is_new = contexts.get(&args.name).is_err();
    contexts.add(&args.name, remote.clone()).map_err(at_flag)?;
    let who = match args.no_check {
        true => String::new(),
        false => {
            let session = Client::remote(&remote).map_err(at_flag)?.session().await?;
            let role = if session.role == TokenRole::Admin { "admin" } else { "read-only" };
            format!(" as {} ({role})", session.name)
        }
    };
    if args.use_it {
        contexts.choose(&args.name)?;
    }
    contexts.save()?;
    let done = if is_new { "added" } else { "changed" };
    output::print(&format!("context/{} {done}: {}{who}\n", args.name, remote.url))?;
    if !args.use_it {
        note(&format!("use it with --context {0}, or from now on: hivemind context use {0}", args.name));
    }
    Ok(())
}

fn absolute(file: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(file).map_err(|e| unreadable(file, &e))
}

fn token(args: &AddArgs) -> Result<String, Failure> {
    let text = match (&args.token, &args.token_file) {
        (Some(secret), _) => secret.clone(),
        (None, Some(file)) => {
            let mut text = String::new();
            let read = match file.as_os_str() == "-" {
                true => io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut text),
                false => std::fs::File::open(file)
                    .and_then(|opened| opened.take(TOKEN_BYTES_MAX).read_to_string(&mut text)),
            };
            read.map_err(|e| unreadable(file, &e))?;
            text
        }
        (None, None) => {
            return Err(ApiError::new(
                ErrorCode::Malformed,
                "no token is given",
                "make one on the node (hivemind token create NAME), and give its secret by --token-file FILE",
            )
            .at("--token-file")
            .into());
        }
    };
    Ok(text.trim().to_owned())
}

fn unreadable(file: &Path, error: &io::Error) -> Failure {
    let message = format!("{} cannot be read: {error}", file.display());
    fault(ErrorCode::Malformed, message, "check the name of the file, and whether you may read it")
}

/// The client's words for fields are flags here.
fn at_flag(mut error: ApiError) -> Failure {
    let flag = |field: &str| match field {
        "url" => "--server".to_owned(),
        "token" => "--token".to_owned(),
        "name" => "NAME".to_owned(),
        other => other.to_owned(),
    };
    error.field = error.field.as_deref().map(flag);
    error.problems.iter_mut().for_each(|problem| problem.field = flag(&problem.field));
    error.into()
}

fn like(error: ApiError, name: &str, contexts: &Contexts) -> Failure {
    let names = contexts.iter().map(|(name, _)| name).chain([LOCAL]);
    if error.code == ErrorCode::ContextNotFound {
        with_near(error, "context", name, names).into()
    } else {
        error.into()
    }
}

fn remove(contexts: &mut Contexts, names: &[&str]) -> Result<(), Failure> {
    for name in names {
        contexts.get(name).map_err(|e| like(e, name, contexts))?;
    }
    let before = contexts.current().map(str::to_owned);
    for name in names {
        contexts.remove(name)?;
    }
    contexts.save()?;
    for name in names {
        output::print(&format!("context/{name} removed\n"))?;
    }
    if before.is_some() && contexts.current().is_none() {
        note("commands go to the daemon of this machine from now on");
    }
    Ok(())
}

/// A context without its secret.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    name: &'a str,
    current: bool,
    server: &'a str,
    trust: String,
}

fn list(contexts: &Contexts, named: Option<&str>, format: Format) -> Result<String, Failure> {
    let current = named.or(contexts.current()).unwrap_or(LOCAL);
    let local =
        Shown { name: LOCAL, current: current == LOCAL, server: super::DEFAULT_SOCKET, trust: String::new() };
    let others = contexts.iter().map(|(name, remote)| Shown {
        name,
        current: current == name,
        server: &remote.url,
        trust: match &remote.trust {
            Trust::System => "this machine's authorities".to_owned(),
            Trust::CaFile(path) => path.display().to_string(),
            Trust::Fingerprint(fingerprint) => fingerprint.to_string(),
        },
    });
    let all: Vec<Shown<'_>> = [local].into_iter().chain(others).collect();
    match format {
        Format::Json => output::json(&all),
        Format::Yaml => output::yaml(&all),
        Format::Name => Ok(all.iter().map(|c| format!("{}\n", c.name)).collect()),
        Format::Table | Format::Wide => {
            let mut table = Table::new(["IN USE", "NAME", "SERVER", "TRUSTS"]);
            for Shown { name, current, server, trust } in all {
                let mark = if current { "*" } else { "" };
                table.row(vec![mark.into(), name.to_owned(), server.to_owned(), trust]);
            }
            Ok(table.render())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contexts() -> (tempfile::TempDir, Contexts) {
        let folder = tempfile::tempdir().unwrap();
        let mut contexts = Contexts::load(folder.path().join("contexts.toml")).unwrap();
        let remote =
            Remote { url: "https://node-1:4483".into(), token: "hmt_secret".into(), trust: Trust::System };
        contexts.add("prod", remote).unwrap();
        (folder, contexts)
    }

    #[test]
    fn the_list_marks_what_is_used_and_has_no_secrets() {
        let (_folder, mut contexts) = contexts();
        contexts.choose("prod").unwrap();
        assert_eq!(
            list(&contexts, None, Format::Table).unwrap(),
            "IN USE   NAME    SERVER                   TRUSTS\n\
             -        local   /run/hivemind/api.sock   -\n\
             *        prod    https://node-1:4483      this machine's authorities\n"
        );
        for format in [Format::Json, Format::Yaml, Format::Table] {
            assert!(!list(&contexts, Some("local"), format).unwrap().contains("secret"));
        }
    }

    #[test]
    fn a_name_that_is_nearly_right_is_told() {
        let (_folder, mut contexts) = contexts();
        let error = contexts.choose("prd").unwrap_err();
        let Failure::Told(told) = like(error, "prd", &contexts) else { panic!() };
        assert!(told.error.hint.starts_with("did you mean \"prod\"?"), "{}", told.error.hint);
    }
}
