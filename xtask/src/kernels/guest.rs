//! A virtual machine that boots a kernel, says on its serial console what it has to say, and ends.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::report::STARTED;
use crate::process;

/// The program that is the machine.
pub(crate) const EMULATOR: &str = "qemu-system-x86_64";
/// Debian's package of it.
pub(crate) const EMULATOR_PACKAGE: &str = "qemu-system-x86";

/// What a guest may take from its start to its end.
const GUEST_LIMIT: Duration = Duration::from_secs(15 * 60);
/// A kernel that uses the processor itself has started within this, or cannot.
const START_LIMIT: Duration = Duration::from_secs(20);
/// What a guest says at most; the rest is not kept.
const CONSOLE_BYTES_MAX: u64 = 64 << 20;
/// Lines that were read and not yet looked at.
const LINES_WAITING_MAX: usize = 1024;

/// What runs the guest's instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Accelerator {
    /// The processor, by /dev/kvm.
    Processor,
    /// The emulator.
    Emulation,
}

/// A machine to be.
pub(super) struct Guest<'a> {
    pub(super) emulator: &'a Path,
    pub(super) kernel: &'a Path,
    pub(super) initramfs: &'a Path,
    /// Where what it says is written to.
    pub(super) console: &'a Path,
}

impl Accelerator {
    /// The processor if it may be used. Whether it can, a guest will tell.
    pub(super) fn of_this_machine() -> Self {
        let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
        if opened.is_ok() { Self::Processor } else { Self::Emulation }
    }

    pub(super) fn description(self) -> &'static str {
        match self {
            Self::Processor => "by /dev/kvm",
            Self::Emulation => "emulated",
        }
    }

    fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Processor => ["-accel", "kvm", "-cpu", "host"],
            Self::Emulation => ["-accel", "tcg", "-cpu", "max"],
        }
    }
}

impl Guest<'_> {
    /// Runs the machine to its end and returns what it said. A machine that does not start on the processor is emulated, and
    /// so are those after it: /dev/kvm may be there and not be able to boot just any kernel.
    pub(super) fn run(&self, accelerator: &mut Accelerator) -> Result<Vec<String>> {
        if *accelerator == Accelerator::Processor {
            if let Some(lines) = self.run_on(Accelerator::Processor, START_LIMIT)? {
                return Ok(lines);
            }
            println!("The kernel does not start by /dev/kvm, so it is emulated, which takes longer.");
            *accelerator = Accelerator::Emulation;
        }
        let said = self.run_on(Accelerator::Emulation, GUEST_LIMIT)?;
        said.with_context(|| format!("the kernel did not start; see {}", self.console.display()))
    }

    /// What the machine said, or nothing if it did not start in time.
    fn run_on(&self, accelerator: Accelerator, start_limit: Duration) -> Result<Option<Vec<String>>> {
        let mut console =
            File::create(self.console).with_context(|| format!("cannot write {}", self.console.display()))?;
        let mut machine = self.start(accelerator)?;
        let output = machine.stdout.take().context("the emulator has no output")?;
        let begun = Instant::now();
        let read = lines(output)
            .and_then(|lines| read_until_end(&lines, &mut console, begun + start_limit, begun + GUEST_LIMIT));
        // It has ended by itself, unless its time was up.
        if machine.try_wait().context("cannot wait for the emulator")?.is_none() {
            process::end(&mut machine)?;
        }
        let Console { lines, started, ended } = read?;
        if started && !ended {
            println!("The guest did not end within {} s and was ended.", GUEST_LIMIT.as_secs());
        }
        Ok(started.then_some(lines))
    }

    fn start(&self, accelerator: Accelerator) -> Result<Child> {
        let mut command = Command::new(self.emulator);
        command
            .args(accelerator.arguments())
            .args(["-machine", "q35", "-smp", "2", "-m", "1536", "-nodefaults", "-display", "none"])
            .args(["-no-reboot", "-serial", "stdio", "-kernel"])
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initramfs)
            // A panic ends the machine at once.
            .args(["-append", "console=ttyS0 loglevel=4 oops=panic panic=-1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        println!("+ {}", process::line(&command));
        command.spawn().context("cannot start the emulator")
    }
}

/// What was read of a console.
#[derive(Default)]
struct Console {
    lines: Vec<String>,
    started: bool,
    ended: bool,
}

/// Reads until the machine ends, or a time is up, and writes down at once what it says.
fn read_until_end(
    lines: &Receiver<String>,
    copy: &mut impl Write,
    start: Instant,
    end: Instant,
) -> Result<Console> {
    let mut console = Console::default();
    loop {
        let deadline = if console.started { end } else { start };
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                writeln!(copy, "{line}").context("cannot write down what the guest says")?;
                console.started |= line.contains(STARTED);
                console.lines.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => {
                console.ended = true;
                return Ok(console);
            }
            Err(RecvTimeoutError::Timeout) => return Ok(console),
        }
    }
}

/// The lines of a console, read by a thread that ends with it.
fn lines(output: impl Read + Send + 'static) -> Result<Receiver<String>> {
    let (sender, receiver) = mpsc::sync_channel(LINES_WAITING_MAX);
    let mut output = BufReader::new(output.take(CONSOLE_BYTES_MAX));
    let read = move || {
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if sender.send(text).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("console".to_owned()).spawn(read).context("cannot start a thread")?;
    Ok(receiver)
}

#[cfg(test)]
mod checks {
    use super::*;

    #[test]
    fn a_console_that_ends_is_read_whole() {
        let text = format!("booting\r\n{STARTED} 6.1\r\nlast");
        let lines = lines(std::io::Cursor::new(text)).unwrap();
        let (mut copy, end) = (Vec::new(), Instant::now() + Duration::from_secs(9));
        let console = read_until_end(&lines, &mut copy, end, end).unwrap();
        assert_eq!(String::from_utf8(copy).unwrap(), format!("booting\n{STARTED} 6.1\nlast\n"));
        assert!(console.started && console.ended);
        assert_eq!(console.lines.last().unwrap(), "last");
    }

    #[test]
    fn a_machine_that_says_nothing_has_not_started_when_its_time_is_up() {
        let (_sender, receiver) = mpsc::sync_channel(1);
        let now = Instant::now();
        let (soon, later) = (now + Duration::from_millis(10), now + Duration::from_secs(60));
        let console = read_until_end(&receiver, &mut std::io::sink(), soon, later).unwrap();
        assert!(!console.started && !console.ended);
        assert!(now.elapsed() < Duration::from_secs(30));
    }
}
