//! Keeps a program running, and the descriptors that it wants kept, until standard input ends; the program is told to end also if
//! this one is killed. The arguments are where to listen for what it says, the program, and its arguments.
#![forbid(unsafe_code)]

use std::{
    io::{self, Read},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};
use hivemind_supervisor::{AS_MAIN_PROCESS, FdStore, Supervisor};
use nix::sys::signal::SigSet;

/// Has the kernel tell the program to end when the thread that started it, the main one, is gone.
const WITH_PARENT: [&str; 3] = ["setpriv", "--pdeathsig", "TERM"];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let socket = PathBuf::from(arguments.next().context("say where to listen")?);
    let words: Vec<_> = arguments.collect();
    // Whoever started this may have blocked signals, which the program needs.
    SigSet::all().thread_unblock().context("cannot unblock signals")?;
    let store = FdStore::start(&socket, &socket)?;
    let command = || {
        let mut command = Command::new(WITH_PARENT[0]);
        command.args(&WITH_PARENT[1..]).args(AS_MAIN_PROCESS).args(&words).stdin(Stdio::null());
        command
    };
    let is_over = until_input_ends();
    let tell = |status| eprintln!("The program ended ({status}); it is started again.");
    Supervisor::new(store, command).run(|| !is_over.load(Ordering::Acquire), tell)
}

/// What becomes true when standard input ends.
fn until_input_ends() -> Arc<AtomicBool> {
    let is_over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&is_over);
    thread::spawn(move || {
        drop(io::copy(&mut io::stdin().take(u64::MAX), &mut io::sink()));
        ended.store(true, Ordering::Release);
    });
    is_over
}
