//! Who has a UDP port, for a message that helps: the kernel only says that somebody has.

use crate::netlink::Netlink;
use netlink_packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};
use std::{fs, path::Path};

/// What is said where nobody is found: it may be in another mount or process namespace, or gone already.
const NOBODY_FOUND: &str = "another VXLAN interface or process";

/// In words, who has the port in the network namespace of the calling thread.
pub(super) fn find(netlink: &mut Netlink, port: u16) -> String {
    let links = netlink.links().unwrap_or_default();
    let interface = links.iter().find_map(|link| vxlan_name(link, port));
    let holder = interface.map(|name| format!("the interface {name}")).or_else(|| process(port));
    holder.unwrap_or_else(|| NOBODY_FOUND.to_owned())
}

/// The name of an interface, if it is a VXLAN one with this port.
fn vxlan_name(link: &LinkMessage, port: u16) -> Option<&str> {
    let has_port = |info: &LinkInfo| match info {
        LinkInfo::Data(InfoData::Vxlan(options)) => options.contains(&InfoVxlan::Port(port)),
        _ => false,
    };
    let is_it = link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().any(has_port),
        _ => false,
    });
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) if is_it => Some(name.as_str()),
        _ => None,
    })
}

/// The process that has a socket at the port.
fn process(port: u16) -> Option<String> {
    let tables = ["udp", "udp6"].map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")));
    let inode = tables.iter().flatten().find_map(|table| inode_at(table, port))?;
    let link = format!("socket:[{inode}]");
    let has_socket = |process: &Path| {
        let mut descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        descriptors
            .any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|to| to.as_os_str() == &*link))
    };
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let number: u32 = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        has_socket(&entry.path()).then(|| format!("the process {} ({number})", name.trim()))
    })
}

/// The inode of the first socket at the port, in a table as `/proc/net/udp` has it (proc_pid_net(5)).
fn inode_at(table: &str, port: u16) -> Option<u64> {
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let is_there = fields.nth(1).is_some_and(|local| local.ends_with(&suffix));
        let inode = fields.nth(7)?.parse().ok()?;
        // Zero: the kernel's own.
        (is_there && inode != 0).then_some(inode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_by_its_port_and_the_kernels_own_are_not() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref\n \
                     33: 00000000:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 0 2\n \
                     34: 0100007F:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2\n \
                     35: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12 2\n";
        assert_eq!(inode_at(table, 4789), Some(4711));
        assert_eq!(inode_at(table, 53), Some(12));
        assert_eq!(inode_at(table, 54), None);
    }
}
