//! A machine on a fabric on which a Hivemind daemon runs.

mod apps;
mod commands;
mod containerd;
mod daemon;
mod measure;
mod policies;

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hivemind_supervisor::FdStore;

use crate::background::Background;
use crate::fabric::{Addresses, Fabric};
use crate::inventory::Inventory;
use crate::link::{Link, LinkOptions};
use crate::programs;
use crate::registry::Registry;
use crate::sandbox::Sandbox;
use crate::wait::eventually;

pub use commands::check_refusal;
pub use policies::{policy, policy_letting_in, policy_only};

/// How long what a daemon left gets to go: the kernel takes network namespaces down in its own time.
const NOTHING_LEFT_LIMIT: Duration = Duration::from_secs(10);

/// Who starts the node's containerd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Containerd {
    /// The harness, before the daemon: as on a machine where containerd is a service. It outlives the daemon.
    #[default]
    Running,
    /// Nobody: the daemon finds no socket and starts one of its own.
    StartedByDaemon,
}

/// How to make a node.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// The fabric to join; without one, the node gets a fabric of its own.
    pub fabric: Option<Arc<Fabric>>,
    /// Its link to the fabric; without it, one of the fabric's kind.
    pub link: Option<LinkOptions>,
    /// Who starts containerd.
    pub containerd: Containerd,
    /// Flags for every start of the daemon, after the harness's own.
    pub daemon_flags: Vec<String>,
    /// What `/etc/resolv.conf` holds on the node; without it, the host's.
    pub resolv_conf: Option<String>,
}

/// A machine on a fabric; dropping it removes everything. When the test panics, the daemon's log is printed.
#[derive(Debug)]
pub struct Node {
    // Dropped in this order: the programs and their sockets, their machine, then the network.
    daemon: Mutex<Option<Background>>,
    containerd: Mutex<Option<Background>>,
    /// The daemon's sockets while none runs; they would keep the machine's network.
    fd_store: FdStore,
    sandbox: Sandbox,
    link: Link,
    fabric: Arc<Fabric>,
    daemon_flags: Vec<String>,
    baseline: Inventory,
}

impl Node {
    /// Makes the machine, joins it to its fabric, and starts containerd if the options say so; no daemon yet.
    ///
    /// # Errors
    /// When not root, or when the kernel or a program refuses. Nothing is left behind.
    pub fn start(options: NodeOptions) -> Result<Self> {
        let fabric = options.fabric.map_or_else(Fabric::start, Ok)?;
        let sandbox = Sandbox::start()?;
        let link = match options.link {
            Some(link) => fabric.join_by(&sandbox, link)?,
            None => fabric.join(&sandbox)?,
        };
        if let Some(text) = options.resolv_conf {
            let file = sandbox.directory().join("resolv.conf");
            fs::write(sandbox.outside(&file), text).context("cannot write resolv.conf")?;
            sandbox.check(&["mount", "--bind", &file.display().to_string(), "/etc/resolv.conf"])?;
        }
        let containerd = match options.containerd {
            Containerd::Running => Some(containerd::start(&sandbox)?),
            Containerd::StartedByDaemon => None,
        };
        fs::write(sandbox.outside(&sandbox.directory().join("config.toml")), "")
            .context("cannot write the daemon's configuration")?;
        let notify = sandbox.directory().join("notify");
        let fd_store = FdStore::start(&sandbox.outside(&notify), &notify)?;
        let baseline = Inventory::take(&sandbox)?;
        Ok(Self {
            daemon: Mutex::new(None),
            containerd: Mutex::new(containerd),
            fd_store,
            sandbox,
            link,
            fabric,
            daemon_flags: options.daemon_flags,
            baseline,
        })
    }

    /// Its name: host name, node name, and name of its cgroup.
    #[must_use]
    pub fn name(&self) -> &str {
        self.sandbox.name()
    }

    /// The process that holds its namespaces, for `nsenter --target`.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.sandbox.pid()
    }

    /// The machine itself.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The network that it is on.
    #[must_use]
    pub fn fabric(&self) -> &Arc<Fabric> {
        &self.fabric
    }

    /// Its addresses on the fabric.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.link.addresses()
    }

    /// Its link to the fabric.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// What keeps the daemon's sockets while it is away, as systemd does where it runs. [`FdStore::clear`] makes it as after
    /// `systemctl stop`: whoever asks is refused.
    #[must_use]
    pub fn fd_store(&self) -> &FdStore {
        &self.fd_store
    }

    /// The daemon's socket, as seen inside.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.sandbox.directory().join("run/api.sock")
    }

    /// Runs the command line on the node, against its daemon.
    ///
    /// # Errors
    /// When the program is missing. A command that fails is no error: look at the output's status.
    pub fn hivemind(&self, arguments: &[&str]) -> Result<Output> {
        let program = programs::hivemind_binary()?;
        self.sandbox
            .command(program)
            .args(arguments)
            .env("HIVEMIND_SOCKET", self.socket())
            .output()
            .context("cannot run hivemind")
    }

    /// As [`Self::hivemind`], and returns what it printed.
    ///
    /// # Errors
    /// When the command fails; the error holds what it said.
    pub fn hivemind_ok(&self, arguments: &[&str]) -> Result<String> {
        let output = self.hivemind(arguments)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`hivemind {}` failed ({}): {}", arguments.join(" "), output.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a program on the node, in its cgroup, to its end.
    ///
    /// # Errors
    /// As [`Sandbox::run`].
    pub fn exec_in_node(&self, words: &[&str]) -> Result<Output> {
        self.sandbox.run(words)
    }

    /// Runs a program on the machine outside to its end.
    ///
    /// # Errors
    /// As [`Sandbox::run`].
    pub fn exec_in_client(&self, words: &[&str]) -> Result<Output> {
        self.fabric.client().run(words)
    }

    /// Starts a program on the node that is no container's, in the node's cgroup, where its connections are
    /// translated like those of any program on a machine. Its output goes to `log`, a path inside, or nowhere.
    ///
    /// # Errors
    /// As [`Sandbox::spawn`].
    pub fn host_process(&self, words: &[&str], log: Option<&std::path::Path>) -> Result<Background> {
        self.sandbox.spawn(words, log)
    }

    /// Starts a registry on the node, at 127.0.0.1:5000, that serves the test images. The daemon is started with it as
    /// the mirror of docker.io.
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub fn registry(&self) -> Result<Registry> {
        Registry::start(&self.sandbox)
    }

    /// What is on the node now and was not when it started, containerd's containers included.
    ///
    /// # Errors
    /// When the node cannot be looked at.
    pub fn left(&self) -> Result<Vec<String>> {
        let mut left = Inventory::take(&self.sandbox)?.since(&self.baseline);
        left.extend(containerd::containers(&self.sandbox)?);
        Ok(left)
    }

    /// Checks that nothing is left of a daemon that was torn down: no process, container, namespace, link, mount,
    /// cgroup, pin, routing rule or nftables table.
    ///
    /// # Errors
    /// When something is still there after some seconds; names all of it.
    pub fn assert_nothing_left(&self) -> Result<()> {
        eventually(NOTHING_LEFT_LIMIT, "nothing to be left on the node", || {
            let left = self.left()?;
            if !left.is_empty() {
                bail!("{}", left.join("\n  "));
            }
            Ok(())
        })
    }

    /// Removes the node and waits until it is gone; the fabric stays while another node is on it.
    ///
    /// # Errors
    /// When something could not be removed; names it.
    pub fn stop(self) -> Result<()> {
        let name = self.name().to_owned();
        drop(self);
        let remains = crate::sandbox::remains(&name)?;
        if !remains.is_empty() {
            bail!("{name} left {}", remains.join(", "));
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of the daemon's log on {} ---\n{}", self.name(), self.daemon_log_end());
        }
    }
}
