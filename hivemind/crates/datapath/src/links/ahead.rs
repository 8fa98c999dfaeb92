//! Links at interfaces that are made while the node's own programs are still verified.
//!
//! To make one the kernel waits for its readers, some ten milliseconds each time; to put another program into one it
//! does not. So each is made with a program that leaves every packet to whoever comes next, and gets the node's own
//! where that would otherwise have been attached. It is pinned only then: if that never comes, nothing stays.

use super::{Passage, pin_name};
use crate::{
    Error,
    bpf::{self, AttachType},
    bpffs::Pins,
};
use std::{
    collections::HashMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    thread::{self, JoinHandle},
};

/// What is made, by the name of its pin.
pub(crate) type LinksAhead = HashMap<String, OwnedFd>;

/// A link that is to be.
struct Wanted {
    pin: String,
    interface: u32,
    at: AttachType,
}

/// Begins to make the links of these passages that are not there yet.
pub(crate) fn begin(
    pins: &Pins,
    passages: impl Iterator<Item = (Passage, u32)>,
) -> Result<JoinHandle<LinksAhead>, Error> {
    let wanted = passages.map(|(passage, interface)| Wanted {
        pin: pin_name(&interface.to_string(), passage.program()),
        interface,
        at: passage.way().1,
    });
    let wanted: Vec<_> = wanted.filter(|link| !pins.link(&link.pin).exists()).collect();
    let make = move || make(wanted);
    thread::Builder::new().name("links".to_owned()).spawn(make).map_err(Error::system("start a thread"))
}

/// Those that can be made: the others are made, and what is wrong is told, where their programs are attached.
fn make(wanted: Vec<Wanted>) -> LinksAhead {
    let mut made = LinksAhead::new();
    let Some(first) = wanted.first() else { return made };
    let program = match bpf::load_pass() {
        Ok(program) => program,
        Err(error) => {
            tracing::debug!(%error, interface = first.interface, "No link is made ahead of its program");
            return made;
        }
    };
    for Wanted { pin, interface, at } in wanted {
        match bpf::link_create(program.as_fd(), interface, at) {
            Ok(link) => drop(made.insert(pin, link)),
            Err(error) => tracing::debug!(%error, interface, "A link is not made ahead of its program"),
        }
    }
    made
}

/// Puts the node's own program into a link and pins it. False if what it was attached to is gone.
pub(super) fn fill(link: &OwnedFd, program: BorrowedFd<'_>, path: &Path) -> Result<bool, Error> {
    match bpf::link_update(link.as_fd(), program) {
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => return Ok(false),
        result => result.map_err(Error::system(format!("put a program into the link {}", path.display())))?,
    }
    bpf::pin(link.as_fd(), path).map_err(Error::system(format!("pin a link at {}", path.display())))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        netlink::{Netlink, request},
        programs::measure,
    };
    use netlink_packet_route::link::InfoKind;

    #[test]
    fn one_that_cannot_be_made_is_left_out_and_one_of_which_the_interface_went_is_not_taken() {
        measure::leave_network();
        let mut netlink = Netlink::open().unwrap();
        netlink.run(vec![request::add_link("d0", InfoKind::Bridge)]).unwrap();
        let interface = netlink.index_of("d0").unwrap().unwrap();
        let wanted =
            |pin: &str, interface| Wanted { pin: pin.to_owned(), interface, at: AttachType::TcxIngress };
        let made = make(vec![wanted("gone", interface + 100), wanted("there", interface)]);
        assert_eq!(made.keys().collect::<Vec<_>>(), ["there"]);
        let (link, program) = (&made["there"], bpf::load_pass().unwrap());
        bpf::link_update(link.as_fd(), program.as_fd()).unwrap();
        netlink.run(vec![request::delete_link(interface)]).unwrap();
        assert!(!fill(link, program.as_fd(), Path::new("/nowhere")).unwrap());
    }
}
