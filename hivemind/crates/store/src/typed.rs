//! Values as JSON, and the two writes that nearly everybody needs.

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Compare, Error, Key, Ordering, Result, Revision, Store, Txn};

/// A parsed value with the revision to compare against when writing it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// The revision that last wrote it.
    pub mod_revision: Revision,
}

/// Conveniences over [`Store`], for every backend.
#[async_trait]
pub trait StoreExt: Store {
    /// Writes a value whatever was there, without a lease. Returns the revision of the write.
    async fn put(&self, key: Key, value: Bytes) -> Result<Revision> {
        Ok(self.txn(Txn::new().put(key, value)).await?.revision)
    }

    /// Deletes a key. Returns whether it was there.
    async fn delete(&self, key: Key) -> Result<bool> {
        let before = self.txn(Txn::new().delete(key)).await?;
        Ok(matches!(&before.results[..], [crate::OpResult::Deleted(gone)] if !gone.is_empty()))
    }

    /// Reads and parses a value.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the value is not such a `T`.
    async fn get_json<T: DeserializeOwned + Send>(&self, key: &Key) -> Result<Option<Versioned<T>>> {
        let Some(found) = self.get(key, None).await?.found else { return Ok(None) };
        let value = serde_json::from_slice(&found.value)
            .map_err(|error| Error::Malformed { key: key.clone(), detail: error.to_string() })?;
        Ok(Some(Versioned { value, mod_revision: found.mod_revision }))
    }

    /// Writes a value if the key was last written at `expected` ([`Revision::ZERO`]: does not
    /// exist). Returns the revision of the write, or `None` if somebody else was faster.
    ///
    /// # Errors
    /// [`Error::Malformed`] when `value` cannot be written as JSON.
    async fn put_json<T: Serialize + Sync>(
        &self,
        key: &Key,
        value: &T,
        expected: Revision,
    ) -> Result<Option<Revision>> {
        let json = serde_json::to_vec(value)
            .map_err(|error| Error::Malformed { key: key.clone(), detail: error.to_string() })?;
        let unchanged = Compare::ModRevision(key.clone(), Ordering::Equal, expected);
        let response = self.txn(Txn::new().when(unchanged).put(key.clone(), json)).await?;
        Ok(response.succeeded.then_some(response.revision))
    }
}

impl<S: Store + ?Sized> StoreExt for S {}
