//! What is drawn once in a cluster's life, and what all of its nodes have to agree on.

use std::{net::Ipv6Addr, sync::Arc};

use hivemind_model::{ApiError, ClusterFacts, ErrorCode, Node};
use hivemind_store::{Key, Objects, Revision, Store, StoreExt, Versioned};
use rand::RngCore as _;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::daemon::config::Config;

/// The key of the cluster's own facts, on a server and in the copy of a node.
pub(crate) const KEY: &str = "cluster";

/// The cluster's facts as they are kept. Older versions kept the prefix alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    ula_prefix: Ipv6Addr,
    #[serde(flatten)]
    rest: Option<Rest>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rest {
    facts: ClusterFacts,
    /// The keys that seal gossip, in hex; the first seals, all open.
    gossip_keys: Vec<String>,
}

/// The cluster's facts, and the keys of its gossip.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Cluster {
    pub(crate) facts: ClusterFacts,
    pub(crate) gossip_keys: Vec<[u8; 32]>,
}

/// The keys stay out of logs.
impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Cluster {
    /// A cluster that no store knows of, as `config` wants it.
    pub(crate) fn draw(config: &Config) -> Self {
        Self::with_prefix(config, draw_prefix())
    }

    fn with_prefix(config: &Config, ula_prefix: Ipv6Addr) -> Self {
        let facts = ClusterFacts {
            id: Uuid::now_v7(),
            ula_prefix,
            replica_range: config.replica_range,
            service_range: config.service_range,
            domain: config.cluster_domain.clone(),
            dns: config.dns,
            routing: config.routing.unwrap_or_default(),
        };
        let mut key = [0; 32];
        rand::rng().fill_bytes(&mut key);
        Cluster { facts, gossip_keys: vec![key] }
    }

    /// The cluster that `store`, a server's, holds; the first time, a new one. What `config` says differently is taken
    /// over as long as no other node relies on it.
    ///
    /// # Errors
    /// `InvalidConfig` if nodes have joined and `config` wants something else.
    pub(crate) async fn load_or_make(store: &Arc<dyn Store>, config: &Config) -> Result<Self, ApiError> {
        let key = Key::new(KEY).map_err(failed)?;
        loop {
            let found = store.get_json::<Stored>(&key).await.map_err(failed)?;
            let known = found.as_ref().map_or(Revision::ZERO, |found| found.mod_revision);
            let (cluster, is_new) = match found.map(|Versioned { value, .. }| value) {
                Some(Stored { rest: Some(rest), .. }) => (Self::of(rest)?, false),
                Some(Stored { ula_prefix, rest: None }) => (Self::with_prefix(config, ula_prefix), true),
                None => (Self::draw(config), true),
            };
            let wanted = cluster.as_wanted(config);
            if !is_new && wanted == cluster {
                return Ok(cluster);
            }
            if !is_new && let Some(other) = another_node(store).await? {
                return Err(cluster.refuse(&wanted, &other));
            }
            if store.put_json(&key, &wanted.to_stored(), known).await.map_err(failed)?.is_some() {
                return Ok(wanted);
            }
        }
    }

    /// The cluster as the copy of a node has it; `None`: nothing was told yet.
    pub(crate) async fn load(store: &Arc<dyn Store>) -> Result<Option<Self>, ApiError> {
        let key = Key::new(KEY).map_err(failed)?;
        let found = store.get_json::<Stored>(&key).await.map_err(failed)?;
        found.and_then(|found| found.value.rest).map(Self::of).transpose()
    }

    fn of(rest: Rest) -> Result<Self, ApiError> {
        let keys: Option<Vec<[u8; 32]>> = rest.gossip_keys.iter().map(|hex| key_of(hex)).collect();
        let gossip_keys = keys.filter(|keys| !keys.is_empty()).ok_or_else(|| {
            ApiError::new(
                ErrorCode::StoreFailed,
                "the cluster's keys in the store cannot be read",
                "put the store back from a backup",
            )
        })?;
        Ok(Cluster { facts: rest.facts, gossip_keys })
    }

    fn to_stored(&self) -> Stored {
        let hex = |key: &[u8; 32]| key.iter().map(|byte| format!("{byte:02x}")).collect();
        let gossip_keys = self.gossip_keys.iter().map(hex).collect();
        Stored {
            ula_prefix: self.facts.ula_prefix,
            rest: Some(Rest { facts: self.facts.clone(), gossip_keys }),
        }
    }

    fn as_wanted(&self, config: &Config) -> Self {
        let mut wanted = self.clone();
        let facts = &mut wanted.facts;
        (facts.replica_range, facts.service_range) = (config.replica_range, config.service_range);
        (facts.domain, facts.dns) = (config.cluster_domain.clone(), config.dns);
        facts.routing = config.routing.unwrap_or(facts.routing);
        wanted
    }

    fn refuse(&self, wanted: &Self, other: &str) -> ApiError {
        let (is, said) = (&self.facts, &wanted.facts);
        let mut differences = Vec::new();
        let mut compare = |flag: &str, is: String, said: String| {
            if is != said {
                differences.push(format!("{flag} is {is}, not {said}"));
            }
        };
        compare("--replica-range", is.replica_range.to_string(), said.replica_range.to_string());
        compare("--service-range", is.service_range.to_string(), said.service_range.to_string());
        compare("--cluster-domain", is.domain.clone(), said.domain.clone());
        compare("--dns-address", is.dns.0.to_string(), said.dns.0.to_string());
        compare("--dns-address-v6", is.dns.1.to_string(), said.dns.1.to_string());
        compare("--routing", is.routing.as_str().into(), said.routing.as_str().into());
        let what = format!("the cluster has other nodes ({other}), and {}", differences.join("; "));
        let hint = "start with what the cluster has, or remove the other nodes first: hivemind node remove";
        ApiError::new(ErrorCode::InvalidConfig, what, hint)
    }
}

async fn another_node(store: &Arc<dyn Store>) -> Result<Option<String>, ApiError> {
    let nodes = Objects::new(Arc::clone(store)).list::<Node>(None).await?.items;
    Ok(nodes
        .into_iter()
        .find(|node| !node.spec.server && node.spec.number > 1)
        .map(|node| node.metadata.name))
}

fn key_of(hex: &str) -> Option<[u8; 32]> {
    let bytes: Option<Vec<u8>> =
        (0..32).map(|i| u8::from_str_radix(hex.get(2 * i..2 * i + 2)?, 16).ok()).collect();
    bytes?.try_into().ok()
}

fn failed(error: hivemind_store::Error) -> ApiError {
    ApiError::new(ErrorCode::StoreFailed, format!("the store failed: {error}"), "see the daemon's log")
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
    use crate::daemon::config::DaemonArgs;

    fn config(change: impl FnOnce(&mut DaemonArgs)) -> Config {
        let mut args = DaemonArgs::default();
        change(&mut args);
        Config::load(args).unwrap()
    }

    async fn store(directory: &tempfile::TempDir) -> Arc<dyn Store> {
        let path = directory.path().join("store.redb");
        Arc::new(hivemind_store::RedbStore::open(&path, hivemind_store::Options::default()).await.unwrap())
    }

    #[tokio::test]
    async fn what_is_drawn_is_drawn_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory).await;
        let config = config(|_| {});
        let first = Cluster::load_or_make(&store, &config).await.unwrap();
        assert_eq!(first.facts.ula_prefix.octets()[0], 0xfd);
        assert_eq!(Cluster::load_or_make(&store, &config).await.unwrap(), first);
        assert_eq!(Cluster::load(&store).await.unwrap(), Some(first));
    }

    #[tokio::test]
    async fn the_prefix_of_an_older_version_stays() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory).await;
        store.put(Key::new(KEY).unwrap(), r#"{"ulaPrefix":"fd12:3456:789a::"}"#.into()).await.unwrap();
        let cluster = Cluster::load_or_make(&store, &config(|_| {})).await.unwrap();
        assert_eq!(cluster.facts.ula_prefix, "fd12:3456:789a::".parse::<Ipv6Addr>().unwrap());
        assert_eq!(Cluster::load(&store).await.unwrap(), Some(cluster));
    }

    #[tokio::test]
    async fn what_other_nodes_rely_on_cannot_be_changed() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory).await;
        let first = Cluster::load_or_make(&store, &config(|_| {})).await.unwrap();
        let other = config(|args| args.replica_range = Some("10.64.0.0/14".parse().unwrap()));
        let changed = Cluster::load_or_make(&store, &other).await.unwrap();
        assert_eq!((changed.facts.id, changed.facts.replica_range), (first.facts.id, other.replica_range));
        let spec = hivemind_model::NodeSpec { number: 2, ..Default::default() };
        let metadata = hivemind_model::Metadata::new("default", "two");
        let node = Node { metadata, spec, status: Default::default() };
        Objects::new(Arc::clone(&store)).create(&node).await.unwrap();
        let error = Cluster::load_or_make(&store, &config(|_| {})).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidConfig);
        assert!(error.message.contains("two") && error.message.contains("--replica-range"), "{error}");
        assert_eq!(Cluster::load_or_make(&store, &other).await.unwrap(), changed);
    }
}
