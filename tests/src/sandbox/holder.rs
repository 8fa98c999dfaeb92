//! The process that creates a sandbox, keeps it, and removes it when its owner is gone.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::SigSet;
use nix::unistd::{self, sethostname};

use super::{BASE, cgroup, cleanup};

/// Directories that every containerd shares whatever its configuration says: runc's state, the shims' sockets, and
/// `ctr`'s pipes.
const SHARED_BY_CONTAINERDS: [&str; 3] =
    ["/run/containerd/fifo", "/run/containerd/runc", "/run/containerd/s"];

/// Makes the sandbox, prints `ready`, waits until standard input ends, removes the sandbox, prints `clean`.
///
/// What goes wrong is printed in place of those words. To be called in a process of its own, with one thread.
///
/// # Errors
/// When standard output is closed while the sandbox is being made; the sandbox is removed.
pub fn hold(name: &str) -> Result<()> {
    // The owner's death must be the only thing that ends this process: no signal to its group, no Ctrl-C.
    SigSet::all().thread_block().context("cannot block signals")?;
    let _ = unistd::setsid();
    let lock = lock(name)?;
    match create(name) {
        Ok(()) => {
            report("ready")?;
            io::copy(&mut io::stdin().take(u64::MAX), &mut io::sink())?;
        }
        Err(error) => drop(report(&format!("{error:#}"))),
    }
    let problems = cleanup::remove_from_inside(name);
    drop(lock);
    // The owner may be gone; then nobody wants to know.
    drop(if problems.is_empty() { report("clean") } else { report(&problems.join("; ")) });
    Ok(())
}

/// A file that tells by being locked that this sandbox is held.
fn lock(name: &str) -> Result<File> {
    fs::create_dir_all(BASE)?;
    let locked_first = Path::new(BASE).join(format!("{name}.new"));
    let file = File::create(&locked_first)?;
    file.lock()?;
    // Renamed when it is locked, so that nobody finds it unlocked while the sandbox is being made.
    fs::rename(locked_first, cleanup::lock_file(name))?;
    Ok(file)
}

fn create(name: &str) -> Result<()> {
    if !unistd::geteuid().is_root() {
        bail!("a sandbox needs root");
    }
    let directory = Path::new(BASE).join(name);
    fs::create_dir_all(&directory)?;
    for shared in SHARED_BY_CONTAINERDS {
        fs::create_dir_all(shared)?;
    }
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS)
        .context("cannot make namespaces")?;
    // Slave, not private: what the host unmounts must not live on here.
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_SLAVE, nothing)
        .context("cannot separate the mounts")?;
    sethostname(name).context("cannot set the host name")?;

    mount_new("tmpfs", &directory)?;
    for part in ["bpf", "data", "run", "containerd"] {
        fs::create_dir(directory.join(part))?;
    }
    mount_new("bpf", &directory.join("bpf"))?;
    for shared in SHARED_BY_CONTAINERDS {
        mount_new("tmpfs", Path::new(shared))?;
    }
    cgroup::create(name)?;
    for interfaces in ["all", "default"] {
        // Nobody else can have the addresses; looking for duplicates would make each one useless for two seconds.
        fs::write(format!("/proc/sys/net/ipv6/conf/{interfaces}/accept_dad"), "0")
            .context("cannot configure IPv6")?;
    }
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("cannot start ip")?;
    if !status.success() {
        bail!("cannot bring up the loopback device");
    }
    Ok(())
}

fn mount_new(kind: &str, at: &Path) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(kind), at, Some(kind), flags, None::<&str>)
        .with_context(|| format!("cannot mount a {kind} at {}", at.display()))
}

fn report(text: &str) -> Result<()> {
    let mut output = io::stdout();
    writeln!(output, "{text}")?;
    Ok(output.flush()?)
}
