//! Upstreams from `resolv.conf(5)`.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;

use crate::limits::UPSTREAMS_MAX;

/// The port of every server in a `resolv.conf`.
const DNS_PORT: u16 = 53;

/// Reads the `nameserver` lines of the file at `path`; see [`parse_resolv_conf`]. Blocks on the file.
///
/// # Errors
/// The file cannot be read, or is not UTF-8.
pub fn upstreams_from_resolv_conf(path: impl AsRef<Path>, own: &[IpAddr]) -> io::Result<Vec<SocketAddr>> {
    let text = std::fs::read_to_string(path)?;
    Ok(parse_resolv_conf(&text, own, interface_index))
}

/// The first [`UPSTREAMS_MAX`] servers that `text` names, in its order, without doubles.
///
/// Leaves out `own`, the addresses at which we answer, so that we never forward to ourselves, and the wildcard
/// addresses, which could be ours. A line that does not name an address is skipped, as the C library does.
/// `interface_index` gives the index of a network interface, for link-local addresses with a zone
/// (`fe80::1%eth0`); such an address is skipped where it gives none.
pub fn parse_resolv_conf(
    text: &str,
    own: &[IpAddr],
    interface_index: impl Fn(&str) -> Option<u32>,
) -> Vec<SocketAddr> {
    let mut seen = HashSet::new();
    text.lines()
        .filter_map(nameserver)
        .filter_map(|server| parse_server(server, &interface_index))
        .filter(|server| !server.ip().is_unspecified() && !own.contains(&server.ip()))
        .filter(|server| seen.insert(*server))
        .take(UPSTREAMS_MAX)
        .collect()
}

/// The argument of a `nameserver` line; the keyword must be at the line's start. Comment lines have another
/// first word, and what follows the address is ignored.
fn nameserver(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("nameserver")?;
    rest.starts_with([' ', '\t']).then(|| rest.split_whitespace().next())?
}

fn parse_server(text: &str, interface_index: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    let Some((address, zone)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse().ok()?, DNS_PORT));
    };
    let address: Ipv6Addr = address.parse().ok()?;
    let scope = zone.parse().ok().or_else(|| interface_index(zone))?;
    Some(SocketAddrV6::new(address, DNS_PORT, 0, scope).into())
}

fn interface_index(name: &str) -> Option<u32> {
    if name.contains('/') || name == ".." {
        return None;
    }
    std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str, own: &[&str]) -> Vec<String> {
        let own: Vec<IpAddr> = own.iter().map(|address| address.parse().unwrap()).collect();
        let index = |name: &str| (name == "eth0").then_some(7);
        parse_resolv_conf(text, &own, index).iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn servers_are_taken_in_order_and_other_lines_are_not() {
        let text = "# nameserver 9.9.9.9\n; nameserver 9.9.9.8\nsearch lan nameserver\noptions ndots:2\n\
                    nameserver 10.0.0.1 # first\n nameserver 9.9.9.7\nnameserver\t2001:db8::1\nnameserver\n\
                    nameservers 9.9.9.6\nnameserver9.9.9.5\nnameserver not-an-address\nnameserver 1.2.3\n";
        assert_eq!(parse(text, &[]), ["10.0.0.1:53", "[2001:db8::1]:53"]);
    }

    #[test]
    fn our_own_addresses_wildcards_and_doubles_are_left_out() {
        let text = "nameserver 169.254.20.10\nnameserver 0.0.0.0\nnameserver ::\nnameserver 10.0.0.1\n\
                    nameserver fd00:20::10\nnameserver 10.0.0.1\nnameserver 10.0.0.2\n";
        assert_eq!(parse(text, &["169.254.20.10", "fd00:20::10"]), ["10.0.0.1:53", "10.0.0.2:53"]);
    }

    #[test]
    fn only_the_first_three_are_used_after_ours_are_left_out() {
        let text: String = (1..=6).map(|n| format!("nameserver 10.0.0.{n}\n")).collect();
        assert_eq!(parse(&text, &["10.0.0.1"]), ["10.0.0.2:53", "10.0.0.3:53", "10.0.0.4:53"]);
    }

    #[test]
    fn a_zone_is_an_interface_or_its_number() {
        let text = "nameserver fe80::1%eth0\nnameserver fe80::2%3\nnameserver fe80::3%gone\n";
        assert_eq!(parse(text, &[]), ["[fe80::1%7]:53", "[fe80::2%3]:53"]);
    }

    #[test]
    fn the_loopback_interface_has_an_index_and_a_path_has_none() {
        assert_eq!(interface_index("lo"), Some(1));
        assert_eq!(interface_index("../net/lo"), None);
    }

    #[test]
    fn a_missing_file_is_an_error() {
        assert!(upstreams_from_resolv_conf("/nonexistent/resolv.conf", &[]).is_err());
    }

    proptest! {
        #[test]
        fn any_text_gives_at_most_three_servers(text in "(nameserver [0-9a-f:.%]{0,20}\n|\\PC{0,20}\n){0,12}") {
            prop_assert!(parse(&text, &[]).len() <= UPSTREAMS_MAX);
        }
    }
}
