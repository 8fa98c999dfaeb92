//! Networks and volumes of the project, and how services are in networks.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    grant::External,
    print::Out,
    reader::{At, Reader},
    record::{Record, Yaml, only_as_map, record},
    spot::Located,
    value::{KeyValues, Scalar, Within},
};

record! {
    /// A network of the project.
    pub struct Network {
        /// What it is called outside of the project.
        name: Option<Located<String>>,
        /// Who makes it.
        driver: Option<Located<String>>,
        /// What only the driver knows.
        driver_opts: BTreeMap<String, Located<Scalar>>,
        /// Which addresses it has.
        ipam: Option<Located<Ipam>>,
        /// Whether it is there already.
        external: Option<Located<External>>,
        /// Whether nothing leaves it.
        internal: Option<Located<bool>>,
        /// Whether it has IPv4 addresses.
        enable_ipv4: Option<Located<bool>>,
        /// Whether it has IPv6 addresses.
        enable_ipv6: Option<Located<bool>>,
        /// Whether others than the project may be in it.
        attachable: Option<Located<bool>>,
        /// Its labels.
        labels: KeyValues,
    }
}

record! {
    /// Which addresses a network has.
    pub struct Ipam {
        /// Who gives them out.
        driver: Option<Located<String>>,
        /// The blocks that they are of.
        config: Vec<Located<IpamBlock>>,
        /// What only the driver knows.
        options: BTreeMap<String, Located<Scalar>>,
    }
}

record! {
    /// A block of addresses.
    pub struct IpamBlock {
        /// The block.
        subnet: Option<Located<String>>,
        /// The part of it that containers get.
        ip_range: Option<Located<String>>,
        /// The address of the way out.
        gateway: Option<Located<IpAddr>>,
        /// Addresses that are taken, by name.
        aux_addresses: BTreeMap<String, Located<IpAddr>>,
    }
}

record! {
    /// A volume of the project.
    pub struct Volume {
        /// What it is called outside of the project.
        name: Option<Located<String>>,
        /// Who makes it.
        driver: Option<Located<String>>,
        /// What only the driver knows.
        driver_opts: BTreeMap<String, Located<Scalar>>,
        /// Whether it is there already.
        external: Option<Located<External>>,
        /// Its labels.
        labels: KeyValues,
    }
}

record! {
    /// How a service is in a network.
    pub struct Attachment {
        /// Its other names there.
        aliases: Vec<Located<String>>,
        /// The interface's name.
        interface_name: Option<Located<String>>,
        /// Its IPv4 address.
        ipv4_address: Option<Located<IpAddr>>,
        /// Its IPv6 address.
        ipv6_address: Option<Located<IpAddr>>,
        /// Its addresses on the link.
        link_local_ips: Vec<Located<IpAddr>>,
        /// The interface's hardware address.
        mac_address: Option<Located<String>>,
        /// What only the driver knows.
        driver_opts: BTreeMap<String, Located<Scalar>>,
        /// Networks of a higher one come first.
        priority: Option<Located<Within<{ i64::MIN }, { i64::MAX }>>>,
        /// The one with the highest has the way out.
        gw_priority: Option<Located<Within<{ i64::MIN }, { i64::MAX }>>>,
    }
}

only_as_map!(Ipam, IpamBlock);

/// `impl Yaml` for records of which nothing may be said.
macro_rules! map_or_nothing {
    ($($name:ty),+) => {$(
        impl Yaml for $name {
            fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
                match at.node.is_null() {
                    true => Some(<$name>::default()),
                    false => <$name>::read_record(reader, at),
                }
            }

            fn print(&self) -> Out {
                Out::Map(self.print_fields())
            }
        }
    )+};
}
map_or_nothing!(Network, Volume, Attachment);
