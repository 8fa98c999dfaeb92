//! The largest tables, made beside one another before the object is loaded, which would make them one after the other: the kernel
//! sets all entries of each aside, some milliseconds each.

use super::{beside, sizes};
use crate::{Config, Error, bpf, bpffs::Pins};
use hivemind_common::{
    conntrack::{Entry, Key},
    family::{Address4, Address6},
    name,
    service::{Reverse, ReverseKey},
    translation::Translation,
};
use std::os::fd::AsFd;

/// A table as the object has it.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Of `enum bpf_map_type`.
    pub(super) kind: u32,
    pub(super) key_bytes: usize,
    pub(super) value_bytes: usize,
}

/// `BPF_MAP_TYPE_HASH`.
const HASH: u32 = 1;
/// `BPF_MAP_TYPE_LRU_HASH`.
const LRU_HASH: u32 = 9;

const fn table<K, V>(name: &'static str, kind: u32) -> Table {
    Table { name, kind, key_bytes: size_of::<K>(), value_bytes: size_of::<V>() }
}

/// Those that take longest, the longest first.
pub(super) const LARGEST: [Table; 6] = [
    table::<Key<Address6>, Translation<Address6>>(name::TRANSLATION_V6, HASH),
    table::<Key<Address4>, Translation<Address4>>(name::TRANSLATION_V4, HASH),
    table::<Key<Address6>, Entry>(name::CONNTRACK_V6, HASH),
    table::<ReverseKey<Address6>, Reverse<Address6>>(name::REVERSE_V6, LRU_HASH),
    table::<Key<Address4>, Entry>(name::CONNTRACK_V4, HASH),
    table::<ReverseKey<Address4>, Reverse<Address4>>(name::REVERSE_V4, LRU_HASH),
];

/// Makes and pins those that are not there.
pub(super) fn make(config: &Config, pins: &Pins) -> Result<(), Error> {
    let sizes = sizes(&config.sizes);
    let missing = LARGEST.iter().filter(|table| !pins.map(table.name).exists());
    beside("tables", missing.collect(), |table: &Table| {
        let entries = sizes.iter().find(|(name, _)| *name == table.name).map_or(1, |(_, entries)| *entries);
        let failed = || Error::system(format!("make the map {}", table.name));
        let (key, value) = (table.key_bytes as u32, table.value_bytes as u32);
        let map = bpf::map_create(table.name, table.kind, (key, value), entries).map_err(failed())?;
        bpf::pin(map.as_fd(), &pins.map(table.name)).map_err(failed())
    })
}
