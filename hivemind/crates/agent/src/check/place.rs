//! Sockets in a network namespace. A socket belongs to the namespace in which it was made, whoever uses it afterwards.

use std::{
    fs::File,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    path::PathBuf,
    thread,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};

/// Where a socket stands.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// On the node itself.
    Host,
    /// In the network namespace that is mounted there.
    Namespace(PathBuf),
}

impl Place {
    /// A server for TCP at an address, on a port that is free.
    pub(super) async fn listen(&self, address: IpAddr) -> io::Result<TcpListener> {
        let listener = self.make(move || std::net::TcpListener::bind((address, 0))).await?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    }

    /// A socket for datagrams at an address, on a port that is free.
    pub(super) async fn datagrams(&self, address: IpAddr) -> io::Result<UdpSocket> {
        let socket = self.make(move || std::net::UdpSocket::bind((address, 0))).await?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    }

    /// A client's socket for TCP, of the family of `to`.
    pub(super) async fn client(&self, to: SocketAddr) -> io::Result<TcpSocket> {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let made = self.make(move || Ok(socket(family, SockType::Stream, flags, None)?)).await?;
        Ok(TcpSocket::from_std_stream(made.into()))
    }

    /// Runs `work` here, on a thread that ends with it.
    async fn make<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let netns: Option<OwnedFd> = match self {
            Place::Host => None,
            Place::Namespace(path) => Some(File::open(path)?.into()),
        };
        let (answer, answered) = tokio::sync::oneshot::channel();
        thread::Builder::new().name("net-check".to_owned()).spawn(move || {
            let entered = netns.map_or(Ok(()), |netns| setns(netns, CloneFlags::CLONE_NEWNET));
            let _ = answer.send(entered.map_err(io::Error::from).and_then(|()| work()));
        })?;
        answered.await.unwrap_or_else(|_| Err(io::Error::other("the thread ended early")))
    }
}
