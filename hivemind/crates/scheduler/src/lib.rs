//! Where a replica goes: a [`Snapshot`] of the cluster and [`Pending`] replicas in, bindings and their reasons out.
//!
//! This crate only decides. It reads no clock, draws no random number, does no I/O and calculates in integers only, so the same
//! input gives the same output on every machine, whatever the order of the lists in it. It moves nothing that is placed already.
//!
//! A node that a **filter** refuses is out, see [`Refusal`]. The others are **scored**, see [`Criterion`]: each score is
//! 0..=100 and has a weight; the node with the highest weighted sum wins, of equal ones that with the fewest replicas, then the
//! first by name.
//!
//! Begin at [`schedule`] and [`explain`]; who places many keeps a [`Scheduler`].
#![forbid(unsafe_code)]

mod decision;
mod filter;
mod index;
mod network;
mod schedule;
mod score;
mod snapshot;
mod words;

pub use self::decision::{Criterion, Decision, NodeVerdict, Outcome, Score, Verdict};
pub use self::filter::Refusal;
pub use self::network::{RTT_DEFAULT_US, TRAFFIC_MIN_BYTES_PER_SECOND};
pub use self::schedule::{Scheduler, explain, schedule};
pub use self::snapshot::{
    Effect, Health, Node, ObjectName, Pending, Placed, Port, Protocol, Resources, Rtt, Snapshot, Taint,
    Toleration, Traffic, Volume,
};
