//! Leases: keys that live only as long as somebody keeps them alive.

use std::{fmt, num::NonZeroU64, time::Duration};

use crate::{Error, Key};

/// The shortest time to live of a lease.
pub const LEASE_TTL_MIN: Duration = Duration::from_secs(1);
/// The longest time to live of a lease: 30 days.
pub const LEASE_TTL_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How many leases may exist at once.
pub const LEASES_MAX: usize = 65_536;

/// The name of a lease. An id is never used twice by one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub NonZeroU64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What is known of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// The lease.
    pub id: LeaseId,
    /// What each keep-alive sets the remaining time to.
    pub ttl: Duration,
    /// The time left before it expires. It is full again after the store was reopened, since nobody
    /// could keep a lease alive while the store was away.
    pub remaining: Duration,
    /// The keys that go when the lease goes, in order.
    pub keys: Vec<Key>,
}

/// Checks the range and rounds up to whole seconds, etcd's unit.
pub(crate) fn whole_seconds(ttl: Duration) -> Result<u64, Error> {
    if !(LEASE_TTL_MIN..=LEASE_TTL_MAX).contains(&ttl) {
        return Err(Error::InvalidTtl { ttl });
    }
    Ok(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0))
}
