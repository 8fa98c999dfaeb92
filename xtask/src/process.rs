//! Running other programs: shown before they run, judged by their exit status, bounded in time.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often a running program is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What a program gets between the request to end and being killed.
const TERMINATION_GRACE: Duration = Duration::from_secs(15);

/// Shows the command, runs it, and fails unless it exits with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    show(command);
    let status = command.status().with_context(|| format!("cannot start {}", program(command)))?;
    expect_success(command, status)
}

/// Like [`run`], and ends the program, with an error, when `limit` has passed.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    show(command);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", program(command)))?;
    match wait_until(&mut child, Instant::now() + limit)? {
        Some(status) => expect_success(command, status),
        None => {
            end(&mut child)?;
            bail!("{} did not finish within {} s and was ended", line(command), limit.as_secs())
        }
    }
}

/// Runs the command without showing it and returns what it printed, without the last line break.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", program(command)))?;
    if !output.status.success() {
        bail!(
            "{} failed ({}): {}",
            line(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Asks the program to end, waits for it, and kills it if it does not.
pub(crate) fn end(child: &mut Child) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id beyond the kernel's range")?);
    kill(pid, Signal::SIGTERM).context("cannot signal a program that this one started")?;
    if wait_until(child, Instant::now() + TERMINATION_GRACE)?.is_none() {
        child.kill().context("cannot kill a program that this one started")?;
        child.wait().context("cannot wait for a program that this one started")?;
    }
    Ok(())
}

/// Waits for a program that has been told to end, and kills it if it does not.
pub(crate) fn finish(child: &mut Child) -> Result<()> {
    if wait_until(child, Instant::now() + 2 * TERMINATION_GRACE)?.is_none() {
        child.kill().context("cannot kill a program that this one started")?;
        child.wait().context("cannot wait for a program that this one started")?;
    }
    Ok(())
}

/// The command as a person would type it, without its environment.
pub(crate) fn line(command: &Command) -> String {
    let mut words = vec![program(command)];
    words.extend(command.get_args().map(|argument| quoted(&argument.to_string_lossy())));
    words.join(" ")
}

fn wait_until(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a program that this one started")? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(POLL_INTERVAL);
    }
}

fn expect_success(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("{} failed ({status})", line(command));
    }
    Ok(())
}

fn show(command: &Command) {
    println!("+ {}", line(command));
}

fn program(command: &Command) -> String {
    let path = std::path::Path::new(command.get_program());
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{word}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_an_error_with_what_it_said() {
        let error =
            capture(Command::new("sh").args(["-c", "echo no room >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("no room") && error.contains("3"), "{error}");
    }

    #[test]
    fn a_program_that_runs_too_long_is_ended() {
        let started = Instant::now();
        let error = run_within(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("did not finish"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_line_quotes_what_a_shell_would_split() {
        assert_eq!(line(Command::new("/bin/echo").args(["a b", "c=d", ""])), "echo 'a b' c=d ''");
    }
}
