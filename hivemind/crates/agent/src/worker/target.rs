//! How the checks of a container's health reach into it.
//!
//! A container without probes needs a moment until it listens; a replica that is in its service before refuses what it is
//! sent. So it is taken to be ready when it listens on one of the ports that it is known for: those that its image exposes or
//! its app publishes. One that is known for none, or listens elsewhere, is ready after a while.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use hivemind_health::{Exit, Target};
use hivemind_runtime::{ContainerId, ExecSpec};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::{TcpSocket, TcpStream},
};
use tracing::info;

use crate::{agent::Shared, fault};

/// How often the sockets are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long a process that is known for no port has to run.
const SETTLE: Duration = Duration::from_millis(300);

/// How long is waited for a known port.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);

/// The state of a listening socket in `/proc/net/tcp` (`TCP_LISTEN` of the kernel's `tcp_states.h`).
const LISTEN: &str = "0A";

/// The most bytes of a command's output that are kept; the rest is read and forgotten.
const OUTPUT_BYTES_MAX: usize = 1 << 10;

/// A container that runs.
pub(super) struct Within {
    pub(super) shared: Arc<Shared>,
    /// The endpoint of its replica.
    pub(super) endpoint: String,
    pub(super) container: ContainerId,
    pub(super) addresses: (Ipv4Addr, Ipv6Addr),
    pub(super) pid: u32,
    /// The ports that it is known for.
    pub(super) ports: BTreeSet<u16>,
}

#[async_trait]
impl Target for Within {
    fn address(&self) -> IpAddr {
        self.addresses.0.into()
    }

    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let (ipv4, ipv6) = self.addresses;
        match self.connect_to(ipv4.into(), port).await {
            // It may listen for IPv6 alone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.connect_to(ipv6.into(), port).await
            }
            done => done,
        }
    }

    async fn exec(&self, command: &[String]) -> Result<Exit, String> {
        let spec = ExecSpec { args: command.to_vec(), ..ExecSpec::default() };
        let session = self.shared.runtime.exec(&self.container, &spec).await;
        let session = session.map_err(|error| fault::with_causes(&error))?;
        let (stdin, stdout, stderr, end) = session.into_parts();
        // A command that reads finds the end at once.
        let closed = stdin.close();
        let stderr = async {
            match stderr {
                Some(stderr) => begin_of(stderr).await,
                None => Vec::new(),
            }
        };
        let (_, mut errors, output, code) = tokio::join!(closed, stderr, begin_of(stdout), end.wait());
        let code = code.map_err(|error| fault::with_causes(&error))?;
        // What is wrong is said among errors first.
        errors.push(b'\n');
        errors.extend(output);
        Ok(Exit { code, output: String::from_utf8_lossy(&errors).into_owned() })
    }

    async fn settled(&self) {
        let limit = if self.ports.is_empty() { SETTLE } else { LISTEN_LIMIT };
        let began = Instant::now();
        let mut look = tokio::time::interval(LOOK_EVERY);
        while began.elapsed() < limit {
            look.tick().await;
            let listening = listening_ports(self.pid);
            if self.ports.iter().any(|port| listening.contains(port)) {
                return;
            }
        }
        if !self.ports.is_empty() {
            info!(container = %self.container, ports = ?self.ports, "The container listens on none of its known ports; it is taken to be ready all the same");
        }
    }
}

impl Within {
    async fn connect_to(&self, to: IpAddr, port: u16) -> io::Result<TcpStream> {
        let socket = self.shared.datapath.socket_within(&self.endpoint, to).await;
        let socket: OwnedFd = socket.map_err(|error| io::Error::other(fault::with_causes(&error)))?;
        TcpSocket::from_std_stream(socket.into()).connect(SocketAddr::new(to, port)).await
    }
}

/// The first bytes that come; all are read.
async fn begin_of(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut begin = Vec::new();
    let mut piece = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut piece).await {
        let room = OUTPUT_BYTES_MAX - begin.len();
        begin.extend_from_slice(&piece[..read.min(room)]);
    }
    begin
}

/// The ports on which sockets of the process's network listen.
fn listening_ports(pid: u32) -> BTreeSet<u16> {
    let tables = ["tcp", "tcp6"]
        .map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(listening_port).collect()
}

/// The port of a line of `/proc/net/tcp`, if its socket listens.
fn listening_port(line: &str) -> Option<u16> {
    let mut words = line.split_whitespace();
    let local = words.nth(1)?;
    let state = words.nth(1)?;
    let (_, port) = local.rsplit_once(':')?;
    (state == LISTEN).then(|| u16::from_str_radix(port, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_is_told_from_a_connected_one() {
        let listening =
            "   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1";
        let connected =
            "   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 2 1";
        let v6 = "   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 3 1";
        assert_eq!(listening_port(listening), Some(80));
        assert_eq!(listening_port(connected), None);
        assert_eq!(listening_port(v6), Some(8080));
        assert_eq!(listening_port("nonsense"), None);
    }

    #[test]
    fn a_socket_that_this_process_opens_is_seen() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(listening_ports(std::process::id()).contains(&socket.local_addr().unwrap().port()));
    }

    #[tokio::test]
    async fn of_a_long_output_the_begin_is_kept() {
        let long = vec![b'x'; 100_000];
        assert_eq!(begin_of(&long[..]).await, vec![b'x'; OUTPUT_BYTES_MAX]);
    }
}
