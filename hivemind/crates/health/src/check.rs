//! One check.

mod grpc;
mod http;
mod tls;

use std::{io, net::IpAddr};

use async_trait::async_trait;
use hivemind_model::Probe;
use tokio::{net::TcpStream, time::timeout};

/// What is checked: a container that runs.
#[async_trait]
pub trait Target: Send + Sync {
    /// The address at which it is reached, as requests call it.
    fn address(&self) -> IpAddr;

    /// Opens a connection to one of its ports, from within its network.
    async fn connect(&self, port: u16) -> io::Result<TcpStream>;

    /// Runs a command in it, to its end; dropping the future ends the command. An error says why it could not be run.
    async fn exec(&self, command: &[String]) -> Result<Exit, String>;

    /// Returns when it is likely to take connections, for one that has no probe to say so.
    async fn settled(&self);
}

/// How a command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Its code.
    pub code: u32,
    /// The begin of what it wrote; may be empty.
    pub output: String,
}

/// Why a check failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// No answer came in time.
    #[error("no answer within {0} s")]
    TimedOut(hivemind_model::Seconds),
    /// There is no connection.
    #[error("port {port} cannot be connected to: {reason}")]
    NotConnected {
        /// The port.
        port: u16,
        /// What the kernel says.
        reason: String,
    },
    /// The server answered, but not that it is well.
    #[error("{what} answered {answer}")]
    Unwell {
        /// What was asked for.
        what: String,
        /// What came.
        answer: String,
    },
    /// What came is no answer to what was asked.
    #[error("{what} got no answer that is understood: {reason}")]
    NotUnderstood {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The command did not end with 0.
    #[error("{command} ended with code {code}{output}")]
    Ended {
        /// The program.
        command: String,
        /// The code.
        code: u32,
        /// The begin of what it wrote, after a colon; may be empty.
        output: String,
    },
    /// The command could not be run.
    #[error("{command} cannot be run: {reason}")]
    NotRun {
        /// The program.
        command: String,
        /// Why.
        reason: String,
    },
}

/// The most characters of a command's output that are told.
const OUTPUT_CHARS_MAX: usize = 200;

/// Makes one check, within the time that the probe gives it.
pub(crate) async fn check(probe: &Probe, target: &dyn Target) -> Result<(), CheckError> {
    let answer = timeout(probe.timeout(), ask(probe, target)).await;
    answer.unwrap_or_else(|_| {
        let millis = u32::try_from(probe.timeout().as_millis()).unwrap_or(u32::MAX);
        Err(CheckError::TimedOut(hivemind_model::Seconds::from_millis(millis)))
    })
}

async fn ask(probe: &Probe, target: &dyn Target) -> Result<(), CheckError> {
    if let Some(http) = &probe.http {
        return http::ask(http, target).await;
    }
    if let Some(tcp) = &probe.tcp {
        return connect(target, tcp.port).await.map(drop);
    }
    if let Some(grpc) = &probe.grpc {
        return grpc::ask(grpc, target).await;
    }
    match &probe.exec {
        Some(exec) => run(&exec.command, target).await,
        // Validated: a probe has one of the four.
        None => Ok(()),
    }
}

async fn connect(target: &dyn Target, port: u16) -> Result<TcpStream, CheckError> {
    let connected = target.connect(port).await;
    connected.map_err(|error| CheckError::NotConnected { port, reason: reason(&error) })
}

/// As the kernel says it, without the number of the error.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

async fn run(command: &[String], target: &dyn Target) -> Result<(), CheckError> {
    let program = command.first().cloned().unwrap_or_default();
    match target.exec(command).await {
        Ok(Exit { code: 0, .. }) => Ok(()),
        Ok(Exit { code, output }) => {
            let line = output.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
            let line: String = line.chars().filter(|c| !c.is_control()).take(OUTPUT_CHARS_MAX).collect();
            let output = if line.is_empty() { String::new() } else { format!(": {line}") };
            Err(CheckError::Ended { command: program, code, output })
        }
        Err(reason) => Err(CheckError::NotRun { command: program, reason }),
    }
}
