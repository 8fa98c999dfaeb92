//! From the bytes of a frame to the tuple of its flow.
//!
//! Reading goes through [`Bytes`], which the programs implement with the kernel's bounded copy (it also reads what
//! lies outside the linear part of a packet) and tests with a slice. Offsets never exceed 14 + 4 × 2048 bytes.

use crate::{
    drop_reason::DropReason,
    family::{Address4, Address6},
};

/// Length of an Ethernet header without tags.
pub const ETHERNET_BYTES: u32 = 14;
/// How many IPv6 extension headers are followed.
pub const EXTENSION_HEADERS_MAX: u32 = 4;

/// ICMP's protocol number.
pub const ICMP: u8 = 1;
/// TCP's protocol number.
pub const TCP: u8 = 6;
/// UDP's protocol number.
pub const UDP: u8 = 17;
/// ICMPv6's protocol number.
pub const ICMPV6: u8 = 58;
/// SCTP's protocol number.
pub const SCTP: u8 = 132;

/// The length of an ICMP header, behind which an error has the packet that it is about.
pub const ICMP_BYTES: u32 = 8;
/// Of IPv4's fragment field: more follow.
const MORE_FRAGMENTS: u16 = 0x2000;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// TCP's FIN bit.
pub const TCP_FIN: u8 = 0x01;
/// TCP's SYN bit.
pub const TCP_SYN: u8 = 0x02;
/// TCP's RST bit.
pub const TCP_RST: u8 = 0x04;
/// TCP's ACK bit.
pub const TCP_ACK: u8 = 0x10;

/// Read access to a frame, from its Ethernet header on.
pub trait Bytes {
    /// The `4 × N` bytes at `offset` as words in memory order, or `None` if the frame ends before.
    ///
    /// Words, because the eBPF target cannot join bytes on its stack: it would load them one by one.
    fn read<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;

    /// As [`Bytes::read`], if that takes no more than a look; `None` may also mean that it takes more.
    #[inline(always)]
    fn glance<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.read(offset)
    }

    /// What [`extension`] says. A method, so that it can be a function that the kernel verifies once and not for each header.
    #[inline(always)]
    fn extension(&self, kind: u8, offset: u32) -> u64
    where
        Self: Sized,
    {
        extension(self, kind, offset)
    }
}

/// In what [`extension`] returns: the header was there.
const STEP: u64 = 1 << 63;
/// In what [`extension`] returns: it was a fragment header, of the first fragment of several.
const FIRST_FRAGMENT: u64 = 1 << 24;
/// In what [`extension`] returns: it was a fragment header, of a later fragment.
const LATER_FRAGMENT: u64 = 1 << 25;

/// Reads one IPv6 extension header of this kind: in one number, the kind of the next header, where it begins in the two bytes
/// above, and which fragment this is. Zero if the frame ends before.
#[inline(always)]
pub fn extension(bytes: &impl Bytes, kind: u8, offset: u32) -> u64 {
    let Some([word]) = bytes.read(offset) else { return 0 };
    let header = word.to_ne_bytes();
    let mut step = STEP | header[0] as u64;
    let units = header[1] as u32;
    let length = if kind == FRAGMENT {
        let field = u16::from_be_bytes([header[2], header[3]]);
        if field & 0xfff8 != 0 {
            step |= LATER_FRAGMENT;
        } else if field & 1 != 0 {
            step |= FIRST_FRAGMENT;
        }
        8
    } else if kind == AUTHENTICATION {
        (units + 2) * 4
    } else {
        (units + 1) * 8
    };
    step | ((offset + length) as u64 & 0xffff) << 8
}

/// What later fragments of a packet need to know of the first one, which alone has the transport header.
pub trait Fragments<A> {
    /// Notes the first fragment's ports: source, then destination, as they lie in the packet.
    fn remember(&self, key: &FragmentKey<A>, ports: u32);
    /// The ports of the fragment's first one, if it was seen.
    fn recall(&self, key: &FragmentKey<A>) -> Option<u32>;
}

/// Key of `fragment_v4` and `fragment_v6`: what all fragments of a packet have in common (RFC 791, RFC 8200).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FragmentKey<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// The identification, as it lies in the packet.
    pub identification: u32,
    /// Transport protocol.
    pub protocol: u32,
}

/// What a packet is, besides its tuple.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It has a transport header.
    Whole,
    /// A fragment after the first: it has none; its ports are those of the first one.
    Later,
    /// An ICMP error: its tuple is that of the connection which it is about, seen from whoever did not get the packet.
    Error,
}

/// What the data path wants to know of a packet. Ports are as in the packet: network order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port; an echo's identifier; else zero.
    pub source_port: u16,
    /// Destination port; an echo's identifier; else zero.
    pub destination_port: u16,
    /// Transport protocol.
    pub protocol: u8,
    /// TCP's flags, zero for everything else and for fragments after the first.
    pub tcp_flags: u8,
    /// What it is.
    pub kind: Kind,
    /// Where the transport header begins in the frame; of an ICMP error, the ICMP header.
    pub transport: u32,
    /// Where the transport header of the packet inside an ICMP error begins; else zero.
    pub inner: u32,
}

struct Transport {
    ports: u32,
    tcp_flags: u8,
    is_error: bool,
}

/// Which fragment a packet is.
struct Piece {
    /// What all fragments of a packet have in common; while headers are followed, where it stands.
    identification: u32,
    is_first: bool,
    is_later: bool,
}

/// Parses an IPv4 packet (RFC 791) behind an Ethernet header. Of an ICMP error only the outer headers are read: its
/// [`Packet::kind`] says that [`parse_error_v4`] has more to say.
///
/// # Errors
/// The reason to drop it: [`DropReason::Truncated`], [`DropReason::WrongVersion`] or [`DropReason::LostFragment`].
#[inline(always)]
pub fn parse_v4(frame: &(impl Bytes + Fragments<Address4>)) -> Result<Packet<Address4>, DropReason> {
    let ip: [u32; 5] = frame.read(ETHERNET_BYTES).ok_or(DropReason::Truncated)?;
    let [version_and_length, _, total_high, total_low] = ip[0].to_ne_bytes();
    if version_and_length >> 4 != 4 {
        return Err(DropReason::WrongVersion);
    }
    let header_bytes = (version_and_length & 0xf) as u32 * 4;
    let total_bytes = u16::from_be_bytes([total_high, total_low]) as u32;
    // A total length of zero is how the kernel writes a packet of more than 64 KiB before it is cut (BIG TCP).
    if header_bytes < 20 || (total_bytes != 0 && total_bytes < header_bytes) {
        return Err(DropReason::Truncated);
    }
    let [_, protocol, _, _] = ip[2].to_ne_bytes();
    let (source, destination) = (Address4(ip[3]), Address4(ip[4]));
    let offset = ETHERNET_BYTES + header_bytes;
    let piece = piece_v4(ip[1]);
    let transport = transport(frame, offset, protocol, &piece, source, destination)?;
    Ok(packet(source, destination, protocol, &transport, piece.is_later, offset))
}

/// Parses an IPv6 packet (RFC 8200) behind an Ethernet header, through at most [`EXTENSION_HEADERS_MAX`] headers. Of an ICMP
/// error only the outer headers are read, as by [`parse_v4`].
///
/// # Errors
/// The reason to drop it: [`DropReason::Truncated`], [`DropReason::WrongVersion`], [`DropReason::LostFragment`] or
/// [`DropReason::TooManyExtensionHeaders`].
#[inline(always)]
pub fn parse_v6(frame: &(impl Bytes + Fragments<Address6>)) -> Result<Packet<Address6>, DropReason> {
    let ip: [u32; 2] = frame.read(ETHERNET_BYTES).ok_or(DropReason::Truncated)?;
    if ip[0].to_ne_bytes()[0] >> 4 != 6 {
        return Err(DropReason::WrongVersion);
    }
    let [_, _, next, _] = ip[1].to_ne_bytes();
    let (protocol, offset, piece) = skip_extensions(frame, next, ETHERNET_BYTES + 40)?;
    let [a, b, c, d, e, f, g, h] = frame.read(ETHERNET_BYTES + 8).ok_or(DropReason::Truncated)?;
    let (source, destination) = (Address6([a, b, c, d]), Address6([e, f, g, h]));
    let transport = transport(frame, offset, protocol, &piece, source, destination)?;
    Ok(packet(source, destination, protocol, &transport, piece.is_later, offset))
}

/// What [`parse_v4`] says, of what nearly all packets are: whole ones of TCP or UDP without IP options. For what else there is,
/// `None`.
#[inline(always)]
pub fn plain_v4(frame: &impl Bytes) -> Option<Packet<Address4>> {
    let ip: [u32; 7] = frame.glance(ETHERNET_BYTES)?;
    let [version_and_length, _, total_high, total_low] = ip[0].to_ne_bytes();
    let total_bytes = u16::from_be_bytes([total_high, total_low]);
    let [_, _, fragment_high, fragment_low] = ip[1].to_ne_bytes();
    let is_piece = u16::from_be_bytes([fragment_high, fragment_low]) & 0x3fff != 0;
    if version_and_length != 0x45 || is_piece || (total_bytes != 0 && total_bytes < 28) {
        return None;
    }
    let offset = ETHERNET_BYTES + 20;
    let transport = plain_transport(frame, offset, ip[2].to_ne_bytes()[1], ip[5])?;
    Some(packet(Address4(ip[3]), Address4(ip[4]), ip[2].to_ne_bytes()[1], &transport, false, offset))
}

/// What [`parse_v6`] says, of what nearly all packets are: those of TCP or UDP without extension headers. For what else
/// there is, `None`.
#[inline(always)]
pub fn plain_v6(frame: &impl Bytes) -> Option<Packet<Address6>> {
    let ip: [u32; 11] = frame.glance(ETHERNET_BYTES)?;
    let [_, _, protocol, _] = ip[1].to_ne_bytes();
    if ip[0].to_ne_bytes()[0] >> 4 != 6 {
        return None;
    }
    let offset = ETHERNET_BYTES + 40;
    let transport = plain_transport(frame, offset, protocol, ip[10])?;
    let (source, destination) =
        (Address6([ip[2], ip[3], ip[4], ip[5]]), Address6([ip[6], ip[7], ip[8], ip[9]]));
    Some(packet(source, destination, protocol, &transport, false, offset))
}

#[inline(always)]
fn plain_transport(frame: &impl Bytes, offset: u32, protocol: u8, ports: u32) -> Option<Transport> {
    let tcp_flags = match protocol {
        UDP => 0,
        TCP => {
            let [word] = frame.glance(offset + 12)?;
            word.to_ne_bytes()[1]
        }
        _ => return None,
    };
    Some(Transport { ports, tcp_flags, is_error: false })
}

#[inline(always)]
fn packet<A>(
    source: A,
    destination: A,
    protocol: u8,
    transport: &Transport,
    is_later: bool,
    offset: u32,
) -> Packet<A> {
    let (source_port, destination_port) = halves(transport.ports);
    let kind = if transport.is_error {
        Kind::Error
    } else if is_later {
        Kind::Later
    } else {
        Kind::Whole
    };
    Packet {
        source,
        destination,
        source_port,
        destination_port,
        protocol,
        tcp_flags: transport.tcp_flags,
        kind,
        transport: offset,
        inner: 0,
    }
}

/// The connection that an ICMP error is about, whose header begins at `icmp`: an error goes to whoever sent the packet inside
/// it, so the tuple is that packet's, turned round.
///
/// # Errors
/// [`DropReason::Truncated`] if the packet inside has no ports any more, [`DropReason::WrongVersion`] if it is of another
/// family, [`DropReason::UnrelatedError`] if the error does not go to whoever sent that: it would get by under the name of a
/// connection that it is no part of.
#[inline(always)]
pub fn parse_error_v4(frame: &impl Bytes, icmp: u32) -> Result<Packet<Address4>, DropReason> {
    let start = icmp + ICMP_BYTES;
    let ip: [u32; 5] = frame.read(start).ok_or(DropReason::Truncated)?;
    let version_and_length = ip[0].to_ne_bytes()[0];
    let header_bytes = (version_and_length & 0xf) as u32 * 4;
    if version_and_length >> 4 != 4 {
        return Err(DropReason::WrongVersion);
    }
    if header_bytes < 20 {
        return Err(DropReason::Truncated);
    }
    let [_, protocol, _, _] = ip[2].to_ne_bytes();
    let [destination] = frame.read(ETHERNET_BYTES + 16).ok_or(DropReason::Truncated)?;
    if destination != ip[3] {
        return Err(DropReason::UnrelatedError);
    }
    let inner = start + header_bytes;
    let ports = quoted_ports(frame, inner, protocol, piece_v4(ip[1]).is_later)?;
    Ok(about(Address4(ip[3]), Address4(ip[4]), protocol, ports, icmp, inner))
}

/// As [`parse_error_v4`], for IPv6.
///
/// # Errors
/// As there, and [`DropReason::TooManyExtensionHeaders`].
#[inline(always)]
pub fn parse_error_v6(frame: &impl Bytes, icmp: u32) -> Result<Packet<Address6>, DropReason> {
    let start = icmp + ICMP_BYTES;
    let ip: [u32; 2] = frame.read(start).ok_or(DropReason::Truncated)?;
    if ip[0].to_ne_bytes()[0] >> 4 != 6 {
        return Err(DropReason::WrongVersion);
    }
    let [_, _, next, _] = ip[1].to_ne_bytes();
    let (protocol, inner, piece) = skip_extensions(frame, next, start + 40)?;
    let ports = quoted_ports(frame, inner, protocol, piece.is_later)?;
    let [a, b, c, d, e, f, g, h] = frame.read(start + 8).ok_or(DropReason::Truncated)?;
    let destination: [u32; 4] = frame.read(ETHERNET_BYTES + 24).ok_or(DropReason::Truncated)?;
    if destination[0] != a || destination[1] != b || destination[2] != c || destination[3] != d {
        return Err(DropReason::UnrelatedError);
    }
    Ok(about(Address6([a, b, c, d]), Address6([e, f, g, h]), protocol, ports, icmp, inner))
}

#[inline(always)]
fn about<A>(source: A, destination: A, protocol: u8, ports: u32, icmp: u32, inner: u32) -> Packet<A> {
    let (source_port, destination_port) = halves(ports);
    Packet {
        source: destination,
        destination: source,
        source_port: destination_port,
        destination_port: source_port,
        protocol,
        tcp_flags: 0,
        kind: Kind::Error,
        transport: icmp,
        inner,
    }
}

/// The ports of the packet inside an ICMP error, of which there may be no more than eight bytes.
#[inline(always)]
fn quoted_ports(frame: &impl Bytes, offset: u32, protocol: u8, is_later: bool) -> Result<u32, DropReason> {
    if is_later {
        return Ok(0);
    }
    if has_ports(protocol) {
        let [ports] = frame.read(offset).ok_or(DropReason::Truncated)?;
        return Ok(ports);
    }
    if protocol == ICMP || protocol == ICMPV6 {
        let icmp: [u32; 2] = frame.read(offset).ok_or(DropReason::Truncated)?;
        if is_echo(protocol, icmp[0].to_ne_bytes()[0]) {
            return Ok(echo_ports(icmp[1]));
        }
    }
    Ok(0)
}

#[inline(always)]
fn piece_v4(word: u32) -> Piece {
    let [id_high, id_low, high, low] = word.to_ne_bytes();
    let field = u16::from_be_bytes([high, low]);
    Piece {
        identification: u32::from_ne_bytes([id_high, id_low, 0, 0]),
        is_first: field & 0x3fff == MORE_FRAGMENTS,
        is_later: field & 0x1fff != 0,
    }
}

/// The transport protocol, where its header begins, and which fragment this is.
#[inline(always)]
fn skip_extensions(bytes: &impl Bytes, first: u8, start: u32) -> Result<(u8, u32, Piece), DropReason> {
    let mut at = Place {
        next: first,
        offset: start,
        piece: Piece { identification: 0, is_first: false, is_later: false },
    };
    // One by one and not in a loop: the compiler would turn it so that its end falls into its beginning, which Linux 6.1 takes
    // for one without an end. There are EXTENSION_HEADERS_MAX of them.
    const { assert!(EXTENSION_HEADERS_MAX == 4) };
    at.follow(bytes)?;
    at.follow(bytes)?;
    at.follow(bytes)?;
    at.follow(bytes)?;
    if at.is_at_extension() {
        return Err(DropReason::TooManyExtensionHeaders);
    }
    let Place { next, offset, mut piece } = at;
    if piece.is_first || piece.is_later {
        [piece.identification] = bytes.read(piece.identification).ok_or(DropReason::Truncated)?;
    }
    Ok((next, offset, piece))
}

/// How far the extension headers were followed.
struct Place {
    next: u8,
    offset: u32,
    piece: Piece,
}

impl Place {
    /// What follows a later fragment's header is payload, whatever that header says.
    #[inline(always)]
    fn is_at_extension(&self) -> bool {
        is_extension(self.next) && !self.piece.is_later
    }

    /// Goes behind an extension header, if it is at one.
    #[inline(always)]
    fn follow(&mut self, bytes: &impl Bytes) -> Result<(), DropReason> {
        if !self.is_at_extension() {
            return Ok(());
        }
        let step = bytes.extension(self.next, self.offset);
        if step == 0 {
            return Err(DropReason::Truncated);
        }
        if self.next == FRAGMENT {
            self.piece = Piece {
                identification: self.offset + 4,
                is_first: step & FIRST_FRAGMENT != 0,
                is_later: step & LATER_FRAGMENT != 0,
            };
        }
        self.next = step as u8;
        self.offset = (step >> 8) as u32 & 0xffff;
        Ok(())
    }
}

#[inline(always)]
fn is_extension(next: u8) -> bool {
    next == HOP_BY_HOP
        || next == ROUTING
        || next == FRAGMENT
        || next == AUTHENTICATION
        || next == DESTINATION_OPTIONS
}

/// Whether a protocol's header begins with two ports: RFC 9293, RFC 768 and RFC 9260.
#[inline(always)]
pub const fn has_ports(protocol: u8) -> bool {
    protocol == TCP || protocol == UDP || protocol == SCTP
}

/// Whether an ICMP message is an echo request or reply (RFC 792, RFC 4443), whose identifier tells one ping from another.
#[inline(always)]
pub const fn is_echo(protocol: u8, kind: u8) -> bool {
    if protocol == ICMP { kind == 8 || kind == 0 } else { kind == 128 || kind == 129 }
}

/// The type of the ICMP messages that those of type `kind` answer, if they do, else `kind` itself (RFC 792, RFC 950, RFC 4443).
#[inline(always)]
pub const fn asked_by(protocol: u8, kind: u8) -> u8 {
    let is_answer = if protocol == ICMP { kind == 14 || kind == 16 || kind == 18 } else { kind == 129 };
    if is_answer {
        kind - 1
    } else if protocol == ICMP && kind == 0 {
        8
    } else {
        kind
    }
}

/// Whether an ICMP message of this type asks for an answer, or is one: others stand for themselves.
#[inline(always)]
pub const fn is_dialogue(protocol: u8, kind: u8) -> bool {
    is_echo(protocol, kind) || (protocol == ICMP && kind >= 13 && kind <= 18)
}

/// Whether an ICMP message is an error about a packet, which it holds: destination unreachable, (packet too big,) time
/// exceeded, parameter problem (RFC 792, RFC 4443).
#[inline(always)]
pub const fn is_error(protocol: u8, kind: u8) -> bool {
    if protocol == ICMP { kind == 3 || kind == 11 || kind == 12 } else { kind >= 1 && kind <= 4 }
}

/// An echo's identifier in the place of both ports.
#[inline(always)]
fn echo_ports(word: u32) -> u32 {
    let [a, b, _, _] = word.to_ne_bytes();
    u32::from_ne_bytes([a, b, a, b])
}

#[inline(always)]
fn transport<A: Copy, F: Bytes + Fragments<A>>(
    frame: &F,
    offset: u32,
    protocol: u8,
    piece: &Piece,
    source: A,
    destination: A,
) -> Result<Transport, DropReason> {
    let mut found = Transport { ports: 0, tcp_flags: 0, is_error: false };
    let is_icmp = protocol == ICMP || protocol == ICMPV6;
    if piece.is_later {
        if has_ports(protocol) || is_icmp {
            let key = fragment_key(source, destination, protocol, piece);
            found.ports = frame.recall(&key).ok_or(DropReason::LostFragment)?;
        }
        return Ok(found);
    }
    if protocol == TCP {
        let tcp: [u32; 4] = frame.read(offset).ok_or(DropReason::Truncated)?;
        found.ports = tcp[0];
        found.tcp_flags = tcp[3].to_ne_bytes()[1];
    } else if has_ports(protocol) {
        let [ports] = frame.read(offset).ok_or(DropReason::Truncated)?;
        found.ports = ports;
    } else if is_icmp {
        let icmp: [u32; 2] = frame.read(offset).ok_or(DropReason::Truncated)?;
        let kind = icmp[0].to_ne_bytes()[0];
        if is_echo(protocol, kind) {
            found.ports = echo_ports(icmp[1]);
        }
        found.is_error = is_error(protocol, kind);
    }
    if piece.is_first {
        frame.remember(&fragment_key(source, destination, protocol, piece), found.ports);
    }
    Ok(found)
}

#[inline(always)]
fn fragment_key<A>(source: A, destination: A, protocol: u8, piece: &Piece) -> FragmentKey<A> {
    FragmentKey { source, destination, identification: piece.identification, protocol: protocol as u32 }
}

/// The two 16-bit fields of a word in memory order, each as it lies there.
#[inline(always)]
fn halves(word: u32) -> (u16, u16) {
    let [a, b, c, d] = word.to_ne_bytes();
    (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]))
}

#[cfg(test)]
mod tests;
