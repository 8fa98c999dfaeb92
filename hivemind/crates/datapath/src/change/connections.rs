//! Taking over the connections of which no packet came.

use super::hash;
use crate::{Error, bpffs::Pins, maps::failed, telemetry::events::Clocks};
use aya::{Pod, maps::MapError};
use hivemind_common::{
    conntrack::{Entry, Key},
    family::{Address4, Address6},
    layout::previous,
    name,
};

/// `BPF_NOEXIST` of <linux/bpf.h>.
const IF_NOT_THERE: u64 = 1;

/// Takes over what is left in the old tables. No program writes them any more.
pub(super) fn take_over_the_rest(from: &Pins, pins: &Pins) -> Result<(), Error> {
    let v4 = take_over::<Key<Address4>>(from, pins, name::CONNTRACK_V4)?;
    let v6 = take_over::<Key<Address6>>(from, pins, name::CONNTRACK_V6)?;
    tracing::info!(ipv4 = v4, ipv6 = v6, "Connections were taken over from a build with other maps");
    Ok(())
}

/// Takes over one table's connections that are live and that no packet has brought over yet. Returns how many.
fn take_over<K: Pod>(from: &Pins, pins: &Pins, map: &'static str) -> Result<u32, Error> {
    let old = hash::<K, previous::Entry>(from, map)?;
    let mut new = hash::<K, Entry>(pins, map)?;
    let now = Clocks::now().monotonic_ns();
    let mut taken = 0;
    for found in old.iter() {
        let (key, old) = match found {
            Err(MapError::KeyNotFound) => continue,
            found => found.map_err(failed(map))?,
        };
        if old.expires_ns <= now {
            continue;
        }
        let mut entry = Entry::default();
        old.turn_into(&mut entry);
        match new.insert(key, entry, IF_NOT_THERE) {
            Ok(()) => taken += 1,
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {}
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
                tracing::warn!(map, "The new table has no room for all connections of the old one");
                break;
            }
            Err(error) => return Err(failed(map)(error)),
        }
    }
    Ok(taken)
}
