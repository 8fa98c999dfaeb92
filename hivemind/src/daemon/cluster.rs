//! What is drawn once in a cluster's life.

use std::{net::Ipv6Addr, sync::Arc};

use hivemind_model::{ApiError, ErrorCode};
use hivemind_store::{Key, Revision, Store, StoreExt};
use serde::{Deserialize, Serialize};

/// The cluster's own facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cluster {
    /// The /48 of unique local addresses (RFC 4193) that all replicas and services are in.
    pub(crate) ula_prefix: Ipv6Addr,
}

impl Cluster {
    /// A cluster that no store knows of.
    pub(crate) fn draw() -> Self {
        Cluster { ula_prefix: draw_prefix() }
    }

    /// The cluster that `store` holds; the first time, a new one.
    pub(crate) async fn load_or_make(store: &Arc<dyn Store>) -> Result<Self, ApiError> {
        let failed = |error: hivemind_store::Error| {
            ApiError::new(
                ErrorCode::StoreFailed,
                format!("the store failed: {error}"),
                "see the daemon's log",
            )
        };
        let key = Key::new("cluster").map_err(failed)?;
        loop {
            if let Some(found) = store.get_json::<Cluster>(&key).await.map_err(failed)? {
                return Ok(found.value);
            }
            let made = Cluster::draw();
            if store.put_json(&key, &made, Revision::ZERO).await.map_err(failed)?.is_some() {
                return Ok(made);
            }
        }
    }
}

/// `fd` and 40 random bits (RFC 4193, section 3.2.2).
fn draw_prefix() -> Ipv6Addr {
    let random = uuid::Uuid::new_v4().into_bytes();
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&random[..5]);
    octets.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_prefix_is_drawn_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let store: Arc<dyn Store> = Arc::new(
            hivemind_store::RedbStore::open(&path, hivemind_store::Options::default()).await.unwrap(),
        );
        let first = Cluster::load_or_make(&store).await.unwrap();
        assert_eq!(first.ula_prefix.octets()[0], 0xfd);
        assert_eq!(Cluster::load_or_make(&store).await.unwrap(), first);
    }
}
