//! Datagrams from those that have no business here: counted, and never answered.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "everything here is test code")]

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use hivemind_membership::limits::{DATAGRAM_SIZE_BYTES_MAX, KEYS_MAX};
use hivemind_membership::{
    Config, ConfigError, Core, Key, NodeName, NodeNumber, Peer, Start, State, Transmit,
};
use jiff::Timestamp;
use proptest::prelude::*;

fn peer(number: u16) -> Peer {
    Peer {
        number: number.try_into().unwrap(),
        name: NodeName::new(&format!("node-{number}")).unwrap(),
        address: address(number),
    }
}

fn address(number: u16) -> SocketAddrV4 {
    format!("10.0.0.{number}:4484").parse().unwrap()
}

fn key(id: u32) -> Key {
    Key { id, secret: [id as u8; 32] }
}

fn core_with(now: Instant, own: u16, peers: &[u16]) -> Core {
    let config = Config {
        own: peer(own),
        keys: vec![key(1)],
        peers: peers.iter().map(|number| peer(*number)).collect(),
    };
    Core::new(&config, Start { now, wall: Timestamp::UNIX_EPOCH, seed: [own as u8; 32] }).unwrap()
}

fn sent(core: &mut Core) -> Vec<Transmit> {
    std::iter::from_fn(|| core.poll_transmit()).collect()
}

/// The announcement of a node that has just started.
fn announcement(now: Instant, from: u16, to: u16) -> Vec<u8> {
    let mut core = core_with(now, from, &[to]);
    core.advance(now);
    sent(&mut core).remove(0).datagram
}

#[test]
fn the_announcement_of_a_node_that_is_not_in_the_list_yet_is_answered_but_not_viewed() {
    let now = Instant::now();
    let mut core = core_with(now, 1, &[]);
    core.receive(now, address(2), &mut announcement(now, 2, 1));
    let answers = sent(&mut core);
    assert!(!answers.is_empty() && answers.iter().all(|answer| answer.to == address(2)));
    core.advance(now + Duration::from_millis(200));
    assert!(core.take_view().unwrap().members.is_empty());
    core.set_peers(now + Duration::from_millis(300), &[peer(2)]).unwrap();
    let view = core.take_view().unwrap();
    assert_eq!(
        view.get(2.try_into().unwrap()).unwrap().state,
        State::Alive,
        "it was known before it was listed"
    );
}

#[test]
fn gossip_from_another_address_than_its_senders_is_refused() {
    let now = Instant::now();
    let mut core = core_with(now, 1, &[2]);
    core.receive(now, address(3), &mut announcement(now, 2, 1));
    assert_eq!((core.statistics().refused.sender, sent(&mut core)), (1, vec![]));
}

#[test]
fn gossip_that_claims_to_be_from_this_node_is_refused() {
    let now = Instant::now();
    let mut core = core_with(now, 1, &[2]);
    core.receive(now, address(1), &mut announcement(now, 1, 2));
    assert_eq!((core.statistics().refused.sender, sent(&mut core)), (1, vec![]));
}

#[test]
fn the_echo_of_a_stranger_is_not_answered() {
    let now = Instant::now();
    // Node 2 knows node 1, which knows nobody; it sends echoes once it takes node 1 for alive.
    let mut two = core_with(now, 2, &[1]);
    two.receive(now, address(1), &mut announcement(now, 1, 2));
    two.advance(now + Duration::from_millis(100));
    sent(&mut two);
    two.advance(now + Duration::from_millis(500));
    let mut one = core_with(now, 1, &[]);
    let echoes: Vec<_> =
        sent(&mut two).into_iter().filter(|sent| sent.datagram.len() == 21 + 9 + 16).collect();
    assert_eq!(echoes.len(), 1);
    one.receive(now, address(2), &mut echoes[0].datagram.clone());
    assert_eq!((one.statistics().refused.sender, sent(&mut one)), (1, vec![]));
    one.set_peers(now, &[peer(2)]).unwrap();
    one.receive(now, address(2), &mut echoes[0].datagram.clone());
    assert_eq!(sent(&mut one).len(), 1);
}

proptest! {
    #[test]
    fn whatever_is_not_sealed_is_counted_and_not_answered(
        mut datagram in proptest::collection::vec(any::<u8>(), 0..=DATAGRAM_SIZE_BYTES_MAX + 1),
        header in any::<bool>(),
    ) {
        if header && datagram.len() > 9 {
            datagram[..9].copy_from_slice(b"HvMb\x01\0\0\0\x01");
        }
        let now = Instant::now();
        let mut core = core_with(now, 1, &[2]);
        core.receive(now, address(2), &mut datagram);
        prop_assert_eq!(core.statistics().refused.total(), 1);
        prop_assert_eq!(sent(&mut core), vec![]);
    }
}

#[test]
fn contradictory_lists_and_keys_are_refused() {
    let now = Instant::now();
    let mut core = core_with(now, 1, &[2]);
    let twice = Peer { number: 3.try_into().unwrap(), ..peer(2) };
    assert_eq!(core.set_peers(now, &[peer(2), twice]), Err(ConfigError::AddressTwice(address(2))));
    let moved = Peer { address: address(9), ..peer(2) };
    assert_eq!(core.set_peers(now, &[peer(2), moved]), Err(ConfigError::NumberTwice(2.try_into().unwrap())));
    let nowhere = Peer { address: "0.0.0.0:4484".parse().unwrap(), ..peer(2) };
    assert!(matches!(core.set_peers(now, &[nowhere]), Err(ConfigError::Address(_))));
    let ours = Peer { address: address(1), ..peer(2) };
    assert_eq!(core.set_peers(now, &[ours]), Err(ConfigError::AddressTwice(address(1))));
    assert_eq!(core.set_keys(&[]), Err(ConfigError::NoKey));
    assert_eq!(core.set_keys(&[key(4), key(4)]), Err(ConfigError::KeyTwice(4)));
    let many: Vec<_> = (0..=KEYS_MAX as u32).map(key).collect();
    assert_eq!(core.set_keys(&many), Err(ConfigError::TooManyKeys(KEYS_MAX + 1)));
    assert_eq!(core.take_view().unwrap().members.len(), 1, "the old list stays");
}

#[test]
fn numbers_and_names_keep_to_their_rules() {
    assert!(NodeNumber::try_from(0).is_err() && NodeNumber::try_from(1_024).is_err());
    assert!(NodeNumber::try_from(1).is_ok() && NodeNumber::try_from(1_023).is_ok());
    for bad in ["", "Upper", "under_score", "sp ace", &"x".repeat(64)] {
        assert!(NodeName::new(bad).is_err(), "{bad}");
    }
    assert!(NodeName::new("ip-10-0-0-1.internal").is_ok());
}
