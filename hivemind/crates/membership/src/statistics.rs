//! What was sent, received and refused.

use crate::packet::OpenError;

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Datagrams received, of whatever kind.
    pub received: u64,
    /// Bytes of them.
    pub received_bytes: u64,
    /// Datagrams to be sent.
    pub sent: u64,
    /// Bytes of them.
    pub sent_bytes: u64,
    /// Datagrams that the socket or a full queue did not take.
    pub unsent: u64,
    /// Datagrams refused, by reason.
    pub refused: Refused,
    /// Round-trip times measured.
    pub echoes_answered: u64,
    /// How often this node was declared dead and came back.
    pub rejoins: u64,
    /// Faults that the protocol reported of itself; a rise is a bug.
    pub protocol_errors: u64,
}

/// Datagrams that were dropped unanswered, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refused {
    /// Shorter or longer than any of ours.
    pub size: u64,
    /// Of another protocol or version.
    pub format: u64,
    /// Sealed with a key that is not held: a node has missed a change of keys, or belongs to another cluster.
    pub unknown_key: u64,
    /// With a broken seal.
    pub forged: u64,
    /// Sealed well, with a payload that cannot be read.
    pub payload: u64,
    /// From an address that is not its sender's, or from a node that is no longer in the list.
    pub sender: u64,
    /// News of the own death that came faster than this node may come back.
    pub rejoin_rate: u64,
    /// Answers to echoes that nobody waits for.
    pub late_echo: u64,
}

impl Refused {
    pub(crate) fn count(&mut self, error: OpenError) {
        let counter = match error {
            OpenError::Size => &mut self.size,
            OpenError::Format => &mut self.format,
            OpenError::UnknownKey => &mut self.unknown_key,
            OpenError::Forged => &mut self.forged,
            OpenError::Payload => &mut self.payload,
        };
        *counter += 1;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { size, format, unknown_key, forged, payload, sender, rejoin_rate, late_echo } = self;
        size + format + unknown_key + forged + payload + sender + rejoin_rate + late_echo
    }
}
