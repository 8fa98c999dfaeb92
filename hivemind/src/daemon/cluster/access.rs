//! What the API needs of the cluster around this node.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use hivemind_api::ClusterAccess;
use hivemind_membership::{MemberView, State};
use hivemind_model::{
    ApiError, App, ClusterFacts, ClusterMember, ClusterStatus, ErrorCode, Measurements, Node, NodeState,
    Replica, WatchKind,
};
use hivemind_pki::Authority;
use hivemind_scheduler::Decision;
use hivemind_store::Objects;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    link::{Link, State as LinkState},
    membership::Membership,
    open::Opener,
    topology::Topology,
};
use crate::daemon::{certificates::of_pki, config::Config};

/// How long replicas may take to be moved elsewhere when a node leaves.
const DRAIN_WITHIN: Duration = Duration::from_secs(600);

/// What the node is in its cluster.
pub(crate) enum Part {
    /// The server, with the authority and what the nodes measured.
    Server { authority: Arc<Authority>, topology: Arc<Topology> },
    /// A member of somebody else's.
    Member { link: Arc<Link> },
}

/// The cluster, seen from this node.
pub(crate) struct Wiring {
    config: Config,
    facts: ClusterFacts,
    objects: Objects,
    opener: Arc<Opener>,
    part: Part,
    /// Ends what goes on over connections of each node.
    connections: Mutex<BTreeMap<String, CancellationToken>>,
    /// Has the daemon end.
    end: CancellationToken,
}

impl Wiring {
    pub(crate) fn new(
        config: &Config,
        facts: ClusterFacts,
        objects: Objects,
        opener: Arc<Opener>,
        part: Part,
        end: CancellationToken,
    ) -> Self {
        Wiring { config: config.clone(), facts, objects, opener, part, connections: Mutex::default(), end }
    }

    fn authority(&self) -> Result<&Authority, ApiError> {
        match &self.part {
            Part::Server { authority, .. } => Ok(authority),
            Part::Member { .. } => {
                Err(ApiError::new(ErrorCode::NotServer, "only a server signs certificates", "ask one"))
            }
        }
    }

    fn link(&self) -> Option<&Arc<Link>> {
        match &self.part {
            Part::Server { .. } => None,
            Part::Member { link } => Some(link),
        }
    }

    /// Waits until this node's replicas are gone.
    async fn drained(&self) -> Result<(), ApiError> {
        let mine = |replica: &Replica| replica.spec.node == self.config.node_name;
        let (list, mut watch) = self.objects.list_and_watch::<Replica>(None).await?;
        let mut left: std::collections::BTreeSet<_> =
            list.items.iter().filter(|replica| mine(replica)).map(|replica| replica.metadata.uid).collect();
        while !left.is_empty() {
            let event = watch.next().await?;
            match event.kind {
                WatchKind::Deleted => drop(left.remove(&event.object.metadata.uid)),
                _ if mine(&event.object) => drop(left.insert(event.object.metadata.uid)),
                _ => {}
            }
        }
        Ok(())
    }
}

#[async_trait]
impl ClusterAccess for Wiring {
    fn facts(&self) -> ClusterFacts {
        self.facts.clone()
    }

    async fn status(&self) -> Result<ClusterStatus, ApiError> {
        let nodes = self.objects.list::<Node>(None).await?.items;
        let view = self.opener.view().borrow().clone();
        let seen = |name: &str| {
            let view = view.as_ref()?;
            std::iter::once(&view.own).chain(&view.members).find(|member| member.name.as_str() == name)
        };
        let members = nodes.iter().map(|node| member(node, seen(&node.metadata.name))).collect();
        let connected = self.link().is_none_or(|link| matches!(*link.state().borrow(), LinkState::Connected));
        let mut problems: Vec<_> = self.link().and_then(|link| link.problem()).into_iter().collect();
        problems.extend(self.opener.problem());
        problems.extend(nodes.into_iter().filter_map(|node| node.status.problem));
        Ok(ClusterStatus {
            id: self.facts.id,
            node: self.config.node_name.clone(),
            server: self.link().is_none(),
            routing: self.facts.routing,
            connected,
            members,
            problems,
        })
    }

    async fn placement(&self, app: &App) -> Result<Decision, ApiError> {
        let Part::Server { topology, .. } = &self.part else {
            return Err(ApiError::new(ErrorCode::NotServer, "only a server places replicas", "ask one"));
        };
        hivemind_controller::explain(&self.objects, &topology.measured(), app).await
    }

    async fn open(&self) -> Result<(Ipv4Addr, u16), ApiError> {
        Ok((self.opener.open().await?, self.config.node_port))
    }

    fn fingerprint(&self) -> String {
        self.authority().map(Authority::fingerprint).unwrap_or_default()
    }

    fn sign(&self, name: &str, request: &str) -> Result<(String, String), ApiError> {
        self.authority()?.sign(request, name, false).map_err(of_pki)
    }

    fn take_measurements(&self, name: &str, measured: Measurements) {
        if let Part::Server { topology, .. } = &self.part {
            topology.take(name, measured);
        }
    }

    fn connections_of(&self, name: &str) -> CancellationToken {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.entry(name.to_owned()).or_default().clone()
    }

    fn cut_off(&self, name: &str) {
        let gone = self.connections.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(gone) = gone {
            gone.cancel();
        }
        if let Part::Server { topology, .. } = &self.part {
            topology.forget(name);
        }
    }

    async fn leave(&self, force: bool) -> Result<(), ApiError> {
        let Some(link) = self.link() else {
            let what =
                format!("node {:?} is the server: it holds the cluster's state", self.config.node_name);
            return Err(ApiError::new(ErrorCode::Unsupported, what, "have the other nodes leave instead"));
        };
        let client = link.client()?;
        if !force {
            client.leave(&self.config.node_name, true).await?;
            tokio::time::timeout(DRAIN_WITHIN, self.drained()).await.map_err(|_| {
                let what =
                    "the node's replicas did not find another place in time; it stays a member, and cordoned";
                let hint = "see hivemind scheduler explain on the server; or leave with --force";
                ApiError::new(ErrorCode::TimedOut, what, hint)
            })??;
        }
        client.leave(&self.config.node_name, false).await?;
        Membership::forget(&self.config.data_dir)?;
        if let Err(error) = self.opener.forget_ways().await {
            warn!(
                error = error.message,
                "What was made for traffic between nodes stays until the daemon starts again"
            );
        }
        info!("This node is no member of its cluster any more; the daemon ends");
        self.end.cancel();
        Ok(())
    }
}

fn member(node: &Node, seen: Option<&MemberView>) -> ClusterMember {
    let state = match seen.map(|seen| seen.state) {
        Some(State::Alive) => NodeState::Ready,
        Some(State::Suspect) => NodeState::Suspect,
        Some(State::Dead) => NodeState::Dead,
        Some(State::Left) => NodeState::Left,
        Some(State::Unknown) | None => node.status.state,
    };
    ClusterMember {
        name: node.metadata.name.clone(),
        address: node.spec.address,
        state,
        incarnation: seen.map_or(0, |seen| u64::from(seen.incarnation)),
        since: seen.map(|seen| seen.since).or(node.status.since),
        round_trip_us: seen
            .and_then(|s| s.rtt.as_ref())
            .map(|rtt| rtt.smoothed_us.round().clamp(0.0, 60e6) as u32),
    }
}
