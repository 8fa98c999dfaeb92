//! What a node has to know to take part, and the checks of it.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::SocketAddrV4;

use crate::identity::{NodeName, NodeNumber};
use crate::limits::{KEYS_MAX, MEMBERS_MAX};

/// A node of the cluster and where its gossip is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its number, unique in the cluster.
    pub number: NodeNumber,
    /// Its name.
    pub name: NodeName,
    /// The address that its datagrams come from and go to.
    pub address: SocketAddrV4,
}

/// A key of the cluster. Whoever has it can speak for any node.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Which key this is; unique among those in use, and told in clear in every datagram.
    pub id: u32,
    /// 256 random bits.
    pub secret: [u8; 32],
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a node takes part with.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node. The address is what the others know, so that of the socket as they see it: never 0.0.0.0, no port 0.
    pub own: Peer,
    /// 1 to [`KEYS_MAX`] keys. The first seals; each opens.
    pub keys: Vec<Key>,
    /// The nodes of the cluster that are known so far; at least one other to be found by. This node may be among them.
    pub peers: Vec<Peer>,
}

/// The configuration contradicts itself. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No key to seal with.
    #[error("no key is given")]
    NoKey,
    /// More than [`KEYS_MAX`] keys.
    #[error("{0} keys are more than {KEYS_MAX}")]
    TooManyKeys(usize),
    /// Two keys have one id.
    #[error("key {0} is given twice")]
    KeyTwice(u32),
    /// More than [`MEMBERS_MAX`] nodes.
    #[error("{0} nodes are more than {MEMBERS_MAX}")]
    TooManyPeers(usize),
    /// Two nodes have one number.
    #[error("node number {0} is given twice")]
    NumberTwice(NodeNumber),
    /// Two nodes have one address.
    #[error("address {0} is given twice")]
    AddressTwice(SocketAddrV4),
    /// An address that no datagram can come from.
    #[error("address {0} is not one node's")]
    Address(SocketAddrV4),
}

pub(crate) fn check_keys(keys: &[Key]) -> Result<(), ConfigError> {
    if keys.is_empty() {
        return Err(ConfigError::NoKey);
    }
    if keys.len() > KEYS_MAX {
        return Err(ConfigError::TooManyKeys(keys.len()));
    }
    let mut seen = HashSet::new();
    keys.iter()
        .try_for_each(|key| if seen.insert(key.id) { Ok(()) } else { Err(ConfigError::KeyTwice(key.id)) })
}

pub(crate) fn check_address(address: SocketAddrV4) -> Result<(), ConfigError> {
    let ip = address.ip();
    if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || address.port() == 0 {
        return Err(ConfigError::Address(address));
    }
    Ok(())
}

/// The list without the own node, by number.
pub(crate) fn check_peers(own: &Peer, peers: &[Peer]) -> Result<BTreeMap<NodeNumber, Peer>, ConfigError> {
    if peers.len() > MEMBERS_MAX {
        return Err(ConfigError::TooManyPeers(peers.len()));
    }
    let mut by_number = BTreeMap::new();
    let mut addresses = HashSet::from([own.address]);
    for peer in peers.iter().filter(|peer| peer.number != own.number) {
        check_address(peer.address)?;
        if !addresses.insert(peer.address) {
            return Err(ConfigError::AddressTwice(peer.address));
        }
        if by_number.insert(peer.number, peer.clone()).is_some() {
            return Err(ConfigError::NumberTwice(peer.number));
        }
    }
    Ok(by_number)
}
