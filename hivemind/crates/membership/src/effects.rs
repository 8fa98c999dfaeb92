//! What foca asks for while it handles something: datagrams, timers, and word of what changed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use foca::{Notification, Timer};
use rand::Rng;
use rand::rngs::StdRng;

use crate::config::Peer;
use crate::identity::{Identity, NodeNumber};
use crate::limits::TRANSMITS_MAX;
use crate::packet::{KeyRing, Kind};
use crate::statistics::Statistics;
use crate::timers::Timers;

/// A datagram to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddrV4,
    /// Its bytes, [`DATAGRAM_SIZE_BYTES_MAX`](crate::limits::DATAGRAM_SIZE_BYTES_MAX) at most.
    pub datagram: Vec<u8>,
}

pub(crate) struct Effects {
    pub(crate) now: Instant,
    pub(crate) keys: KeyRing,
    pub(crate) rng: StdRng,
    /// The list, by number, without the own node.
    pub(crate) peers: BTreeMap<NodeNumber, Peer>,
    /// Numbers that were in the list and are no more: nothing is heard from them nor said to them.
    pub(crate) removed: BTreeSet<NodeNumber>,
    pub(crate) timers: Timers,
    pub(crate) transmits: VecDeque<Transmit>,
    pub(crate) statistics: Statistics,
    /// A member went up or down or began another life.
    pub(crate) changed: bool,
    /// The own node has begun another life, and all are to be told.
    pub(crate) rejoined: bool,
}

impl Effects {
    pub(crate) fn send(&mut self, to: SocketAddrV4, kind: Kind, content: &[u8]) {
        if self.transmits.len() >= TRANSMITS_MAX {
            self.statistics.unsent += 1;
            return;
        }
        let mut nonce = [0; 12];
        self.rng.fill_bytes(&mut nonce);
        let Some(datagram) = self.keys.seal(kind, content, nonce) else {
            self.statistics.protocol_errors += 1;
            return;
        };
        self.statistics.sent += 1;
        self.statistics.sent_bytes += datagram.len() as u64;
        self.transmits.push_back(Transmit { to, datagram });
    }
}

impl foca::Runtime<Identity> for Effects {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::MemberUp(_) | Notification::MemberDown(_) | Notification::Rename(..) => {
                self.changed = true;
            }
            Notification::Rejoin(_) => {
                self.statistics.rejoins += 1;
                self.changed = true;
                self.rejoined = true;
            }
            Notification::Active | Notification::Idle | Notification::Defunct => {}
        }
    }

    fn send_to(&mut self, to: Identity, content: &[u8]) {
        if self.removed.contains(&to.number) {
            return;
        }
        let address = self.peers.get(&to.number).map_or(to.address, |peer| peer.address);
        self.send(address, Kind::Gossip, content);
    }

    fn submit_after(&mut self, timer: Timer<Identity>, after: Duration) {
        self.timers.insert(self.now + after, timer);
    }
}
