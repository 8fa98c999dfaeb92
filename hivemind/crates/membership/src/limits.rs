//! What is bounded, and by how much.

use std::time::Duration;

/// The most bytes of one datagram, sealed: below the 1,280 that every path carries, with room for an overlay.
pub const DATAGRAM_SIZE_BYTES_MAX: usize = 1_200;

/// The largest node number; with it the most members that are ever remembered.
pub const NODE_NUMBER_MAX: u16 = 1_023;

/// The most nodes of a cluster that a list may hold, the own one included.
pub const MEMBERS_MAX: usize = 1_024;

/// The most keys held at a time: one to seal with, the others to open what is still sealed with an older or newer one.
pub const KEYS_MAX: usize = 4;

/// The longest name of a node, in bytes.
pub const NAME_LENGTH_MAX: usize = 63;

/// The most datagrams that wait to be sent; what goes beyond is dropped and counted.
pub const TRANSMITS_MAX: usize = 2_048;

/// The most datagrams that are read between two looks at the timers.
pub const DATAGRAMS_PER_TURN_MAX: usize = 256;

/// How long a node of the list that was never heard of counts as unknown; then it counts as dead.
pub const UNKNOWN_FOR: Duration = Duration::from_secs(10);
