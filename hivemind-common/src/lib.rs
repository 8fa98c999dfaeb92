//! What the eBPF programs and the daemon must agree on: the keys and values of every eBPF map (the
//! ABI between kernel and user space), the names of programs and maps, and the packet logic that is
//! pure enough to run, and to be tested, on both sides.
//!
//! Nothing here does I/O, allocates or knows of a kernel. A change to the layout of any map type is
//! a change of [`ABI_VERSION`]: maps of another version live in another directory of pins, and [`layout`] says how a build
//! takes them over.
//!
//! Start with [`family::Family`], by which everything exists once for IPv4 and once for IPv6 without
//! being written twice; then [`packet`] (bytes to headers), [`conntrack`] (headers to a connection's
//! entry and its state), [`policy`] (who may speak to whom), [`service`] (service address to backend), [`translation`]
//! (connections with two faces), [`node`] and
//! [`overlay`] (other nodes, and how packets travel to them), [`telemetry`] (what is
//! counted and told), [`verdict`] (what is counted by rule) and [`drop_reason`].
#![no_std]

pub mod conntrack;
pub mod drop_reason;
pub mod endpoint;
pub mod family;
pub mod layout;
pub mod name;
pub mod node;
pub mod overlay;
pub mod packet;
mod plain;
pub mod policy;
pub mod refusal;
pub mod service;
pub mod telemetry;
pub mod translation;
pub mod verdict;

/// The version of the layout of all maps. Part of the path under which they are pinned.
pub const ABI_VERSION: u32 = if cfg!(feature = "next-layout") { 7 } else { 6 };
