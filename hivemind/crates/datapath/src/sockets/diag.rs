//! Sockets as the kernel lists and ends them, in the network namespace of a thread (sock_diag(7), `SOCK_DESTROY`).

use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

// Of <linux/netlink.h>.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
// Of <linux/sock_diag.h>.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

const HEADER_BYTES: usize = 16;
/// `struct inet_diag_req_v2` of <linux/inet_diag.h>: four bytes, the states, a `struct inet_diag_sockid`.
const REQUEST_BYTES: usize = HEADER_BYTES + 8 + ID_BYTES;
const ID_BYTES: usize = 48;
/// Where the id is in a message: `struct inet_diag_msg` begins with four bytes.
const ID_AT: usize = HEADER_BYTES + 4;
/// `TCP_ESTABLISHED`, in which a connected UDP socket is, too.
const ESTABLISHED: u32 = 1 << 1;
/// `INET_DIAG_NOCOOKIE`: whichever socket has the tuple.
const ANY_COOKIE: [u8; 8] = [0xff; 8];

/// Transport protocols whose sockets can be ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// A socket that is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Connected {
    /// The kernel's socket cookie.
    pub(crate) cookie: u64,
    /// The other end; of a socket that speaks IPv4 by a mapped address, the IPv4 address.
    pub(crate) peer: SocketAddr,
    family: u8,
    id: [u8; ID_BYTES],
}

/// A socket that asks the kernel about others, in the network namespace of the thread that opened it.
pub(crate) struct SockDiag {
    socket: Socket,
    sequence: u32,
}

impl SockDiag {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The connected sockets of a protocol, of both families.
    ///
    /// # Errors
    /// `ENOENT` from a kernel that does not list them.
    pub(crate) fn connected(&mut self, transport: Transport) -> io::Result<Vec<Connected>> {
        let mut found = Vec::new();
        for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
            let request = self.request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, (family, transport), [0; ID_BYTES]);
            self.ask(&request, |message| found.extend(parse(message)))?;
        }
        Ok(found)
    }

    /// Ends a socket: what waits in it fails, and what it is asked next, with `ECONNABORTED`. False if it is gone by itself.
    ///
    /// # Errors
    /// `EOPNOTSUPP` from a kernel without `CONFIG_INET_DIAG_DESTROY`.
    pub(crate) fn end(&mut self, transport: Transport, socket: &Connected) -> io::Result<bool> {
        self.destroy((socket.family, transport), socket.id)
    }

    /// Ends the connected socket of this tuple. False if there is none: the kernel takes a socket that listens there for the
    /// tuple's as well, so the socket is looked up first, and then ended by its cookie.
    ///
    /// # Errors
    /// As [`SockDiag::end`].
    pub(crate) fn end_between(
        &mut self,
        transport: Transport,
        own: SocketAddr,
        peer: SocketAddr,
    ) -> io::Result<bool> {
        let family = if own.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let mut id = [0; ID_BYTES];
        id[0..2].copy_from_slice(&own.port().to_be_bytes());
        id[2..4].copy_from_slice(&peer.port().to_be_bytes());
        put_address(&mut id[4..20], own.ip());
        put_address(&mut id[20..36], peer.ip());
        id[40..48].copy_from_slice(&ANY_COOKIE);
        let request = self.request(SOCK_DIAG_BY_FAMILY, NLM_F_ACK, (family as u8, transport), id);
        let mut found = None;
        match self.ask(&request, |message| found = parse(message)) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(false),
            Err(error) => return Err(error),
        }
        match found {
            Some(socket) if socket.peer == peer => self.end(transport, &socket),
            _ => Ok(false),
        }
    }

    fn destroy(&mut self, kind: (u8, Transport), id: [u8; ID_BYTES]) -> io::Result<bool> {
        let request = self.request(SOCK_DESTROY, NLM_F_ACK, kind, id);
        match self.ask(&request, |_| ()) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn request(
        &mut self,
        kind: u16,
        flags: u16,
        (family, transport): (u8, Transport),
        id: [u8; ID_BYTES],
    ) -> [u8; REQUEST_BYTES] {
        self.sequence = self.sequence.wrapping_add(1);
        let protocol = match transport {
            Transport::Tcp => libc::IPPROTO_TCP as u8,
            Transport::Udp => libc::IPPROTO_UDP as u8,
        };
        let mut bytes = [0; REQUEST_BYTES];
        bytes[0..4].copy_from_slice(&(REQUEST_BYTES as u32).to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        bytes[HEADER_BYTES] = family;
        bytes[HEADER_BYTES + 1] = protocol;
        bytes[HEADER_BYTES + 4..HEADER_BYTES + 8].copy_from_slice(&ESTABLISHED.to_ne_bytes());
        bytes[HEADER_BYTES + 8..].copy_from_slice(&id);
        bytes
    }

    /// Sends a request and hands each message of the answer to `take`, until the answer is over.
    fn ask(&self, request: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
        self.socket.send(request, 0)?;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = bytes.as_slice();
            while let Some((message, after)) = split(rest) {
                rest = after;
                // What is left of an answer that was given up before is nobody's.
                if message[8..12] != self.sequence.to_ne_bytes() {
                    continue;
                }
                match u16::from_ne_bytes([message[4], message[5]]) {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return outcome(message),
                    _ => take(message),
                }
            }
        }
    }
}

/// The first message, and what follows it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    if length < HEADER_BYTES || length > bytes.len() {
        return None;
    }
    Some((&bytes[..length], &bytes[length.next_multiple_of(4).min(bytes.len())..]))
}

/// What an acknowledgement says.
fn outcome(message: &[u8]) -> io::Result<()> {
    let code = message[HEADER_BYTES..].first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

fn parse(message: &[u8]) -> Option<Connected> {
    let family = *message.get(HEADER_BYTES)?;
    let id: [u8; ID_BYTES] = message.get(ID_AT..ID_AT + ID_BYTES)?.try_into().ok()?;
    let port = u16::from_be_bytes([id[2], id[3]]);
    let address = match i32::from(family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from(*id[20..].first_chunk::<4>()?)),
        _ => IpAddr::V6(Ipv6Addr::from(*id[20..].first_chunk::<16>()?)).to_canonical(),
    };
    let cookie = u64::from(u32::from_ne_bytes(*id[40..].first_chunk()?))
        | u64::from(u32::from_ne_bytes(*id[44..].first_chunk()?)) << 32;
    Some(Connected { cookie, peer: SocketAddr::new(address, port), family, id })
}

fn put_address(to: &mut [u8], address: IpAddr) {
    match address {
        IpAddr::V4(address) => to[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => to[..16].copy_from_slice(&address.octets()),
    }
}
