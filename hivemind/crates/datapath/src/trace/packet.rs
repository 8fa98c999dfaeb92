//! Frames for test runs, and reading what became of them.

use super::TraceTuple;
use crate::Protocol;
use hivemind_common::{
    node::NodeState,
    overlay,
    packet::{ETHERNET_BYTES, TCP, TCP_ACK, TCP_SYN, UDP},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TTL: u8 = 64;
/// What a datagram carries, so that there is something in it.
const PAYLOAD: &[u8] = b"hivemind";
/// Bytes of an Ethernet header, and what stands before its type.
const ETHERNET: usize = ETHERNET_BYTES as usize;
const MACS: usize = 12;
const OVERLAY: usize = overlay::BYTES as usize;

/// A frame that came out of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Read {
    /// The ends of the packet; of the one inside, if it is wrapped.
    pub(super) tuple: TraceTuple,
    /// The node to which it is wrapped.
    pub(super) node: Option<Ipv4Addr>,
}

/// A connection's first packet, or the answer to it. `macs` are the destination's and the source's.
pub(super) fn frame(macs: &[u8; MACS], tuple: &TraceTuple, is_reply: bool) -> Vec<u8> {
    let transport = transport(tuple, is_reply);
    let mut frame = macs.to_vec();
    match (tuple.source.ip(), tuple.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend(IPV4.to_be_bytes());
            frame.extend(ipv4(source, destination, protocol(tuple), transport.len()));
        }
        (source, destination) => {
            frame.extend(IPV6.to_be_bytes());
            frame.extend([0x60, 0, 0, 0]);
            frame.extend((transport.len() as u16).to_be_bytes());
            frame.extend([protocol(tuple), TTL]);
            for address in [source, destination] {
                let address = match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped(),
                    IpAddr::V6(address) => address,
                };
                frame.extend(address.octets());
            }
        }
    }
    frame.extend(transport);
    frame
}

/// The same in the overlay, as another node would send it on behalf of `identity`. `way` is this node as that one knows it.
pub(super) fn wrapped(macs: &[u8; MACS], way: &NodeState, identity: u32, inner: &[u8]) -> Vec<u8> {
    let ethertype = u16::from_be_bytes([inner[MACS], inner[MACS + 1]]);
    let bytes = inner.len() - ETHERNET + OVERLAY;
    let headers = overlay::headers(way, bytes as u32, 0, identity, ethertype);
    let mut frame = macs.to_vec();
    frame.extend(IPV4.to_be_bytes());
    frame.extend(headers.iter().flat_map(|word| word.to_ne_bytes()).take(OVERLAY));
    frame.extend(&inner[ETHERNET..]);
    frame
}

/// Reads a frame, if it is one of those that are made here, whatever a program did with it.
pub(super) fn read(frame: &[u8], like: Protocol) -> Option<Read> {
    let number = number(like);
    let ethertype = u16::from_be_bytes(*frame.get(MACS..)?.first_chunk()?);
    let ip = frame.get(ETHERNET..)?;
    if ethertype == IPV4
        && ip.get(9) == Some(&UDP)
        && ip.get(22..24) == Some(&overlay::PORT.to_be_bytes()[..])
    {
        let node = Ipv4Addr::from(*ip.get(16..)?.first_chunk::<4>()?);
        // What is inside begins with an Ethernet header of its own.
        let tuple = read_plain(frame.get(OVERLAY..)?, number)?;
        return Some(Read { tuple, node: Some(node) });
    }
    Some(Read { tuple: read_plain(frame, number)?, node: None })
}

fn read_plain(frame: &[u8], wanted: u8) -> Option<TraceTuple> {
    let ip = frame.get(ETHERNET..)?;
    let (source, destination, protocol, transport): (IpAddr, IpAddr, u8, &[u8]) =
        match u16::from_be_bytes(*frame.get(MACS..)?.first_chunk()?) {
            IPV4 => (
                Ipv4Addr::from(*ip.get(12..)?.first_chunk::<4>()?).into(),
                Ipv4Addr::from(*ip.get(16..)?.first_chunk::<4>()?).into(),
                *ip.get(9)?,
                ip.get(IPV4_BYTES..)?,
            ),
            IPV6 => (
                Ipv6Addr::from(*ip.get(8..)?.first_chunk::<16>()?).into(),
                Ipv6Addr::from(*ip.get(24..)?.first_chunk::<16>()?).into(),
                *ip.get(6)?,
                ip.get(IPV6_BYTES..)?,
            ),
            _ => return None,
        };
    let protocol = match protocol {
        TCP => Protocol::Tcp,
        UDP => Protocol::Udp,
        _ => return None,
    };
    if number(protocol) != wanted {
        return None;
    }
    let port = |at: usize| Some(u16::from_be_bytes(*transport.get(at..)?.first_chunk()?));
    Some(TraceTuple {
        source: SocketAddr::new(source, port(0)?),
        destination: SocketAddr::new(destination, port(2)?),
        protocol,
    })
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, bytes: usize) -> [u8; IPV4_BYTES] {
    let mut header = [0; IPV4_BYTES];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&((IPV4_BYTES + bytes) as u16).to_be_bytes());
    (header[8], header[9]) = (TTL, protocol);
    header[12..16].copy_from_slice(&source.octets());
    header[16..].copy_from_slice(&destination.octets());
    let sum: u32 = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// The transport header. Its checksum is left out: programs correct it by what they change, and nobody reads it here.
fn transport(tuple: &TraceTuple, is_reply: bool) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        [tuple.source.port().to_be_bytes(), tuple.destination.port().to_be_bytes()].concat();
    match tuple.protocol {
        Protocol::Tcp => {
            let flags = if is_reply { TCP_SYN | TCP_ACK } else { TCP_SYN };
            let acknowledged = u32::from(is_reply);
            bytes.extend([0; 4]);
            bytes.extend(acknowledged.to_be_bytes());
            bytes.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        }
        Protocol::Udp => {
            bytes.extend((8 + PAYLOAD.len() as u16).to_be_bytes());
            bytes.extend([0; 2]);
            bytes.extend(PAYLOAD);
        }
    }
    bytes
}

fn protocol(tuple: &TraceTuple) -> u8 {
    number(tuple.protocol)
}

fn number(protocol: Protocol) -> u8 {
    crate::service::lifecycle::number(protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hivemind_common::family::Address4;
    use proptest::prelude::*;

    fn tuples() -> impl Strategy<Value = TraceTuple> {
        let ends = prop_oneof![
            any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
            any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
        ];
        let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
        (ends, any::<[u16; 2]>(), protocol).prop_map(|((source, destination), [from, to], protocol)| {
            TraceTuple {
                source: SocketAddr::new(source, from),
                destination: SocketAddr::new(destination, to),
                protocol,
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_made_is_read_as_it_was_meant(tuple in tuples(), is_reply: bool) {
            prop_assume!(tuple.protocol == Protocol::Tcp || tuple.destination.port() != overlay::PORT);
            let made = frame(&[2; MACS], &tuple, is_reply);
            prop_assert_eq!(read(&made, tuple.protocol), Some(Read { tuple, node: None }));
            let way = NodeState {
                address: Address4::from_octets([10, 0, 0, 1]),
                source: Address4::from_octets([10, 0, 0, 2]),
                ..NodeState::default()
            };
            let wrapped = wrapped(&[4; MACS], &way, 300, &made);
            let node = Some(Ipv4Addr::new(10, 0, 0, 1));
            prop_assert_eq!(read(&wrapped, tuple.protocol), Some(Read { tuple, node }));
        }

        #[test]
        fn no_bytes_make_the_reader_fall(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, Protocol::Udp);
        }
    }
}
