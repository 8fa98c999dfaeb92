//! One input of a fuzzer, for `fuzz/` and the test that feeds this without one.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::config::{Config, Key, Peer};
use crate::core::{Core, Start};
use crate::identity::{NodeName, NodeNumber};
use crate::limits::DATAGRAM_SIZE_BYTES_MAX;
use crate::packet::{KeyRing, Kind};

const KEY: Key = Key { id: 1, secret: [1; 32] };

fn peer(number: u16) -> Option<Peer> {
    let address = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, u8::try_from(number).ok()?), 4484);
    Some(Peer { number: NodeNumber::try_from(number).ok()?, name: NodeName::new("node").ok()?, address })
}

/// Hands `input` to a node as a datagram from a peer: as it is, and sealed with the right key as gossip, so that what lies
/// behind the seal is reached too. Then lets the node act on it for a while.
///
/// # Panics
/// If the node does, or sends more than it may.
pub fn fuzz_one(input: &[u8]) {
    let (Some(own), Some(other)) = (peer(1), peer(2)) else { return };
    let from = other.address;
    let config = Config { own, keys: vec![KEY], peers: vec![other] };
    let now = Instant::now();
    let Ok(mut core) = Core::new(&config, Start { now, wall: Timestamp::UNIX_EPOCH, seed: [3; 32] }) else {
        return;
    };
    core.receive(now, from, &mut input.to_vec());
    if let Some(mut datagram) = KeyRing::new(&[KEY]).seal(Kind::Gossip, input, [5; 12]) {
        core.receive(now, from, &mut datagram);
    }
    // What was refused has left nothing to act on.
    let steps = if core.statistics().refused.total() == 2 { 1 } else { 16 };
    for _ in 0..steps {
        core.advance(core.next_deadline());
        while let Some(transmit) = core.poll_transmit() {
            assert!(transmit.datagram.len() <= DATAGRAM_SIZE_BYTES_MAX, "a datagram is too long");
        }
        if let Some(view) = core.take_view() {
            assert!(view.members.len() == 1, "a view holds who is not in the list");
        }
    }
    assert_eq!(core.statistics().protocol_errors, 0, "the protocol reported a fault of its own");
}

/// The content of gossip that a node sends in the first seconds of its life, to be mutated.
pub fn seeds() -> Vec<Vec<u8>> {
    let (Some(own), Some(other)) = (peer(2), peer(1)) else { return Vec::new() };
    let (own_address, other_address) = (own.address, other.address);
    let now = Instant::now();
    let start = |seed| Start { now, wall: Timestamp::UNIX_EPOCH, seed: [seed; 32] };
    let third = peer(3);
    let config = |own: &Peer, other: &Peer| Config {
        own: own.clone(),
        keys: vec![KEY],
        peers: [other.clone()].into_iter().chain(third.clone()).collect(),
    };
    let (Ok(mut one), Ok(mut two)) =
        (Core::new(&config(&own, &other), start(1)), Core::new(&config(&other, &own), start(3)))
    else {
        return Vec::new();
    };
    let ring = KeyRing::new(&[KEY]);
    let mut contents = Vec::new();
    for step in 0..200_u32 {
        let at = now + Duration::from_millis(25) * step;
        one.advance(at);
        two.advance(at);
        if step == 150 {
            one.leave(at);
        }
        while let Some(transmit) = one.poll_transmit() {
            let mut copy = transmit.datagram.clone();
            if let Ok(crate::packet::Payload::Gossip(content)) = ring.open(&mut copy) {
                contents.push(content.to_vec());
            }
            if transmit.to == other_address {
                two.receive(at, own_address, &mut transmit.datagram.clone());
            }
        }
        while let Some(mut transmit) = two.poll_transmit() {
            if transmit.to == own_address {
                one.receive(at, other_address, &mut transmit.datagram);
            }
        }
    }
    contents
}
