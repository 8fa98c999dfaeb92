//! `hivemind-supervise` itself, as `cargo xtask up` runs it.

#![allow(clippy::unwrap_used, reason = "everything here is test code, also what has no test attribute")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

/// One that keeps a program that says who it is, and says so when it is told to end.
fn start(directory: &tempfile::TempDir) -> (Child, BufReader<ChildStdout>) {
    // What it waits for ends by itself soon: a signal to a child that a shell has just made may be lost.
    let script = "trap 'echo told to end; exit' TERM; echo $$; while :; do sleep 0.2 & wait; done";
    let mut child = Command::new(env!("CARGO_BIN_EXE_hivemind-supervise"))
        .arg(directory.path().join("notify"))
        .args(["sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap());
    (child, said)
}

fn line(said: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn the_program_is_told_to_end_also_if_its_supervisor_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let (mut supervisor, mut said) = start(&directory);
    assert_ne!(line(&mut said).parse::<u32>().unwrap(), supervisor.id());
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    assert_eq!(line(&mut said), "told to end");
    // Nobody else waits for it now: it has ended when nothing holds the pipe.
    assert_eq!(line(&mut said), "");
}
