//! Where others reach this machine, and what on it stands in the way of the cluster's addresses.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
};

use hivemind_model::{ApiError, ClusterFacts, ErrorCode, Problems};
use ipnet::{IpNet, Ipv4Net};

use crate::daemon::config::Config;

/// An address of the documentation's (RFC 5737): the way to it is the way to anywhere. Nothing is sent there.
const ANYWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The IPv4 address by which this machine reaches `peer`, or anybody.
///
/// # Errors
/// `NetworkFailed` if there is no way.
pub(crate) fn towards(config: &Config, peer: Option<Ipv4Addr>) -> Result<Ipv4Addr, ApiError> {
    if let Some(address) = config.cluster_address {
        return own(address);
    }
    let to = peer.unwrap_or(ANYWHERE);
    let source = || -> io::Result<SocketAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // Only looks up the way.
        socket.connect((to, 9))?;
        socket.local_addr()
    };
    let unknown = |why: String| {
        let hint = "say at which IPv4 address other nodes reach this one: --cluster-address ADDRESS";
        ApiError::new(ErrorCode::NetworkFailed, format!("no address for other nodes is known: {why}"), hint)
    };
    match source() {
        Ok(SocketAddr::V4(address)) if !address.ip().is_unspecified() => Ok(*address.ip()),
        Ok(address) => Err(unknown(format!("{} is none", address.ip()))),
        Err(error) => Err(unknown(error.to_string())),
    }
}

/// `address`, if the machine has it.
fn own(address: Ipv4Addr) -> Result<Ipv4Addr, ApiError> {
    match UdpSocket::bind((address, 0)) {
        Ok(_) => Ok(address),
        Err(error) => {
            let what = format!("{address} is no address of this machine: {error}");
            let hint = "give one that `ip address` shows";
            Err(ApiError::new(ErrorCode::InvalidConfig, what, hint).at("--cluster-address"))
        }
    }
}

/// The IPv4 address and port of a server that was named as HOST or HOST:PORT.
///
/// # Errors
/// `InvalidConfig` if it has none.
pub(crate) async fn resolve(name: &str, port: u16) -> Result<SocketAddrV4, ApiError> {
    let invalid = |what: String| {
        let hint = "give the server's IPv4 address or name, with a port if that is not 4484";
        ApiError::new(ErrorCode::InvalidConfig, what, hint).at("--join")
    };
    if name.parse::<std::net::Ipv6Addr>().is_ok() || name.starts_with('[') {
        return Err(invalid(format!("{name}: the network between nodes is IPv4 only for now")));
    }
    let with_port = if name.contains(':') { name.to_owned() } else { format!("{name}:{port}") };
    let found = tokio::net::lookup_host(&with_port)
        .await
        .map_err(|error| invalid(format!("{name} cannot be resolved: {error}")))?;
    let mut found = found.filter_map(|address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    });
    found.next().ok_or_else(|| invalid(format!("{name} has no IPv4 address")))
}

/// Whether the cluster's ranges are free on this machine: no address of it and no network that it is on lies in them.
///
/// # Errors
/// `RangesOverlap` for each that does, at once.
pub(crate) fn check_ranges(facts: &ClusterFacts, own_interfaces: &[&str]) -> Result<(), ApiError> {
    let ranges: [(&str, IpNet); 4] = [
        ("replicas", facts.replica_range.into()),
        ("services", facts.service_range.into()),
        ("replicas", facts.replica_ranges().1.into()),
        ("DNS", Ipv4Net::from(facts.dns.0).into()),
    ];
    let mut problems = Problems::default();
    for (interface, network) in networks(own_interfaces) {
        for (what, range) in &ranges {
            if range.contains(&network) || network.contains(range) {
                problems.add(
                    ErrorCode::RangesOverlap,
                    "",
                    format!("the network {network} at {interface} overlaps the cluster's range of {what}, {range}"),
                    "renumber that network, or make the cluster with other ranges: --replica-range, --service-range",
                );
            }
        }
    }
    problems.into_result()
}

/// The networks that this machine is on, by interface; what Hivemind itself made is left out.
fn networks(own_interfaces: &[&str]) -> Vec<(String, IpNet)> {
    let interfaces = nix::ifaddrs::getifaddrs().ok().into_iter().flatten();
    let networks = interfaces.filter_map(|interface| {
        let name = interface.interface_name;
        let is_ours = own_interfaces.contains(&name.as_str())
            || name.strip_prefix("hm").is_some_and(|rest| rest.parse::<u32>().is_ok());
        if is_ours {
            return None;
        }
        let (address, mask) = (interface.address?, interface.netmask?);
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        let v6 = address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip()));
        let mask = mask
            .as_sockaddr_in()
            .map(|m| IpAddr::from(m.ip()))
            .or_else(|| mask.as_sockaddr_in6().map(|m| IpAddr::from(m.ip())))?;
        let net = IpNet::with_netmask(v4.or(v6)?, mask).ok()?.trunc();
        // Every machine has these.
        let is_local = net.addr().is_loopback()
            || matches!(net.addr(), IpAddr::V6(address) if address.is_unicast_link_local());
        (!is_local).then_some((name, net))
    });
    networks.collect()
}
