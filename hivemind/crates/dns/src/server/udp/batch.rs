//! Several datagrams at a time, by `recvmmsg(2)` and `sendmmsg(2)`.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::time::Instant;

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, recvmmsg, sendmmsg,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tracing::debug;

use super::super::Context;
use super::super::bind::Protocol;
use crate::limits::{DATAGRAMS_PER_TURN_MAX, QUERY_BYTES_MAX};
use crate::losses::Loss;
use crate::responder::{Pending, Step};

/// The buffers of a socket.
#[derive(Debug)]
pub(super) struct Batch {
    queries: Box<[u8]>,
    /// The replies, one after another.
    replies: Vec<u8>,
    parts: Vec<(SocketAddr, Range<usize>)>,
    /// When the queries were read.
    began: Instant,
    /// How many datagrams the kernel had dropped, since the socket was made, when the last one that was read arrived. Not
    /// known of a socket that was another server's, until the first one is read.
    dropped: Option<u32>,
}

/// What needs the upstreams.
type Waiting = Vec<(SocketAddr, Box<Pending>)>;

impl Batch {
    pub(super) fn new(is_adopted: bool) -> Self {
        Self {
            queries: vec![0; DATAGRAMS_PER_TURN_MAX * QUERY_BYTES_MAX].into_boxed_slice(),
            replies: Vec::new(),
            parts: Vec::with_capacity(DATAGRAMS_PER_TURN_MAX),
            began: Instant::now(),
            dropped: (!is_adopted).then_some(0),
        }
    }

    /// Reads what is there, up to a limit, and makes the replies that can be made at once; the previous ones are
    /// forgotten. Returns the queries that have to wait.
    ///
    /// # Errors
    /// The socket fails.
    pub(super) fn receive(&mut self, socket: &UdpSocket, context: &Context) -> io::Result<Waiting> {
        self.replies.clear();
        self.parts.clear();
        let mut waiting = Waiting::new();
        let done = socket.try_io(Interest::READABLE, || {
            let count = self.read(socket, context, &mut waiting)?;
            // Fewer than there is room for: the queue was empty, and need not be asked once more whether it is.
            if count < DATAGRAMS_PER_TURN_MAX { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match done {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(waiting),
        }
    }

    /// Reads and answers; says how many datagrams there were.
    fn read(&mut self, socket: &UdpSocket, context: &Context, waiting: &mut Waiting) -> io::Result<usize> {
        let control = Some(cmsg_space!(u32));
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(DATAGRAMS_PER_TURN_MAX, control);
        let buffers = self.queries.chunks_exact_mut(QUERY_BYTES_MAX);
        let mut buffers: Vec<_> = buffers.map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        let read = recvmmsg(socket.as_raw_fd(), &mut headers, buffers.iter_mut(), flags, None)?;
        self.began = Instant::now();
        let (mut count, mut before, mut dropped) = (0, self.dropped, self.dropped);
        for message in read {
            count += 1;
            dropped = Some(drops(&message).or(dropped).unwrap_or(0));
            before = before.or(dropped);
            let Some(client) = message.address.as_ref().and_then(socket_address) else { continue };
            let packet = message.iovs().next().unwrap_or_default();
            let start = self.replies.len();
            match context.responder.receive(packet, Protocol::Udp, self.began, &mut self.replies) {
                Step::Reply => self.parts.push((client, start..self.replies.len())),
                Step::Nothing => {}
                Step::Forward(pending) => waiting.push((client, pending)),
            }
        }
        if let (Some(before), Some(now)) = (before, dropped) {
            context.responder.losses.count(Loss::Datagrams, now.wrapping_sub(before).into());
        }
        self.dropped = dropped;
        Ok(count)
    }

    /// Sends the replies. One that the kernel refuses is lost, as any datagram may be.
    pub(super) async fn send(&self, socket: &UdpSocket, context: &Context) {
        let mut rest = &self.parts[..];
        while !rest.is_empty() {
            match socket.try_io(Interest::WRITABLE, || self.send_some(socket, rest)) {
                Ok(sent) => rest = &rest[sent.clamp(1, rest.len())..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if socket.writable().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    debug!(%error, client = %rest[0].0, "A DNS reply could not be sent.");
                    context.responder.losses.count(Loss::Replies, 1);
                    rest = &rest[1..];
                }
            }
        }
        if !self.parts.is_empty() {
            context.responder.count_at_once(self.began, self.parts.len() as u64);
        }
    }

    /// How many of `parts` the kernel took; an error is about the first.
    fn send_some(&self, socket: &UdpSocket, parts: &[(SocketAddr, Range<usize>)]) -> io::Result<usize> {
        let slices: Vec<_> =
            parts.iter().map(|(_, range)| [IoSlice::new(&self.replies[range.clone()])]).collect();
        let clients: Vec<_> = parts.iter().map(|(client, _)| Some(SockaddrStorage::from(*client))).collect();
        let mut headers = MultiHeaders::preallocate(parts.len(), None);
        let flags = MsgFlags::MSG_DONTWAIT;
        let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, &clients, [], flags)?;
        Ok(sent.count())
    }
}

/// How many datagrams the kernel had dropped when this one arrived; it says nothing as long as there are none.
fn drops(message: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<u32> {
    message.cmsgs().ok()?.find_map(|control| match control {
        ControlMessageOwned::RxqOvfl(dropped) => Some(dropped),
        _ => None,
    })
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::V4(SocketAddrV4::from(*address)));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::V6(SocketAddrV6::from(*address))))
}
