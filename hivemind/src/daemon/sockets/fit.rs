//! Whether a socket is the one that the daemon would bind now.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{SockType, SockaddrStorage, getsockname, getsockopt, sockopt},
        stat::{fstat, lstat},
    },
};
use thiserror::Error;

/// Where a socket has to be bound, and how.
#[derive(Debug)]
pub(super) enum Place {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Why a socket is of no use. It is closed; another is bound in its place if one is wanted.
#[derive(Debug, Error)]
pub(super) enum Unfit {
    #[error("no such socket is configured")]
    NotWanted,
    #[error("there is another one of its name")]
    Doubled,
    #[error("it is a socket of another kind")]
    Kind,
    #[error("it does not listen")]
    Silent,
    #[error("it is bound elsewhere")]
    Elsewhere,
    #[error("its file was removed or replaced")]
    FileGone,
    #[error("the kernel does not tell what it is")]
    Unknown(#[from] Errno),
}

/// Whether `socket` is of the right kind, bound to `place`, and listening if it is one for connections.
///
/// # Errors
/// Why it is not.
pub(super) fn check(socket: BorrowedFd<'_>, place: &Place) -> Result<(), Unfit> {
    let (kind, listens) = match place {
        Place::Udp(_) => (SockType::Datagram, false),
        Place::Tcp(_) | Place::Unix(_) => (SockType::Stream, true),
    };
    if getsockopt(&socket, sockopt::SockType)? != kind {
        return Err(Unfit::Kind);
    }
    if getsockopt(&socket, sockopt::AcceptConn)? != listens {
        return Err(Unfit::Silent);
    }
    let bound: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    match place {
        Place::Udp(address) | Place::Tcp(address) if is_at(&bound, *address) => Ok(()),
        Place::Unix(path) if bound.as_unix_addr().and_then(|bound| bound.path()) == Some(path) => {
            if is_file_of(socket, path)? {
                Ok(())
            } else {
                Err(Unfit::FileGone)
            }
        }
        _ => Err(Unfit::Elsewhere),
    }
}

fn is_at(bound: &SockaddrStorage, address: SocketAddr) -> bool {
    let v4 = bound.as_sockaddr_in().map(|bound| (IpAddr::from(bound.ip()), bound.port()));
    let v6 = bound.as_sockaddr_in6().map(|bound| (IpAddr::from(bound.ip()), bound.port()));
    v4.or(v6) == Some((address.ip(), address.port()))
}

/// Whether the file at `path` is the one that `socket` was bound by: then who connects there reaches it.
fn is_file_of(socket: BorrowedFd<'_>, path: &Path) -> Result<bool, Errno> {
    let there = match lstat(path) {
        Err(Errno::ENOENT) => return Ok(false),
        there => there?,
    };
    let own = fstat(file_of(socket)?)?;
    Ok((own.st_dev, own.st_ino) == (there.st_dev, there.st_ino))
}

/// `SIOCUNIXFILE` of linux/un.h.
const OPEN_FILE_OF_UNIX_SOCKET: libc::Ioctl = 0x89e0;

/// Opens the file that a Unix socket was bound by, even if it was removed meanwhile. Needs `CAP_NET_ADMIN` and Linux 4.12.
fn file_of(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // SAFETY: The request takes no argument and touches no memory of ours.
    let number = Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), OPEN_FILE_OF_UNIX_SOCKET) })?;
    // SAFETY: What the kernel returned is a new descriptor, which is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::{TcpListener, UdpSocket},
        os::fd::AsFd,
        os::unix::net::UnixListener,
    };
    use tempfile::TempDir;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_socket_fits_its_own_address_protocol_and_family_only() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let (udp, tcp) = (UdpSocket::bind(any).unwrap(), TcpListener::bind(any).unwrap());
            let (udp_at, tcp_at) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
            check(udp.as_fd(), &Place::Udp(udp_at)).unwrap();
            check(tcp.as_fd(), &Place::Tcp(tcp_at)).unwrap();
            assert!(matches!(check(udp.as_fd(), &Place::Tcp(udp_at)), Err(Unfit::Kind)));
            assert!(matches!(check(tcp.as_fd(), &Place::Udp(tcp_at)), Err(Unfit::Kind)));
            for other in ["0.0.0.0", "127.0.0.2", "::", "fd00::1"] {
                let elsewhere = SocketAddr::new(other.parse().unwrap(), tcp_at.port());
                assert!(matches!(check(tcp.as_fd(), &Place::Tcp(elsewhere)), Err(Unfit::Elsewhere)));
            }
            let other_port = SocketAddr::new(tcp_at.ip(), tcp_at.port() ^ 1);
            assert!(matches!(check(tcp.as_fd(), &Place::Tcp(other_port)), Err(Unfit::Elsewhere)));
            assert!(matches!(check(tcp.as_fd(), &Place::Unix("/run/s".into())), Err(Unfit::Elsewhere)));
        }
    }

    #[test]
    fn what_does_not_listen_or_is_no_socket_does_not_fit() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let place = Place::Tcp(connected.local_addr().unwrap());
        assert!(matches!(check(connected.as_fd(), &place), Err(Unfit::Silent)));
        let file = tempfile::tempfile().unwrap();
        let no_socket = check(file.as_fd(), &Place::Udp(at("127.0.0.1:53")));
        assert!(matches!(no_socket, Err(Unfit::Unknown(Errno::ENOTSOCK))), "{no_socket:?}");
    }

    #[test]
    fn a_unix_socket_fits_as_long_as_its_file_is_its_own() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("api.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let check = |path: &Path| check(listener.as_fd(), &Place::Unix(path.into()));
        if matches!(check(&path), Err(Unfit::Unknown(Errno::EPERM))) {
            // Without root, the daemon would not run either.
            return;
        }
        check(&path).unwrap();
        assert!(matches!(check(&directory.path().join("other.sock")), Err(Unfit::Elsewhere)));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(check(&path), Err(Unfit::FileGone)));
        let another = UnixListener::bind(&path).unwrap();
        assert!(matches!(check(&path), Err(Unfit::FileGone)));
        drop(another);
    }
}
