//! The link between a machine and its fabric's router: plain, or through a relay that delays and loses frames. Either
//! can be cut and healed.
//!
//! A plain link is a pair of veth devices: as fast as the kernel, and without delay. A relayed link is a TAP device at
//! each end and a process between them, `hivemind-relay`, in the router's sandbox; it ends with the link, with the
//! test, and with the router. TAP devices offer the kernel no offloads here, so that what the relay sees are the frames
//! that a wire would carry, segmented and with their checksums.

mod forward;
mod quality;
mod relay;
mod shaper;

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};

use crate::fabric::{Addresses, Router, configure};
use crate::sandbox::Sandbox;
use relay::Relay;

pub use forward::forward;
pub use quality::{Direction, LinkQuality};

/// What a link is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkKind {
    /// A pair of veth devices.
    #[default]
    Plain,
    /// Two TAP devices and a relay.
    Relayed,
}

/// How to make a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkOptions {
    /// What it is made of.
    pub kind: LinkKind,
    /// The longest IP packet on it, in bytes; without it, 1,500.
    pub mtu: Option<u16>,
}

impl LinkOptions {
    /// A link through a relay.
    #[must_use]
    pub fn relayed() -> Self {
        Self { kind: LinkKind::Relayed, ..Self::default() }
    }
}

/// A machine's link to its fabric. A relayed one works until this is dropped, a plain one as long as the machine.
#[derive(Debug)]
pub struct Link {
    router: Arc<Router>,
    /// The router's end.
    device: String,
    addresses: Addresses,
    relay: Option<Mutex<Relay>>,
}

impl Link {
    /// Makes machine `number`'s link.
    pub(crate) fn lay(
        router: &Arc<Router>,
        sandbox: &Sandbox,
        number: u8,
        options: LinkOptions,
    ) -> Result<Self> {
        let device = format!("m{number}");
        let addresses = Addresses::machine(number, 2);
        let relay = match options.kind {
            LinkKind::Plain => None,
            LinkKind::Relayed => Some(Mutex::new(Relay::start(router.sandbox(), &device, sandbox)?)),
        };
        let mut lines = match options.kind {
            LinkKind::Plain => {
                format!("link add {device} type veth peer name eth0 netns {}\n", sandbox.pid())
            }
            LinkKind::Relayed => String::new(),
        };
        let mtu =
            |device: &str| options.mtu.map_or(String::new(), |mtu| format!("link set {device} mtu {mtu}\n"));
        lines.push_str(&mtu(&device));
        lines.push_str(&router.end_of_link(&device, number));
        configure(router.sandbox(), &lines)?;
        let (gateway, [v4, v6]) = router.gateway(number);
        let ends = format!(
            "{}addr add {}/{v4} dev eth0\naddr add {}/{v6} dev eth0 nodad\nlink set eth0 up\n\
             route add default via {}\nroute add default via {}\n",
            mtu("eth0"),
            addresses.ipv4,
            addresses.ipv6,
            gateway.ipv4,
            gateway.ipv6
        );
        configure(sandbox, &ends)?;
        Ok(Self { router: router.clone(), device, addresses, relay })
    }

    /// The machine's addresses.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Lets nothing through any more, in either direction. What is on its way is lost.
    ///
    /// A plain link goes down at the router, and the machine sees that: its device has no carrier. On a relayed link,
    /// nobody is told.
    ///
    /// # Errors
    /// When `ip` or the relay fails.
    pub fn cut(&self) -> Result<()> {
        match &self.relay {
            Some(_) => self.order("cut"),
            None => self.router.set_down(&self.device),
        }
    }

    /// Lets everything through again, with the quality that was set.
    ///
    /// # Errors
    /// When `ip` or the relay fails.
    pub fn heal(&self) -> Result<()> {
        match &self.relay {
            Some(_) => self.order("heal"),
            None => self.router.set_up(&self.device),
        }
    }

    /// Sets what becomes of frames in both directions, from now on.
    ///
    /// # Errors
    /// For a plain link, which is always as good as the kernel; when the relay fails.
    pub fn set(&self, quality: LinkQuality) -> Result<()> {
        [Direction::FromMachine, Direction::ToMachine]
            .into_iter()
            .try_for_each(|direction| self.set_one_way(direction, quality))
    }

    /// Sets what becomes of frames in one direction, from now on.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn set_one_way(&self, direction: Direction, quality: LinkQuality) -> Result<()> {
        self.order(&quality.to_order(direction))
    }

    /// Tells the relay, and returns when it has done it.
    fn order(&self, order: &str) -> Result<()> {
        let Some(relay) = &self.relay else {
            bail!("a plain link cannot be delayed or lossy; make it a relayed one")
        };
        relay.lock().unwrap_or_else(PoisonError::into_inner).order(order)
    }
}
