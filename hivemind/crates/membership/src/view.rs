//! What the node knows of the others, as others read it.

use std::net::SocketAddrV4;

use jiff::Timestamp;

use crate::identity::{NodeName, NodeNumber};
use crate::rtt::Rtt;

/// What is known of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// In the list, and neither heard of nor missed for long: for [`UNKNOWN_FOR`](crate::limits::UNKNOWN_FOR) at most.
    Unknown,
    /// It answers, or somebody says that it does.
    Alive,
    /// It did not answer somebody, and can still refute that.
    Suspect,
    /// It did not refute in time, or was not heard of since this node started.
    Dead,
    /// It said goodbye.
    Left,
}

/// One member.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberView {
    /// Its number.
    pub number: NodeNumber,
    /// Its name, by the list.
    pub name: NodeName,
    /// Where its gossip is heard, by the list.
    pub address: SocketAddrV4,
    /// What is known of it.
    pub state: State,
    /// Which life of it this is: Unix time in ms of its start, one more for each time it came back from a death that was
    /// none. 0 while it was never heard of.
    pub generation: u64,
    /// How often it refuted a suspicion in this life, as far as was heard; not known of the own node, so 0 there.
    pub incarnation: u16,
    /// Since when it is in this state, by this node's clock as it was at the start.
    pub since: Timestamp,
    /// The time to it and back; none before the first answer of this life.
    pub rtt: Option<Rtt>,
}

/// All members at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Rises with each change of a member, its state, its generation or incarnation; not with round-trip times.
    pub revision: u64,
    /// This node, always alive until it left.
    pub own: MemberView,
    /// The other nodes of the list, by number.
    pub members: Vec<MemberView>,
}

impl View {
    /// The member of that number, this node included.
    pub fn get(&self, number: NodeNumber) -> Option<&MemberView> {
        if number == self.own.number {
            return Some(&self.own);
        }
        self.members
            .binary_search_by_key(&number, |member| member.number)
            .ok()
            .map(|index| &self.members[index])
    }
}
