//! What a data path is compared with: a server's and a client's namespaces joined by what the kernel brings along.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::node::make_cgroup;
use super::pair::{End, Pair};
use crate::Sandbox;
use crate::fabric::configure;

/// How deep the ends' cgroup lies does not differ from that of a data path's ends.
const CGROUP: &str = "ends";

/// What joins the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// One pair of virtual interfaces.
    Veth,
    /// A pair from each end to a bridge in a third namespace.
    Bridge,
    /// A pair from each end to a third namespace, which routes.
    Routed,
}

/// Two ends, and what joins them; it goes when it is dropped.
pub(super) struct Wires {
    layout: Layout,
    ends: [Sandbox; 2],
    /// What is between the ends.
    middle: Option<Sandbox>,
    cgroup: PathBuf,
}

impl Wires {
    pub(super) fn lay(layout: Layout) -> Result<Self> {
        let ends = [Sandbox::start()?, Sandbox::start()?];
        let middle = match layout {
            Layout::Veth => None,
            Layout::Bridge | Layout::Routed => Some(Sandbox::start()?),
        };
        let cgroup = make_cgroup(&ends[0], CGROUP)?;
        let wires = Self { layout, ends, middle, cgroup };
        match layout {
            Layout::Veth => wires.join_by_veth(),
            Layout::Bridge => wires.join_by_bridge(),
            Layout::Routed => wires.join_by_routes(),
        }?;
        Ok(wires)
    }

    /// From the second end to the first.
    pub(super) fn pair(&self) -> Result<Pair> {
        let [server, client] = self.ends.each_ref().map(|end| End::of_sandbox(end).in_cgroup(&self.cgroup));
        Pair::start(&server, client, self.address(0).into())
    }

    /// What is between the ends.
    pub(super) fn middle(&self) -> Result<&Sandbox> {
        self.middle.as_ref().context("there is nothing between the ends")
    }

    /// The address of an end: 0 is the server.
    pub(super) fn address(&self, number: u8) -> std::net::Ipv4Addr {
        match self.layout {
            Layout::Veth | Layout::Bridge => [10, 9, 0, number + 1].into(),
            Layout::Routed => [10, 9, number, 2].into(),
        }
    }

    fn join_by_veth(&self) -> Result<()> {
        let peer = self.ends[1].pid();
        configure(&self.ends[0], &format!("link add eth0 type veth peer name eth0 netns {peer}\n"))?;
        self.set_addresses()
    }

    fn join_by_bridge(&self) -> Result<()> {
        let mut lines = "link add br0 type bridge\nlink set br0 up\n".to_owned();
        for (number, end) in self.ends.iter().enumerate() {
            lines += &format!("link add c{number} type veth peer name eth0 netns {}\n", end.pid());
            lines += &format!("link set c{number} master br0\nlink set c{number} up\n");
        }
        configure(self.middle()?, &lines)?;
        self.set_addresses()
    }

    fn join_by_routes(&self) -> Result<()> {
        let mut lines = String::new();
        for (number, end) in self.ends.iter().enumerate() {
            lines += &format!("link add c{number} type veth peer name eth0 netns {}\n", end.pid());
            lines += &format!("addr add 10.9.{number}.1/24 dev c{number}\nlink set c{number} up\n");
        }
        let middle = self.middle()?;
        configure(middle, &lines)?;
        middle.check(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])?;
        self.set_addresses()?;
        for (number, end) in self.ends.iter().enumerate() {
            configure(end, &format!("route add default via 10.9.{number}.1\n"))?;
        }
        Ok(())
    }

    fn set_addresses(&self) -> Result<()> {
        for (number, end) in (0..).zip(&self.ends) {
            configure(end, &format!("addr add {}/24 dev eth0\nlink set eth0 up\n", self.address(number)))?;
        }
        Ok(())
    }
}
