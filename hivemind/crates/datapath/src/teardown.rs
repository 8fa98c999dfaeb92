//! Removing everything that the data path made on this node.

use crate::{Config, Error, bpffs, host, netlink::Netlink, netlink::request, netns, requirements};
use netlink_packet_route::link::LinkAttribute;
use std::{fs, io};

/// Removes everything, whether or not a daemon made it whole. Blocks for some milliseconds an endpoint.
pub(crate) fn teardown(config: &Config) -> Result<(), Error> {
    requirements::check_config(config)?;
    // The links go first: from then on no program runs, and nothing is half there for one.
    bpffs::remove(&config.bpffs)?;
    let mut netlink = Netlink::open()?;
    remove_interfaces(config, &mut netlink)?;
    host::remove(config, &mut netlink)?;
    remove_namespaces(config)
}

fn remove_interfaces(config: &Config, netlink: &mut Netlink) -> Result<(), Error> {
    let is_ours = |attribute: &LinkAttribute| match attribute {
        LinkAttribute::IfAlias(alias) => {
            alias.strip_prefix(&config.name).is_some_and(|rest| rest.starts_with(':'))
        }
        _ => false,
    };
    let links = netlink.links()?;
    let ours = links.iter().filter(|link| link.attributes.iter().any(is_ours));
    // The other end of a pair may have gone with it.
    let requests = ours.map(|link| request::delete_link(link.header.index).tolerating(&[libc::ENODEV]));
    netlink.run(requests.collect())
}

fn remove_namespaces(config: &Config) -> Result<(), Error> {
    let directory = &config.netns_dir;
    let failed = || Error::system(format!("remove {}", directory.display()));
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed())?,
    };
    for entry in entries {
        netns::remove(&entry.map_err(failed())?.path())?;
    }
    fs::remove_dir(directory).map_err(failed())
}
