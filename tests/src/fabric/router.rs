//! The machine in the middle, which forwards between networks or is the switch of one.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

use super::{Addresses, Layout};
use crate::sandbox::Sandbox;

/// The router's own number among the hosts of each network.
const HOST: u8 = 1;

/// A router, or a switch that is also its network's router.
#[derive(Debug)]
pub(crate) struct Router {
    sandbox: Sandbox,
    layout: Layout,
    /// Lines for `ip`; the kernel forgets those of a link that goes down.
    routes: Mutex<Vec<String>>,
}

impl Router {
    pub(super) fn start(layout: Layout) -> Result<Self> {
        let sandbox = Sandbox::start()?;
        sandbox.in_network(|| -> Result<()> {
            let settings = ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/all/keep_addr_on_down"];
            for setting in settings {
                fs::write(format!("/proc/sys/net/{setting}"), "1").context("cannot make a router")?;
            }
            Ok(())
        })??;
        if layout == Layout::Bridged {
            let own = Addresses::machine(0, HOST);
            configure(
                &sandbox,
                &format!(
                    "link add br0 type bridge stp_state 0 mcast_snooping 0\n\
                     addr add {}/16 dev br0\naddr add {}/16 dev br0 nodad\nlink set br0 up\n",
                    own.ipv4, own.ipv6
                ),
            )?;
        }
        Ok(Self { sandbox, layout, routes: Mutex::new(Vec::new()) })
    }

    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The router's address in machine `number`'s network, and the lengths of that network's prefixes.
    pub(crate) fn gateway(&self, number: u8) -> (Addresses, [u8; 2]) {
        match self.layout {
            Layout::Routed => (Addresses::machine(number, HOST), [24, 64]),
            Layout::Bridged => (Addresses::machine(0, HOST), [16, 16]),
        }
    }

    /// The lines that make a device the router's end of machine `number`'s link.
    pub(crate) fn end_of_link(&self, device: &str, number: u8) -> String {
        let (own, [v4, v6]) = self.gateway(number);
        let place = match self.layout {
            Layout::Routed => format!(
                "addr add {}/{v4} dev {device}\naddr add {}/{v6} dev {device} nodad",
                own.ipv4, own.ipv6
            ),
            Layout::Bridged => format!("link set {device} master br0"),
        };
        format!("{place}\nlink set {device} up\n")
    }

    pub(super) fn add_route(&self, range: &str, to: Addresses) -> Result<()> {
        let next_hop = if range.contains(':') { to.ipv6.to_string() } else { to.ipv4.to_string() };
        let line = format!("route replace {range} via {next_hop}\n");
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        configure(&self.sandbox, &line)?;
        routes.push(line);
        Ok(())
    }

    /// Sets a device down.
    pub(crate) fn set_down(&self, device: &str) -> Result<()> {
        configure(&self.sandbox, &format!("link set {device} down\n"))
    }

    /// Sets a device up again, with the routes that went with it. Those over other links that are down stay away.
    pub(crate) fn set_up(&self, device: &str) -> Result<()> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        configure(&self.sandbox, &format!("link set {device} up\n"))?;
        for route in routes.iter() {
            // It fails where its own link is down; that one's turn comes when it is set up.
            drop(configure(&self.sandbox, route));
        }
        Ok(())
    }
}

/// Runs lines of `ip` commands in one go.
pub(crate) fn configure(sandbox: &Sandbox, lines: &str) -> Result<()> {
    let mut child = sandbox
        .command("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start ip")?;
    child.stdin.take().context("ip has no input")?.write_all(lines.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("cannot configure {}: {}", sandbox.name(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
