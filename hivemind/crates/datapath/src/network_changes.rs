//! News of the node's own network: interfaces, addresses and routes, as the kernel tells them (rtnetlink(7)).

use crate::{Error, host::INTERFACES, netlink};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressMessage, AddressScope},
    link::{LinkAttribute, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Groups of news of `<linux/rtnetlink.h>`: RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE.
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];

/// How long what follows on a piece of news is taken for the same: whoever sets up an interface does it in steps.
const TOGETHER: Duration = Duration::from_millis(50);

/// Tells that something changed by which the node is reached or reaches others.
#[derive(Debug)]
pub struct NetworkChanges {
    listener: AsyncFd<Listener>,
}

#[derive(Debug)]
struct Listener(Socket);

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl NetworkChanges {
    /// Listens in the network namespace of the calling thread. Within a Tokio runtime.
    pub(crate) fn listen() -> Result<Self, Error> {
        let listen = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.set_non_blocking(true)?;
            GROUPS.into_iter().try_for_each(|group| socket.add_membership(group))?;
            // SAFETY: the listener owns the socket and with it one descriptor, which stays open and the same for as long as
            // it lives.
            let listener = unsafe { AsyncFd::register_with_interest(Listener(socket), Interest::READABLE) }?;
            io::Result::Ok(Self { listener })
        };
        listen().map_err(Error::system("listen for changes of the network"))
    }

    /// Waits for a change: of an interface, an address or a route that is not an endpoint's. What follows within some
    /// milliseconds is one change. May be dropped while it waits.
    ///
    /// # Errors
    /// What the kernel refused; there will be no more news.
    pub async fn next(&mut self) -> Result<(), Error> {
        while !self.news().await? {}
        // However much follows, it is told then.
        tokio::time::sleep(TOGETHER).await;
        self.listener.get_ref().drain().map_err(Error::system("read changes of the network"))?;
        Ok(())
    }

    /// Waits until something was told. Whether any of it is news.
    async fn news(&mut self) -> Result<bool, Error> {
        let failed = || Error::system("wait for changes of the network");
        let mut ready = self.listener.readable().await.map_err(failed())?;
        let found = ready.get_inner().drain().map_err(failed())?;
        ready.clear_ready();
        Ok(found)
    }
}

impl Listener {
    /// Reads all that was told. Whether any of it is news.
    fn drain(&self) -> io::Result<bool> {
        let mut found = false;
        loop {
            match self.0.recv_from_full() {
                Ok((bytes, _)) => {
                    let messages = netlink::read(&bytes)?;
                    found |= messages.iter().any(is_news);
                }
                // Some was lost: that is news too.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => found = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(found),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether it is about something else than an endpoint, of which we know.
fn is_news(message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
    let NetlinkPayload::InnerMessage(message) = &message.payload else { return false };
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => !is_endpoints(link),
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            is_for_others(address)
        }
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => leads_to_many(route),
        _ => false,
    }
}

fn is_endpoints(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::IfName(name) => {
            name.strip_prefix(INTERFACES).is_some_and(|rest| rest.parse::<u32>().is_ok())
        }
        _ => false,
    })
}

/// An interface of an endpoint has none but its own link-local one.
fn is_for_others(address: &AddressMessage) -> bool {
    address.header.scope == AddressScope::Universe
}

/// Of an endpoint the routes are to one address each, and those that the kernel makes for every interface.
fn leads_to_many(route: &RouteMessage) -> bool {
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => Some(address),
        _ => None,
    });
    let length = route.header.destination_prefix_length;
    let is_narrow = match destination {
        Some(RouteAddress::Inet(_)) => length == 32,
        Some(RouteAddress::Inet6(address)) => length == 128 || address.is_unicast_link_local(),
        _ => false,
    };
    route.header.kind == RouteType::Unicast && !is_narrow
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str) -> RouteNetlinkMessage {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        RouteNetlinkMessage::NewLink(link)
    }

    fn address(scope: AddressScope) -> RouteNetlinkMessage {
        let mut address = AddressMessage::default();
        address.header.scope = scope;
        RouteNetlinkMessage::NewAddress(address)
    }

    fn route(to: Option<(&str, u8)>) -> RouteNetlinkMessage {
        let mut route = RouteMessage::default();
        route.header.kind = RouteType::Unicast;
        if let Some((address, length)) = to {
            let address: std::net::IpAddr = address.parse().unwrap();
            route.attributes.push(RouteAttribute::Destination(RouteAddress::from(address)));
            route.header.destination_prefix_length = length;
        }
        RouteNetlinkMessage::DelRoute(route)
    }

    fn news(message: RouteNetlinkMessage) -> bool {
        is_news(&NetlinkMessage::from(message))
    }

    #[test]
    fn endpoints_are_no_news_and_everything_else_is() {
        assert!(news(link("eth0")) && news(link("hmm")) && !news(link("hm12")));
        assert!(news(address(AddressScope::Universe)) && !news(address(AddressScope::Link)));
        assert!(news(route(None)), "the default route");
        assert!(news(route(Some(("192.0.2.0", 24)))) && news(route(Some(("2001:db8::", 64)))));
        assert!(!news(route(Some(("10.200.1.7", 32)))) && !news(route(Some(("fd00::7", 128)))));
        assert!(!news(route(Some(("fe80::", 64)))));
    }
}
