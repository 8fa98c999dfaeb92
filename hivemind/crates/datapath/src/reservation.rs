//! Published ports are reserved by sockets that are bound and never used: nobody else on the node can take the port,
//! and who has it already is found out before anything changes.

use crate::{Error, service::Protocol};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, bind, setsockopt, socket,
        sockopt::Ipv6V6Only,
    },
};
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, OwnedFd},
};

/// One port held in both families, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    _sockets: [OwnedFd; 2],
}

impl Reservation {
    /// Takes a port in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::PortTaken`] if anybody has it, in either family, at any address.
    pub(crate) fn take(port: u16, protocol: Protocol) -> Result<Self, Error> {
        let v4 = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port));
        let v6 = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0));
        let failed = |errno| match errno {
            Errno::EADDRINUSE => Error::PortTaken { port, protocol },
            other => Error::system(format!("reserve the port {port}/{protocol}"))(other.into()),
        };
        let sockets = [
            bound(AddressFamily::Inet, protocol, &v4).map_err(failed)?,
            bound(AddressFamily::Inet6, protocol, &v6).map_err(failed)?,
        ];
        Ok(Self { _sockets: sockets })
    }
}

fn bound(family: AddressFamily, protocol: Protocol, address: &dyn SockaddrLike) -> Result<OwnedFd, Errno> {
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if family == AddressFamily::Inet6 {
        setsockopt(&socket, Ipv6V6Only, &true)?;
    }
    bind(socket.as_raw_fd(), address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn a_port_that_somebody_listens_on_is_taken_and_free_again_afterwards() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let refused = Reservation::take(port, Protocol::Tcp).unwrap_err();
        assert!(
            matches!(refused, Error::PortTaken { port: taken, protocol: Protocol::Tcp } if taken == port)
        );
        drop(listener);
        let held = Reservation::take(port, Protocol::Tcp).unwrap();
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err());
        drop(held);
        TcpListener::bind(("127.0.0.1", port)).unwrap();
    }

    #[test]
    fn a_udp_port_is_held_in_both_families() {
        let free = UdpSocket::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let _held = Reservation::take(free, Protocol::Udp).unwrap();
        assert!(UdpSocket::bind(("::1", free)).is_err());
    }
}
