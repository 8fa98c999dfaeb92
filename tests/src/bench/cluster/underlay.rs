//! Two hosts on one cable, and the usual overlay between containers on them: bridges joined by the kernel's VXLAN.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::super::pair::Pair;
use crate::Sandbox;
use crate::fabric::configure;

/// What VXLAN over IPv4 adds to a packet.
const ENCAPSULATION_BYTES: u16 = 50;

/// Two machines on one cable.
pub(super) struct Hosts {
    ends: [Sandbox; 2],
}

impl Hosts {
    pub(super) fn start() -> Result<Self> {
        let ends = [Sandbox::start()?, Sandbox::start()?];
        cable([&ends[0], &ends[1]], [Self::address(0), Self::address(1)])?;
        Ok(Self { ends })
    }

    fn address(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, 0, number + 1)
    }

    /// From the second host to the first.
    pub(super) fn pair(&self) -> Result<Pair> {
        Pair::of_sandboxes([&self.ends[0], &self.ends[1]], Self::address(0).into())
    }
}

/// Lays a cable between two machines, their `eth0`, with addresses in one /16.
pub(super) fn cable(ends: [&Sandbox; 2], addresses: [Ipv4Addr; 2]) -> Result<()> {
    let peer = ends[1].pid();
    configure(ends[0], &format!("link add eth0 type veth peer name eth0 netns {peer}\n"))?;
    for (end, address) in ends.into_iter().zip(addresses) {
        configure(end, &format!("addr add {address}/16 dev eth0\nlink set eth0 up\n"))?;
    }
    Ok(())
}

/// A container on a bridge on each of two hosts; the bridges are joined by VXLAN.
pub(super) struct KernelVxlan {
    containers: [Sandbox; 2],
}

impl KernelVxlan {
    pub(super) fn start(hosts: &Hosts) -> Result<Self> {
        let containers = [Sandbox::start()?, Sandbox::start()?];
        for (number, container) in (0_u8..).zip(&containers) {
            let host = &hosts.ends[usize::from(number)];
            let (own, other) = (Hosts::address(number), Hosts::address(1 - number));
            let (mtu, pid) = (1500 - ENCAPSULATION_BYTES, container.pid());
            let lines = format!(
                "link add br0 mtu {mtu} type bridge\n\
                 link add vx0 mtu {mtu} type vxlan id 1 dstport 4789 local {own} remote {other} dev eth0\n\
                 link add c0 mtu {mtu} type veth peer name eth0 mtu {mtu} netns {pid}\n\
                 link set vx0 master br0\nlink set c0 master br0\n\
                 link set vx0 up\nlink set c0 up\nlink set br0 up\n"
            );
            configure(host, &lines)?;
            let own = Self::address(number);
            configure(container, &format!("addr add {own}/24 dev eth0\nlink set eth0 up\n"))?;
        }
        Ok(Self { containers })
    }

    fn address(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 10, 0, number + 1)
    }

    /// From the second host's container to the first's.
    pub(super) fn pair(&self) -> Result<Pair> {
        Pair::of_sandboxes([&self.containers[0], &self.containers[1]], Self::address(0).into())
    }
}
