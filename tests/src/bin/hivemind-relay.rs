//! `hivemind-relay PID DEVICE`: makes a TAP device here and one named `eth0` in the network of process PID, and relays
//! frames between them, with the delay, loss and limits that it is told on standard input, until that ends.
#![deny(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, ensure};
use hivemind_tests::forward;
use nix::libc;
use nix::sched::{CloneFlags, setns};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pid, device] = arguments.as_slice() else {
        eprintln!("usage: hivemind-relay PID DEVICE");
        return ExitCode::from(2);
    };
    match run(pid, device) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(pid: &str, device: &str) -> Result<()> {
    let network = File::open(format!("/proc/{pid}/ns/net")).context("the machine is gone")?;
    let router = open_tap(device)?;
    // A device belongs to the network of the thread that opens it.
    let machine = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(&network, CloneFlags::CLONE_NEWNET).context("cannot enter the machine's network")?;
            open_tap("eth0")
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    drop(network);
    // Unbuffered, so that what can be read is never hidden in a buffer.
    let orders = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    forward([&machine, &router], orders)
}

/// Makes a TAP device, which goes when the file is closed; a read is one frame, a write is one frame
/// (Documentation/networking/tuntap.rst).
#[expect(unsafe_code, reason = "a TAP device is made by ioctl(2), for which there is no safe function")]
fn open_tap(name: &str) -> Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .context("cannot open /dev/net/tun")?;
    ensure!(name.len() < libc::IFNAMSIZ, "{name} is too long for a device");
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_TUN_EXCL) as libc::c_short,
        },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is; it lives until the call returns.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("cannot make the device {name}"));
    }
    Ok(file)
}
