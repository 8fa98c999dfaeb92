//! Objects that are decoded only if they are asked for: of many, often few are.

use std::marker::PhantomData;

use hivemind_model::{ApiError, List};

use super::object::{self, Object, decode, key};
use crate::Listing;

/// All objects of a kind as they lay in the store at one moment.
pub struct Stored<T> {
    listing: Listing,
    of: PhantomData<T>,
}

impl<T: Object> Stored<T> {
    pub(super) fn new(listing: Listing) -> Self {
        Stored { listing, of: PhantomData }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.listing.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.listing.items.is_empty()
    }

    /// The one of that name, if there is one.
    ///
    /// # Errors
    /// [`hivemind_model::ErrorCode::StoreFailed`] if it cannot be read.
    pub fn find(&self, namespace: &str, name: &str) -> Result<Option<T>, ApiError> {
        let Ok(key) = key::<T>(namespace, name) else { return Ok(None) };
        let items = &self.listing.items;
        let found = items.binary_search_by(|item| item.key.cmp(&key)).ok().map(|at| &items[at]);
        found.map(decode).transpose()
    }

    /// All of them, by namespace and name.
    ///
    /// # Errors
    /// [`hivemind_model::ErrorCode::StoreFailed`] if one cannot be read.
    pub fn decode(&self) -> Result<List<T>, ApiError> {
        object::list(&self.listing)
    }
}
