//! Compaction: which history goes, and its removal in small steps.

use redb::ReadableTable;

use super::{
    database::Interrupt,
    tables::{Marks, Tables, history_cost},
};
use crate::{Error, Revision};

/// Changes removed with one commit, so that no commit takes long.
const CHANGES_PER_COMMIT_MAX: usize = 1024;

/// What history to keep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    /// Revisions.
    pub(super) revisions: u64,
    /// Bytes of versions that are not current.
    pub(super) bytes_max: u64,
}

impl Retention {
    /// Moves the compacted revision forward if there is too much history. Counted in revisions it
    /// moves a tenth at a time, since pruning many revisions at once touches fewer pages.
    fn apply(self, marks: &mut Marks) {
        let kept = marks.head.0 - marks.compacted.0;
        if kept > self.revisions + self.revisions.div_ceil(10) {
            marks.compacted = Revision(marks.head.0 - self.revisions);
        }
    }

    fn is_met(self, marks: &Marks) -> bool {
        marks.pruned >= marks.compacted
            && (marks.history_bytes <= self.bytes_max || marks.pruned >= marks.head)
    }
}

/// Marks history before `at` as gone, on request.
pub(super) fn compact(marks: &mut Marks, at: Revision) -> Result<(), Interrupt> {
    if at > marks.head {
        return Err(Error::FutureRevision { requested: at, current: marks.head }.into());
    }
    if at <= marks.compacted {
        return Err(Error::Compacted { compacted: marks.compacted }.into());
    }
    marks.compacted = at;
    Ok(())
}

/// Removes some of what is too old. Returns whether there is more to remove.
pub(super) fn prune(tables: &mut Tables, marks: &mut Marks, retention: Retention) -> Result<bool, Interrupt> {
    retention.apply(marks);
    let mut removed = 0;
    while !retention.is_met(marks) {
        if removed >= CHANGES_PER_COMMIT_MAX {
            return Ok(true);
        }
        marks.pruned = marks.pruned.next();
        marks.compacted = marks.compacted.max(marks.pruned);
        removed += 1 + revision(tables, marks)?;
    }
    Ok(false)
}

/// Removes the log of revision `marks.pruned`, and the versions that ended with it.
fn revision(tables: &mut Tables, marks: &mut Marks) -> Result<usize, Interrupt> {
    let at = marks.pruned.0;
    let mut changes = Vec::new();
    for row in tables.log.extract_from_if((at, 0)..=(at, u32::MAX), |_, _| true)? {
        let (_, change) = row?;
        let (key, before) = change.value();
        changes.push((key.to_owned(), before));
    }
    for (key, before) in &changes {
        if *before != 0
            && let Some(gone) = tables.versions.remove((key.as_str(), *before))?
        {
            let cost = history_cost(key.len(), gone.value().3.len());
            marks.history_bytes = marks.history_bytes.saturating_sub(cost);
        }
        let deletion = tables.versions.get((key.as_str(), at))?.is_some_and(|row| row.value().1 == 0);
        if deletion {
            tables.versions.remove((key.as_str(), at))?;
            marks.history_bytes = marks.history_bytes.saturating_sub(history_cost(key.len(), 0));
        }
    }
    Ok(changes.len())
}
