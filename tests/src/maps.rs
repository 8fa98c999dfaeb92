//! What the data path's pinned maps hold, for tests of what packets leave behind.

mod entries;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Debug,
    hash::Hash,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use aya::{
    Pod,
    maps::{self, Map, MapData, PerCpuArray},
};
use hivemind_common::{
    conntrack::{Key, Side},
    drop_reason::DropReason,
    family::{Address, Address4, Address6},
    name,
    translation::{OUTER, Translation},
};

/// Packets dropped since the maps were made, by reason.
pub type Dropped = BTreeMap<&'static str, u64>;

/// The maps that are pinned in a directory.
#[derive(Clone, Debug)]
pub struct PinnedMaps {
    directory: PathBuf,
}

/// The records of connections that have two tuples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translations {
    /// Connections of which both records are there.
    pub whole: usize,
    /// Records without their counterpart: of connections that are being made or forgotten.
    pub halves: usize,
}

impl PinnedMaps {
    /// Those of a layout version, below the directory that `--bpffs` names.
    #[must_use]
    pub fn of_version(bpffs: &Path, version: u32) -> Self {
        Self { directory: bpffs.join(format!("v{version}/maps")) }
    }

    /// Whether there are any.
    #[must_use]
    pub fn exist(&self) -> bool {
        self.directory.join(name::DROP_COUNTERS).exists()
    }

    /// Reads the counters of dropped packets.
    ///
    /// # Errors
    /// When the map is not there.
    pub fn dropped(&self) -> Result<Dropped> {
        let counters = PerCpuArray::<_, u64>::try_from(Map::PerCpuArray(self.open(name::DROP_COUNTERS)?))?;
        let mut dropped = Dropped::new();
        for reason in DropReason::ALL {
            let count: u64 = counters.get(&(reason as u32), 0)?.iter().sum();
            if count > 0 {
                dropped.insert(reason.name(), count);
            }
        }
        Ok(dropped)
    }

    /// Reads both tables of translations, and checks that no two connections have one outer tuple, and none two.
    ///
    /// # Errors
    /// Those that do; when a map is not there.
    pub fn translations(&self) -> Result<[Translations; 2]> {
        Ok([
            self.translations_of::<Address4>(name::TRANSLATION_V4)?,
            self.translations_of::<Address6>(name::TRANSLATION_V6)?,
        ])
    }

    fn translations_of<A>(&self, map: &'static str) -> Result<Translations>
    where
        A: Address + Eq + Hash + Debug,
        Key<A>: Pod,
        Translation<A>: Pod,
    {
        let table = maps::HashMap::<_, Key<A>, Translation<A>>::try_from(Map::HashMap(self.open(map)?))?;
        // What goes while it is read is not looked at.
        let records: HashMap<Key<A>, Translation<A>> = table.iter().filter_map(Result::ok).collect();
        let other = |key: &Key<A>, record: &Translation<A>| {
            let face = if key.face == OUTER { 0 } else { OUTER };
            Key { face, ..record.turn(Side::Low, key.protocol).0 }
        };
        let (mut outer, mut inner, mut whole) = (HashSet::new(), HashSet::new(), 0);
        for (key, record) in &records {
            let counterpart = other(key, record);
            let seen = if key.face == OUTER { &mut inner } else { &mut outer };
            ensure!(seen.insert(counterpart), "{map}: two connections have {counterpart:?}");
            whole += usize::from(records.contains_key(&counterpart));
        }
        Ok(Translations { whole: whole / 2, halves: records.len() - whole })
    }

    /// How many connections are known.
    ///
    /// # Errors
    /// When a map is not there.
    pub fn connections(&self) -> Result<usize> {
        self.connections_which(|_| true)
    }

    /// How many of them were made under another layout version: of maps of the layout that does not exist, whose entries begin
    /// with it.
    ///
    /// # Errors
    /// When a map is not there.
    pub fn connections_made_under(&self, version: u32) -> Result<usize> {
        self.connections_which(|entry| entry == u64::from(version))
    }

    /// The connections whose entries begin with such a number.
    fn connections_which(&self, is_it: impl Fn(u64) -> bool) -> Result<usize> {
        fn count<A, V>(map: MapData, first: impl Fn(&V) -> bool) -> Result<usize>
        where
            Key<A>: Pod,
            V: Pod,
        {
            let table = maps::HashMap::<_, Key<A>, V>::try_from(Map::HashMap(map))?;
            Ok(table.iter().filter_map(Result::ok).filter(|(_, value)| first(value)).count())
        }
        fn count_of<A>(map: MapData, is_it: impl Fn(u64) -> bool) -> Result<usize>
        where
            Key<A>: Pod,
        {
            // Seventeen words in the layout that does not exist.
            if map.info()?.value_size() == 136 {
                count::<A, [u64; 17]>(map, |entry| is_it(entry[0]))
            } else {
                count::<A, [u64; 16]>(map, |entry| is_it(entry[0]))
            }
        }
        let v4 = count_of::<Address4>(self.open(name::CONNTRACK_V4)?, &is_it)?;
        Ok(v4 + count_of::<Address6>(self.open(name::CONNTRACK_V6)?, &is_it)?)
    }

    /// What a map takes in the kernel, in bytes (`memlock` of its file descriptor, as bpftool(8) tells it).
    ///
    /// # Errors
    /// When the map is not there.
    pub fn bytes(&self, map: &str) -> Result<u64> {
        let map = self.open(map)?;
        let about = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
        let about = std::fs::read_to_string(&about).with_context(|| format!("cannot read {about}"))?;
        let field = about.lines().find_map(|line| line.strip_prefix("memlock:"));
        field.context("no memlock")?.trim().parse().context("memlock is no number")
    }

    fn open(&self, map: &str) -> Result<MapData> {
        let path = self.directory.join(map);
        MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))
    }
}
