//! Packets as hosts send them, and as programs leave them.

use super::ethernet;
use hivemind_common::packet::{ICMP, ICMPV6, SCTP, TCP, TCP_ACK, TCP_SYN, UDP};

/// A packet as a host sends it: headers of their families, all checksums right.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sent {
    pub(super) is_v6: bool,
    pub(super) source: Vec<u8>,
    pub(super) destination: Vec<u8>,
    pub(super) protocol: u8,
    /// Of an echo the identifier, twice.
    pub(super) ports: [u16; 2],
    pub(super) tcp_flags: u8,
    pub(super) payload: Vec<u8>,
}

impl Sent {
    pub(super) fn new(source: &[u8], destination: &[u8], protocol: u8, ports: [u16; 2]) -> Self {
        Self {
            is_v6: source.len() == 16,
            source: source.to_vec(),
            destination: destination.to_vec(),
            protocol,
            ports,
            tcp_flags: TCP_SYN,
            payload: b"odd".to_vec(),
        }
    }

    pub(super) fn answer(&self) -> Self {
        Self {
            source: self.destination.clone(),
            destination: self.source.clone(),
            ports: [self.ports[1], self.ports[0]],
            tcp_flags: TCP_SYN | TCP_ACK,
            ..self.clone()
        }
    }

    pub(super) fn transport(&self) -> Vec<u8> {
        let [from, to] = self.ports.map(u16::to_be_bytes);
        let mut bytes = match self.protocol {
            TCP => [&from[..], &to, &[0; 8], &[0x50, self.tcp_flags, 1, 0, 0, 0, 0, 0]].concat(),
            UDP => [&from[..], &to, &(8 + self.payload.len() as u16).to_be_bytes(), &[0, 0]].concat(),
            SCTP => [&from[..], &to, &[1, 2, 3, 4, 5, 6, 7, 8]].concat(),
            // An echo request; its answer is of another type.
            ICMP => [&[8, 0, 0, 0][..], &from, &[0, 1]].concat(),
            ICMPV6 => [&[128, 0, 0, 0][..], &from, &[0, 1]].concat(),
            _ => Vec::new(),
        };
        bytes.extend(&self.payload);
        if let Some(at) = checksum_at(self.protocol) {
            let sum = !self.sum_of(&bytes);
            // Of UDP zero would say that there is no checksum.
            let sum = if sum == 0 && self.protocol == UDP { 0xffff } else { sum };
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// The sum over a transport header and its payload, with the pseudo-header if there is one.
    pub(super) fn sum_of(&self, transport: &[u8]) -> u16 {
        let mut all = Vec::new();
        if self.protocol != ICMP {
            all.extend(self.source.iter().chain(&self.destination));
            all.extend([0, self.protocol]);
            all.extend((transport.len() as u16).to_be_bytes());
        }
        all.extend(transport);
        sum(&all)
    }

    pub(super) fn frame(&self) -> Vec<u8> {
        let transport = self.transport();
        let mut frame = ethernet(if self.is_v6 { 0x86dd } else { 0x0800 });
        if self.is_v6 {
            frame.extend([0x60, 0, 0, 0]);
            frame.extend((transport.len() as u16).to_be_bytes());
            frame.extend([self.protocol, 64]);
        } else {
            frame.extend([0x45, 0]);
            frame.extend((20 + transport.len() as u16).to_be_bytes());
            frame.extend([0, 0, 0, 0, 64, self.protocol, 0, 0]);
        }
        frame.extend(self.source.iter().chain(&self.destination));
        if !self.is_v6 {
            let sum = sum(&frame[14..34]);
            frame[24..26].copy_from_slice(&(!sum).to_be_bytes());
        }
        frame.extend(transport);
        frame
    }

    /// Reads a frame of the same shape, and checks its checksums.
    pub(super) fn read(&self, frame: &[u8]) -> Self {
        let (at, bytes, start) = if self.is_v6 { (22, 16, 54) } else { (26, 4, 34) };
        let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let ports = match self.protocol {
            ICMP | ICMPV6 => [port(start + 4); 2],
            _ => [port(start), port(start + 2)],
        };
        let read = Self {
            source: frame[at..at + bytes].to_vec(),
            destination: frame[at + bytes..at + 2 * bytes].to_vec(),
            ports,
            ..self.clone()
        };
        if !self.is_v6 {
            assert_eq!(sum(&frame[14..34]), 0xffff, "the IP header's checksum");
        }
        // Nothing else has changed: it is as if its new sender had sent it.
        let (mut found, mut expected) = (frame[14..].to_vec(), read.frame()[14..].to_vec());
        if let Some(at) = checksum_at(self.protocol) {
            assert_eq!(read.sum_of(&frame[start..]), 0xffff, "the checksum of protocol {}", self.protocol);
            // Zero has two forms.
            for bytes in [&mut found, &mut expected] {
                bytes.get_mut(start - 14 + at..start - 12 + at).unwrap_or_default().fill(0);
            }
        }
        if !self.is_v6 {
            for bytes in [&mut found, &mut expected] {
                bytes[10..12].fill(0);
            }
        }
        assert_eq!(found, expected);
        read
    }
}

pub(super) fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        TCP => Some(16),
        UDP => Some(6),
        ICMP | ICMPV6 => Some(2),
        _ => None,
    }
}

pub(super) fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// For the interface of a test run, which has no MAC address.
pub(super) fn to_us(mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].fill(0);
    frame
}
