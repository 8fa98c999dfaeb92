//! The host's side of the network: forwarding, the interface of the DNS addresses, and routes that answer for
//! addresses that nobody has.

use crate::{
    Config, Error,
    netlink::{Netlink, request, wait_until},
    uplink::Addresses,
};
use hivemind_common::node::OVERLAY_MAC;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    link::{InfoKind, LinkAttribute},
    route::{RouteAttribute, RouteType},
};
use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

pub(crate) const MTU_DEFAULT: u32 = 1500;

/// Room is left for the overlay from the start, since an interface whose MTU shrinks later breaks the connections that it has.
pub(crate) const ENCAPSULATION_BYTES: u32 = hivemind_common::overlay::BYTES;

/// The least MTU that IPv6 works with (RFC 8200, section 5).
pub(crate) const MTU_MIN: u32 = 1280;
const SYSCTL: &str = "/proc/sys/net";

/// The name of the services' own interface, which carries the DNS addresses.
pub(crate) fn dns_interface(config: &Config) -> String {
    format!("{}0", config.name)
}

/// How the host ends of replicas' pairs begin.
pub(crate) const INTERFACES: &str = "hm";

/// Makes what is missing of the host's side. Returns the index of the services' own interface.
pub(crate) fn prepare(config: &Config, netlink: &mut Netlink, mtu: u32) -> Result<u32, Error> {
    enable_forwarding()?;
    reserve_ports(config.masquerade_ports)?;
    let services = prepare_dns_interface(config, netlink, mtu)?;
    netlink.run(unanswered(config).into_iter().map(request::add_unreachable_route).collect())?;
    Ok(services)
}

/// Has the kernel give none of these ports to a connection of the node's own, as far as it otherwise would.
fn reserve_ports((first, last): (u16, u16)) -> Result<(), Error> {
    let read = |name: &str| fs::read_to_string(Path::new(SYSCTL).join(name)).unwrap_or_default();
    let range = read("ipv4/ip_local_port_range");
    let mut bounds = range.split_whitespace().filter_map(|bound| bound.parse::<u16>().ok());
    let (Some(low), Some(high)) = (bounds.next(), bounds.next()) else { return Ok(()) };
    let reserved = read("ipv4/ip_local_reserved_ports");
    match reserved_ports(reserved.trim(), (low, high), (first, last)) {
        Some(reserved) => set("ipv4/ip_local_reserved_ports", &reserved),
        None => Ok(()),
    }
}

/// The kernel's list of reserved ports with ours, or none if nothing needs to be reserved.
fn reserved_ports(reserved: &str, local: (u16, u16), ours: (u16, u16)) -> Option<String> {
    let (first, last) = (ours.0.max(local.0), ours.1.min(local.1));
    if first > last {
        return None;
    }
    let holds_ours = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        low.parse::<u16>().is_ok_and(|low| low <= first) && high.parse::<u16>().is_ok_and(|high| high >= last)
    };
    if reserved.split(',').any(holds_ours) {
        return None;
    }
    let separator = if reserved.is_empty() { "" } else { "," };
    Some(format!("{reserved}{separator}{first}-{last}"))
}

/// Has the host's stack send what is for services to their own interface, under an address that others know.
pub(crate) fn route_services(
    config: &Config,
    netlink: &mut Netlink,
    services: u32,
    own: Option<Addresses>,
) -> Result<(), Error> {
    let own = own.unwrap_or_default();
    let (v4, v6) = (IpNet::from(config.service_range.0), IpNet::from(config.service_range.1));
    netlink.run(vec![
        request::add_service_route(services, v4, own.ipv4.map(IpAddr::V4)),
        request::add_service_route(services, v6, own.ipv6.map(IpAddr::V6)),
    ])
}

/// Removes what [`prepare`] made, but for forwarding: others may rely on it by now.
pub(crate) fn remove(config: &Config, netlink: &mut Netlink) -> Result<(), Error> {
    let routes = unanswered(config).into_iter();
    netlink
        .run(routes.map(|to| request::delete_unreachable_route(to).tolerating(&[libc::ESRCH])).collect())?;
    match netlink.index_of(&dns_interface(config))? {
        Some(index) => netlink.run(vec![request::delete_link(index).tolerating(&[libc::ENODEV])]),
        None => Ok(()),
    }
}

/// The MTU for replicas: what the configuration says, else that of the interface with the default route less the
/// encapsulation.
pub(crate) fn mtu(config: &Config, netlink: &mut Netlink) -> Result<u32, Error> {
    if let Some(mtu) = config.mtu {
        return Ok(mtu);
    }
    let uplink = netlink.routes(AddressFamily::Inet)?.into_iter().find_map(|route| {
        if route.header.destination_prefix_length != 0 || route.header.kind != RouteType::Unicast {
            return None;
        }
        route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
    });
    let links = netlink.links()?;
    let mtu = links.iter().find(|link| Some(link.header.index) == uplink).and_then(|link| {
        link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        })
    });
    Ok(mtu.unwrap_or(MTU_DEFAULT).saturating_sub(ENCAPSULATION_BYTES).max(MTU_MIN))
}

/// Ranges whose addresses must not leave the node untranslated: services', and replicas' that do not exist.
fn unanswered(config: &Config) -> [IpNet; 4] {
    [
        config.service_range.0.into(),
        config.service_range.1.into(),
        config.cluster_range.0.into(),
        config.cluster_range.1.into(),
    ]
}

fn prepare_dns_interface(config: &Config, netlink: &mut Netlink, mtu: u32) -> Result<u32, Error> {
    let name = dns_interface(config);
    if netlink.index_of(&name)?.is_none() {
        let dummy = netlink.run(vec![request::add_link(&name, InfoKind::Dummy)]);
        // A kernel without dummy interfaces may have bridges: one without ports carries addresses as well.
        if let Err(Error::Netlink { source, .. }) = &dummy
            && matches!(source.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENODEV))
        {
            netlink.run(vec![request::add_link(&name, InfoKind::Bridge)])?;
        } else {
            dummy?;
        }
    }
    let Some(index) = netlink.index_of(&name)? else {
        let source = io::Error::from_raw_os_error(libc::ENODEV);
        return Err(Error::Netlink { action: format!("find the interface {name}"), source });
    };
    // Strictly checked, an answer of a service would have to come in where its address is routed: it does, and loosely checked
    // what comes back to other addresses does too.
    set(&format!("ipv4/conf/{name}/rp_filter"), "2")?;
    netlink.run(vec![
        request::set_up_services(index, OVERLAY_MAC, mtu),
        request::bring_up(&name, None),
        request::add_address(index, IpAddr::V4(config.dns.0)),
        request::add_address(index, IpAddr::V6(config.dns.1)),
    ])?;
    wait_until("the DNS address is taken", || netlink.is_local(config.dns.1))?;
    Ok(index)
}

fn enable_forwarding() -> Result<(), Error> {
    set("ipv4/ip_forward", "1")?;
    // A host that forwards ignores router advertisements unless told not to: keep its own addresses alive.
    for interface in interfaces_that_accept_advertisements()? {
        write(&interface, "2")?;
    }
    set("ipv6/conf/all/forwarding", "1")
}

fn interfaces_that_accept_advertisements() -> Result<Vec<PathBuf>, Error> {
    let directory = Path::new(SYSCTL).join("ipv6/conf");
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&directory)? {
            let setting = entry?.path().join("accept_ra");
            // The interface may go while we look.
            if fs::read_to_string(&setting).is_ok_and(|value| value.trim() == "1") {
                found.push(setting);
            }
        }
        Ok(found)
    };
    list().map_err(Error::system(format!("list {}", directory.display())))
}

pub(crate) fn set(name: &str, value: &str) -> Result<(), Error> {
    write(&Path::new(SYSCTL).join(name), value)
}

fn write(setting: &Path, value: &str) -> Result<(), Error> {
    if fs::read_to_string(setting).is_ok_and(|found| found.trim() == value) {
        return Ok(());
    }
    match fs::write(setting, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(Error::system(format!("write {value} to {}", setting.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_reserved_only_as_far_as_the_kernel_would_give_them_away() {
        let ours = (61_000, 65_535);
        assert_eq!(reserved_ports("", (32_768, 60_999), ours), None);
        assert_eq!(reserved_ports("", (1_024, 65_535), ours), Some("61000-65535".to_owned()));
        assert_eq!(
            reserved_ports("8080,9000-9100", (1_024, 62_000), ours),
            Some("8080,9000-9100,61000-62000".to_owned())
        );
        assert_eq!(reserved_ports("8080,60000-65535", (1_024, 65_535), ours), None);
    }
}
