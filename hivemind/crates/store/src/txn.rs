//! Transactions: compare, then do one list of operations or the other, all or nothing.

use bytes::Bytes;

use crate::{Error, Key, KeyValue, LeaseId, Prefix, Result, Revision};

/// The largest value, in bytes (1 MiB).
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// The most operations in each of a transaction's two lists, and the most compares.
pub const TXN_OPS_MAX: usize = 8_192;
/// The most keys that the prefix operations of one transaction may delete or return in all.
pub const TXN_KEYS_MAX: usize = 10_000;

/// How a compare relates what is there (left) to what was given (right).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordering {
    /// They are the same.
    Equal,
    /// They differ.
    NotEqual,
    /// What is there is smaller.
    Less,
    /// What is there is greater.
    Greater,
}

impl Ordering {
    /// Whether `there` stands in this relation to `given`.
    pub fn holds<T: Ord + ?Sized>(self, there: &T, given: &T) -> bool {
        match self {
            Self::Equal => there == given,
            Self::NotEqual => there != given,
            Self::Less => there < given,
            Self::Greater => there > given,
        }
    }
}

/// A condition on one key. A key that does not exist has create and mod revision
/// [`Revision::ZERO`] and version 0; a compare of its value never holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key exists.
    Exists(Key),
    /// The key does not exist.
    Missing(Key),
    /// Its value, byte by byte.
    Value(Key, Ordering, Bytes),
    /// The revision that last wrote it.
    ModRevision(Key, Ordering, Revision),
    /// The revision that created it.
    CreateRevision(Key, Ordering, Revision),
    /// How often it was written since it was created.
    Version(Key, Ordering, u64),
}

impl Compare {
    /// The key it is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Exists(key)
            | Self::Missing(key)
            | Self::Value(key, ..)
            | Self::ModRevision(key, ..)
            | Self::CreateRevision(key, ..)
            | Self::Version(key, ..) => key,
        }
    }

    /// Whether it holds for what is there under its key.
    pub fn holds(&self, there: Option<&KeyValue>) -> bool {
        let revision = |of: fn(&KeyValue) -> Revision| there.map_or(Revision::ZERO, of);
        match self {
            Self::Exists(_) => there.is_some(),
            Self::Missing(_) => there.is_none(),
            Self::Value(_, ordering, given) => {
                there.is_some_and(|kv| ordering.holds::<[u8]>(&kv.value, given))
            }
            Self::ModRevision(_, ordering, given) => ordering.holds(&revision(|kv| kv.mod_revision), given),
            Self::CreateRevision(_, ordering, given) => {
                ordering.holds(&revision(|kv| kv.create_revision), given)
            }
            Self::Version(_, ordering, given) => ordering.holds(&there.map_or(0, |kv| kv.version), given),
        }
    }
}

/// One operation. Operations of a list run in order, and each sees the ones before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a value. The key's lease becomes the one given: `None` detaches it.
    Put {
        /// The key to write.
        key: Key,
        /// Its new value.
        value: Bytes,
        /// The lease that the key goes with from now on.
        lease: Option<LeaseId>,
    },
    /// Deletes a key; nothing happens when it is not there.
    Delete(Key),
    /// Deletes every key of a prefix.
    DeletePrefix(Prefix),
    /// Reads a key.
    Get(Key),
    /// Reads every key of a prefix.
    List(Prefix),
}

/// What an operation gave, in the place of the operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// Of a put: what was there before.
    Put(Option<KeyValue>),
    /// Of a delete: what was there before, in order of the keys.
    Deleted(Vec<KeyValue>),
    /// Of a get.
    Got(Option<KeyValue>),
    /// Of a list, in order of the keys.
    Listed(Vec<KeyValue>),
}

/// A transaction: if every compare holds, `success` runs, else `failure`. Either runs whole or not at
/// all, and everything it writes carries one revision.
///
/// ```
/// use hivemind_store::{Compare, Key, Txn};
/// let key = Key::new("/nodes/a")?;
/// let create_once = Txn::new().when(Compare::Missing(key.clone())).put(key.clone(), "up").or_get(key);
/// assert_eq!(create_once.success.len(), 1);
/// # Ok::<(), hivemind_store::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must hold for `success` to run.
    pub compares: Vec<Compare>,
    /// Runs when every compare holds.
    pub success: Vec<Op>,
    /// Runs when one does not.
    pub failure: Vec<Op>,
}

impl Txn {
    /// One without conditions or operations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds an operation to run on success.
    #[must_use]
    pub fn then(mut self, op: Op) -> Self {
        self.success.push(op);
        self
    }

    /// Adds an operation to run on failure.
    #[must_use]
    pub fn otherwise(mut self, op: Op) -> Self {
        self.failure.push(op);
        self
    }

    /// On success, writes a value without a lease.
    #[must_use]
    pub fn put(self, key: Key, value: impl Into<Bytes>) -> Self {
        self.then(Op::Put { key, value: value.into(), lease: None })
    }

    /// On success, writes a value that goes with a lease.
    #[must_use]
    pub fn put_leased(self, key: Key, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        self.then(Op::Put { key, value: value.into(), lease: Some(lease) })
    }

    /// On success, deletes a key.
    #[must_use]
    pub fn delete(self, key: Key) -> Self {
        self.then(Op::Delete(key))
    }

    /// On failure, reads a key: what a caller that lost a race wants to know.
    #[must_use]
    pub fn or_get(self, key: Key) -> Self {
        self.otherwise(Op::Get(key))
    }

    /// Checks the limits that do not depend on the store's content.
    ///
    /// # Errors
    /// [`Error::TooManyOps`], [`Error::ValueTooLarge`], or [`Error::DuplicateKey`] when one list
    /// writes a key twice (a put together with another put or delete of the same key): a revision
    /// holds one change a key.
    pub fn validate(&self) -> Result<()> {
        let ops = self.compares.len().max(self.success.len()).max(self.failure.len());
        if ops > TXN_OPS_MAX {
            return Err(Error::TooManyOps { ops });
        }
        validate_writes(&self.success)?;
        validate_writes(&self.failure)
    }

    /// Bytes of keys and values that it carries, for bounding what waits in memory.
    pub(crate) fn size_bytes(&self) -> usize {
        let op = |op: &Op| match op {
            Op::Put { key, value, .. } => key.as_str().len() + value.len(),
            Op::Delete(key) | Op::Get(key) => key.as_str().len(),
            Op::DeletePrefix(prefix) | Op::List(prefix) => prefix.as_str().len(),
        };
        self.success.iter().chain(&self.failure).map(op).sum()
    }
}

fn validate_writes(ops: &[Op]) -> Result<()> {
    let mut puts = std::collections::BTreeSet::new();
    for op in ops {
        if let Op::Put { key, value, .. } = op {
            if value.len() > VALUE_BYTES_MAX {
                return Err(Error::ValueTooLarge { key: key.clone(), size_bytes: value.len() });
            }
            if !puts.insert(key) {
                return Err(Error::DuplicateKey { key: key.clone() });
            }
        }
    }
    for op in ops {
        let twice = match op {
            Op::Delete(key) => puts.get(key).copied(),
            Op::DeletePrefix(prefix) => puts.iter().copied().find(|key| prefix.holds(key.as_str())),
            Op::Put { .. } | Op::Get(_) | Op::List(_) => None,
        };
        if let Some(key) = twice {
            return Err(Error::DuplicateKey { key: key.clone() });
        }
    }
    Ok(())
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnResponse {
    /// Whether the compares held, so that `success` ran.
    pub succeeded: bool,
    /// The store's revision after it: its own if it changed something.
    pub revision: Revision,
    /// One result for each operation of the list that ran, in order.
    pub results: Vec<OpResult>,
}
