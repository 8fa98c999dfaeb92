//! A containerd of the node's own, as a service would run it.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::background::Background;
use crate::sandbox::Sandbox;

/// The containerd namespace that the daemon uses.
const NAMESPACE: &str = "hivemind";

/// Where it listens, as seen inside; also where the daemon is told to look when nobody started one.
pub(super) fn socket(sandbox: &Sandbox) -> PathBuf {
    sandbox.directory().join("containerd/containerd.sock")
}

/// Starts containerd with everything below the sandbox's directory, and waits until it listens.
pub(super) fn start(sandbox: &Sandbox) -> Result<Background> {
    let directory = sandbox.directory().join("containerd");
    let at = |part: &str| directory.join(part).display().to_string();
    let config = format!(
        "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = \"{}\"\n[ttrpc]\naddress = \"{}\"\n",
        at("root"),
        at("state"),
        at("containerd.sock"),
        at("containerd.sock.ttrpc"),
    );
    let (file, log) = (directory.join("config.toml"), directory.join("log"));
    fs::write(sandbox.outside(&file), config).context("cannot write containerd's configuration")?;
    let mut process = sandbox.spawn(&["containerd", "--config", &file.display().to_string()], Some(&log))?;
    process
        .until_ready(Duration::from_secs(20), "containerd to listen", || {
            UnixStream::connect(sandbox.outside(&socket(sandbox))).context("no connection")
        })
        .with_context(|| fs::read_to_string(sandbox.outside(&log)).unwrap_or_default())?;
    Ok(process)
}

/// The daemon's containers, if a containerd answers at the socket.
pub(super) fn containers(sandbox: &Sandbox) -> Result<Vec<String>> {
    let socket = socket(sandbox);
    if UnixStream::connect(sandbox.outside(&socket)).is_err() {
        return Ok(Vec::new());
    }
    let socket = socket.display().to_string();
    let list =
        sandbox.check(&["ctr", "--address", &socket, "--namespace", NAMESPACE, "containers", "ls", "-q"])?;
    Ok(list.lines().map(|id| format!("container {id}")).collect())
}
