//! `app exec`: a process in a replica, with this terminal or these files as its own.

use std::{
    io::{self, IsTerminal, Read, Write},
    process::ExitCode,
};

use bytes::Bytes;
use clap::Args;
use hivemind_client::{ExecEvent, ExecInput, ExecOutput, ExecRequest, Selection};
use hivemind_model::{ApiError, ErrorCode, ExecExit, Phase, Replica, TerminalSize};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::logs::{no_such_replica, nothing_there};
use crate::cli::{
    NameArgs, Session,
    fault::{Failure, Outcome, fault},
};

/// Bytes of input that are read at once.
const INPUT_BYTES: usize = 16 << 10;

/// Pieces of input that may wait to be sent; then reading waits.
const INPUT_PIECES: usize = 8;

/// Flags of `app exec`.
#[derive(Args, Debug)]
#[command(after_help = "The exit code is the process's.

Examples:
  hivemind app exec web-app -- nginx -v
  hivemind app exec -it web-app -- sh
  tar c . | hivemind app exec -i web-app -- tar x -C /tmp")]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    name: NameArgs,
    /// In this replica [default: one that runs]
    #[arg(long, value_name = "REPLICA")]
    replica: Option<String>,
    /// In this container of the replica [default: the first one]
    #[arg(long, short = 'c', value_name = "CONTAINER")]
    container: Option<String>,
    /// Pass standard input on
    #[arg(long, short = 'i')]
    interactive: bool,
    /// Give the process a terminal
    #[arg(long, short = 't')]
    tty: bool,
    /// As this user of the container
    #[arg(long, short = 'u', value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: &ExecArgs) -> Outcome {
    if args.tty && !io::stdin().is_terminal() {
        return Err(fault(
            ErrorCode::Unsupported,
            "standard input is not a terminal",
            "leave out -t; -i alone passes files and pipes on",
        ));
    }
    let request = ExecRequest {
        command: args.command.clone(),
        tty: args.tty,
        user: args.user.clone(),
        container: args.container.clone(),
    };
    run_in(session, args.name.get(), args.replica.as_deref(), &request, args.interactive).await
}

/// Runs a process in a replica of an app, and ends as it does.
pub(crate) async fn run_in(
    session: &Session,
    app: &str,
    replica: Option<&str>,
    request: &ExecRequest,
    is_interactive: bool,
) -> Outcome {
    let replica = choose(session, app, replica).await?;
    let (input, output) = session.client.exec(&session.namespace, &replica, request).await?;
    let raw = if request.tty { Some(RawTerminal::enter()?) } else { None };
    let exit = converse(input, output, request.tty, is_interactive).await;
    drop(raw);
    end(exit?)
}

/// The replica to run it in: the one that was named, or the first that is ready, or the first that runs.
async fn choose(session: &Session, app: &str, replica: Option<&str>) -> Result<String, Failure> {
    let app = session.app(app).await?.metadata.name;
    let replicas = session.client.list::<Replica>(&Selection::app(&session.namespace, &app)).await?.items;
    pick(&app, &replicas, replica).map(|r| r.metadata.name.clone())
}

fn pick<'a>(app: &str, replicas: &'a [Replica], word: Option<&str>) -> Result<&'a Replica, Failure> {
    if let Some(word) = word {
        let named = replicas.iter().find(|r| r.metadata.answers_to(word));
        return named.ok_or_else(|| no_such_replica(app, word));
    }
    if replicas.is_empty() {
        return Err(nothing_there(app));
    }
    let running = |r: &&Replica| r.status.phase == Phase::Running && !r.metadata.is_deleting();
    let candidates = || replicas.iter().filter(running);
    candidates().find(|r| r.status.ready).or_else(|| candidates().next()).ok_or_else(|| {
        fault(
            ErrorCode::NothingRunning,
            format!("no replica of {app} runs"),
            format!("see why: hivemind app info {app}"),
        )
    })
}

/// Passes everything on in both directions until the process ends.
async fn converse(
    mut input: ExecInput,
    mut output: ExecOutput,
    has_terminal: bool,
    is_interactive: bool,
) -> Result<ExecExit, Failure> {
    let mut resized = signal(SignalKind::window_change())
        .map_err(|e| fault(ErrorCode::Internal, format!("signals cannot be received: {e}"), ""))?;
    // The process may end at any time, even before this; what it leaves unread is not an error, and the exit comes by itself.
    if has_terminal {
        let _ = send_size(&mut input).await;
    }
    let mut pieces = if is_interactive { Some(read_stdin()?) } else { None };
    if pieces.is_none() {
        let _ = input.end().await;
    }
    loop {
        tokio::select! {
            event = output.next() => match event? {
                ExecEvent::Stdout(data) => write(io::stdout().lock(), &data)?,
                ExecEvent::Stderr(data) => write(io::stderr().lock(), &data)?,
                ExecEvent::Exit(exit) => return Ok(exit),
            },
            piece = next_piece(&mut pieces), if pieces.is_some() => {
                let sent = match piece {
                    Some(piece) => input.write(&piece).await,
                    None => input.end().await,
                };
                if sent.is_err() {
                    pieces = None;
                }
            },
            _ = resized.recv(), if has_terminal => {
                let _ = send_size(&mut input).await;
            }
        }
    }
}

async fn next_piece(pieces: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    let piece = pieces.as_mut()?.recv().await;
    if piece.is_none() {
        *pieces = None;
    }
    piece
}

fn write(mut out: impl Write, data: &[u8]) -> Result<(), Failure> {
    out.write_all(data)?;
    Ok(out.flush()?)
}

async fn send_size(input: &mut ExecInput) -> Result<(), ApiError> {
    // A terminal that does not know its size leaves it to the process.
    let Ok(size) = tcgetwinsize(io::stdin()) else { return Ok(()) };
    input.resize(TerminalSize { rows: size.ws_row, columns: size.ws_col }).await
}

/// Standard input, read by a thread of its own: a read of a terminal cannot be called off, and the thread ends with the
/// program.
fn read_stdin() -> Result<mpsc::Receiver<Bytes>, Failure> {
    let (sender, receiver) = mpsc::channel(INPUT_PIECES);
    let read = move || {
        let mut buffer = vec![0; INPUT_BYTES];
        let mut stdin = io::stdin().lock();
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) if sender.blocking_send(Bytes::copy_from_slice(&buffer[..count])).is_err() => {
                    return;
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    };
    match std::thread::Builder::new().name("stdin".to_owned()).spawn(read) {
        Ok(_) => Ok(receiver),
        Err(e) => {
            Err(fault(ErrorCode::Internal, format!("no thread can be started: {e}"), "free some memory"))
        }
    }
}

/// What the process's end means for this program.
fn end(exit: ExecExit) -> Outcome {
    match exit {
        ExecExit { error: Some(error), .. } => Err(error.into()),
        ExecExit { code, .. } => Ok(ExitCode::from(u8::try_from(code.unwrap_or(0)).unwrap_or(u8::MAX))),
    }
}

/// The terminal passing every key on as it is, until this is dropped.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> Result<Self, Failure> {
        let failed = |e: rustix::io::Errno| {
            fault(ErrorCode::Internal, format!("the terminal cannot be set up: {e}"), "leave out -t")
        };
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(RawTerminal { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing to put back.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use hivemind_model::{Metadata, ReplicaSpec, ReplicaStatus, Template};

    use super::*;

    fn replica(name: &str, phase: Phase, ready: bool) -> Replica {
        Replica {
            metadata: Metadata::new("default", name),
            spec: ReplicaSpec {
                app: "web".into(),
                node: "n1".into(),
                identity: 0,
                template_hash: String::new(),
                template: Template::default(),
            },
            status: ReplicaStatus { phase, ready, ..ReplicaStatus::default() },
        }
    }

    fn code(failure: Failure) -> ErrorCode {
        let Failure::Told(told) = failure else { panic!("{failure} is not an error to be told") };
        told.error.code
    }

    #[test]
    fn a_ready_replica_is_taken_before_one_that_only_runs() {
        let replicas = [
            replica("web-1", Phase::Backoff, false),
            replica("web-2", Phase::Running, false),
            replica("web-3", Phase::Running, true),
        ];
        assert_eq!(pick("web", &replicas, None).unwrap().metadata.name, "web-3");
        assert_eq!(pick("web", &replicas[..2], None).unwrap().metadata.name, "web-2");
        assert_eq!(pick("web", &replicas, Some("web-1")).unwrap().metadata.name, "web-1");
        assert_eq!(code(pick("web", &replicas[..1], None).unwrap_err()), ErrorCode::NothingRunning);
        assert_eq!(code(pick("web", &[], None).unwrap_err()), ErrorCode::NothingRunning);
        assert_eq!(code(pick("web", &replicas, Some("web-9")).unwrap_err()), ErrorCode::ReplicaNotFound);
    }

    #[test]
    fn a_process_that_could_not_be_started_is_an_error() {
        let error = ApiError::new(ErrorCode::CommandFailed, "no such program", "");
        let outcome = end(ExecExit { code: None, error: Some(error) });
        assert_eq!(code(outcome.unwrap_err()), ErrorCode::CommandFailed);
    }
}
