//! A registry inside a node, which serves the test images as `docker.io/library/NAME:latest` through a mirror.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::background::Background;
use crate::http;
use crate::programs::artifacts;
use crate::sandbox::Sandbox;

/// Where it listens, inside the node.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);

/// A running registry; dropping it stops it.
#[derive(Debug)]
pub struct Registry {
    process: Background,
}

impl Registry {
    /// Starts Debian's docker-registry, read-only, on what `cargo xtask images` made, and waits until it answers.
    ///
    /// # Errors
    /// When the images were not made, the program is missing, or it does not answer.
    pub fn start(sandbox: &Sandbox) -> Result<Self> {
        let storage = artifacts().join("images/registry");
        if !storage.is_dir() {
            bail!("{} is missing; run `cargo xtask images`", storage.display());
        }
        let config = sandbox.directory().join("registry.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n  maintenance:\n    \
             readonly:\n      enabled: true\nhttp:\n  addr: {ADDRESS}\n",
            storage.display()
        );
        fs::write(sandbox.outside(&config), text).context("cannot write the registry's configuration")?;
        let unpacked = artifacts().join("tools/bin/docker-registry");
        let program =
            if unpacked.is_file() { unpacked.display().to_string() } else { "docker-registry".into() };
        let log = sandbox.directory().join("registry.log");
        let mut process = sandbox.spawn(&[&program, "serve", &config.display().to_string()], Some(&log))?;
        process
            .until_ready(Duration::from_secs(20), "the registry to answer", || {
                sandbox.in_network(|| http::get(ADDRESS, "/v2/", Duration::from_secs(5)))?
            })
            .with_context(|| fs::read_to_string(sandbox.outside(&log)).unwrap_or_default())?;
        Ok(Self { process })
    }

    /// Where it listens, inside the node: `127.0.0.1:5000`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        ADDRESS
    }

    /// Stops it, as if the registry had gone from the network.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn stop(mut self) -> Result<()> {
        self.process.kill()
    }
}
