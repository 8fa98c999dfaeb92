//! The network between nodes: a router, with one link to each node and one to a machine outside.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result, bail};

use crate::sandbox::Sandbox;

/// A router and a client outside the cluster.
///
/// Machine `n` has the addresses 10.77.n.2 and fd77:n::2 and sends everything else to the router at 10.77.n.1 and
/// fd77:n::1; the client is machine 0. The router knows those networks only: a packet from a replica's own address that
/// reaches it gets no answer.
#[derive(Debug)]
pub struct Fabric {
    router: Sandbox,
    client: Sandbox,
    joined: AtomicU8,
}

/// A machine's addresses on the fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// In 10.77.n.0/24.
    pub ipv4: Ipv4Addr,
    /// In fd77:n::/64.
    pub ipv6: Ipv6Addr,
}

impl Addresses {
    fn machine(number: u8, host: u8) -> Self {
        let ipv4 = Ipv4Addr::new(10, 77, number, host);
        let ipv6 = Ipv6Addr::new(0xfd77, number.into(), 0, 0, 0, 0, 0, host.into());
        Self { ipv4, ipv6 }
    }
}

impl Fabric {
    /// Makes a fabric with its client.
    ///
    /// # Errors
    /// As [`Sandbox::start`], or when `ip` fails. Nothing is left behind.
    pub fn start() -> Result<Arc<Self>> {
        let router = Sandbox::start()?;
        router.in_network(|| -> Result<()> {
            for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                fs::write(format!("/proc/sys/net/{setting}"), "1").context("cannot make a router")?;
            }
            Ok(())
        })??;
        let fabric = Self { router, client: Sandbox::start()?, joined: AtomicU8::new(0) };
        fabric.join(&fabric.client)?;
        Ok(Arc::new(fabric))
    }

    /// The machine outside.
    #[must_use]
    pub fn client(&self) -> &Sandbox {
        &self.client
    }

    /// The router between all machines, whose links a test can cut or slow down.
    #[must_use]
    pub fn router(&self) -> &Sandbox {
        &self.router
    }

    /// The addresses of the machine outside.
    #[must_use]
    pub fn client_addresses(&self) -> Addresses {
        Addresses::machine(0, 2)
    }

    /// Gives a sandbox its link, as `eth0`, and its addresses and routes. The router's end is named `mN`.
    ///
    /// # Errors
    /// When `ip` fails, or for the 255th machine.
    pub fn join(&self, sandbox: &Sandbox) -> Result<Addresses> {
        let number = self.joined.fetch_add(1, Ordering::Relaxed);
        if number == u8::MAX {
            bail!("a fabric has room for 254 machines");
        }
        let (gateway, machine) = (Addresses::machine(number, 1), Addresses::machine(number, 2));
        configure(
            &self.router,
            &format!(
                "link add m{number} type veth peer name eth0 netns {pid}\n\
                 addr add {v4}/24 dev m{number}\naddr add {v6}/64 dev m{number} nodad\nlink set m{number} up\n",
                pid = sandbox.pid(),
                v4 = gateway.ipv4,
                v6 = gateway.ipv6,
            ),
        )?;
        configure(
            sandbox,
            &format!(
                "addr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\nlink set eth0 up\n\
                 route add default via {}\nroute add default via {}\n",
                machine.ipv4, machine.ipv6, gateway.ipv4, gateway.ipv6
            ),
        )?;
        Ok(machine)
    }
}

/// Runs lines of `ip` commands in one go.
fn configure(sandbox: &Sandbox, lines: &str) -> Result<()> {
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
