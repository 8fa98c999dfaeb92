//! Several changes of objects in one transaction.

use std::collections::BTreeSet;

use bytes::Bytes;
use hivemind_model::{ApiError, ErrorCode, Metadata, Problems, short_id};
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::{
    fault::{not_found, stale},
    object::{Claim, NoSuchKey, Object, encode, id_key, key, owner},
};
use crate::{Compare, Key, KeyValue, Op, Ordering, Revision};

/// Changes of objects that happen together or not at all; see [`super::Objects::transact`]. Building them does no I/O.
#[derive(Debug, Default)]
pub struct Changes {
    pub(super) guards: Vec<Guard>,
    pub(super) ops: Vec<Op>,
}

/// A condition, and what it means when it does not hold.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) compare: Compare,
    owner: String,
    meaning: Meaning,
}

#[derive(Debug)]
enum Meaning {
    /// The name is taken.
    Exists { kind: &'static str, name: String, namespaced: bool, code: ErrorCode },
    /// The object changed, or is gone.
    Changed { kind: &'static str, name: String, gone: ApiError },
    /// Somebody else has what is claimed.
    Claimed(Claim),
    /// The short id is in use, or another made the same thing: the next try does it.
    Passing { kind: &'static str, name: String },
}

impl Changes {
    /// No change.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `object`, whose metadata is filled in; all but `resource_version`, which is the revision that the
    /// transaction gives.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidName`] for a name or namespace that cannot be stored.
    pub fn create<T: Object>(&mut self, object: &mut T) -> Result<(), ApiError> {
        let name = object.metadata().name.clone();
        self.make(
            object,
            Meaning::Exists { kind: T::ID_PREFIX, name, namespaced: T::NAMESPACED, code: T::EXISTS },
        )
    }

    /// As [`Changes::create`], of something that others may make just as well: that it is there by then is no conflict,
    /// but [`ErrorCode::Stale`].
    ///
    /// # Errors
    /// As [`Changes::create`].
    pub fn provide<T: Object>(&mut self, object: &mut T) -> Result<(), ApiError> {
        let name = object.metadata().name.clone();
        self.make(object, Meaning::Passing { kind: T::KIND, name })
    }

    fn make<T: Object>(&mut self, object: &mut T, meaning: Meaning) -> Result<(), ApiError> {
        let metadata = object.metadata_mut();
        *metadata = Metadata {
            id: short_id(T::ID_PREFIX),
            uid: Uuid::now_v7(),
            generation: 1,
            creation_timestamp: Timestamp::now(),
            labels: std::mem::take(&mut metadata.labels),
            annotations: std::mem::take(&mut metadata.annotations),
            ..Metadata::new(metadata.namespace.clone(), metadata.name.clone())
        };
        let (key, owner) = (key_of(object)?, owner(object));
        let name = object.metadata().name.clone();
        self.guard(Compare::Missing(key.clone()), &owner, meaning);
        self.put(key, encode(object)?);
        let id = id_key(&object.metadata().id).map_err(invalid_name)?;
        self.guard(Compare::Missing(id.clone()), &owner, Meaning::Passing { kind: T::KIND, name });
        self.put(id, owner.clone());
        for claim in object.claims() {
            self.claim(claim, &owner)?;
        }
        Ok(())
    }

    /// Writes `next` in the place of `current`, if that is still what is there. What the server owns in the metadata is
    /// carried over. Returns whether anything differs; if not, nothing was added.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidName`] if `next` bears another name.
    pub fn update<T: Object>(&mut self, current: &T, next: &mut T) -> Result<bool, ApiError> {
        let key = key_of(current)?;
        if key_of(next)? != key {
            return Err(ApiError::new(
                ErrorCode::InvalidName,
                "an object cannot be renamed",
                "make another one",
            ));
        }
        let before = current.metadata();
        let metadata = next.metadata_mut();
        metadata.id.clone_from(&before.id);
        metadata.uid = before.uid;
        metadata.creation_timestamp = before.creation_timestamp;
        metadata.resource_version = before.resource_version;
        // Deletion cannot be taken back: others have begun to act on it.
        metadata.deletion_timestamp = before.deletion_timestamp.or(metadata.deletion_timestamp);
        metadata.generation = before.generation;
        let (old, new) = (json(current)?, json(next)?);
        if old == new {
            return Ok(false);
        }
        next.metadata_mut().generation += u64::from(old.get("spec") != new.get("spec"));
        self.unchanged(current, key.clone());
        self.put(key, encode(next)?);
        let owner = owner(current);
        let (held, wanted) = (current.claims(), next.claims());
        for claim in &held {
            if !wanted.iter().any(|other| other.key == claim.key) {
                self.release(claim)?;
            }
        }
        for claim in wanted {
            if !held.iter().any(|other| other.key == claim.key) {
                self.claim(claim, &owner)?;
            }
        }
        Ok(true)
    }

    /// Removes `current`, as it was read, if that is still what is there.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidName`] for a name or namespace that cannot be stored.
    pub fn delete<T: Object>(&mut self, current: &T) -> Result<(), ApiError> {
        let key = key_of(current)?;
        self.unchanged(current, key.clone());
        self.ops.push(Op::Delete(key));
        if let Ok(id) = id_key(&current.metadata().id) {
            self.ops.push(Op::Delete(id));
        }
        current.claims().iter().try_for_each(|claim| self.release(claim))
    }

    fn unchanged<T: Object>(&mut self, current: &T, key: Key) {
        let metadata = current.metadata();
        let meaning = Meaning::Changed {
            kind: T::KIND,
            name: metadata.name.clone(),
            gone: not_found::<T>(&metadata.namespace, &metadata.name),
        };
        let revision = Revision(metadata.resource_version);
        self.guard(Compare::ModRevision(key, Ordering::Equal, revision), &owner(current), meaning);
    }

    fn claim(&mut self, claim: Claim, owner: &str) -> Result<(), ApiError> {
        let key = Key::new(claim.key.as_str())?;
        self.put(key.clone(), owner.to_owned());
        self.guard(Compare::Missing(key), owner, Meaning::Claimed(claim));
        Ok(())
    }

    /// Needs no condition of its own: as long as its object is what it was, the claim is that object's.
    fn release(&mut self, claim: &Claim) -> Result<(), ApiError> {
        self.ops.push(Op::Delete(Key::new(claim.key.as_str())?));
        Ok(())
    }

    fn put(&mut self, key: Key, value: impl Into<Bytes>) {
        self.ops.push(Op::Put { key, value: value.into(), lease: None });
    }

    fn guard(&mut self, compare: Compare, owner: &str, meaning: Meaning) {
        self.guards.push(Guard { compare, owner: owner.to_owned(), meaning });
    }
}

fn key_of<T: Object>(object: &T) -> Result<Key, ApiError> {
    let metadata = object.metadata();
    key::<T>(&metadata.namespace, &metadata.name).map_err(invalid_name)
}

fn invalid_name(error: NoSuchKey) -> ApiError {
    ApiError::new(ErrorCode::InvalidName, error.to_string(), "use letters, digits and '-'")
        .at("metadata.name")
}

fn json<T: Object>(object: &T) -> Result<Value, ApiError> {
    serde_json::to_value(object)
        .map_err(|error| ApiError::new(ErrorCode::Internal, format!("{} is not JSON: {error}", T::KIND), ""))
}

/// One error for all conditions that do not hold, given what was found under their keys.
///
/// Conflicts that pass by themselves when the changes are built anew ([`ErrorCode::Stale`]) are only told when there
/// are no others.
pub(super) fn conflicts(guards: impl Iterator<Item = (Guard, Option<KeyValue>)>) -> ApiError {
    let (mut lasting, mut passing) = (Problems::default(), None);
    let mut named = BTreeSet::new();
    for (guard, found) in guards.filter(|(guard, found)| !guard.compare.holds(found.as_ref())) {
        let (holder, error) = guard.explain(found.as_ref());
        if error.code == ErrorCode::Stale {
            passing.get_or_insert(error);
        } else if holder != guard.owner || named.insert(holder) {
            // An object that exists has its claims and its service, too: that it exists is all there is to tell.
            lasting.add(error.code, error.field.unwrap_or_default(), error.message, error.hint);
        }
    }
    if let Err(error) = lasting.into_result() {
        return error;
    }
    passing.unwrap_or_else(|| ApiError::new(ErrorCode::Stale, "the changes clashed with others", "try again"))
}

impl Guard {
    /// Who stands in the way, and the error.
    fn explain(&self, found: Option<&KeyValue>) -> (String, ApiError) {
        let holder =
            found.map(|found| String::from_utf8_lossy(&found.value).into_owned()).unwrap_or_default();
        match &self.meaning {
            Meaning::Exists { kind, name, namespaced, code } => {
                let namespace = self.owner.split_once('/').map_or("", |(namespace, _)| namespace);
                let place = if *namespaced { format!(" in namespace {namespace:?}") } else { String::new() };
                (self.owner.clone(), exists(kind, name, &place, *code, found))
            }
            Meaning::Changed { gone, .. } if found.is_none() => (holder, gone.clone()),
            Meaning::Changed { kind, name, .. } | Meaning::Passing { kind, name } => {
                (holder, stale(kind, name))
            }
            Meaning::Claimed(claim) => {
                let what = format!("{} belongs to {holder}", claim.what);
                (holder, ApiError::new(claim.code, what, claim.hint).at(claim.field.clone()))
            }
        }
    }
}

fn exists(kind: &str, name: &str, place: &str, code: ErrorCode, found: Option<&KeyValue>) -> ApiError {
    let deleting = found
        .and_then(|found| serde_json::from_slice::<Value>(&found.value).ok())
        .is_some_and(|value| value.pointer("/metadata/deletionTimestamp").is_some());
    let error = if deleting {
        let what = format!("the {kind} {name:?}{place} is still being deleted");
        ApiError::new(ErrorCode::Deleting, what, "wait until it is gone, or choose another name")
    } else {
        let what = format!("{kind} {name:?} exists already{place}");
        ApiError::new(code, what, "choose another name, or delete the one that is there")
    };
    error.at("metadata.name")
}
