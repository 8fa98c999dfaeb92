//! The files that a replica's containers find in `/etc`.

use std::{
    fmt::Write as _,
    io,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use hivemind_model::HostAlias;

/// What `resolv.conf` and `hosts` say.
#[derive(Clone, Debug)]
pub(crate) struct NameFiles<'a> {
    /// The replica's own name.
    pub(crate) name: &'a str,
    /// The name that it has within, if that is another one.
    pub(crate) hostname: Option<&'a str>,
    /// Further names.
    pub(crate) aliases: &'a [HostAlias],
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
        let NameFiles { name, hostname, aliases, addresses, .. } = self;
        // The first name is the one that an address is told by.
        let own = hostname.map_or_else(|| (*name).to_owned(), |hostname| format!("{hostname} {name}"));
        let mut hosts = format!(
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{}\t{own}\n{}\t{own}\n",
            addresses.0, addresses.1
        );
        for HostAlias { ip, hostnames } in aliases.iter().filter(|alias| !alias.hostnames.is_empty()) {
            let _ = writeln!(hosts, "{ip}\t{}", hostnames.join(" "));
        }
        hosts
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
        let aliases = [
            HostAlias { ip: "192.0.2.7".parse().unwrap(), hostnames: vec!["old-db".into(), "db".into()] },
            HostAlias { ip: "192.0.2.8".parse().unwrap(), hostnames: Vec::new() },
        ];
        let mut files = NameFiles {
            name: "web-k3f9q",
            hostname: None,
            aliases: &aliases,
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
        assert!(files.hosts().ends_with("192.0.2.7\told-db db\n"), "{}", files.hosts());
        files.hostname = Some("web");
        assert!(files.hosts().contains("10.200.0.1\tweb web-k3f9q\n"));
    }
}
