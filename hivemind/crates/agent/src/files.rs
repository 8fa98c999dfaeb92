//! The files that a replica's containers find in `/etc`.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

/// What `resolv.conf` and `hosts` say.
#[derive(Clone, Debug)]
pub(crate) struct NameFiles<'a> {
    pub(crate) hostname: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) domain: &'a str,
    pub(crate) dns: (Ipv4Addr, Ipv6Addr),
    pub(crate) addresses: (Ipv4Addr, Ipv6Addr),
}

impl NameFiles<'_> {
    /// One name server, by IPv4: resolvers that ask all servers at once would ask ours twice.
    fn resolv_conf(&self) -> String {
        let NameFiles { namespace, domain, dns, .. } = self;
        format!(
            "nameserver {}\nsearch {namespace}.svc.{domain} svc.{domain} {domain}\noptions ndots:2\n",
            dns.0
        )
    }

    fn hosts(&self) -> String {
        let NameFiles { hostname, addresses, .. } = self;
        format!(
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{}\t{hostname}\n{}\t{hostname}\n",
            addresses.0, addresses.1
        )
    }

    /// Writes both files below `directory`, which is made. Blocking.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<(PathBuf, PathBuf)> {
        std::fs::create_dir_all(directory)?;
        let resolv_conf = directory.join("resolv.conf");
        let hosts = directory.join("hosts");
        std::fs::write(&resolv_conf, self.resolv_conf())?;
        std::fs::write(&hosts, self.hosts())?;
        Ok((resolv_conf, hosts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_asks_our_server_and_searches_its_namespace_first() {
        let files = NameFiles {
            hostname: "web-k3f9q",
            namespace: "shop",
            domain: "hivemind.internal",
            dns: (Ipv4Addr::new(169, 254, 20, 10), "fd00:20::10".parse().unwrap()),
            addresses: (Ipv4Addr::new(10, 200, 0, 1), "fd00::1".parse().unwrap()),
        };
        assert_eq!(
            files.resolv_conf(),
            "nameserver 169.254.20.10\nsearch shop.svc.hivemind.internal svc.hivemind.internal hivemind.internal\noptions ndots:2\n"
        );
        assert!(files.hosts().contains("10.200.0.1\tweb-k3f9q\n"));
    }
}
