//! Who a member is: what is said of it on the wire and what tells an older life of it from a newer one.

use std::fmt;
use std::net::SocketAddrV4;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::{NAME_LENGTH_MAX, NODE_NUMBER_MAX};

/// The number of a node, 1 to [`NODE_NUMBER_MAX`], unique in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct NodeNumber(u16);

/// The number is 0 or above [`NODE_NUMBER_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("node number {0} is not within 1 to {NODE_NUMBER_MAX}")]
pub struct NodeNumberError(pub u16);

impl NodeNumber {
    /// The number as a plain value, 1 to [`NODE_NUMBER_MAX`].
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for NodeNumber {
    type Error = NodeNumberError;

    fn try_from(number: u16) -> Result<Self, NodeNumberError> {
        if (1..=NODE_NUMBER_MAX).contains(&number) { Ok(Self(number)) } else { Err(NodeNumberError(number)) }
    }
}

impl From<NodeNumber> for u16 {
    fn from(number: NodeNumber) -> u16 {
        number.0
    }
}

impl fmt::Display for NodeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a node: 1 to [`NAME_LENGTH_MAX`] characters of a-z, 0-9, `-` and `.`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

/// The name is empty, too long, or holds another character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a node's name is 1 to {NAME_LENGTH_MAX} characters of a-z, 0-9, '-' and '.'")]
pub struct NodeNameError;

impl NodeName {
    /// Takes a name that keeps to the rules.
    pub fn new(name: &str) -> Result<Self, NodeNameError> {
        let good =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
        let fits = (1..=NAME_LENGTH_MAX).contains(&name.len()) && name.bytes().all(good);
        if fits { Ok(Self(name.into())) } else { Err(NodeNameError) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for NodeName {
    type Error = NodeNameError;

    fn try_from(name: String) -> Result<Self, NodeNameError> {
        Self::new(&name)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> String {
        name.as_str().to_owned()
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of a node, as gossip tells of it.
///
/// SWIM never takes back a death, so a node that comes back comes as another identity with the same number: the
/// greater generation is kept. A goodbye is an identity too, the last one, so that leaving can be told from dying.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) number: NodeNumber,
    pub(crate) name: NodeName,
    pub(crate) address: SocketAddrV4,
    /// Unix time in ms of the start, one more for each return from a death that was none.
    pub(crate) generation: u64,
    pub(crate) leaving: bool,
}

impl foca::Identity for Identity {
    type Addr = NodeNumber;

    fn renew(&self) -> Option<Self> {
        (!self.leaving).then(|| Self { generation: self.generation.saturating_add(1), ..self.clone() })
    }

    fn addr(&self) -> NodeNumber {
        self.number
    }

    /// A total order, so that every node keeps the same one of two.
    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        let rank = |identity: &Self| {
            (identity.generation, identity.leaving, identity.address, identity.name.clone())
        };
        rank(self) > rank(adversary)
    }
}
