//! What becomes of a value that the server tells, where a part of it is the node's own to say.

use hivemind_model::{ApiError, NetworkPolicy, Node, ObjectRef, Replica, Resource, Service};
use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{fault::malformed, key::Kind};

/// What is to be done to the node's copy.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Write this.
    Put(Value),
    /// Remove it.
    Delete,
    /// Leave it as it is.
    Keep,
    /// Leave it as it is, and tell the server that this replica of the node's is gone.
    Gone(ObjectRef),
}

/// The server says that the value under `key` is `told`, and `kept` is what node `node` has there.
///
/// # Errors
/// [`hivemind_model::ErrorCode::StoreFailed`] if a value cannot be read.
pub fn put(node: &str, key: &str, kept: Option<&[u8]>, told: Value) -> Result<Outcome, ApiError> {
    match Kind::of(key) {
        Kind::Replica => {
            let told: Replica = of_value(key, told)?;
            if told.spec.node != node {
                return put_value(key, &told);
            }
            own_replica(key, kept, told)
        }
        Kind::Service => {
            let (mut told, kept): (Service, Option<Service>) = (of_value(key, told)?, of_kept(key, kept)?);
            if let Some(kept) = kept {
                told.status.note(node, kept.status.node_problems.get(node).cloned());
            }
            put_value(key, &told)
        }
        Kind::Policy => {
            let mut told: NetworkPolicy = of_value(key, told)?;
            let kept: Option<NetworkPolicy> = of_kept(key, kept)?;
            if let Some(kept) = kept.filter(|kept| kept.metadata.uid == told.metadata.uid)
                && let Some(own) = kept.status.nodes.get(node)
            {
                told.status.note(node, own);
            }
            put_value(key, &told)
        }
        Kind::Node => {
            let (mut told, kept): (Node, Option<Node>) = (of_value(key, told)?, of_kept(key, kept)?);
            if told.metadata.name == node
                && let Some(kept) = kept
            {
                let (state, since) = (told.status.state, told.status.since);
                told.status = kept.status;
                (told.status.state, told.status.since) = (state, since);
            }
            put_value(key, &told)
        }
        Kind::Cluster | Kind::Shared | Kind::Volume | Kind::Other => Ok(Outcome::Put(told)),
    }
}

/// How a replica of the node's own is, is for the node to say; that it is on its way out is not taken back.
fn own_replica(key: &str, kept: Option<&[u8]>, mut told: Replica) -> Result<Outcome, ApiError> {
    let kept: Option<Replica> = of_kept(key, kept)?;
    match kept {
        Some(kept) if kept.metadata.uid == told.metadata.uid => {
            told.status = kept.status;
            told.metadata.deletion_timestamp =
                told.metadata.deletion_timestamp.or(kept.metadata.deletion_timestamp);
            put_value(key, &told)
        }
        // Taken down before, or never begun.
        None if told.metadata.is_deleting() => Ok(Outcome::Gone(reference(&told))),
        _ => put_value(key, &told),
    }
}

/// The server says that there is nothing under `key` any more, and `kept` is what node `node` has there, at `now`.
///
/// A replica of the node's own has to be taken down first: it is marked, and goes when that is done.
///
/// # Errors
/// [`hivemind_model::ErrorCode::StoreFailed`] if a value cannot be read.
pub fn delete(node: &str, key: &str, kept: Option<&[u8]>, now: Timestamp) -> Result<Outcome, ApiError> {
    let Some(kept) = kept else { return Ok(Outcome::Keep) };
    if Kind::of(key) != Kind::Replica {
        return Ok(Outcome::Delete);
    }
    let mut replica: Replica = of_bytes(key, kept)?;
    if replica.spec.node != node {
        return Ok(Outcome::Delete);
    }
    if replica.metadata.is_deleting() {
        return Ok(Outcome::Keep);
    }
    replica.metadata.deletion_timestamp = Some(now);
    put_value(key, &replica)
}

pub(crate) fn reference(object: &impl Resource) -> ObjectRef {
    let metadata = object.metadata();
    ObjectRef { namespace: metadata.namespace.clone(), name: metadata.name.clone(), uid: metadata.uid }
}

pub(crate) fn of_bytes<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| malformed(key, &error))
}

fn of_kept<T: DeserializeOwned>(key: &str, kept: Option<&[u8]>) -> Result<Option<T>, ApiError> {
    kept.map(|bytes| of_bytes(key, bytes)).transpose()
}

fn of_value<T: DeserializeOwned>(key: &str, value: Value) -> Result<T, ApiError> {
    serde_json::from_value(value).map_err(|error| malformed(key, &error))
}

fn put_value(key: &str, object: &impl Serialize) -> Result<Outcome, ApiError> {
    serde_json::to_value(object).map(Outcome::Put).map_err(|error| malformed(key, &error))
}
