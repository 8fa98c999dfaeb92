//! A second copy of the programs, to be run by hand on packets that nobody sent.
//!
//! Maps that programs only read are the node's own; those that they write are fresh, small and this copy's alone. So the very
//! programs that carry the node's traffic decide, by what they know at that moment, and whatever they write is gone with the
//! copy. [`name::READ_MAPS`] says which maps are which.

use super::{Globals, OBJECT, fill_steps, loader, object_error, program_error};
use crate::{
    Config, Error, FlowEvent,
    bpffs::Pins,
    maps::failed,
    telemetry::events::{Clocks, parse},
};
use aya::{
    Ebpf, Pod,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, RingBuf},
    programs::{Program, ProgramError, TestRun, TestRunOptions},
    util::nr_cpus,
};
use hivemind_common::{drop_reason::DropReason, name};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many entries the copy's own tables take: a few connections.
const ENTRIES_MAX: u32 = 256;
/// Room for a few events.
const EVENTS_BYTES: u32 = 1 << 14;
/// No program makes a frame longer by more.
const GROWS_MAX: usize = 200;
/// The programs that look at packets.
const PROGRAMS: [&str; 6] = [
    name::FROM_REPLICA,
    name::TO_REPLICA,
    name::FROM_UNDERLAY,
    name::TO_UNDERLAY,
    name::TO_SERVICE,
    name::TO_OVERLAY,
];
/// 32-bit words of what a program asks of the kernel's routes.
const ROUTE_WORDS: usize = 22;

/// The copy.
pub(crate) struct Trial {
    ebpf: Ebpf,
}

/// How a packet comes to a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    /// The index of the interface at which the program sits.
    pub(crate) interface: u32,
    /// The index of the interface by which the node got the packet, if it forwards it; else zero.
    pub(crate) came_by: u32,
    /// The packet's mark.
    pub(crate) mark: u32,
}

/// What a program did with a packet.
pub(crate) struct Ran {
    /// What it returned.
    pub(crate) verdict: u32,
    /// The frame as it went on.
    pub(crate) frame: Vec<u8>,
    /// Why it dropped or refused the packet, if it did.
    pub(crate) reason: Option<DropReason>,
    /// What it told of the connection.
    pub(crate) event: Option<FlowEvent>,
    /// The interface and the neighbour that it found in the kernel's routes, if it asked them.
    pub(crate) route: Option<(u32, IpAddr)>,
}

impl Trial {
    /// Loads the copy, which takes some hundred milliseconds. In the node's network namespace.
    pub(crate) fn load(config: &Config, pins: &Pins, services: u32) -> Result<Self, Error> {
        let mut loader = loader(pins)?;
        for map in name::READ_MAPS {
            loader.map_pin_path(map, pins.map(map));
        }
        for map in name::WRITTEN_MAPS {
            match map {
                name::DROP_COUNTERS | name::COLLECTOR | name::EVENT_BUDGETS => continue,
                name::SCRATCH | name::BINDING | name::ROUTE | name::HANDED | name::STEPS => continue,
                name::EVENTS => loader.map_max_entries(map, EVENTS_BYTES),
                _ => loader.map_max_entries(map, ENTRIES_MAX),
            };
        }
        // The copy has no numbers to give: all that it counts is the collective pair's.
        let globals = Globals::of(config, services, 1)?;
        globals.tell(&mut loader);
        let mut ebpf = loader.load(OBJECT).map_err(object_error)?;
        for program in PROGRAMS.into_iter().chain(name::step::PROGRAMS) {
            let Some(Program::SchedClassifier(found)) = ebpf.program_mut(program) else {
                return Err(program_error(program, ProgramError::NotLoaded));
            };
            found.load().map_err(|error| program_error(program, error))?;
        }
        fill_steps(&mut ebpf)?;
        Ok(Self { ebpf })
    }

    /// An entry of one of the copy's own tables.
    pub(crate) fn get<K: Pod, V: Pod>(&self, map: &'static str, key: &K) -> Result<Option<V>, Error> {
        let found = self.ebpf.map(map).ok_or(MapError::KeyNotFound).map_err(failed(map))?;
        found_or_none(HashMap::<_, K, V>::try_from(found).map_err(failed(map))?.get(key, 0), map)
    }

    /// Writes an entry into one of the copy's own tables.
    pub(crate) fn put<K: Pod, V: Pod>(&mut self, map: &'static str, key: &K, value: &V) -> Result<(), Error> {
        debug_assert!(name::WRITTEN_MAPS.contains(&map), "{map} is the node's");
        let found = self.ebpf.map_mut(map).ok_or(MapError::KeyNotFound).map_err(failed(map))?;
        let mut table = HashMap::<_, K, V>::try_from(found).map_err(failed(map))?;
        table.insert(key, value, 0).map_err(failed(map))
    }

    /// Runs a program on a frame.
    pub(crate) fn run(&mut self, program: &'static str, at: At, frame: &[u8]) -> Result<Ran, Error> {
        self.forget_route()?;
        let before = self.drops()?;
        let Some(Program::SchedClassifier(found)) = self.ebpf.program(program) else {
            return Err(program_error(program, ProgramError::NotLoaded));
        };
        let context = context(at);
        let mut out = vec![0; frame.len() + GROWS_MAX];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            repeat: 1,
            ..TestRunOptions::new()
        };
        let result = found.test_run(options).map_err(|error| program_error(program, error))?;
        let (verdict, bytes) = (result.return_value, result.data_size_out as usize);
        out.truncate(bytes);
        let after = self.drops()?;
        let reason =
            DropReason::ALL.into_iter().find(|reason| after[*reason as usize] > before[*reason as usize]);
        Ok(Ran { verdict, frame: out, reason, event: self.last_event()?, route: self.asked_route()? })
    }

    fn drops(&self) -> Result<Vec<u64>, Error> {
        let map = self.ebpf.map(name::DROP_COUNTERS).ok_or(MapError::KeyNotFound);
        let map = map.map_err(failed(name::DROP_COUNTERS))?;
        let counters = PerCpuArray::<_, u64>::try_from(map).map_err(failed(name::DROP_COUNTERS))?;
        let sum = |reason: DropReason| {
            let counts = counters.get(&(reason as u32), 0).map_err(failed(name::DROP_COUNTERS))?;
            Ok(counts.iter().sum())
        };
        DropReason::ALL.into_iter().map(sum).collect()
    }

    /// The last of what was told since this was asked last.
    fn last_event(&mut self) -> Result<Option<FlowEvent>, Error> {
        let map =
            self.ebpf.map_mut(name::EVENTS).ok_or(MapError::KeyNotFound).map_err(failed(name::EVENTS))?;
        let mut ring = RingBuf::try_from(map).map_err(failed(name::EVENTS))?;
        let clocks = Clocks::now();
        let mut last = None;
        while let Some(item) = ring.next() {
            last = parse(&item, clocks).or(last);
        }
        Ok(last)
    }

    fn forget_route(&mut self) -> Result<(), Error> {
        let cpus = nr_cpus().map_err(|(_, error)| Error::system("count the processors")(error))?;
        let empty = PerCpuValues::try_from(vec![[0_u32; ROUTE_WORDS]; cpus]);
        let empty = empty.map_err(Error::system("make room for each processor"))?;
        let map = self.ebpf.map_mut(name::ROUTE).ok_or(MapError::KeyNotFound).map_err(failed(name::ROUTE))?;
        let mut routes = PerCpuArray::try_from(map).map_err(failed(name::ROUTE))?;
        routes.set(0, empty, 0).map_err(failed(name::ROUTE))
    }

    /// What a program asked of the kernel's routes, which is `struct bpf_fib_lookup` of <linux/bpf.h> after the answer.
    fn asked_route(&self) -> Result<Option<(u32, IpAddr)>, Error> {
        let map = self.ebpf.map(name::ROUTE).ok_or(MapError::KeyNotFound).map_err(failed(name::ROUTE))?;
        let routes = PerCpuArray::<_, [u32; ROUTE_WORDS]>::try_from(map).map_err(failed(name::ROUTE))?;
        let places = routes.get(&0, 0).map_err(failed(name::ROUTE))?;
        Ok(places.iter().find_map(|words| {
            let family = words[0].to_ne_bytes()[0];
            // The destination, in whose place the kernel puts the neighbour.
            let to: [u32; 4] = words[8..12].try_into().ok()?;
            let neighbour: IpAddr = match i32::from(family) {
                libc::AF_INET => Ipv4Addr::from(to[0].to_ne_bytes()).into(),
                libc::AF_INET6 => {
                    let mut octets = [0; 16];
                    for (chunk, word) in octets.chunks_exact_mut(4).zip(to) {
                        chunk.copy_from_slice(&word.to_ne_bytes());
                    }
                    Ipv6Addr::from(octets).into()
                }
                _ => return None,
            };
            Some((words[2], neighbour))
        }))
    }
}

/// An entry of a table of the node's.
pub(crate) fn live<K: Pod, V: Pod>(pins: &Pins, map: &'static str, key: &K) -> Result<Option<V>, Error> {
    let data = crate::maps::open(pins, map)?;
    let found = if map == name::AFFINITY { Map::LruHashMap(data) } else { Map::HashMap(data) };
    found_or_none(HashMap::<MapData, K, V>::try_from(found).map_err(failed(map))?.get(key, 0), map)
}

fn found_or_none<V>(found: Result<V, MapError>, map: &'static str) -> Result<Option<V>, Error> {
    match found {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(failed(map)(error)),
    }
}

/// The first fields of `struct __sk_buff` of <linux/bpf.h>, of which a test run takes these three.
fn context(at: At) -> Vec<u8> {
    const MARK: usize = 8;
    const INGRESS_INTERFACE: usize = 36;
    const INTERFACE: usize = 40;
    let mut bytes = vec![0; INTERFACE + 4];
    bytes[MARK..][..4].copy_from_slice(&at.mark.to_ne_bytes());
    bytes[INGRESS_INTERFACE..][..4].copy_from_slice(&at.came_by.to_ne_bytes());
    bytes[INTERFACE..][..4].copy_from_slice(&at.interface.to_ne_bytes());
    bytes
}
