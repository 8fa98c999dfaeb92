//! The data path with a real kernel: every test makes a node of its own (network namespace, mounts, cgroup) and
//! leaves nothing behind, so they run beside one another. Needs root.

#![allow(missing_docs, clippy::unwrap_used)]

mod affinity;
mod cluster;
mod conntrack;
mod elsewhere;
mod endpoints;
mod identities;
mod life;
mod packets;
mod policies;
mod published;
mod services;
mod sockets;
mod talk;
mod trace;
mod verdicts;
mod weights;
mod world;
