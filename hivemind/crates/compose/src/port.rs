//! Ports of services.

use std::net::IpAddr;

use hivemind_model::ErrorCode;

use crate::{
    limits::PORTS_MAX,
    print::Out,
    reader::{At, Reader, shown},
    record::{Field, Yaml, choice},
    spot::Located,
    tree::Value,
    value::PortNumber,
};

choice! {
    /// What a port speaks.
    pub enum Protocol {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
        /// SCTP.
        Sctp = "sctp",
    }
}

choice! {
    /// Where a port is published.
    pub enum PortMode {
        /// On every machine.
        Ingress = "ingress",
        /// On those that have a container of the service.
        Host = "host",
    }
}

/// A port of the container, and where it is published. Ranges are written out, one port each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The port in the container.
    pub target: u16,
    /// On which port of the host, or on any of which; none: on any.
    pub published: Option<Published>,
    /// On which address of the host; none: on all.
    pub host_ip: Option<IpAddr>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it is published.
    pub mode: Option<PortMode>,
    /// What people call it.
    pub name: Option<String>,
    /// What is spoken above the protocol, such as http.
    pub app_protocol: Option<String>,
}

/// Ports of the host, of which one is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The first.
    pub first: u16,
    /// The last, which may be the first.
    pub last: u16,
}

/// The ports of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(pub Vec<Located<Port>>);

impl std::ops::Deref for Ports {
    type Target = [Located<Port>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// The parts of a port in the short form; those that are left out are empty.
pub(crate) struct Parts<'t> {
    pub(crate) address: &'t str,
    pub(crate) published: &'t str,
    pub(crate) target: &'t str,
    pub(crate) protocol: &'t str,
}

/// `[[address:][published]:]target[/protocol]`
pub(crate) fn split(text: &str) -> Parts<'_> {
    let (rest, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let (rest, target) = rest.rsplit_once(':').unwrap_or(("", rest));
    let (address, published) = rest.rsplit_once(':').unwrap_or(("", rest));
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
    Parts { address: bare.unwrap_or(address), published, target, protocol }
}

/// What the short form looks like.
const HINT: &str = "write [address:][host port:]container port[/protocol]: \"127.0.0.1:8080:80/tcp\"";
/// The fields of the long form.
const FIELDS: &[&str] = &["target", "published", "host_ip", "protocol", "mode", "name", "app_protocol"];

impl Field for Ports {
    fn absent() -> Self {
        Ports::default()
    }

    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Self {
        let mut ports: Vec<Located<Port>> = Vec::new();
        let mut known = std::collections::HashSet::new();
        for item in reader.list(at) {
            let read = match &item.node.value {
                Value::Scalar { .. } => short(reader, &item),
                _ => long(reader, &item),
            };
            for port in read.unwrap_or_default() {
                let same = (
                    port.host_ip,
                    port.published.map(|p| (p.first, p.last)),
                    port.target,
                    port.protocol.as_str(),
                );
                if !known.insert(same) {
                    let message = format!("port {} is published twice in the same way", port.target);
                    reader.fault(&item, ErrorCode::Repeated, message, "leave one of the two");
                    break;
                }
                ports.push(item.located(port));
            }
        }
        Ports(ports)
    }

    fn print(&self) -> Option<Out> {
        (!self.0.is_empty()).then(|| Out::List(self.0.iter().map(|port| port.print()).collect()))
    }
}

fn short(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Vec<Port>> {
    let text = reader.scalar(at, "a port")?;
    let Parts { address, published, target, protocol } = split(text);
    let (first, last) = range(reader, at, "a port of the container", target)?;
    let host = match published {
        "" => None,
        text => Some(range(reader, at, "a port of the host", text)?),
    };
    let host_ip = match address {
        "" => None,
        text => match text.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                let message = format!("{} is not an address of the host", shown(text));
                reader.fault(at, ErrorCode::Malformed, message, HINT);
                return None;
            }
        },
    };
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)];
    let lower = protocol.to_ascii_lowercase();
    let Some((_, protocol)) = protocols.into_iter().find(|(name, _)| *name == lower) else {
        let message = format!("{} is not a protocol", shown(protocol));
        reader.fault(at, ErrorCode::OutOfRange, message, "write tcp, udp or sctp");
        return None;
    };
    let count = usize::from(last - first) + 1;
    let hosts = host.map(|(from, to)| usize::from(to - from) + 1);
    if count > 1 && hosts.is_some_and(|hosts| hosts != count) {
        let message = format!("{target} is {count} ports, {published} is {}", hosts.unwrap_or_default());
        reader.fault(at, ErrorCode::OutOfRange, message, "give both ranges the same length");
        return None;
    }
    take(reader, at, count)?;
    let port = |(index, target): (u16, u16)| Port {
        target,
        published: host.map(|(from, to)| match count {
            1 => Published { first: from, last: to },
            _ => Published { first: from + index, last: from + index },
        }),
        host_ip,
        protocol,
        mode: None,
        name: None,
        app_protocol: None,
    };
    Some((0..).zip(first..=last).map(port).collect())
}

fn long(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Vec<Port>> {
    if !reader.map(at, FIELDS, &[]) {
        return None;
    }
    let target = reader.required(at, "target", "say which port of the container: target: 80")?;
    let text = reader.scalar(&target, "a port")?;
    let Some(number) = PortNumber::parse(text) else {
        let message = format!("{} is not a port", shown(text));
        reader.fault(&target, ErrorCode::OutOfRange, message, "write a number from 1 to 65535");
        return None;
    };
    let published = match at.get("published") {
        Some(published) => {
            let text = reader.scalar(&published, "a port")?;
            let (first, last) = range(reader, &published, "a port of the host", text)?;
            Some(Published { first, last })
        }
        None => None,
    };
    take(reader, at, 1)?;
    fn field<T: Yaml>(reader: &mut Reader<'_>, at: &At<'_>, key: &str) -> Option<T> {
        at.get(key).and_then(|at| T::read(reader, &at))
    }
    Some(vec![Port {
        target: number,
        published,
        host_ip: field(reader, at, "host_ip"),
        protocol: field(reader, at, "protocol").unwrap_or(Protocol::Tcp),
        mode: field(reader, at, "mode"),
        name: field(reader, at, "name"),
        app_protocol: field(reader, at, "app_protocol"),
    }])
}

fn range(reader: &mut Reader<'_>, at: &At<'_>, what: &str, text: &str) -> Option<(u16, u16)> {
    let range = PortNumber::range(text);
    if range.is_none() {
        let message = format!("{} is not {what}", shown(text));
        reader.fault(at, ErrorCode::OutOfRange, message, HINT);
    }
    range
}

/// Counts ports; none if there are too many.
fn take(reader: &mut Reader<'_>, at: &At<'_>, count: usize) -> Option<()> {
    reader.ports += count;
    if reader.ports > PORTS_MAX {
        let message = format!("more than {PORTS_MAX} ports");
        reader.fault(at, ErrorCode::OutOfRange, message, "publish fewer");
        return None;
    }
    Some(())
}

impl Port {
    fn print(&self) -> Out {
        let text = |text: &str| Out::Text(text.to_owned());
        let fields = [
            ("name", self.name.as_deref().map(text)),
            ("mode", self.mode.map(|mode| Yaml::print(&mode))),
            ("host_ip", self.host_ip.map(|address| text(&address.to_string()))),
            ("target", Some(Out::bare(self.target))),
            ("published", self.published.map(|published| text(&published.to_string()))),
            ("protocol", Some(text(self.protocol.as_str()))),
            ("app_protocol", self.app_protocol.as_deref().map(text)),
        ];
        Out::Map(fields.into_iter().filter_map(|(key, out)| Some((key.to_owned(), out?))).collect())
    }
}

impl std::fmt::Display for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// Ports that others of the project may reach, which all may anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expose {
    /// The ports.
    pub ports: Published,
    /// What they speak.
    pub protocol: Protocol,
}

impl Yaml for Expose {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        let text = reader.scalar(at, "a port")?;
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = range(reader, at, "a port of the container", ports)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => {
                let message = format!("{} is not a protocol", shown(protocol));
                reader.fault(at, ErrorCode::OutOfRange, message, "write tcp, udp or sctp");
                return None;
            }
        };
        Some(Expose { ports: Published { first, last }, protocol })
    }

    fn print(&self) -> Out {
        Out::Text(format!("{}/{}", self.ports, self.protocol.as_str()))
    }
}
