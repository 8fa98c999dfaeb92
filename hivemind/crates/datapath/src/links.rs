//! Attaching programs: by pinned links, into which a new program is put in place, and by filters.
//!
//! A link at tcx (Linux 6.6) is what an endpoint's interface ends up with: the shortest way for a packet, and it is
//! pinned. But making one waits for an RCU grace period, ten milliseconds, with the lock on all links held. So an
//! endpoint starts with filters at clsact, which take microseconds, and changes over as soon as it has been handed
//! out ([`settle_interface`]). Where both are, tcx goes first and decides, so no packet meets none or two. Before
//! Linux 6.6 the filters stay.

pub(crate) mod ahead;

use crate::{
    Error,
    bpf::{self, AttachType},
    bpffs::Pins,
    netlink::{
        Netlink,
        request::{self, Direction},
    },
    node::Node,
    programs::{INTERFACE_PROGRAMS, Programs, SOCKET_PROGRAMS},
};
use hivemind_common::name;
use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::Path,
};

/// Attaches the socket programs to the cgroup, or swaps them into the links that are there.
pub(crate) fn attach_sockets(programs: &Programs, pins: &Pins, cgroup: &Path) -> Result<(), Error> {
    let directory = File::open(cgroup).map_err(Error::system(format!("open {}", cgroup.display())))?;
    let target = directory.as_raw_fd() as u32;
    SOCKET_PROGRAMS
        .into_iter()
        .try_for_each(|(program, at)| ensure(programs, pins, program, program, target, at))
}

/// Attaches both programs to an endpoint's interface by filters, or puts them into the filters that are there.
pub(crate) fn filter_interface(programs: &Programs, netlink: &mut Netlink, index: u32) -> Result<(), Error> {
    filter_interface_by([name::FROM_REPLICA, name::TO_REPLICA], programs, netlink, index)
}

/// As [`filter_interface`], with other programs at the same places: what leaves the replica, what enters it.
fn filter_interface_by(
    [leaving, entering]: [&str; 2],
    programs: &Programs,
    netlink: &mut Netlink,
    index: u32,
) -> Result<(), Error> {
    let (leaving, entering) = (programs.descriptor(leaving)?, programs.descriptor(entering)?);
    netlink.run(vec![
        request::add_clsact(index).tolerating(&[libc::EEXIST]),
        request::add_filter(index, Direction::Ingress, request::FIRST, name::FROM_REPLICA, leaving),
        request::add_filter(index, Direction::Egress, request::FIRST, name::TO_REPLICA, entering),
    ])
}

/// Attaches both programs to an endpoint's interface by links, or puts them into the links that are there; then
/// removes the filters, if any. Linux 6.6.
pub(crate) fn settle_interface(
    programs: &Programs,
    pins: &Pins,
    netlink: &mut Netlink,
    interface: &str,
    index: u32,
) -> Result<(), Error> {
    for (program, at) in INTERFACE_PROGRAMS {
        ensure(programs, pins, program, &pin_name(interface, program), index, at)?;
    }
    // Not there, in either of the kernel's ways to say so.
    let delete =
        |way| request::delete_filters(index, way, request::FIRST).tolerating(&[libc::ENOENT, libc::EINVAL]);
    netlink.run([Direction::Ingress, Direction::Egress].map(delete).into())
}

/// One of the programs that are not at an endpoint's interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Passage {
    /// At an interface towards other nodes and the outside: what comes in.
    Underlay,
    /// At the same: what leaves.
    Leaving,
    /// At the services' own interface.
    Services,
    /// At the overlay's own.
    Overlay,
}

impl Passage {
    fn program(self) -> &'static str {
        match self {
            Self::Underlay => name::FROM_UNDERLAY,
            Self::Overlay => name::TO_OVERLAY,
            Self::Leaving => name::TO_UNDERLAY,
            Self::Services => name::TO_SERVICE,
        }
    }

    fn way(self) -> (Direction, AttachType) {
        match self {
            Self::Underlay => (Direction::Ingress, AttachType::TcxIngress),
            Self::Overlay | Self::Leaving | Self::Services => (Direction::Egress, AttachType::TcxEgress),
        }
    }
}

/// Attaches a passage's program to an interface, in the place of one of ours that is there.
pub(crate) fn open_passage(
    node: &Node,
    netlink: &mut Netlink,
    passage: Passage,
    index: u32,
) -> Result<(), Error> {
    let (program, (direction, at)) = (passage.program(), passage.way());
    if node.has_tcx {
        let pin = pin_name(&index.to_string(), program);
        let made = node.links_ahead().remove(&pin);
        if let Some(link) = made
            && ahead::fill(&link, node.programs.descriptor(program)?, &node.pins.link(&pin))?
        {
            return Ok(());
        }
        return ensure(&node.programs, &node.pins, program, &pin, index, at);
    }
    filter_passage(program, node.programs.descriptor(program)?, direction, netlink, index)
}

fn filter_passage(
    name: &str,
    program: BorrowedFd<'_>,
    direction: Direction,
    netlink: &mut Netlink,
    index: u32,
) -> Result<(), Error> {
    netlink.run(vec![
        request::add_clsact(index).tolerating(&[libc::EEXIST]),
        request::add_filter(index, direction, request::AMONG_OTHERS, name, program),
    ])
}

/// Which gate hangs in the place of a program, while programs of another layout are replaced.
fn gate_of(program: &str) -> Option<&'static str> {
    let found = name::gate::PROGRAMS.into_iter().find(|(hook, _)| *hook == program);
    found.map(|(_, gate)| gate)
}

/// The program at an interface that a pinned link is for; `None` for those at the cgroup.
fn hook_of(pin: &str) -> Option<&'static str> {
    name::gate::PROGRAMS.into_iter().map(|(hook, _)| hook).find(|hook| {
        // By what goes before it: `to_replica` is no end of another's name, but it might become one.
        pin.strip_suffix(hook).is_some_and(|rest| rest.ends_with('-'))
    })
}

/// Pins the links of another version here too, and puts a gate into each that is at an interface.
pub(crate) fn hang_gates(programs: &Programs, from: &Pins, pins: &Pins) -> Result<(), Error> {
    for pin in from.links()? {
        let path = pins.link(&pin);
        if !path.exists() {
            let failed = || Error::system(format!("pin a link at {}", path.display()));
            let link = bpf::get_pinned(&from.link(&pin)).map_err(failed())?;
            bpf::pin(link.as_fd(), &path).map_err(failed())?;
        }
    }
    swap_all(pins, |hook| gate_of(hook).map(|gate| programs.descriptor(gate)).transpose())
}

/// Takes every gate out of its link, for the program that it is named after.
pub(crate) fn take_gates_out(programs: &Programs, pins: &Pins) -> Result<(), Error> {
    swap_all(pins, |hook| programs.descriptor(hook).map(Some))
}

/// Puts programs into all links at interfaces, by what each is for.
fn swap_all<'a>(
    pins: &Pins,
    program: impl Fn(&str) -> Result<Option<BorrowedFd<'a>>, Error>,
) -> Result<(), Error> {
    for pin in pins.links()? {
        let Some(new) = hook_of(&pin).map(&program).transpose()?.flatten() else { continue };
        let failed = || Error::system(format!("put a program into the link {pin}"));
        let link = bpf::get_pinned(&pins.link(&pin)).map_err(failed())?;
        match bpf::link_update(link.as_fd(), new) {
            // Its interface is gone: whoever adopts what is there removes it.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
            result => result.map_err(failed())?,
        }
    }
    Ok(())
}

/// Puts gates into the filters of an endpoint's interface, if it has no links.
pub(crate) fn gate_filters(
    programs: &Programs,
    pins: &Pins,
    netlink: &mut Netlink,
    (name, index): (&str, u32),
) -> Result<(), Error> {
    let has_links = INTERFACE_PROGRAMS.into_iter().all(|(hook, _)| pins.link(&pin_name(name, hook)).exists());
    match (gate_of(name::FROM_REPLICA), gate_of(name::TO_REPLICA)) {
        (Some(leaving), Some(entering)) if !has_links => {
            filter_interface_by([leaving, entering], programs, netlink, index)
        }
        _ => Ok(()),
    }
}

/// Puts a gate into a passage's filter.
pub(crate) fn gate_passage(
    programs: &Programs,
    netlink: &mut Netlink,
    passage: Passage,
    index: u32,
) -> Result<(), Error> {
    let (program, (direction, _)) = (passage.program(), passage.way());
    let Some(gate) = gate_of(program) else { return Ok(()) };
    filter_passage(program, programs.descriptor(gate)?, direction, netlink, index)
}

/// Detaches a passage's program from an interface, which may be gone.
pub(crate) fn close_passage(
    node: &Node,
    netlink: &mut Netlink,
    passage: Passage,
    index: u32,
) -> Result<(), Error> {
    unpin(&node.pins, &pin_name(&index.to_string(), passage.program()))?;
    let gone = &[libc::ENOENT, libc::EINVAL, libc::ENODEV];
    netlink.run(vec![request::delete_filters(index, passage.way().0, request::AMONG_OTHERS).tolerating(gone)])
}

/// The interfaces at which a passage's program hangs by a link.
pub(crate) fn open_passages(pins: &Pins, passage: Passage) -> Result<Vec<u32>, Error> {
    let index_of = |pin: &String| pin.strip_suffix(passage.program())?.strip_suffix('-')?.parse().ok();
    Ok(pins.links()?.iter().filter_map(index_of).collect())
}

fn unpin(pins: &Pins, pin: &str) -> Result<(), Error> {
    let path = pins.link(pin);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::system(format!("unpin {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

/// Unpins the links of an endpoint's interface, which detaches the programs.
pub(crate) fn detach_interface(pins: &Pins, interface: &str) -> Result<(), Error> {
    INTERFACE_PROGRAMS.into_iter().try_for_each(|(program, _)| unpin(pins, &pin_name(interface, program)))
}

/// The interface whose link is pinned under this name, if it is an interface's.
pub(crate) fn interface_of(pin: &str) -> Option<&str> {
    INTERFACE_PROGRAMS.into_iter().find_map(|(program, _)| pin.strip_suffix(program)?.strip_suffix('-'))
}

fn pin_name(interface: &str, program: &str) -> String {
    format!("{interface}-{program}")
}

fn ensure(
    programs: &Programs,
    pins: &Pins,
    program: &str,
    pin: &str,
    target: u32,
    at: AttachType,
) -> Result<(), Error> {
    let path = pins.link(pin);
    let new = programs.descriptor(program)?;
    if path.exists() {
        let failed = || format!("put the program {program} into the link {}", path.display());
        let link = bpf::get_pinned(&path).map_err(Error::system(failed()))?;
        match bpf::link_update(link.as_fd(), new) {
            // What it was attached to is gone, and another of the same name may be there.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {
                fs::remove_file(&path).map_err(Error::system(failed()))?;
            }
            result => return result.map_err(Error::system(failed())),
        }
    }
    let link = bpf::link_create(new, target, at)
        .map_err(Error::system(format!("attach the program {program} ({at:?})")))?;
    bpf::pin(link.as_fd(), &path).map_err(Error::system(format!("pin a link at {}", path.display())))
}
