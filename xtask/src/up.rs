//! `cargo xtask up`: a daemon, started again if it dies, with a demo app on this machine, from nothing, until Ctrl-C; `up --nodes N`,
//! which does so with a cluster in namespaces; and `up --check`, which plays the whole stories of a node and of a cluster there.
//!
//! Everything lies in directories of its own beside an installed Hivemind's: `target/up`, `/run/hivemind-up` and
//! `/sys/fs/bpf/hivemind-up`. Programs are built as whoever runs this; only the daemon and what talks to it need root.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{SigSet, Signal},
    unistd::geteuid,
};

use crate::{ebpf, images, process, setup, ui, workspace::Workspace};

/// How long the daemon may take until it answers.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// How often it is asked.
const READY_PAUSE: Duration = Duration::from_millis(50);

/// Where the demo is, while it runs.
const WEB_PORT: &str = "3000";
const DEMO_PORT: &str = "8080";
const RUN_DIR: &str = "/run/hivemind-up";

/// Where the daemon gives its sockets to be kept; whoever keeps them is root.
const NOTIFY_SOCKET: &str = "/run/hivemind-up.notify";

/// Plays the stories of a node and of a cluster, and prints each step.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let debug = build_harness(workspace)?;
    println!("\nA node's story, in network namespaces of its own:\n");
    let mut story = as_root(&debug.join("hivemind-story"));
    let played = story.status().context("cannot start the story")?;
    if !played.success() {
        bail!("the story did not come to its end");
    }
    Ok(())
}

/// Makes a cluster of `nodes` nodes in namespaces of their own, with a demo app, and keeps it until Ctrl-C.
pub(crate) fn cluster(workspace: &Workspace, nodes: &str) -> Result<()> {
    let interrupts = block_interrupts()?;
    let mut command = as_root(&build_harness(workspace)?.join("hivemind-cluster"));
    let mut cluster = command.arg(nodes).stdin(Stdio::piped()).spawn().context("cannot start the cluster")?;
    let lifeline = cluster.stdin.take();
    // Ctrl-C reaches it as well, which does not heed it: it ends when its input does.
    let waiting = std::thread::spawn(move || interrupts.wait());
    let ended = loop {
        if let Some(status) = cluster.try_wait()? {
            break status;
        }
        if waiting.is_finished() {
            println!("\nStopping, and removing everything.");
            drop(lifeline);
            break cluster.wait()?;
        }
        std::thread::sleep(READY_PAUSE);
    };
    if !ended.success() {
        bail!("the cluster ended with {ended}");
    }
    println!("Nothing is left behind.");
    Ok(())
}

/// Starts the daemon and the demo app, prints where to look, and waits for Ctrl-C.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let interrupts = block_interrupts()?;
    prepare(workspace)?;
    let packages = ["--package", "hivemind", "--package", "hivemind-supervisor"];
    process::run(workspace.cargo()?.args(["build", "--release"]).args(packages))?;
    let demo = Demo::new(workspace);
    demo.remove().context("what an earlier run left could not be removed")?;
    let mut daemon = demo.start()?;
    let shown = demo.deploy(workspace, &mut daemon);
    if shown.is_ok() {
        let signal = interrupts.wait().context("cannot wait for Ctrl-C")?;
        println!("\n{signal}: stopping, and removing everything.");
    }
    let ended = demo.end(&mut daemon);
    let removed = demo.remove();
    shown.and(ended).and(removed)?;
    println!("Nothing is left behind.");
    Ok(())
}

/// Builds the program and what makes machines out of namespaces; returns where they are.
fn build_harness(workspace: &Workspace) -> Result<PathBuf> {
    prepare(workspace)?;
    let packages = ["--package", "hivemind", "--package", "hivemind-tests", "--bins"];
    process::run(workspace.cargo()?.arg("build").args(packages))?;
    Ok(workspace.cargo_target().join("debug"))
}

fn prepare(workspace: &Workspace) -> Result<()> {
    setup::install(workspace)?;
    ebpf::build(workspace)?;
    ui::build(workspace)?;
    images::build(workspace)
}

/// SIGINT and SIGTERM wait until they are asked for, here and in threads and programs started from now on; the daemon is in a
/// process group of its own, so that Ctrl-C reaches only us.
fn block_interrupts() -> Result<SigSet> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().context("cannot block Ctrl-C")?;
    Ok(signals)
}

/// The program as root: itself, or through sudo.
pub(crate) fn as_root(program: &Path) -> Command {
    if geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    command
}

struct Demo {
    program: PathBuf,
    supervisor: PathBuf,
    directory: PathBuf,
}

impl Demo {
    fn new(workspace: &Workspace) -> Self {
        Demo {
            program: workspace.cargo_target().join("release/hivemind"),
            supervisor: workspace.cargo_target().join("release/hivemind-supervise"),
            directory: workspace.artifacts().join("up"),
        }
    }

    fn daemon(&self) -> Command {
        let mut command = as_root(&self.program);
        self.daemon_words(&mut command);
        command
    }

    /// The daemon as a service manager runs it: started again when it dies, and its sockets kept meanwhile. It ends when its
    /// input does.
    fn service(&self) -> Command {
        let mut command = as_root(&self.supervisor);
        command.arg(NOTIFY_SOCKET).arg(&self.program);
        self.daemon_words(&mut command);
        command.stdin(Stdio::piped());
        command
    }

    fn daemon_words(&self, command: &mut Command) {
        command.args([
            "daemon",
            "--web-port",
            WEB_PORT,
            "--run-dir",
            RUN_DIR,
            "--bpffs",
            "/sys/fs/bpf/hivemind-up",
        ]);
        // A containerd of our own, so that nothing of the machine's is touched.
        command.args(["--containerd-socket", "/run/hivemind-up/no-containerd.sock"]);
        command.arg("--data-dir").arg(self.directory.join("data"));
        command.arg("--config").arg(self.directory.join("config.toml"));
    }

    fn hivemind(&self, words: &[&str]) -> Command {
        let mut command = as_root(&self.program);
        command.args(["--socket", "/run/hivemind-up/api.sock"]).args(words);
        command
    }

    fn start(&self) -> Result<Child> {
        use std::os::unix::process::CommandExt;
        fs::create_dir_all(&self.directory)?;
        fs::write(self.directory.join("config.toml"), "# The daemon of `cargo xtask up`.\n")?;
        let log = File::create(self.directory.join("daemon.log"))?;
        let mut command = self.service();
        command.stdout(log.try_clone()?).stderr(log).process_group(0);
        println!("+ {}", process::line(&command));
        command.spawn().context("cannot start the daemon")
    }

    fn deploy(&self, workspace: &Workspace, daemon: &mut Child) -> Result<()> {
        self.wait_until_ready(daemon)?;
        let archive = workspace.images().join("nginx.tar");
        process::run(self.hivemind(&["image", "import"]).arg(archive))?;
        let port = format!("{DEMO_PORT}:80");
        process::run(&mut self.hivemind(&[
            "app",
            "deploy",
            "--image",
            "nginx:latest",
            "--name",
            "web-app",
            "--service",
            "web.local",
            "--replicas",
            "2",
            "--port",
            &port,
        ]))?;
        let program = self.program.display();
        println!(
            "\nHivemind runs, with a demo app:\n\n  \
             http://localhost:{DEMO_PORT}/     the app, balanced over its replicas\n  \
             http://localhost:{WEB_PORT}/     the daemon's web port\n  \
             {}   its log\n\nTry, as root:\n\n  \
             export HIVEMIND_SOCKET={RUN_DIR}/api.sock\n  \
             {program} app info web-app\n  \
             {program} app scale web-app --replicas 5\n  \
             {program} status\n\nCtrl-C stops it and removes everything.",
            self.directory.join("daemon.log").display()
        );
        Ok(())
    }

    fn wait_until_ready(&self, daemon: &mut Child) -> Result<()> {
        let began = Instant::now();
        loop {
            let asked = self.hivemind(&["status"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
            if asked.success() {
                return Ok(());
            }
            let ended = daemon.try_wait()?;
            if ended.is_some() || began.elapsed() > READY_LIMIT {
                let log = fs::read_to_string(self.directory.join("daemon.log")).unwrap_or_default();
                bail!("the daemon did not start; it said:\n{log}");
            }
            std::thread::sleep(READY_PAUSE);
        }
    }

    /// Ends the daemon, by the end of its supervisor's input.
    fn end(&self, daemon: &mut Child) -> Result<()> {
        drop(daemon.stdin.take());
        process::finish(daemon)
    }

    /// Removes what a daemon of this kind made on the machine, and its directory.
    fn remove(&self) -> Result<()> {
        if !self.directory.exists() {
            return Ok(());
        }
        let mut teardown = self.daemon();
        teardown.arg("--teardown");
        let done = teardown.output().context("cannot run the teardown")?;
        if !done.status.success() {
            bail!("the teardown failed:\n{}", String::from_utf8_lossy(&done.stderr));
        }
        process::run(as_root(Path::new("rm")).arg("-rf").arg(&self.directory))
    }
}
