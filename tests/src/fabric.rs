//! The network between nodes: a router or a switch, with one link to each node and one to a machine outside.

mod router;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Result, anyhow};

use crate::link::{Link, LinkOptions};
use crate::sandbox::Sandbox;

pub(crate) use router::{Router, configure};

/// How machines are joined to one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// Each in a network of its own, behind a router.
    #[default]
    Routed,
    /// All in one network, on a switch, so that a machine can be another's next hop.
    Bridged,
}

/// How to make a fabric.
#[derive(Clone, Copy, Debug, Default)]
pub struct FabricOptions {
    /// How machines are joined.
    pub layout: Layout,
    /// The link of each node that does not ask for another.
    pub link: LinkOptions,
}

/// A router and a client outside the cluster.
///
/// Machine `n` has the addresses 10.77.n.2 and fd77:n::2 and sends everything else to the router, at 10.77.n.1 and
/// fd77:n::1 where each machine has a network of its own, at 10.77.0.1 and fd77::1 on a switch; the client is machine 0.
/// The router knows those networks and those of [`Fabric::route`] only: a packet from a replica's own address that
/// reaches it gets no answer.
#[derive(Debug)]
pub struct Fabric {
    router: Arc<Router>,
    client: Sandbox,
    client_link: Link,
    options: FabricOptions,
    joined: AtomicU8,
}

/// A machine's addresses on the fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// In 10.77.n.0/24, or in 10.77.0.0/16 on a switch.
    pub ipv4: Ipv4Addr,
    /// In fd77:n::/64, or in fd77::/16 on a switch.
    pub ipv6: Ipv6Addr,
}

impl Addresses {
    pub(crate) fn machine(number: u8, host: u8) -> Self {
        let ipv4 = Ipv4Addr::new(10, 77, number, host);
        let ipv6 = Ipv6Addr::new(0xfd77, number.into(), 0, 0, 0, 0, 0, host.into());
        Self { ipv4, ipv6 }
    }
}

impl Fabric {
    /// Makes a routed fabric of plain links, with its client.
    ///
    /// # Errors
    /// As [`Sandbox::start`], or when `ip` fails. Nothing is left behind.
    pub fn start() -> Result<Arc<Self>> {
        Self::start_with(FabricOptions::default())
    }

    /// Makes a fabric with its client, whose link is always a plain one.
    ///
    /// # Errors
    /// As [`Fabric::start`].
    pub fn start_with(options: FabricOptions) -> Result<Arc<Self>> {
        let router = Arc::new(Router::start(options.layout)?);
        let client = Sandbox::start()?;
        let link = LinkOptions { mtu: options.link.mtu, ..LinkOptions::default() };
        let client_link = Link::lay(&router, &client, 0, link)?;
        Ok(Arc::new(Self { router, client, client_link, options, joined: AtomicU8::new(1) }))
    }

    /// The machine outside.
    #[must_use]
    pub fn client(&self) -> &Sandbox {
        &self.client
    }

    /// The router between all machines. Its end of machine `n`'s link is named `mN`; on a switch they are ports of `br0`.
    #[must_use]
    pub fn router(&self) -> &Sandbox {
        self.router.sandbox()
    }

    /// The addresses of the machine outside.
    #[must_use]
    pub fn client_addresses(&self) -> Addresses {
        self.client_link.addresses()
    }

    /// The link of the machine outside.
    #[must_use]
    pub fn client_link(&self) -> &Link {
        &self.client_link
    }

    /// Gives a sandbox its link, as `eth0`, of the fabric's kind, and its addresses and routes.
    ///
    /// # Errors
    /// When `ip` or the relay fails, or for the 255th machine.
    pub fn join(&self, sandbox: &Sandbox) -> Result<Link> {
        self.join_by(sandbox, self.options.link)
    }

    /// As [`Self::join`], with a link of another kind.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub fn join_by(&self, sandbox: &Sandbox, link: LinkOptions) -> Result<Link> {
        let number = self
            .joined
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |number| number.checked_add(1))
            .map_err(|_| anyhow!("a fabric has room for 254 machines"))?;
        Link::lay(&self.router, sandbox, number, link)
    }

    /// Makes the router send what is for `range`, such as 10.200.3.0/24, to a machine.
    ///
    /// # Errors
    /// When `ip` refuses the range, or knows no way to the machine.
    pub fn route(&self, range: &str, to: Addresses) -> Result<()> {
        self.router.add_route(range, to)
    }
}
