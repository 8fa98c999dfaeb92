//! The eBPF programs of the data path.
//!
//! `from_replica` and `to_replica` sit on the host end of each replica's veth pair (tcx) and carry packets;
//! `from_underlay` and `to_underlay` (on the interfaces towards other nodes and the outside) and `to_overlay` (on the overlay's
//! own) carry them between nodes, out and in; `to_service` (on the services' own interface) takes what the host's stack sends
//! to services; `examine`, `settle`, `outward` and `refuse` are steps that they go on with; `collect` and the timer it arms remove
//! expired connections; the `sock_*` hooks (cgroup) turn service addresses
//! into endpoints when a socket connects or sends; `sock_ops` reads round-trip times off the kernel's own TCP. What is pure,
//! and every map's key and value, is in `hivemind-common`.
//!
//! Start with [`replica`] for packets, from where [`judge`] decides about first packets and [`translate`] gives them other
//! ends, and with [`socket`] for services.
#![no_std]
#![no_main]

#[cfg(feature = "next-layout")]
mod change;
mod collect;
mod end;
mod examine;
mod fill;
mod flow;
mod frame;
mod functions;
mod gate;
mod host;
mod judge;
mod maps;
mod refuse;
mod replica;
mod rewrite;
mod round_trip;
mod route;
mod service;
mod socket;
mod step;
mod tell;
mod translate;
mod underlay;
mod verdict;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Never reached: the verifier would refuse a program that can panic.
    loop {}
}

/// The kernel lends its GPL-only helpers to programs that say so; the sources stay MIT or Apache-2.0.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
