//! Values that know where they stand.

use std::{ops::Deref, sync::Arc};

use hivemind_yaml::Place;

use crate::source::FileId;

/// Where a value stands, and how it is called. [`crate::Sources`] makes a position or a fault of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    pub(crate) file: FileId,
    pub(crate) place: Place,
    pub(crate) key: Option<Place>,
    pub(crate) path: Arc<str>,
}

impl Spot {
    /// The path of the value in the project, such as `services.web.ports[0]`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where the value stands.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The same spot, as seen by its key where it has one: what is said of a field as such is said there.
    pub fn of_key(&self) -> Spot {
        Spot { place: self.key.unwrap_or(self.place), ..self.clone() }
    }
}

/// A value and where it stands. Two are equal if their values are, wherever they stand.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub spot: Spot,
}

impl<T> Located<T> {
    /// What `make` makes of the value, at the same spot.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Located<U> {
        Located { value: make(self.value), spot: self.spot }
    }

    /// Another value at the same spot.
    pub fn with<U>(&self, value: U) -> Located<U> {
        Located { value, spot: self.spot.clone() }
    }
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Located<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Located<T> {}
