//! What a command works with: a daemon and a namespace.

use std::path::PathBuf;

use clap::{ArgMatches, Args, parser::ValueSource};
use hivemind_client::{Client, Contexts};
use hivemind_model::{App, DEFAULT_NAMESPACE, ErrorCode};

use super::fault::{Failure, fault};

/// Where the daemon listens unless it is told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/hivemind/api.sock";

/// Flags that all commands have.
#[derive(Args, Clone, Debug)]
pub(crate) struct GlobalArgs {
    /// The daemon's socket [default: /run/hivemind/api.sock]
    #[arg(long, env = "HIVEMIND_SOCKET", value_name = "PATH", global = true)]
    pub(crate) socket: Option<PathBuf>,
    /// A daemon elsewhere, by the name that hivemind context add gave it; local: the one of this machine
    #[arg(long, env = "HIVEMIND_CONTEXT", value_name = "NAME", global = true)]
    pub(crate) context: Option<String>,
    /// The namespace [default: default]
    #[arg(long, short = 'n', env = "HIVEMIND_NAMESPACE", value_name = "NAMESPACE", global = true)]
    pub(crate) namespace: Option<String>,
    #[arg(skip)]
    pub(crate) given: Given,
}

/// Which of the global flags stand in the command line, rather than in a variable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) socket: bool,
    pub(crate) context: bool,
    pub(crate) namespace: bool,
}

impl Given {
    /// Of the program's `matches`.
    pub(crate) fn of(matches: &ArgMatches) -> Self {
        let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
        Given { socket: given("socket"), context: given("context"), namespace: given("namespace") }
    }
}

/// Which daemon is meant.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Socket(PathBuf),
    /// The context of that name, or the current one.
    Context(Option<String>),
}

/// What a command works with.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// Whether the namespace is named by the command line itself.
    pub(crate) namespace_given: bool,
    /// Whether the daemon is one elsewhere.
    pub(crate) remote: bool,
}

impl Session {
    /// A session with the daemon that the flags, the variables or the current context mean.
    pub(crate) fn new(global: GlobalArgs) -> Result<Self, Failure> {
        let client = match target(&global)? {
            Target::Socket(path) => return Ok(Session::with(Client::unix(path), false, global)),
            Target::Context(Some(name)) if name.is_empty() => None,
            Target::Context(name) => {
                // A user without a home has no contexts, and means the daemon of this machine.
                match (Contexts::default_path(), &name) {
                    (Err(error), Some(_)) => return Err(error.into()),
                    (Err(_), None) => None,
                    (Ok(path), _) => Contexts::load(path)?.client(name.as_deref())?,
                }
            }
        };
        let remote = client.is_some();
        Ok(Session::with(client.unwrap_or_else(|| Client::unix(DEFAULT_SOCKET)), remote, global))
    }

    /// A session with the daemon of this machine.
    pub(crate) fn local(global: GlobalArgs) -> Self {
        let socket = global.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into());
        Session::with(Client::unix(socket), false, global)
    }

    fn with(client: Client, remote: bool, global: GlobalArgs) -> Self {
        Session {
            client,
            remote,
            namespace_given: global.given.namespace,
            namespace: global.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
        }
    }

    /// The app that answers to `word`.
    pub(crate) async fn app(&self, word: &str) -> Result<App, Failure> {
        Ok(self.client.app(&self.namespace, word).await?)
    }
}

/// Flags go before variables, and a variable before the current context.
fn target(global: &GlobalArgs) -> Result<Target, Failure> {
    let GlobalArgs { socket, context, given, .. } = global;
    match (socket, context) {
        (Some(socket), None) => Ok(Target::Socket(socket.clone())),
        (None, context) => Ok(Target::Context(context.clone())),
        (Some(socket), Some(_)) if given.socket && !given.context => Ok(Target::Socket(socket.clone())),
        (Some(_), Some(context)) if given.context && !given.socket => {
            Ok(Target::Context(Some(context.clone())))
        }
        (Some(_), Some(_)) => {
            let (socket, context) = match given.socket {
                true => ("--socket", "--context"),
                false => ("HIVEMIND_SOCKET", "HIVEMIND_CONTEXT"),
            };
            Err(fault(
                ErrorCode::Repeated,
                format!("{socket} and {context} both say which daemon is meant"),
                "leave out one of the two",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(given_socket: bool, given_context: bool, both: bool) -> GlobalArgs {
        GlobalArgs {
            socket: (given_socket || both).then(|| "/s".into()),
            context: (given_context || both).then(|| "prod".into()),
            namespace: None,
            given: Given { socket: given_socket, context: given_context, namespace: false },
        }
    }

    #[test]
    fn flags_go_before_variables_and_two_of_a_kind_are_told() {
        let socket = || Target::Socket("/s".into());
        let context = || Target::Context(Some("prod".into()));
        assert_eq!(target(&global(true, false, true)).unwrap(), socket());
        assert_eq!(target(&global(false, true, true)).unwrap(), context());
        assert_eq!(target(&global(true, false, false)).unwrap(), socket());
        assert_eq!(target(&global(false, false, false)).unwrap(), Target::Context(None));
        for (socket, context) in [(true, true), (false, false)] {
            let Err(Failure::Told(told)) = target(&global(socket, context, true)) else { panic!("taken") };
            assert_eq!(told.error.code, ErrorCode::Repeated);
        }
    }
}
