//! Taking an address for both protocols.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::socket::{setsockopt, sockopt::RxqOvfl};
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, UdpSocket};

use crate::records::NameError;

/// How many free UDP ports are tried until one is free for TCP as well.
const PORT_TRIES_MAX: usize = 16;

/// How many TCP connections wait in the kernel to be accepted.
const BACKLOG: u32 = 1024;

/// A transport protocol that the server answers on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Datagrams.
    Udp,
    /// Connections.
    Tcp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        })
    }
}

/// Why a server did not start. No socket is left open and no task runs; correct the cause and start again.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration names no address. Name one.
    #[error("no address to answer DNS on is configured")]
    NoAddress,
    /// The cluster domain is not a domain name. Correct it.
    #[error("the cluster domain is not usable")]
    Domain(#[source] NameError),
    /// Another program has the port. Stop it (`ss -lnp` tells which), or choose another port or address.
    #[error("{address} is in use for {protocol} by another program")]
    AddressInUse {
        /// The address that was to be taken.
        address: SocketAddr,
        /// For which protocol.
        protocol: Protocol,
    },
    /// No interface of this host, in this network namespace, has the address. Add it to one, or name another.
    #[error("no interface has the address {address}")]
    AddressMissing {
        /// The address that was to be taken.
        address: SocketAddr,
    },
    /// A port below 1024 needs the capability `CAP_NET_BIND_SERVICE`. Run with it, or choose a higher port.
    #[error("not permitted to use {address} for {protocol}")]
    NotPermitted {
        /// The address that was to be taken.
        address: SocketAddr,
        /// For which protocol.
        protocol: Protocol,
    },
    /// The kernel refused for another reason.
    #[error("cannot use {address} for {protocol}")]
    Socket {
        /// The address that was to be taken.
        address: SocketAddr,
        /// For which protocol.
        protocol: Protocol,
        /// What the kernel said.
        source: io::Error,
    },
}

impl StartError {
    fn new(address: SocketAddr, protocol: Protocol, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::AddressInUse { address, protocol },
            io::ErrorKind::AddrNotAvailable => Self::AddressMissing { address },
            io::ErrorKind::PermissionDenied => Self::NotPermitted { address, protocol },
            _ => Self::Socket { address, protocol, source },
        }
    }
}

/// The two sockets at an address, bound and ready to be served.
///
/// Whoever holds duplicates of both outlives the server: what arrives meanwhile waits in the kernel, in the datagrams' buffer
/// and in the listener's queue, and is answered by the next server that [adopts](Self::adopt) them.
#[derive(Debug)]
pub struct Sockets {
    pub(super) address: SocketAddr,
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
    /// Another server has used the first of them, and counted what the kernel dropped.
    pub(super) is_adopted: bool,
}

impl Sockets {
    /// Takes `address` for both protocols. For port 0, tries ports that are free for UDP until one is for TCP too.
    ///
    /// # Errors
    /// [`StartError`]; no socket is left open.
    pub async fn bind(address: SocketAddr) -> Result<Self, StartError> {
        let mut tries_left = PORT_TRIES_MAX;
        loop {
            tries_left -= 1;
            let udp = bind_udp(address).await?;
            let taken = udp.local_addr().map_err(|source| StartError::new(address, Protocol::Udp, source))?;
            match listen(taken) {
                Ok(tcp) => return Ok(Self { address: taken, udp, tcp, is_adopted: false }),
                Err(error)
                    if address.port() == 0 && tries_left > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(StartError::new(taken, Protocol::Tcp, error)),
            }
        }
    }

    /// Takes over sockets that an earlier server had at `address`, and takes it for the protocol of a missing one. That
    /// they are bound there, and that the second listens, is the caller's to know.
    ///
    /// # Errors
    /// [`StartError`]; no socket is left open by this process.
    pub async fn adopt(
        address: SocketAddr,
        udp: Option<std::net::UdpSocket>,
        tcp: Option<std::net::TcpListener>,
    ) -> Result<Self, StartError> {
        let is_adopted = udp.is_some();
        let udp = match udp {
            Some(udp) => udp
                .set_nonblocking(true)
                .and_then(|()| UdpSocket::from_std(udp))
                .map_err(|source| StartError::new(address, Protocol::Udp, source))?,
            None => bind_udp(address).await?,
        };
        let tcp = match tcp {
            Some(tcp) => tcp.set_nonblocking(true).and_then(|()| TcpListener::from_std(tcp)),
            None => listen(address),
        };
        let tcp = tcp.map_err(|source| StartError::new(address, Protocol::Tcp, source))?;
        Ok(Self { address, udp, tcp, is_adopted })
    }

    /// The address, with the port that was taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket of datagrams.
    #[must_use]
    pub fn udp(&self) -> BorrowedFd<'_> {
        self.udp.as_fd()
    }

    /// The listener for connections.
    #[must_use]
    pub fn tcp(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

async fn bind_udp(address: SocketAddr) -> Result<UdpSocket, StartError> {
    let udp_error = |source| StartError::new(address, Protocol::Udp, source);
    let udp = UdpSocket::bind(address).await.map_err(udp_error)?;
    // So that what the kernel drops is known.
    setsockopt(&udp, RxqOvfl, &1).map_err(|errno| udp_error(errno.into()))?;
    Ok(udp)
}

/// Listens without delay at the end of answers: each is written at once and whole, and a second
/// one need not wait until the client acknowledges the first. Connections inherit this from the listener.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Connections of an earlier server that the kernel still winds up do not keep the port.
    socket.set_reuseaddr(true)?;
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn an_accepted_connection_does_not_delay_its_answers() {
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let _client = TcpStream::connect(sockets.address).await.unwrap();
        let (accepted, _) = sockets.tcp.accept().await.unwrap();
        assert!(accepted.nodelay().unwrap());
    }
}
