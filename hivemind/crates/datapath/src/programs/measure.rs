//! How long the programs take for a packet, each by itself, without sockets or interfaces (BPF_PROG_TEST_RUN).

use super::{OBJECT, object_error, processors, program_error};
use crate::{Error, maps::failed, policy::rows};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, LpmTrie, MapError, Stack},
    programs::{Program, ProgramError, SchedClassifier, TestRun, TestRunOptions},
};
use hivemind_common::{
    endpoint::{AddressEntry, EndpointState, OUTSIDE},
    family::Address4,
    name,
    packet::{TCP, TCP_ACK, TCP_SYN},
};
use hivemind_policy::Tables;
use nix::sched::{CloneFlags, unshare};
use std::{fs, io, path::Path, thread};

/// The interface by which test runs' packets come in is the loopback one.
const INTERFACE: u32 = 1;
const OTHER_INTERFACE: u32 = 2;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GATEWAY_MAC: [u8; 6] = [6, 0, 0, 0, 0, 1];
const OUTSIDE_HOST: [u8; 4] = [198, 51, 100, 7];
const ENTRIES_MAX: u32 = 8_192;
/// How many pairs there are, the collective one among them.
const PAIRS: u32 = 64;
/// New connections that are measured; fewer than fit.
const FIRST_PACKETS: u16 = 4_000;

/// What one program took for a packet.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ProgramTime {
    /// The program.
    pub program: &'static str,
    /// Whether the packet was the first of its connection.
    pub is_first: bool,
    /// Nanoseconds a packet: of known connections the mean, of first packets the median.
    pub ns: f64,
}

/// Measures the programs with these parts of their work (bits of [`hivemind_common::telemetry::FEATURES_ALL`]) on maps of
/// their own. Packets of known connections run `repeat` times. Needs root; blocks for as long as that takes.
///
/// # Errors
/// What the kernel refused.
#[doc(hidden)]
pub fn program_times(features: u32, repeat: u32) -> Result<Vec<ProgramTime>, Error> {
    thread::scope(|scope| {
        let measure = || {
            leave_network();
            times(features, repeat)
        };
        scope.spawn(measure).join().map_err(|_| Error::Stopped)?
    })
}

/// Gives the thread a network of its own that forwards nothing: what test runs of programs do with packets to the outside would
/// depend on the machine's.
pub(crate) fn leave_network() {
    let left = unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
    // A new network begins as the machine's own is set up.
    let settings = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"];
    let set = |setting| fs::write(Path::new("/proc/sys/net").join(setting), "0");
    if let Err(error) = left.and_then(|()| settings.into_iter().try_for_each(set)) {
        tracing::warn!(%error, "Programs are run as the machine's own network has it");
    }
}

fn times(features: u32, repeat: u32) -> Result<Vec<ProgramTime>, Error> {
    let mut ebpf = load(features)?;
    super::fill_steps(&mut ebpf)?;
    furnish(&mut ebpf)?;
    let outward = |port: u16, flags| frame([10, 0, 0, 1], [10, 0, 0, 2], port, flags);
    let known = frame([10, 0, 0, 1], OUTSIDE_HOST, 999, TCP_SYN);
    let reply = frame_with_ports(OUTSIDE_HOST, [10, 0, 0, 1], [80, 999], TCP_ACK);
    let mut firsts = Vec::new();
    for port in 1_000..1_000 + FIRST_PACKETS {
        firsts.push(run(&ebpf, name::FROM_REPLICA, &outward(port, TCP_SYN), 1)?);
    }
    firsts.sort_by(f64::total_cmp);
    run(&ebpf, name::FROM_REPLICA, &known, 1)?;
    let time = |program, is_first, ns| ProgramTime { program, is_first, ns };
    Ok(vec![
        time(name::FROM_REPLICA, true, firsts[firsts.len() / 2]),
        time(name::FROM_REPLICA, false, run(&ebpf, name::FROM_REPLICA, &outward(1_000, TCP_ACK), repeat)?),
        time(name::TO_REPLICA, false, run(&ebpf, name::TO_REPLICA, &reply, repeat)?),
    ])
}

fn load(features: u32) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    loader.override_global(name::FEATURES, &features, true);
    loader.override_global(name::PAIRS, &PAIRS, true);
    for map in name::MAPS {
        match map {
            name::DROP_COUNTERS | name::COLLECTOR | name::EVENT_BUDGETS => continue,
            name::SCRATCH | name::BINDING | name::ROUTE | name::HANDED | name::STEPS => continue,
            name::EVENTS => loader.map_max_entries(map, 1 << 20),
            name::PAIR_COUNTERS => loader.map_max_entries(map, PAIRS.saturating_mul(processors())),
            _ => loader.map_max_entries(map, ENTRIES_MAX),
        };
    }
    let mut ebpf = loader.load(OBJECT).map_err(object_error)?;
    for program in [name::FROM_REPLICA, name::TO_REPLICA].into_iter().chain(name::step::PROGRAMS) {
        let Some(Program::SchedClassifier(found)) = ebpf.program_mut(program) else {
            return Err(program_error(program, ProgramError::NotLoaded));
        };
        found.load().map_err(|error| program_error(program, error))?;
    }
    Ok(ebpf)
}

/// Two endpoints, one of them at the test run's interface, each judged by tables that let everything pass.
fn furnish(ebpf: &mut Ebpf) -> Result<(), Error> {
    for (index, interface) in [(1_u8, INTERFACE), (2, OTHER_INTERFACE)] {
        let number = u32::from(index);
        let ipv4 = Address4::from_octets([10, 0, 0, index]);
        let state = EndpointState {
            ipv4,
            interface,
            identity: 300 + number,
            policy: number,
            frame_macs: EndpointState::macs(MAC, GATEWAY_MAC),
            ..EndpointState::default()
        };
        set(ebpf, name::ENDPOINT_STATE, number, state)?;
        put(ebpf, name::ENDPOINT_BY_INTERFACE, interface, number)?;
        put(
            ebpf,
            name::ADDRESS_EXACT_V4,
            ipv4,
            AddressEntry { identity: 300 + number, endpoint: number, node: 0 },
        )?;
        for entry in &Tables::open().entries {
            let map = ebpf.map_mut(name::POLICY).ok_or_else(|| missing(name::POLICY))?;
            let mut policy = LpmTrie::try_from(map).map_err(failed(name::POLICY))?;
            policy.insert(&rows::entry_key(number, entry), entry.value, 0).map_err(failed(name::POLICY))?;
        }
    }
    for index in [OUTSIDE, 1, 2] {
        set(ebpf, name::GENERATION, index, 10 + u64::from(index))?;
    }
    let map = ebpf.map_mut(name::PAIR_FREE).ok_or_else(|| missing(name::PAIR_FREE))?;
    let mut free = Stack::try_from(map).map_err(failed(name::PAIR_FREE))?;
    (1..PAIRS).try_for_each(|number| free.push(number, 0).map_err(failed(name::PAIR_FREE)))
}

fn set<V: Pod>(ebpf: &mut Ebpf, map: &'static str, index: u32, value: V) -> Result<(), Error> {
    let found = ebpf.map_mut(map).ok_or_else(|| missing(map))?;
    Array::try_from(found).map_err(failed(map))?.set(index, value, 0).map_err(failed(map))
}

fn put<K: Pod, V: Pod>(ebpf: &mut Ebpf, map: &'static str, key: K, value: V) -> Result<(), Error> {
    let found = ebpf.map_mut(map).ok_or_else(|| missing(map))?;
    HashMap::try_from(found).map_err(failed(map))?.insert(key, value, 0).map_err(failed(map))
}

fn missing(map: &'static str) -> Error {
    failed(map)(MapError::KeyNotFound)
}

/// Nanoseconds a packet.
fn run(ebpf: &Ebpf, program: &'static str, frame: &[u8], repeat: u32) -> Result<f64, Error> {
    let Some(Program::SchedClassifier(found)) = ebpf.program(program) else {
        return Err(program_error(program, ProgramError::NotLoaded));
    };
    let found: &SchedClassifier = found;
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
    let result = found.test_run(options).map_err(|error| program_error(program, error))?;
    // The kernel tells the mean of a run in whole nanoseconds.
    Ok(result.duration.as_nanos() as f64)
}

fn frame(source: [u8; 4], destination: [u8; 4], source_port: u16, flags: u8) -> Vec<u8> {
    frame_with_ports(source, destination, [source_port, 80], flags)
}

fn frame_with_ports(source: [u8; 4], destination: [u8; 4], ports: [u16; 2], flags: u8) -> Vec<u8> {
    let mut frame = [&GATEWAY_MAC[..], &MAC[..], &[8, 0]].concat();
    frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, TCP, 0, 0]);
    frame.extend(source.into_iter().chain(destination));
    frame.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    frame
}
