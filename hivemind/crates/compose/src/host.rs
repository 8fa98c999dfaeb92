//! Names in `/etc/hosts`.

use std::net::IpAddr;

use hivemind_model::ErrorCode;

use crate::{
    print::Out,
    reader::{At, Reader, shown},
    record::Field,
    spot::Located,
    tree::Value,
};

/// A name and an address of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// Its address.
    pub address: HostAddress,
}

/// What a name of `/etc/hosts` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAddress {
    /// An address.
    Ip(IpAddr),
    /// That of the machine that the container is on, written `host-gateway`.
    Gateway,
}

/// Names in `/etc/hosts`: a list of `name=address` or `name:address`, or a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtraHosts(pub Vec<Located<ExtraHost>>);

impl std::ops::Deref for ExtraHosts {
    type Target = [Located<ExtraHost>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

const GATEWAY: &str = "host-gateway";

impl Field for ExtraHosts {
    fn absent() -> Self {
        ExtraHosts::default()
    }

    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Self {
        let mut hosts = Vec::new();
        match &at.node.value {
            Value::Map(_) => {
                for (name, value) in at.pairs() {
                    let addresses = match &value.node.value {
                        Value::List(_) => reader.list(&value),
                        _ => vec![value],
                    };
                    for item in addresses {
                        let Some(text) = reader.text(&item) else { continue };
                        hosts.extend(host(reader, &item, name, &text).map(|host| item.located(host)));
                    }
                }
            }
            _ => {
                for item in reader.list(at) {
                    let Some(text) = reader.text(&item) else { continue };
                    let Some((name, address)) = text.split_once('=').or_else(|| text.split_once(':')) else {
                        let message = format!("{} is not a name and an address", shown(&text));
                        reader.fault(&item, ErrorCode::Malformed, message, HINT);
                        continue;
                    };
                    hosts.extend(host(reader, &item, name, address).map(|host| item.located(host)));
                }
            }
        }
        ExtraHosts(hosts)
    }

    fn print(&self) -> Option<Out> {
        let host = |host: &Located<ExtraHost>| {
            let address = match host.address {
                HostAddress::Ip(address) => address.to_string(),
                HostAddress::Gateway => GATEWAY.to_owned(),
            };
            Out::Text(format!("{}={address}", host.name))
        };
        (!self.0.is_empty()).then(|| Out::List(self.0.iter().map(host).collect()))
    }
}

const HINT: &str = "write name=address, for example db=10.0.0.2 or db=host-gateway";

fn host(reader: &mut Reader<'_>, at: &At<'_>, name: &str, address: &str) -> Option<ExtraHost> {
    let name = name.trim();
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || matches!(c, '=' | ':' | '#' | '\0')) {
        let message = format!("{} is not a host name", shown(name));
        reader.fault(at, ErrorCode::InvalidName, message, HINT);
        return None;
    }
    let bare = address.trim();
    let bare = bare.strip_prefix('[').and_then(|bare| bare.strip_suffix(']')).unwrap_or(bare);
    let address = match bare {
        GATEWAY => HostAddress::Gateway,
        _ => match bare.parse() {
            Ok(address) => HostAddress::Ip(address),
            Err(_) => {
                let message = format!("{} is not an address", shown(bare));
                reader.fault(at, ErrorCode::Malformed, message, HINT);
                return None;
            }
        },
    };
    Some(ExtraHost { name: name.to_owned(), address })
}
