//! What the handlers share.

use std::{sync::Arc, time::Duration};

use hivemind_store::Objects;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{addresses::ServiceRanges, node_access::NodeAccess};

/// How long a stream may be silent before a sign of life is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What the API is made of.
pub struct ApiConfig {
    /// The objects that it serves.
    pub objects: Objects,
    /// The node behind it.
    pub node: Arc<dyn NodeAccess>,
    /// Where services get their addresses.
    pub service_ranges: ServiceRanges,
    /// The domain below which names are given by Hivemind alone, for example `hivemind.internal`.
    pub cluster_domain: String,
}

/// The API. Cheap to clone; [`crate::serve_unix`] and [`crate::serve_tcp`] serve it.
#[derive(Clone)]
pub struct Api {
    pub(crate) config: Arc<ApiConfig>,
    pub(crate) keep_alive: Duration,
}

impl Api {
    /// The API of these parts.
    pub fn new(config: ApiConfig) -> Self {
        Api { config: Arc::new(config), keep_alive: KEEP_ALIVE }
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
    pub(crate) fn objects(&self) -> &Objects {
        &self.api.config.objects
    }

    pub(crate) fn node(&self) -> &dyn NodeAccess {
        &*self.api.config.node
    }
}
