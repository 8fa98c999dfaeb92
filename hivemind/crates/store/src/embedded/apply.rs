//! Transactions on the tables: first planned against what is there, then written, so that one that is
//! refused half way leaves nothing behind.

use std::{collections::BTreeMap, ops::Bound};

use redb::{ReadableTable, ReadableTableMetadata};

use super::{
    database::Interrupt,
    tables::{self, Marks, Tables, history_cost, lease_id},
};
use crate::{
    Error, Event, Key, KeyValue, LEASES_MAX, LeaseId, Op, OpResult, Prefix, Revision, TXN_KEYS_MAX, Txn,
    TxnResponse, WatchBatch,
};

/// A key before and after.
struct Change {
    before: Option<KeyValue>,
    after: Option<KeyValue>,
}

/// What a transaction will change, by key; its own reads look here first.
#[derive(Default)]
struct Plan {
    changes: BTreeMap<Key, Change>,
    /// Keys met by prefix operations.
    keys_met: usize,
}

/// Runs a transaction. Returns its answer and, if it changed something, its revision's events.
pub(super) fn txn(
    tables: &mut Tables,
    marks: &mut Marks,
    txn: &Txn,
) -> Result<(TxnResponse, Option<WatchBatch>), Interrupt> {
    let mut succeeded = true;
    for compare in &txn.compares {
        let there = tables::current(&tables.keys, &tables.versions, compare.key().as_str())?;
        succeeded &= compare.holds(there.as_ref());
    }
    let mut plan = Plan::default();
    let ops = if succeeded { &txn.success } else { &txn.failure };
    let results =
        ops.iter().map(|op| plan.op(tables, marks.head.next(), op)).collect::<Result<Vec<_>, _>>()?;
    let batch = write(tables, marks, plan)?;
    Ok((TxnResponse { succeeded, revision: marks.head, results }, batch))
}

/// Grants a lease.
pub(super) fn grant(tables: &mut Tables, marks: &mut Marks, ttl_s: u64) -> Result<LeaseId, Interrupt> {
    if tables.leases.len()? >= LEASES_MAX as u64 {
        return Err(Error::TooManyLeases.into());
    }
    let id = lease_id(marks.next_lease).expect("leases are numbered from one");
    marks.next_lease += 1;
    tables.leases.insert(id.0.get(), ttl_s)?;
    Ok(id)
}

/// Ends a lease and deletes its keys.
pub(super) fn revoke(
    tables: &mut Tables,
    marks: &mut Marks,
    id: LeaseId,
) -> Result<Option<WatchBatch>, Interrupt> {
    let number = id.0.get();
    if tables.leases.remove(number)?.is_none() {
        return Err(Error::LeaseNotFound { id }.into());
    }
    let mut plan = Plan::default();
    for key in lease_keys(&tables.lease_keys, id)? {
        plan.delete(tables, &key)?;
    }
    write(tables, marks, plan)
}

/// The keys that go with a lease, in order.
pub(super) fn lease_keys(
    table: &impl ReadableTable<(u64, &'static str), ()>,
    id: LeaseId,
) -> Result<Vec<Key>, Interrupt> {
    let number = id.0.get();
    let mut keys = Vec::new();
    for row in table.range((number, "")..)? {
        let row = row?.0;
        let (lease, key) = row.value();
        if lease != number {
            break;
        }
        keys.push(Key::new(key)?);
    }
    Ok(keys)
}

impl Plan {
    fn op(&mut self, tables: &Tables, revision: Revision, op: &Op) -> Result<OpResult, Interrupt> {
        match op {
            Op::Put { key, value, lease } => {
                if let Some(id) = *lease
                    && tables.leases.get(id.0.get())?.is_none()
                {
                    return Err(Error::LeaseNotFound { id }.into());
                }
                let before = self.get(tables, key)?;
                let after = KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    create_revision: before.as_ref().map_or(revision, |kv| kv.create_revision),
                    mod_revision: revision,
                    version: before.as_ref().map_or(1, |kv| kv.version + 1),
                    lease: *lease,
                };
                let change = Change { before: before.clone(), after: Some(after) };
                self.changes.insert(key.clone(), change);
                Ok(OpResult::Put(before))
            }
            Op::Delete(key) => Ok(OpResult::Deleted(self.delete(tables, key)?.into_iter().collect())),
            Op::DeletePrefix(prefix) => {
                let there = self.list(tables, prefix)?;
                for kv in &there {
                    self.delete(tables, &kv.key)?;
                }
                Ok(OpResult::Deleted(there))
            }
            Op::Get(key) => Ok(OpResult::Got(self.get(tables, key)?)),
            Op::List(prefix) => Ok(OpResult::Listed(self.list(tables, prefix)?)),
        }
    }

    fn get(&self, tables: &Tables, key: &Key) -> Result<Option<KeyValue>, Interrupt> {
        match self.changes.get(key) {
            Some(change) => Ok(change.after.clone()),
            None => tables::current(&tables.keys, &tables.versions, key.as_str()),
        }
    }

    fn delete(&mut self, tables: &Tables, key: &Key) -> Result<Option<KeyValue>, Interrupt> {
        let before = self.get(tables, key)?;
        if before.is_some() {
            self.changes.insert(key.clone(), Change { before: before.clone(), after: None });
        }
        Ok(before)
    }

    fn list(&mut self, tables: &Tables, prefix: &Prefix) -> Result<Vec<KeyValue>, Interrupt> {
        let mut found = BTreeMap::new();
        for row in tables.keys.range(prefix.as_str()..)? {
            let row = row?.0;
            let key = row.value();
            if !prefix.holds(key) {
                break;
            }
            self.keys_met += 1;
            if self.keys_met > TXN_KEYS_MAX {
                return Err(Error::TooManyKeys.into());
            }
            if let Some(kv) = tables::current(&tables.keys, &tables.versions, key)? {
                found.insert(kv.key.clone(), kv);
            }
        }
        for (key, change) in
            self.changes.range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded))
        {
            if !prefix.holds(key.as_str()) {
                break;
            }
            match &change.after {
                Some(kv) => found.insert(key.clone(), kv.clone()),
                None => found.remove(key),
            };
        }
        Ok(found.into_values().collect())
    }
}

/// Writes a plan as the next revision, if it changes anything.
fn write(tables: &mut Tables, marks: &mut Marks, plan: Plan) -> Result<Option<WatchBatch>, Interrupt> {
    if plan.changes.is_empty() {
        return Ok(None);
    }
    let revision = marks.head.next();
    marks.head = revision;
    let mut events = Vec::with_capacity(plan.changes.len());
    for (index, (key, change)) in (0u32..).zip(plan.changes) {
        write_change(tables, marks, revision, index, &key, &change)?;
        events.push(match (change.before, change.after) {
            (previous, Some(current)) => Event::Put { current, previous },
            (Some(previous), None) => Event::Delete { previous, revision },
            (None, None) => unreachable!("only keys that exist are planned to be deleted"),
        });
    }
    Ok(Some(WatchBatch { revision, events }))
}

fn write_change(
    tables: &mut Tables,
    marks: &mut Marks,
    revision: Revision,
    index: u32,
    key: &Key,
    change: &Change,
) -> Result<(), Interrupt> {
    let name = key.as_str();
    let lease = |kv: &Option<KeyValue>| kv.as_ref().and_then(|kv| kv.lease).map_or(0, |id| id.0.get());
    let (lease_before, lease_after) = (lease(&change.before), lease(&change.after));
    let before = change.before.as_ref().map_or(0, |kv| kv.mod_revision.0);
    tables.log.insert((revision.0, index), (name, before))?;
    if let Some(kv) = &change.before {
        marks.history_bytes += history_cost(name.len(), kv.value.len());
    }
    match &change.after {
        Some(kv) => {
            let created = kv.create_revision.0;
            tables.versions.insert((name, revision.0), (created, kv.version, lease_after, &*kv.value))?;
            tables.keys.insert(name, (created, revision.0, kv.version, lease_after))?;
        }
        None => {
            tables.versions.insert((name, revision.0), (0, 0, 0, &[][..]))?;
            tables.keys.remove(name)?;
            marks.history_bytes += history_cost(name.len(), 0);
        }
    }
    if lease_before != lease_after {
        if lease_before != 0 {
            tables.lease_keys.remove((lease_before, name))?;
        }
        if lease_after != 0 {
            tables.lease_keys.insert((lease_after, name), ())?;
        }
    }
    Ok(())
}
