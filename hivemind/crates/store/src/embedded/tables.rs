//! The tables in the file.
//!
//! | table | key → value |
//! |---|---|
//! | `log` | revision, index → key, its mod revision before (0: none) |
//! | `versions` | key, mod revision → create revision, version, lease (0: none), value; version 0 marks a deletion |
//! | `keys` | key → create revision, mod revision, version, lease: the newest version of what exists |
//! | `leases` | lease → time to live in seconds |
//! | `lease_keys` | lease, key |
//! | `meta` | name → number |

use bytes::Bytes;
use redb::{ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::database::Interrupt;
use crate::{Error, Key, KeyValue, LeaseId, Revision};

/// Create revision, version, lease, value.
pub(super) type VersionRow = (u64, u64, u64, &'static [u8]);
/// Create revision, mod revision, version, lease.
pub(super) type KeyRow = (u64, u64, u64, u64);
/// Key and the mod revision it had before.
pub(super) type LogRow = (&'static str, u64);

pub(super) const LOG: TableDefinition<(u64, u32), LogRow> = TableDefinition::new("log");
pub(super) const VERSIONS: TableDefinition<(&str, u64), VersionRow> = TableDefinition::new("versions");
pub(super) const KEYS: TableDefinition<&str, KeyRow> = TableDefinition::new("keys");
pub(super) const LEASES: TableDefinition<u64, u64> = TableDefinition::new("leases");
pub(super) const LEASE_KEYS: TableDefinition<(u64, &str), ()> = TableDefinition::new("lease_keys");
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// The format of all of the above.
const FORMAT: u64 = 1;

/// The numbers of `meta`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    /// The newest revision.
    pub(super) head: Revision,
    /// Reads below this and watches up to this are refused.
    pub(super) compacted: Revision,
    /// How far the compacted history is removed already.
    pub(super) pruned: Revision,
    /// Bytes of versions that are not current.
    pub(super) history_bytes: u64,
    /// The next lease to grant.
    pub(super) next_lease: u64,
    /// Counts commits, so that one whose answer was lost can be recognised.
    pub(super) commits: u64,
}

impl Marks {
    const fn initial() -> Self {
        Self {
            head: Revision::INITIAL,
            compacted: Revision::ZERO,
            pruned: Revision::ZERO,
            history_bytes: 0,
            next_lease: 1,
            commits: 0,
        }
    }

    pub(super) fn load(meta: &impl ReadableTable<&'static str, u64>) -> Result<Self, Interrupt> {
        let number = |name: &str| -> Result<u64, Interrupt> {
            let missing = || Error::Corrupted { detail: format!("the number {name} is missing") };
            Ok(meta.get(name)?.ok_or_else(missing)?.value())
        };
        Ok(Self {
            head: Revision(number("head")?),
            compacted: Revision(number("compacted")?),
            pruned: Revision(number("pruned")?),
            history_bytes: number("history_bytes")?,
            next_lease: number("next_lease")?,
            commits: number("commits")?,
        })
    }

    pub(super) fn save(&self, meta: &mut Table<&'static str, u64>) -> Result<(), Interrupt> {
        meta.insert("head", self.head.0)?;
        meta.insert("compacted", self.compacted.0)?;
        meta.insert("pruned", self.pruned.0)?;
        meta.insert("history_bytes", self.history_bytes)?;
        meta.insert("next_lease", self.next_lease)?;
        meta.insert("commits", self.commits)?;
        Ok(())
    }
}

/// All tables, open for writing.
pub(super) struct Tables<'t> {
    pub(super) log: Table<'t, (u64, u32), LogRow>,
    pub(super) versions: Table<'t, (&'static str, u64), VersionRow>,
    pub(super) keys: Table<'t, &'static str, KeyRow>,
    pub(super) leases: Table<'t, u64, u64>,
    pub(super) lease_keys: Table<'t, (u64, &'static str), ()>,
    pub(super) meta: Table<'t, &'static str, u64>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(write: &'t WriteTransaction) -> Result<Self, Interrupt> {
        Ok(Self {
            log: write.open_table(LOG)?,
            versions: write.open_table(VERSIONS)?,
            keys: write.open_table(KEYS)?,
            leases: write.open_table(LEASES)?,
            lease_keys: write.open_table(LEASE_KEYS)?,
            meta: write.open_table(META)?,
        })
    }
}

/// Makes the tables of a new store; checks the format of one that exists.
pub(super) fn create(database: &redb::Database) -> Result<(), Interrupt> {
    let format = match database.begin_read()?.open_table(META) {
        Ok(meta) => meta.get("format")?.map(|format| format.value()),
        Err(redb::TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    match format {
        Some(FORMAT) => return Ok(()),
        Some(format) => {
            let detail = format!("its format is {format}, this program knows {FORMAT}");
            return Err(Error::Corrupted { detail }.into());
        }
        None => {}
    }
    let write = database.begin_write()?;
    {
        let mut tables = Tables::open(&write)?;
        tables.meta.insert("format", FORMAT)?;
        Marks::initial().save(&mut tables.meta)?;
    }
    Ok(write.commit()?)
}

/// The current version of a key.
pub(super) fn current(
    keys: &impl ReadableTable<&'static str, KeyRow>,
    versions: &impl ReadableTable<(&'static str, u64), VersionRow>,
    key: &str,
) -> Result<Option<KeyValue>, Interrupt> {
    let Some(row) = keys.get(key)? else { return Ok(None) };
    let (_, mod_revision, ..) = row.value();
    version(versions, key, Revision(mod_revision))
}

/// The version of a key that was written at `at` exactly; `None` for a deletion.
pub(super) fn version(
    versions: &impl ReadableTable<(&'static str, u64), VersionRow>,
    key: &str,
    at: Revision,
) -> Result<Option<KeyValue>, Interrupt> {
    let missing = || Error::Corrupted { detail: format!("version {at} of {key} is missing") };
    let row = versions.get((key, at.0))?.ok_or_else(missing)?;
    key_value(key, at, row.value())
}

/// A row of `versions` as callers see it; `None` for a deletion.
pub(super) fn key_value(
    key: &str,
    mod_revision: Revision,
    (create_revision, version, lease, value): (u64, u64, u64, &[u8]),
) -> Result<Option<KeyValue>, Interrupt> {
    if version == 0 {
        return Ok(None);
    }
    Ok(Some(KeyValue {
        key: Key::new(key)?,
        value: Bytes::copy_from_slice(value),
        create_revision: Revision(create_revision),
        mod_revision,
        version,
        lease: lease_id(lease),
    }))
}

/// A lease as the tables have it: 0 for none.
pub(super) fn lease_id(number: u64) -> Option<LeaseId> {
    std::num::NonZeroU64::new(number).map(LeaseId)
}

/// What a version that is no longer current costs, with an allowance for its rows.
pub(super) const fn history_cost(key_bytes: usize, value_bytes: usize) -> u64 {
    (2 * key_bytes + value_bytes + 64) as u64
}
