//! What the handlers share.

use std::{net::IpAddr, sync::Arc, time::Duration};

use hivemind_store::Objects;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::Access,
    addresses::ServiceRanges,
    cluster_access::{ClusterAccess, Role},
    node_access::NodeAccess,
    statistics::{Counters, Statistics},
    watches::Watches,
};

/// How long a stream may be silent before a sign of life is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What the API is made of.
pub struct ApiConfig {
    /// The objects that it serves.
    pub objects: Objects,
    /// The node behind it.
    pub node: Arc<dyn NodeAccess>,
    /// That node's name.
    pub node_name: String,
    /// The cluster around it.
    pub cluster: Arc<dyn ClusterAccess>,
    /// What the node is in it.
    pub role: Role,
    /// Where services get their addresses.
    pub service_ranges: ServiceRanges,
    /// The domain below which names are given by Hivemind alone, for example `hivemind.internal`.
    pub cluster_domain: String,
    /// Where replicas ask for names: policies that cut them off from there are warned of.
    pub dns_addresses: Vec<IpAddr>,
    /// Where the dashboard is: what one-time codes lead to.
    pub web_url: String,
}

/// The API. Cheap to clone; [`crate::serve_unix`], [`crate::serve_web`] and [`crate::serve_metrics`] serve it.
#[derive(Clone)]
pub struct Api {
    pub(crate) config: Arc<ApiConfig>,
    pub(crate) keep_alive: Duration,
    pub(crate) access: Arc<Access>,
    pub(crate) watches: Watches,
    pub(crate) counters: Arc<Counters>,
}

impl Api {
    /// The API of these parts.
    pub fn new(config: ApiConfig) -> Self {
        Api {
            access: Arc::new(Access::new(config.objects.clone())),
            watches: Watches::default(),
            counters: Arc::default(),
            config: Arc::new(config),
            keep_alive: KEEP_ALIVE,
        }
    }

    /// What was asked of it so far, and what goes on.
    pub fn statistics(&self) -> Statistics {
        let (watches, watches_given_up) = self.watches.counts();
        let (access_failures, sessions) = self.access.counts();
        Statistics {
            requests: self.counters.requests(),
            watches,
            watches_given_up,
            access_failures,
            sessions,
        }
    }

    /// The same with another time that a line of a watch may wait to be read (30 s by default).
    #[must_use]
    pub fn with_watch_patience(mut self, patience: Duration) -> Self {
        self.watches = self.watches.with_patience(patience);
        self
    }

    /// The same with another time between two signs of life on streams that are silent (15 s by default).
    #[must_use]
    pub fn with_keep_alive(mut self, every: Duration) -> Self {
        self.keep_alive = every;
        self
    }
}

/// The state of the handlers of one listener.
#[derive(Clone)]
pub(crate) struct Serving {
    pub(crate) api: Api,
    /// Ends what would otherwise go on for ever: watches, log streams, sessions.
    pub(crate) shutdown: CancellationToken,
    /// Sessions, which outlive their request.
    pub(crate) sessions: TaskTracker,
}

impl Serving {
    pub(crate) fn new(api: Api, shutdown: &CancellationToken) -> Self {
        Serving { api, shutdown: shutdown.clone(), sessions: TaskTracker::new() }
    }

    pub(crate) fn objects(&self) -> &Objects {
        &self.api.config.objects
    }

    pub(crate) fn cluster(&self) -> &dyn ClusterAccess {
        &*self.api.config.cluster
    }

    pub(crate) fn node(&self) -> &dyn NodeAccess {
        &*self.api.config.node
    }
}
