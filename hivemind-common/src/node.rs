//! The nodes of the cluster as the maps hold them.

use crate::family::Address4;

/// The slot of `node_state` that tells of this node, and the number that stands for "no other node".
pub const OWN: u32 = 0;

/// How many slots `node_state` has: node numbers are 1 to 1023.
pub const NODES_MAX: u32 = 1024;

/// `flags` of a [`NodeState`]: IPv4 packets between its replicas and this node's go as they are, without the overlay. In the
/// slot of this node: there are such nodes.
pub const DIRECT: u32 = 1;

/// The MAC address of the overlay's own interface, the same on every node: what is handed to the host's stack comes in
/// there.
pub const OVERLAY_MAC: [u8; 6] = [0x06, b'h', 0xff, 0xff, 0xff, 0xff];

/// Value of `node_state` (array, by node number). A slot of zeros is no node.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeState {
    /// The node's cluster address.
    pub address: Address4,
    /// The address of this node by which it is reached.
    pub source: Address4,
    /// The neighbour to which packets for it are given: itself, or a router.
    pub next_hop: Address4,
    /// The interface towards it, zero if there is no way; in the slot of this node, the overlay's own.
    pub interface: u32,
    /// The greatest IP packet that reaches its replicas, if that is less than what replicas here send; else zero.
    pub mtu: u32,
    /// [`DIRECT`], or none.
    pub flags: u32,
}
