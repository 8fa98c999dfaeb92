//! A blocking rtnetlink socket that sends many requests in one system call.
//!
//! Blocking, because it is used on threads that stand in other network namespaces, where no executor runs; a socket
//! keeps the namespace in which it was opened.

pub(crate) mod request;

use crate::Error;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressMessage,
    link::{LinkAttribute, LinkMessage, State},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
pub(crate) use request::Request;
use std::{
    io,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

/// How long the kernel may take to get an interface ready; less than a millisecond is usual.
const READY_WAIT_MAX: Duration = Duration::from_secs(5);
const READY_POLL: Duration = Duration::from_micros(200);

/// A blocking rtnetlink socket.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open() -> Result<Self, Error> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            // Acknowledgements without the request in them: short, and never more than one buffer for a batch.
            socket.set_cap_ack(true)?;
            io::Result::Ok(socket)
        };
        let socket = open().map_err(Error::system("open a netlink socket"))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Does all requests in order. One that fails does not keep the later ones from being tried.
    ///
    /// # Errors
    /// The first failure that its request does not tolerate.
    pub(crate) fn run(&mut self, requests: Vec<Request>) -> Result<(), Error> {
        if requests.is_empty() {
            return Ok(());
        }
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        let mut asked = Vec::with_capacity(requests.len());
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            let flags = NLM_F_REQUEST | NLM_F_ACK | request.flags;
            serialize(&mut bytes, request.message, flags, self.sequence);
            asked.push((request.action, request.tolerates));
        }
        let failed = |source: io::Error| Error::system("talk to the kernel by netlink")(source);
        self.socket.send(&bytes, 0).map_err(failed)?;
        let mut outstanding = asked.len();
        let mut first_error = None;
        while outstanding > 0 {
            for message in self.receive().map_err(failed)? {
                let NetlinkPayload::Error(answer) = message.payload else { continue };
                let index = message.header.sequence_number.wrapping_sub(first) as usize;
                let Some((action, tolerates)) = asked.get_mut(index) else { continue };
                outstanding -= 1;
                let Some(code) = answer.code else { continue };
                if !tolerates.contains(&-code.get()) && first_error.is_none() {
                    let source = io::Error::from_raw_os_error(-code.get());
                    first_error = Some(Error::Netlink { action: std::mem::take(action), source });
                }
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// The index of an interface, or `None` if there is none of that name.
    pub(crate) fn index_of(&mut self, name: &str) -> Result<Option<u32>, Error> {
        Ok(self.link(name)?.map(|link| link.header.index))
    }

    /// Whether an interface carries packets. One that has just been given its carrier does so only when the kernel
    /// has got round to it: until then it drops what is sent, whatever its flags say. Since Linux 6.8 asking helps.
    pub(crate) fn is_operational(&mut self, name: &str) -> Result<bool, Error> {
        let link = self.link(name)?;
        Ok(link.is_some_and(|link| link.attributes.contains(&LinkAttribute::OperState(State::Up))))
    }

    /// Whether packets to an address are taken here. An IPv6 address that has just been given becomes so only when
    /// the kernel has got round to it, also without duplicate address detection.
    pub(crate) fn is_local(&mut self, address: impl Into<IpAddr>) -> Result<bool, Error> {
        Ok(self.route_to(address.into())?.is_some_and(|route| route.header.kind == RouteType::Local))
    }

    /// The route that a packet to an address takes, or `None` if there is none.
    pub(crate) fn route_to(&mut self, address: IpAddr) -> Result<Option<RouteMessage>, Error> {
        let mut route = RouteMessage::default();
        let (family, bits) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        route.header.address_family = family;
        route.header.destination_prefix_length = bits;
        route.attributes = vec![RouteAttribute::Destination(RouteAddress::from(address))];
        match self.ask(RouteNetlinkMessage::GetRoute(route)) {
            Ok(Some(RouteNetlinkMessage::NewRoute(found))) => Ok(Some(found)),
            Ok(_) => Ok(None),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EACCES) => Ok(None),
                _ => {
                    let action = format!("look up the route to {address}");
                    Err(Error::Netlink { action, source: error })
                }
            },
        }
    }

    fn link(&mut self, name: &str) -> Result<Option<LinkMessage>, Error> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.ask(RouteNetlinkMessage::GetLink(link)) {
            Ok(Some(RouteNetlinkMessage::NewLink(link))) => Ok(Some(link)),
            Ok(_) => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(source) => Err(Error::Netlink { action: format!("look up the interface {name}"), source }),
        }
    }

    /// All interfaces.
    pub(crate) fn links(&mut self) -> Result<Vec<LinkMessage>, Error> {
        let found = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), "list interfaces")?;
        Ok(found
            .into_iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            })
            .collect())
    }

    /// All addresses of both families.
    pub(crate) fn addresses(&mut self) -> Result<Vec<AddressMessage>, Error> {
        let found =
            self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), "list addresses")?;
        Ok(found
            .into_iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewAddress(address) => Some(address),
                _ => None,
            })
            .collect())
    }

    /// All routes of a family.
    pub(crate) fn routes(&mut self, family: AddressFamily) -> Result<Vec<RouteMessage>, Error> {
        let mut all = RouteMessage::default();
        all.header.address_family = family;
        let found = self.dump(RouteNetlinkMessage::GetRoute(all), "list routes")?;
        Ok(found
            .into_iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewRoute(route) => Some(route),
                _ => None,
            })
            .collect())
    }

    fn ask(&mut self, message: RouteNetlinkMessage) -> io::Result<Option<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        serialize(&mut bytes, message, NLM_F_REQUEST, self.sequence);
        self.socket.send(&bytes, 0)?;
        loop {
            for answer in self.receive()? {
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                return match answer.payload {
                    NetlinkPayload::InnerMessage(found) => Ok(Some(found)),
                    NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
                    _ => Ok(None),
                };
            }
        }
    }

    fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        action: &'static str,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        serialize(&mut bytes, message, NLM_F_REQUEST | NLM_F_DUMP, self.sequence);
        let failed = |source| Error::Netlink { action: action.to_owned(), source };
        self.socket.send(&bytes, 0).map_err(failed)?;
        let mut found = Vec::new();
        loop {
            for answer in self.receive().map_err(failed)? {
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => found.push(message),
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) => return Err(failed(error.to_io())),
                    _ => {}
                }
            }
        }
    }

    fn receive(&mut self) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        let (bytes, _) = self.socket.recv_from_full()?;
        read(&bytes)
    }
}

/// The messages of one datagram of the kernel's. What behind the last whole one is none is left out.
pub(crate) fn read(bytes: &[u8]) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    let mut messages = Vec::new();
    let mut rest = bytes;
    while rest.len() >= 16 {
        let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        if length < 16 || length > rest.len() {
            break;
        }
        messages.push(NetlinkMessage::deserialize(&rest[..length]).map_err(io::Error::other)?);
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    Ok(messages)
}

/// Waits until the kernel has finished what it does after it has acknowledged the requests.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool, Error>) -> Result<(), Error> {
    let deadline = Instant::now() + READY_WAIT_MAX;
    while !is_so()? {
        if Instant::now() > deadline {
            let source = io::Error::from_raw_os_error(libc::ETIMEDOUT);
            return Err(Error::Netlink { action: format!("wait until {what}"), source });
        }
        thread::sleep(READY_POLL);
    }
    Ok(())
}

fn serialize(bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..start + message.buffer_len()]);
}
