//! The store's logical clock.

use std::fmt;

/// A point in the store's history. It starts at [`Revision::INITIAL`] and grows by exactly one with
/// each transaction that changes something.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// "Never": the create and mod revision of a key that does not exist, as comparisons see it.
    pub const ZERO: Self = Self(0);
    /// The revision of a store that nothing was ever written to.
    pub const INITIAL: Self = Self(1);

    /// The revision after this one: where to watch from after a read at this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
