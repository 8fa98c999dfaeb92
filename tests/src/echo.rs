//! A server that answers with what it is sent, and who reaches it.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::socket::{Backlog, listen},
};
use serde_json::Value;

use crate::Node;

/// How long an answer may take that comes at all.
pub const ANSWER: Duration = Duration::from_millis(700);
/// Where an [`Echo`] answers.
pub const PORT: u16 = 7000;

fn address(replica: &Value, family: &str) -> Result<IpAddr> {
    replica["status"][family].as_str().with_context(|| format!("no {family}"))?.parse().context("no address")
}

/// Both addresses of an app's only replica.
///
/// # Errors
/// When the replica's network cannot be used.
pub fn addresses(node: &Node, app: &str) -> Result<[IpAddr; 2]> {
    let replica = node.replica(app)?;
    Ok([address(&replica, "ipv4")?, address(&replica, "ipv6")?])
}

/// A server that answers each datagram and each connection's bytes with the same, and counts datagrams by their first byte.
#[derive(Debug)]
pub struct Echo {
    heard: Arc<Mutex<[u64; 256]>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    /// In the network of an app's only replica, on [`PORT`] of all its addresses.
    ///
    /// # Errors
    /// When the replica's network cannot be used.
    pub fn start(node: &Node, app: &str) -> Result<Self> {
        let bind = || -> io::Result<_> {
            let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
            Ok((UdpSocket::bind(any)?, TcpListener::bind(any)?))
        };
        let (datagrams, connections) =
            node.in_network_of(app, bind)?.context("cannot bind the server's port")?;
        Self::serve(datagrams, connections)
    }

    /// Answers on these sockets.
    ///
    /// # Errors
    /// When the replica's network cannot be used.
    pub fn serve(datagrams: UdpSocket, connections: TcpListener) -> Result<Self> {
        datagrams.set_read_timeout(Some(Duration::from_millis(50)))?;
        connections.set_nonblocking(true)?;
        // Whoever connects to hundreds of addresses is faster than what accepts: of more than 128, the default, one would be lost.
        listen(&connections, Backlog::MAXCONN)?;
        let (heard, stop) = (Arc::new(Mutex::new([0; 256])), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&heard), Arc::clone(&stop));
        let udp = std::thread::spawn(move || {
            let mut bytes = [0; 64];
            while !end.load(Ordering::Relaxed) {
                let Ok((length, from)) = datagrams.recv_from(&mut bytes) else { continue };
                count.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(bytes[0])] += 1;
                let _ = datagrams.send_to(&bytes[..length], from);
            }
        });
        let end = Arc::clone(&stop);
        let tcp = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                // Each at once: the kernel keeps but so many waiting, and drops what more come.
                let _ = poll(&mut [PollFd::new(connections.as_fd(), PollFlags::POLLIN)], 50_u8);
                while let Ok((stream, _)) = connections.accept() {
                    std::thread::spawn(move || echo(stream));
                }
            }
        });
        Ok(Self { heard, stop, threads: vec![udp, tcp] })
    }

    /// How many datagrams that began with `byte` came.
    #[must_use]
    pub fn heard(&self, byte: u8) -> u64 {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(byte)]
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Ends with the connection.
pub fn echo(mut stream: TcpStream) {
    let mut bytes = [0; 64];
    let _ = stream.set_nonblocking(false);
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..length]).is_err() {
            return;
        }
    }
}

/// Sends a byte on a connection, and waits for it to come back.
///
/// # Errors
/// When it does not within `limit`, or another one does.
pub fn exchange(stream: &mut TcpStream, byte: u8, limit: Duration) -> Result<()> {
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(&[byte])?;
    let mut back = [0];
    stream.read_exact(&mut back).with_context(|| format!("{byte} did not come back"))?;
    ensure!(back[0] == byte, "{} came back instead of {byte}", back[0]);
    Ok(())
}

/// Whether a new UDP flow from an app's replica is answered.
///
/// # Errors
/// When the replica's network cannot be used.
pub fn asks(node: &Node, app: &str, to: SocketAddr) -> Result<bool> {
    let ask = || -> io::Result<bool> {
        let socket = any_socket(to.ip())?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.connect(to)?;
        socket.send(b"a")?;
        match socket.recv(&mut [0; 8]) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(error),
        }
    };
    Ok(node.in_network_of(app, ask)??)
}

/// A UDP socket of the family of an address.
///
/// # Errors
/// When the kernel has none.
pub fn any_socket(family: IpAddr) -> io::Result<UdpSocket> {
    match family {
        IpAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
    }
}

/// Whether an app's replica can open a TCP connection.
///
/// # Errors
/// When the replica's network cannot be used.
pub fn dials(node: &Node, app: &str, to: SocketAddr) -> Result<bool> {
    node.in_network_of(app, || TcpStream::connect_timeout(&to, ANSWER).is_ok())
}

/// Whether TCP and UDP of both families get through from an app to the server in another; all must agree.
///
/// # Errors
/// When the replica's network cannot be used.
pub fn reaches(node: &Node, from: &str, to: &str) -> Result<bool> {
    let mut found = Vec::new();
    for ip in addresses(node, to)? {
        let to = SocketAddr::new(ip, PORT);
        found.push(asks(node, from, to)?);
        found.push(dials(node, from, to)?);
    }
    ensure!(found.iter().all(|one| *one == found[0]), "{from} to {to}: UDP, TCP by family: {found:?}");
    Ok(found[0])
}

/// As [`reaches`], held against what is expected.
///
/// # Errors
/// When it is otherwise.
pub fn assert_reaches(node: &Node, from: &str, to: &str, expected: bool) -> Result<()> {
    let found = reaches(node, from, to)?;
    ensure!(found == expected, "{from} {} {to}", if found { "reaches" } else { "does not reach" });
    Ok(())
}
