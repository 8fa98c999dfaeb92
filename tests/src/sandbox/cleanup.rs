//! Removing a sandbox: its processes, then its cgroups and its directory. Its namespaces and mounts go with its last
//! process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{BASE, cgroup};

/// How long processes get to die and cgroups to empty.
const LIMIT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The file that the sandbox's holder keeps locked.
pub(super) fn lock_file(name: &str) -> PathBuf {
    Path::new(BASE).join(format!("{name}.lock"))
}

/// What a sandbox that is gone left on the machine: processes, cgroups, its directory, its lock file. Empty is good.
///
/// # Errors
/// When the machine's mount table cannot be read.
pub fn remains(name: &str) -> Result<Vec<String>> {
    let mut found: Vec<String> =
        processes_in_cgroups(name)?.into_iter().map(|pid| format!("process {pid}")).collect();
    let directories = cgroup::directories(name)?;
    for path in directories.into_iter().chain([Path::new(BASE).join(name), lock_file(name)]) {
        if path.exists() {
            found.push(path.display().to_string());
        }
    }
    // The holder keeps its name in its command line and is in no cgroup of the sandbox.
    found.extend(holders(name).into_iter().map(|pid| format!("holder {pid}")));
    Ok(found)
}

/// Removes the sandbox that this process holds; returns what could not be removed.
pub(super) fn remove_from_inside(name: &str) -> Vec<String> {
    let directory = Path::new(BASE).join(name);
    let mut problems = remove(name, &|pid| shares_namespace(pid));
    // Detached here, so that the empty directory below can go; the file system goes with this process.
    let _ = umount2(&directory, MntFlags::MNT_DETACH);
    problems.extend(remove_directory(&directory));
    drop(fs::remove_file(lock_file(name)));
    problems
}

/// Removes every sandbox on the machine whose holder was killed.
pub(super) fn sweep() -> Result<()> {
    let Ok(entries) = fs::read_dir(BASE) else { return Ok(()) };
    for entry in entries.flatten() {
        let file_name = entry.file_name().to_string_lossy().into_owned();
        let Some(name) = file_name.strip_suffix(".lock") else { continue };
        let Ok(file) = File::open(entry.path()) else { continue };
        if file.try_lock().is_err() {
            continue;
        }
        let mut problems = remove(name, &|_| false);
        problems.extend(remove_directory(&Path::new(BASE).join(name)));
        if problems.is_empty() {
            drop(fs::remove_file(entry.path()));
        } else {
            eprintln!("the abandoned sandbox {name} could not be removed whole: {}", problems.join("; "));
        }
    }
    Ok(())
}

fn remove(name: &str, is_member: &dyn Fn(Pid) -> bool) -> Vec<String> {
    let mut problems = Vec::new();
    if let Err(error) = kill_processes(name, is_member) {
        problems.push(format!("{error:#}"));
    }
    match cgroup::directories(name) {
        Ok(directories) => {
            problems.extend(directories.iter().filter_map(|directory| remove_cgroups(directory)));
        }
        Err(error) => problems.push(format!("{error:#}")),
    }
    problems
}

fn kill_processes(name: &str, is_member: &dyn Fn(Pid) -> bool) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        thaw(name)?;
        let mut processes = processes_in_cgroups(name)?;
        processes.extend(all_processes().into_iter().filter(|&pid| is_member(pid)));
        processes.retain(|&pid| pid != Pid::this());
        if processes.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            anyhow::bail!("processes that do not die: {processes:?}");
        }
        for pid in processes {
            // It may have died since it was listed.
            let _ = kill(pid, Signal::SIGKILL);
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// A frozen process dies only once it is thawed, in version 1.
fn thaw(name: &str) -> Result<()> {
    for directory in cgroup::directories(name)? {
        for group in cgroup::depth_first(&directory) {
            let state = group.join("freezer.state");
            if state.exists() {
                drop(fs::write(state, "THAWED"));
            }
        }
    }
    Ok(())
}

fn processes_in_cgroups(name: &str) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for directory in cgroup::directories(name)? {
        for group in cgroup::depth_first(&directory) {
            let list = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            // A process of another pid namespace is listed as 0.
            let pids = list.lines().filter_map(|line| line.parse().ok()).filter(|&pid: &i32| pid > 0);
            found.extend(pids.map(Pid::from_raw));
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn all_processes() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw);
    entries.flatten().filter_map(pid).collect()
}

/// Whether a process is in the mounts or the network of this one.
fn shares_namespace(pid: Pid) -> bool {
    ["mnt", "net"].iter().any(|kind| {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{kind}")).ok();
        of(&pid.to_string()).is_some_and(|namespace| Some(namespace) == of("self"))
    })
}

fn holders(name: &str) -> Vec<Pid> {
    let ending = format!("\0hold\0{name}\0");
    let is_holder = |pid: &Pid| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(ending.as_bytes()))
    };
    all_processes().into_iter().filter(is_holder).collect()
}

/// Removes a cgroup and its children; a killed process leaves its cgroup a moment after it is gone from lists.
fn remove_cgroups(directory: &Path) -> Option<String> {
    let deadline = Instant::now() + LIMIT;
    while directory.exists() {
        let failures: Vec<_> = cgroup::depth_first(directory)
            .into_iter()
            .filter_map(|group| {
                fs::remove_dir(&group).err().map(|error| format!("{}: {error}", group.display()))
            })
            .collect();
        if !failures.is_empty() && Instant::now() > deadline {
            return failures.into_iter().next();
        }
        if !failures.is_empty() {
            thread::sleep(POLL_INTERVAL);
        }
    }
    None
}

fn remove_directory(directory: &Path) -> Option<String> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Some(format!("{}: {error}", directory.display()))
        }
        _ => None,
    }
}
