//! Reads on a snapshot.

use std::ops::Bound;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable};

use super::{
    apply,
    database::Interrupt,
    tables::{self, KEYS, KeyRow, LEASE_KEYS, LEASES, LOG, LogRow, META, Marks, VERSIONS, VersionRow},
};
use crate::{
    Error, Event, Key, KeyValue, LeaseId, ListOptions, Listing, Prefix, Reading, Revision, WatchBatch,
};

/// Changes read from the log at once for a watch.
const CHANGES_AT_ONCE: usize = 512;
/// Bytes of events read at once for a watch, unless one revision alone has more.
const EVENT_BYTES_AT_ONCE: usize = 512 * 1024;

/// The store as of its last commit.
pub(super) struct Snapshot {
    log: ReadOnlyTable<(u64, u32), LogRow>,
    versions: ReadOnlyTable<(&'static str, u64), VersionRow>,
    keys: ReadOnlyTable<&'static str, KeyRow>,
    leases: ReadOnlyTable<u64, u64>,
    lease_keys: ReadOnlyTable<(u64, &'static str), ()>,
    meta: ReadOnlyTable<&'static str, u64>,
}

/// A piece of the log.
pub(super) struct LogPiece {
    /// The revisions of the piece that concern the prefix.
    pub(super) batches: Vec<WatchBatch>,
    /// Where the next piece starts.
    pub(super) next: Revision,
}

impl Snapshot {
    pub(super) fn new(read: &ReadTransaction) -> Result<Self, Interrupt> {
        Ok(Self {
            log: read.open_table(LOG)?,
            versions: read.open_table(VERSIONS)?,
            keys: read.open_table(KEYS)?,
            leases: read.open_table(LEASES)?,
            lease_keys: read.open_table(LEASE_KEYS)?,
            meta: read.open_table(META)?,
        })
    }

    pub(super) fn marks(&self) -> Result<Marks, Interrupt> {
        Marks::load(&self.meta)
    }

    /// The leases with their times to live in seconds.
    pub(super) fn leases(&self) -> Result<Vec<(LeaseId, u64)>, Interrupt> {
        let mut leases = Vec::new();
        for row in self.leases.iter()? {
            let (id, ttl_s) = row?;
            leases.extend(tables::lease_id(id.value()).map(|id| (id, ttl_s.value())));
        }
        Ok(leases)
    }

    pub(super) fn lease_keys(&self, id: LeaseId) -> Result<Vec<Key>, Interrupt> {
        if self.leases.get(id.0.get())?.is_none() {
            return Err(Error::LeaseNotFound { id }.into());
        }
        apply::lease_keys(&self.lease_keys, id)
    }

    /// The revision to read at, and whether it is the newest.
    fn point(&self, at: Option<Revision>) -> Result<(Revision, bool), Interrupt> {
        let Marks { head, compacted, .. } = self.marks()?;
        match at {
            Some(at) if at > head => Err(Error::FutureRevision { requested: at, current: head }.into()),
            Some(at) if at < compacted => Err(Error::Compacted { compacted }.into()),
            Some(at) => Ok((at, at == head)),
            None => Ok((head, true)),
        }
    }

    pub(super) fn get(&self, key: &Key, at: Option<Revision>) -> Result<Reading, Interrupt> {
        let (revision, newest) = self.point(at)?;
        let found = if newest {
            tables::current(&self.keys, &self.versions, key.as_str())?
        } else {
            let name = key.as_str();
            let last = self.versions.range((name, 0)..=(name, revision.0))?.next_back().transpose()?;
            match last {
                Some((at, row)) => tables::key_value(name, Revision(at.value().1), row.value())?,
                None => None,
            }
        };
        Ok(Reading { revision, found })
    }

    pub(super) fn list(&self, prefix: &Prefix, options: &ListOptions) -> Result<Listing, Interrupt> {
        let (revision, newest) = self.point(options.at)?;
        let limit = options.limit.unwrap_or(usize::MAX);
        let mut items = if newest {
            self.list_newest(prefix, options.after.as_ref(), limit)?
        } else {
            self.list_older(prefix, options.after.as_ref(), limit, revision)?
        };
        let more = items.len() > limit;
        items.truncate(limit);
        Ok(Listing { revision, items, more })
    }

    /// Up to `limit` keys and one more, by which the caller sees that there are more.
    fn list_newest(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, Interrupt> {
        let start = match after.filter(|after| after.as_str() >= prefix.as_str()) {
            Some(after) => Bound::Excluded(after.as_str()),
            None => Bound::Included(prefix.as_str()),
        };
        let mut items = Vec::new();
        for row in self.keys.range::<&str>((start, Bound::Unbounded))? {
            let row = row?.0;
            if items.len() > limit || !prefix.holds(row.value()) {
                break;
            }
            items.extend(tables::current(&self.keys, &self.versions, row.value())?);
        }
        Ok(items)
    }

    fn list_older(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
        at: Revision,
    ) -> Result<Vec<KeyValue>, Interrupt> {
        let start = match after.filter(|after| after.as_str() >= prefix.as_str()) {
            Some(after) => Bound::Excluded((after.as_str(), u64::MAX)),
            None => Bound::Included((prefix.as_str(), 0)),
        };
        let mut items: Vec<KeyValue> = Vec::new();
        // The newest version up to `at` of the key that the iteration is at.
        let mut candidate: Option<(String, Option<KeyValue>)> = None;
        for row in self.versions.range::<(&str, u64)>((start, Bound::Unbounded))? {
            let (key, row) = row?;
            let (name, written) = key.value();
            if items.len() > limit || !prefix.holds(name) {
                break;
            }
            if candidate.as_ref().is_some_and(|(key, _)| key != name) {
                items.extend(candidate.take().and_then(|(_, kv)| kv));
            }
            if written <= at.0 {
                let kv = tables::key_value(name, Revision(written), row.value())?;
                candidate = Some((name.to_owned(), kv));
            }
        }
        items.extend(candidate.and_then(|(_, kv)| kv));
        Ok(items)
    }

    /// Reads the log from `from` on, as much as is good at once and at least one revision.
    pub(super) fn log(&self, from: Revision, prefix: &Prefix) -> Result<LogPiece, Interrupt> {
        let Marks { head, compacted, .. } = self.marks()?;
        if from <= compacted {
            return Err(Error::Compacted { compacted }.into());
        }
        let mut batches: Vec<WatchBatch> = Vec::new();
        let (mut changes, mut bytes, mut last) = (0, 0, from);
        for row in self.log.range((from.0, 0)..)? {
            let (at, change) = row?;
            let revision = Revision(at.value().0);
            if revision > last && (changes >= CHANGES_AT_ONCE || bytes >= EVENT_BYTES_AT_ONCE) {
                return Ok(LogPiece { batches, next: revision });
            }
            (last, changes) = (revision, changes + 1);
            let (key, before) = change.value();
            if !prefix.holds(key) {
                continue;
            }
            let event = self.event(revision, key, before)?;
            bytes += event.size_bytes();
            match batches.last_mut() {
                Some(batch) if batch.revision == revision => batch.events.push(event),
                _ => batches.push(WatchBatch { revision, events: vec![event] }),
            }
        }
        Ok(LogPiece { batches, next: head.next().max(from) })
    }

    fn event(&self, revision: Revision, key: &str, before: u64) -> Result<Event, Interrupt> {
        let previous = match before {
            0 => None,
            before => tables::version(&self.versions, key, Revision(before))?,
        };
        match (tables::version(&self.versions, key, revision)?, previous) {
            (Some(current), previous) => Ok(Event::Put { current, previous }),
            (None, Some(previous)) => Ok(Event::Delete { previous, revision }),
            (None, None) => {
                let detail = format!("revision {revision} deleted {key}, which was not there");
                Err(Error::Corrupted { detail }.into())
            }
        }
    }
}
