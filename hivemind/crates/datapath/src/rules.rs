//! The nftables table: masquerading of what leaves, and published ports for what comes from outside.
//!
//! All rules are replaced in one transaction, so packets see the old rules or the new ones. Connections that the
//! kernel already translates go on as they are.

use crate::{
    Config, Error,
    service::{BackendSpec, PublishedPort},
};
use nix::unistd::{AccessFlags, access};
use std::{
    env,
    fmt::Write as _,
    io::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr},
    process::{Command, Stdio},
};

/// The pattern of the host ends of replicas' interfaces.
const REPLICA_INTERFACES: &str = "\"hm*\"";
/// The chains, each with its type, hook and priority.
const CHAINS: [(&str, &str); 3] = [
    ("published", "nat hook prerouting priority dstnat"),
    ("leaving", "nat hook postrouting priority srcnat"),
    ("forwarded", "filter hook forward priority filter"),
];
/// No rule spreads over more slots than this.
const SLOTS_MAX: usize = 256;

/// A published port and the backends behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Publication {
    pub(crate) port: PublishedPort,
    pub(crate) backends: Vec<BackendSpec>,
}

/// The overlay's interface, and the addresses that this node's own packets have there, if they are known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Passing {
    pub(crate) interface: String,
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) ipv6: Option<Ipv6Addr>,
}

/// Replaces the rules by those for these publications. Blocks for some milliseconds.
pub(crate) fn apply(
    config: &Config,
    publications: &[Publication],
    overlay: Option<&Passing>,
) -> Result<(), Error> {
    run(config, &render(config, publications, overlay))
}

/// Removes the table, if it is there.
pub(crate) fn remove(config: &Config) -> Result<(), Error> {
    let table = &config.name;
    // Added first, so that the removal finds one.
    run(config, &format!("table inet {table}\ndelete table inet {table}\n"))
}

fn run(config: &Config, rules: &str) -> Result<(), Error> {
    let missing = |source| Error::NftMissing { source };
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    let written = nft.stdin.take().map_or(Ok(()), |mut input| input.write_all(rules.as_bytes()));
    let output = nft.wait_with_output().map_err(missing)?;
    match (output.status.success(), written) {
        (true, Ok(())) => Ok(()),
        (true, Err(error)) => Err(refused(config, error.to_string())),
        (false, _) => Err(refused(config, String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

fn refused(config: &Config, message: String) -> Error {
    Error::NftRefused { table: config.name.clone(), message }
}

/// The transaction that makes the table be as it should, whatever was there.
fn render(config: &Config, publications: &[Publication], overlay: Option<&Passing>) -> String {
    let mut rules = String::new();
    // Writing into a String cannot fail.
    let _ = write_table(&mut rules, config, publications, overlay);
    rules
}

fn write_table(
    rules: &mut String,
    config: &Config,
    publications: &[Publication],
    overlay: Option<&Passing>,
) -> std::fmt::Result {
    let table = &config.name;
    let (replicas4, replicas6) = (config.replica_range.0.trunc(), config.replica_range.1.trunc());
    let (cluster4, cluster6) = (config.cluster_range.0.trunc(), config.cluster_range.1.trunc());
    let (services4, services6) = (config.service_range.0.trunc(), config.service_range.1.trunc());
    // Chains are emptied and filled, never replaced: a packet that runs through the hooks while the transaction is committed
    // would meet the new chain before its rules count and the old one after they ceased to.
    writeln!(rules, "table inet {table} {{")?;
    for (chain, hook) in CHAINS {
        writeln!(rules, "chain {chain} {{\ntype {hook}; policy accept;\n}}")?;
    }
    writeln!(rules, "}}")?;
    for (chain, _) in CHAINS {
        writeln!(rules, "flush chain inet {table} {chain}")?;
    }
    writeln!(rules, "table inet {table} {{\nchain published {{")?;
    for publication in publications {
        write_publication(rules, publication)?;
    }
    writeln!(rules, "}}\nchain leaving {{")?;
    // A replica that reached another by a published port must get its answers by the host, which translates them.
    writeln!(rules, "ct status dnat ip saddr {replicas4} oifname {REPLICA_INTERFACES} masquerade")?;
    writeln!(rules, "ct status dnat ip6 saddr {replicas6} oifname {REPLICA_INTERFACES} masquerade")?;
    writeln!(rules, "oifname {REPLICA_INTERFACES} accept")?;
    if let Some(Passing { interface, ipv4, ipv6 }) = overlay {
        // The same by another node. All else keeps its address: that node sends the answers back here.
        let by = format!("oifname \"{interface}\"");
        writeln!(rules, "ct status dnat ip saddr {replicas4} {by} snat ip to {ipv4}")?;
        match ipv6 {
            Some(ipv6) => writeln!(rules, "ct status dnat ip6 saddr {replicas6} {by} snat ip6 to {ipv6}")?,
            None => writeln!(rules, "ct status dnat ip6 saddr {replicas6} {by} masquerade")?,
        }
        writeln!(rules, "{by} accept")?;
    }
    writeln!(rules, "ip saddr {replicas4} ip daddr != {{ {cluster4}, {services4} }} masquerade")?;
    writeln!(rules, "ip6 saddr {replicas6} ip6 daddr != {{ {cluster6}, {services6} }} masquerade")?;
    writeln!(rules, "}}\nchain forwarded {{")?;
    writeln!(rules, "iifname {REPLICA_INTERFACES} accept\noifname {REPLICA_INTERFACES} accept")?;
    if let Some(Passing { interface, .. }) = overlay {
        writeln!(rules, "iifname \"{interface}\" accept\noifname \"{interface}\" accept")?;
    }
    writeln!(rules, "}}\n}}")
}

fn write_publication(rules: &mut String, publication: &Publication) -> std::fmt::Result {
    let PublishedPort { host_port, protocol, target_port } = publication.port;
    let slots = slots(&publication.backends);
    if slots.is_empty() {
        return Ok(());
    }
    for (family, ip) in [("ipv4", "ip"), ("ipv6", "ip6")] {
        write!(
            rules,
            "meta nfproto {family} fib daddr type local {protocol} dport {host_port} dnat {ip} to jhash {ip} saddr . \
             {protocol} sport mod {} map {{ ",
            slots.len()
        )?;
        for (slot, backend) in slots.iter().enumerate() {
            let separator = if slot == 0 { "" } else { ", " };
            match ip {
                "ip" => write!(rules, "{separator}{slot} : {} . {target_port}", backend.ipv4)?,
                _ => write!(rules, "{separator}{slot} : {} . {target_port}", backend.ipv6)?,
            }
        }
        writeln!(rules, " }}")?;
    }
    Ok(())
}

/// The backends repeated by weight, in as few slots as their weights allow.
fn slots(backends: &[BackendSpec]) -> Vec<BackendSpec> {
    let divisor =
        backends.iter().fold(0, |divisor, backend| greatest_common_divisor(divisor, backend.weight));
    if divisor == 0 {
        return Vec::new();
    }
    let sum: usize = backends.iter().map(|backend| usize::from(backend.weight / divisor)).sum();
    let slots_of = |backend: &BackendSpec| match usize::from(backend.weight / divisor) {
        0 => 0,
        weight if sum <= SLOTS_MAX => weight,
        weight => (weight * SLOTS_MAX / sum).max(1),
    };
    backends.iter().flat_map(|backend| std::iter::repeat_n(*backend, slots_of(backend))).collect()
}

fn greatest_common_divisor(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// Whether there is an nft to be run; used before anything is changed. It is not run: the
/// daemon's start would wait for it.
pub(crate) fn check() -> Result<(), Error> {
    // Without a PATH, programs are looked for in these (execvp(3)).
    let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let found =
        env::split_paths(&path).any(|directory| access(&directory.join("nft"), AccessFlags::X_OK).is_ok());
    if found { Ok(()) } else { Err(Error::NftMissing { source: io::ErrorKind::NotFound.into() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(last: u8, weight: u16) -> BackendSpec {
        BackendSpec {
            ipv4: [10, 0, 0, last].into(),
            ipv6: [0xfd00, 0, 0, 0, 0, 0, 0, last.into()].into(),
            weight,
        }
    }

    #[test]
    fn slots_repeat_backends_by_weight_and_leave_out_those_without() {
        let slots = slots(&[backend(1, 10), backend(2, 30), backend(3, 0)]);
        let of = |last| slots.iter().filter(|slot| slot.ipv4.octets()[3] == last).count();
        assert_eq!((of(1), of(2), of(3)), (1, 3, 0));
    }

    #[test]
    fn slots_stay_few_whatever_the_weights() {
        let slots = slots(&[backend(1, 1), backend(2, 65_535)]);
        assert!(slots.len() <= SLOTS_MAX + 2);
        assert!(slots.iter().any(|slot| slot.ipv4.octets()[3] == 1));
    }
}
