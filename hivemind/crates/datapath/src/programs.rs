//! The eBPF object: loading it against the pinned maps, and its programs.

pub(crate) mod measure;
mod pair_numbers;
mod tables;
pub(crate) mod trial;

use crate::{
    Config, Error, MapSizes,
    bpf::{self, AttachType},
    bpffs::Pins,
    maps::failed,
    telemetry::verdicts::OTHERS,
};
use aya::{
    Ebpf, EbpfError, EbpfLoader, include_bytes_aligned,
    maps::ProgramArray,
    programs::{Program, ProgramError, ProgramFd, TestRun, TestRunOptions},
    util::nr_cpus,
};
use hivemind_common::{
    family::{Address4, Address6},
    name,
    telemetry::FEATURE_TAKE_OVER,
};
use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
    unistd::chroot,
};
use pair_numbers::PairNumbers;
use std::{
    fs, io, iter,
    num::NonZero,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::{Mutex, PoisonError},
    thread,
};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/hivemind.bpf.o"));

/// What programs are loaded for.
#[derive(Clone, Copy)]
pub(crate) enum Purpose<'a> {
    /// To run from now on.
    Stay,
    /// To take over from those of another layout, whose pins these are, with the gates between them.
    TakeOver(&'a Pins),
}

/// The programs at the cgroup, with where each is attached.
pub(crate) const SOCKET_PROGRAMS: [(&str, AttachType); 9] = [
    ("sock_connect4", AttachType::CgroupConnect4),
    ("sock_connect6", AttachType::CgroupConnect6),
    ("sock_sendmsg4", AttachType::CgroupSendmsg4),
    ("sock_sendmsg6", AttachType::CgroupSendmsg6),
    ("sock_recvmsg4", AttachType::CgroupRecvmsg4),
    ("sock_recvmsg6", AttachType::CgroupRecvmsg6),
    ("sock_getpeername4", AttachType::CgroupGetpeername4),
    ("sock_getpeername6", AttachType::CgroupGetpeername6),
    (name::SOCK_OPS, AttachType::CgroupSockOps),
];

/// The programs at each endpoint's interface, with where each is attached.
pub(crate) const INTERFACE_PROGRAMS: [(&str, AttachType); 2] =
    [(name::FROM_REPLICA, AttachType::TcxIngress), (name::TO_REPLICA, AttachType::TcxEgress)];

/// The loaded programs.
pub(crate) struct Programs {
    ebpf: Ebpf,
}

impl Programs {
    /// Loads the object: against the maps that are pinned, making and pinning those that are not.
    /// `services` is the index of the services' own interface.
    pub(crate) fn load(
        config: &Config,
        pins: &Pins,
        services: u32,
        purpose: Purpose<'_>,
    ) -> Result<Self, Error> {
        tables::make(config, pins)?;
        let mut loader = loader(pins)?;
        for map in name::MAPS {
            loader.map_pin_path(map, pins.map(map));
        }
        for (map, entries) in sizes(&config.sizes) {
            loader.map_max_entries(map, entries);
        }
        let pairs = pair_numbers::count(pins, &config.sizes)?;
        loader.map_max_entries(name::PAIR_COUNTERS, pairs.saturating_mul(processors()));
        let mut globals = Globals::of(config, services, pairs)?;
        if let Purpose::TakeOver(from) = purpose {
            globals.features |= FEATURE_TAKE_OVER;
            loader.map_pin_path(name::OLD_CONNTRACK_V4, from.map(name::CONNTRACK_V4));
            loader.map_pin_path(name::OLD_CONNTRACK_V6, from.map(name::CONNTRACK_V6));
            loader.map_pin_path(name::TURN, pins.change(name::TURN));
            loader.map_pin_path(name::GATES, pins.change(name::GATES));
        }
        globals.tell(&mut loader);
        let numbers = PairNumbers::find(pins)?;
        loader.map_pin_path(name::PAIR_FREE, numbers.path());
        let mut ebpf = loader.load(OBJECT).map_err(object_error)?;
        verify(&mut ebpf, matches!(purpose, Purpose::TakeOver(_)))?;
        numbers.keep(&ebpf, pins)?;
        fill_steps(&mut ebpf)?;
        Ok(Self { ebpf })
    }

    /// Pins the programs that hang at interfaces, in the place of a former build's: the next build finds them there if its
    /// maps have another layout. Before they are attached.
    pub(crate) fn pin(&self, pins: &Pins) -> Result<(), Error> {
        for (program, _) in name::gate::PROGRAMS {
            let (path, unfinished) = (pins.program(program), pins.program("new"));
            let failed = || Error::system(format!("pin a program at {}", path.display()));
            match fs::remove_file(&unfinished) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed()(error)),
                _ => {}
            }
            bpf::pin(self.descriptor(program)?, &unfinished).map_err(failed())?;
            fs::rename(&unfinished, &path).map_err(failed())?;
        }
        Ok(())
    }

    /// A program's descriptor to be kept, for arrays of programs.
    pub(crate) fn to_be_called(&self, program: &str) -> Result<ProgramFd, Error> {
        match self.ebpf.program(program) {
            Some(Program::SchedClassifier(found)) => {
                let found = found.fd().and_then(|found| found.try_clone().map_err(ProgramError::IOError));
                found.map_err(|error| program_error(program, error))
            }
            _ => Err(program_error(program, ProgramError::NotLoaded)),
        }
    }

    /// The descriptor of a program.
    pub(crate) fn descriptor(&self, program: &str) -> Result<BorrowedFd<'_>, Error> {
        let found = self.ebpf.program(program).ok_or(ProgramError::NotLoaded);
        let found = found.and_then(|found| match found {
            Program::SchedClassifier(found) => found.fd(),
            Program::CgroupSockAddr(found) => found.fd(),
            Program::SockOps(found) => found.fd(),
            _ => Err(ProgramError::UnexpectedProgramType),
        });
        Ok(found.map_err(|error| program_error(program, error))?.as_fd())
    }

    /// Collects expired connections now, counts the live ones, and lets the timer run this object's code.
    pub(crate) fn collect(&self) -> Result<(), Error> {
        run_alone(&self.ebpf, name::COLLECT, "the timer could not be set")
    }
}

/// Runs a program that looks at no packet. `failure` is what it means if it does not return zero.
fn run_alone(ebpf: &Ebpf, name: &str, failure: &str) -> Result<(), Error> {
    let Some(Program::SchedClassifier(program)) = ebpf.program(name) else {
        return Err(program_error(name, ProgramError::NotLoaded));
    };
    // The kernel wants a packet all the same.
    let frame = [0; 64];
    let options = TestRunOptions { data_in: Some(&frame), repeat: 1, ..TestRunOptions::new() };
    let result = program.test_run(options).map_err(|error| program_error(name, error))?;
    if result.return_value == 0 {
        return Ok(());
    }
    let message = format!("it returned {:#x}: {failure}", result.return_value);
    Err(Error::ProgramRefused { program: name.to_owned(), message, verifier_log: String::new() })
}

/// Puts the steps that programs have in common where those find them. In place of a former build's: one at a time, which is as
/// good, since what is handed over is part of the maps' layout.
fn fill_steps(ebpf: &mut Ebpf) -> Result<(), Error> {
    let descriptors = name::step::PROGRAMS.map(|program| match ebpf.program(program) {
        Some(Program::SchedClassifier(found)) => {
            let found = found.fd().and_then(|found| found.try_clone().map_err(ProgramError::IOError));
            found.map_err(|error| program_error(program, error))
        }
        _ => Err(program_error(program, ProgramError::NotLoaded)),
    });
    let map = ebpf.map_mut(name::STEPS).ok_or_else(|| program_error(name::STEPS, ProgramError::NotLoaded))?;
    let mut steps = ProgramArray::try_from(map).map_err(failed(name::STEPS))?;
    for (slot, descriptor) in (0..).zip(descriptors) {
        steps.set(slot, &descriptor?, 0).map_err(failed(name::STEPS))?;
    }
    Ok(())
}

/// What the programs know of the configuration.
struct Globals {
    cookie: u64,
    interval: u64,
    features: u32,
    ports: (u32, u32),
    services: u32,
    pairs: u32,
    ranges: Ranges,
}

impl Globals {
    fn of(config: &Config, services: u32, pairs: u32) -> Result<Self, Error> {
        let (first, last) = config.masquerade_ports;
        Ok(Self {
            cookie: netns_cookie().map_err(Error::system("ask for the network namespace's cookie"))?,
            interval: u64::try_from(config.collect_interval.as_nanos()).unwrap_or(u64::MAX),
            features: config.features,
            ports: (u32::from(first), u32::from(last.saturating_sub(first)) + 1),
            services,
            pairs,
            ranges: Ranges::of(config),
        })
    }

    fn tell<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        loader.override_global(name::NODE_NETNS_COOKIE, &self.cookie, true);
        loader.override_global(name::COLLECT_INTERVAL_NS, &self.interval, true);
        loader.override_global(name::FEATURES, &self.features, true);
        loader.override_global(name::MASQUERADE_PORT_FIRST, &self.ports.0, true);
        loader.override_global(name::MASQUERADE_PORT_COUNT, &self.ports.1, true);
        loader.override_global(name::SERVICE_INTERFACE, &self.services, true);
        loader.override_global(name::PAIRS, &self.pairs, true);
        self.ranges.tell(loader);
    }
}

/// Networks with their masks, as they lie in packets.
struct Ranges {
    v4: [(&'static str, u32); 5],
    v6: [(&'static str, [u32; 4]); 5],
}

impl Ranges {
    fn of(config: &Config) -> Self {
        let v4 = |octets: [u8; 4]| Address4::from_octets(octets).0;
        let v6 = |octets: [u8; 16]| Address6::from_octets(octets).0;
        let (services, replicas) = (&config.service_range, &config.replica_range);
        Self {
            v4: [
                (name::SERVICE_RANGE_V4, v4(services.0.network().octets())),
                (name::SERVICE_MASK_V4, v4(services.0.netmask().octets())),
                (name::REPLICA_RANGE_V4, v4(replicas.0.network().octets())),
                (name::REPLICA_MASK_V4, v4(replicas.0.netmask().octets())),
                (name::HAIRPIN_V4, v4(config.dns.0.octets())),
            ],
            v6: [
                (name::SERVICE_RANGE_V6, v6(services.1.network().octets())),
                (name::SERVICE_MASK_V6, v6(services.1.netmask().octets())),
                (name::REPLICA_RANGE_V6, v6(replicas.1.network().octets())),
                (name::REPLICA_MASK_V6, v6(replicas.1.netmask().octets())),
                (name::HAIRPIN_V6, v6(config.dns.1.octets())),
            ],
        }
    }

    fn tell<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        for (name, word) in &self.v4 {
            loader.override_global(name, word, true);
        }
        for (name, words) in &self.v6 {
            loader.override_global(name, words, true);
        }
    }
}

/// A loader that has not read the kernel's types. Each new one reads them if it finds them, though nothing of ours is
/// relocated against them: some megabytes, for which it takes some 45 ms. So it is made where it finds none: by a thread
/// with a root of its own, the directory of the maps.
fn loader(pins: &Pins) -> Result<EbpfLoader<'static>, Error> {
    let make = || {
        // In this order: before the first, the second would be the whole process's.
        let alone = unshare(CloneFlags::CLONE_FS).is_ok() && chroot(pins.map_directory()).is_ok();
        if !alone {
            tracing::debug!("A thread gets no root of its own: the kernel's types are read, in vain");
        }
        EbpfLoader::new()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("loader".to_owned()).spawn_scoped(scope, make);
        thread.map_err(Error::system("start a thread"))?.join().map_err(|_| Error::Stopped)
    })
}

/// The programs that the kernel takes longest to verify, the longest first. Of another order all is as right, but begun late one of
/// these would keep a processor busy while others have nothing left to do.
const LONGEST: [&str; 7] = [
    step(name::step::EXAMINE),
    step(name::step::SETTLE),
    step(name::step::OUTWARD),
    name::FROM_UNDERLAY,
    step(name::step::OUTSIDE),
    name::FROM_REPLICA,
    name::COLLECT,
];

const fn step(slot: u32) -> &'static str {
    name::step::PROGRAMS[slot as usize]
}

/// Has the kernel verify all programs, as many at a time as there are processors. Gates only if they are needed.
fn verify(ebpf: &mut Ebpf, with_gates: bool) -> Result<(), Error> {
    let is_needed = |name: &str| with_gates || name::gate::PROGRAMS.iter().all(|(_, gate)| *gate != name);
    let mut programs: Vec<_> = ebpf.programs_mut().filter(|(name, _)| is_needed(name)).collect();
    programs.sort_by_key(|(name, _)| LONGEST.iter().position(|long| long == name).unwrap_or(LONGEST.len()));
    beside("verify", programs, |(name, program)| {
        verify_one(program).map_err(|error| program_error(name, error))
    })
}

/// Does something with each, as many at a time as there are processors, in their order.
fn beside<T: Send>(
    thread: &str,
    all: Vec<T>,
    each: impl Fn(T) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let at_once = thread::available_parallelism().map_or(1, NonZero::get).min(all.len());
    let waiting = Mutex::new(all.into_iter());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || iter::from_fn(next).try_for_each(&each);
    thread::scope(|scope| {
        let start = |_| {
            let started = thread::Builder::new().name(thread.to_owned()).spawn_scoped(scope, work);
            started.map_err(Error::system("start a thread"))
        };
        let threads: Vec<_> = (0..at_once).map(start).collect();
        threads.into_iter().try_for_each(|thread| thread?.join().map_err(|_| Error::Stopped)?)
    })
}

fn verify_one(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::SockOps(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// How many interfaces may lead to the outside.
pub(crate) const UPLINKS_MAX: u32 = 256;
/// How many blocks of addresses may be excepted from masquerading, in each family.
pub(crate) const UNMASKED_MAX: u32 = 256;

/// How many entries a processor sets aside for itself of a map whose least recently used give way (`LOCAL_FREE_TARGET` of the
/// kernel's `bpf_lru_list.c`).
const SET_ASIDE: u32 = 128;

/// The size of a map whose least recently used give way. Before Linux 6.16 a processor that finds all entries set aside by
/// others gets but one, and with its next one removes the one before: the first fragment of a packet would be forgotten before
/// the second comes. So there is room for what all processors set aside, and as much again.
fn least_recent(entries: u32) -> u32 {
    entries.max(processors().saturating_mul(2 * SET_ASIDE))
}

/// How many processors the machine can have.
pub(crate) fn processors() -> u32 {
    nr_cpus().map_or(1, |count| u32::try_from(count).unwrap_or(u32::MAX))
}

fn sizes(sizes: &MapSizes) -> Vec<(&'static str, u32)> {
    // One slot more for the outside.
    let endpoints = sizes.endpoints.saturating_add(1);
    vec![
        (name::CONNTRACK_V4, sizes.conntrack),
        (name::CONNTRACK_V6, sizes.conntrack),
        (name::ENDPOINT_BY_INTERFACE, sizes.endpoints),
        (name::ENDPOINT_STATE, endpoints),
        (name::GENERATION, endpoints),
        (name::ADDRESS_EXACT_V4, sizes.addresses),
        (name::ADDRESS_EXACT_V6, sizes.addresses),
        (name::SERVICE_V4, sizes.services),
        (name::SERVICE_V6, sizes.services),
        (name::SERVICE_TABLE, sizes.service_cells),
        (name::BACKEND_V4, sizes.backends),
        (name::BACKEND_V6, sizes.backends),
        (name::REVERSE_V4, least_recent(sizes.reverse)),
        (name::REVERSE_V6, least_recent(sizes.reverse)),
        (name::NODE_ADDRESS_V4, sizes.node_addresses),
        (name::NODE_ADDRESS_V6, sizes.node_addresses),
        (name::POLICY, sizes.policies),
        (name::POLICY_PREFIX_V4, sizes.prefixes),
        (name::POLICY_PREFIX_V6, sizes.prefixes),
        (name::PAIR, sizes.pairs),
        (name::PAIR_FREE, sizes.pairs),
        (name::RTT, sizes.round_trips),
        (name::VERDICTS, sizes.verdicts.saturating_add(OTHERS)),
        (name::TRANSLATION_V4, sizes.translations.saturating_mul(2)),
        (name::TRANSLATION_V6, sizes.translations.saturating_mul(2)),
        (name::FRAGMENT_V4, least_recent(sizes.fragments)),
        (name::FRAGMENT_V6, least_recent(sizes.fragments)),
        (name::AFFINITY, least_recent(sizes.affinity)),
        (name::UPLINK, UPLINKS_MAX),
        (name::GUARDED_V4, sizes.node_addresses),
        (name::GUARDED_V6, sizes.node_addresses),
        (name::UNMASKED_V4, UNMASKED_MAX),
        (name::UNMASKED_V6, UNMASKED_MAX),
        (name::ENDPOINT_DROPS, sizes.endpoints.saturating_mul(4)),
        (name::EVENTS, sizes.events_bytes.next_power_of_two()),
    ]
}

/// The cookie of the calling thread's network namespace (SO_NETNS_COOKIE, Linux 5.14).
pub(crate) fn netns_cookie() -> io::Result<u64> {
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option writes at most `length` bytes into a u64 that outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// `SO_NETNS_COOKIE` of <asm-generic/socket.h>.
const SO_NETNS_COOKIE: libc::c_int = 71;

fn object_error(error: EbpfError) -> Error {
    Error::Object(Box::new(error))
}

fn program_error(program: &str, error: ProgramError) -> Error {
    let program = program.to_owned();
    match error {
        ProgramError::LoadError { io_error, verifier_log } => Error::ProgramRefused {
            program,
            message: io_error.to_string(),
            verifier_log: verifier_log.to_string(),
        },
        other => Error::ProgramRefused { program, message: other.to_string(), verifier_log: String::new() },
    }
}

#[cfg(test)]
mod tests;
