//! What the node has to tell, in reports.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use hivemind_model::{
    ApiError, NetworkPolicy, Node, NodeReport, ObjectRef, PolicyReport, REPORT_MAX, Replica, ReplicaReport,
    Service, ServiceReport,
};
use hivemind_store::{Event, KeyValue, ListOptions, Prefix, Revision, Store, Watch};
use tokio::sync::mpsc;

use crate::{
    fault::of_store,
    key::Kind,
    merge::{of_bytes, reference},
};

/// Follows the node's own store, and says what of it the server does not know.
///
/// At its start that is everything: a connection that broke may have taken reports with it.
pub struct Reporter {
    node: String,
    watch: Watch,
    /// What has to be looked at, by key.
    due: BTreeMap<String, KeyValue>,
    gone: VecDeque<ObjectRef>,
    /// Replicas that were told to be gone by others than the store.
    news: mpsc::Receiver<ObjectRef>,
    /// What was told of each key.
    told: BTreeMap<String, NodeReport>,
}

impl Reporter {
    /// Begins with all that the node has to tell. `news` brings replicas that are gone without the store's knowing.
    ///
    /// # Errors
    /// What the store says.
    pub async fn start(
        store: &Arc<dyn Store>,
        node: impl Into<String>,
        news: mpsc::Receiver<ObjectRef>,
    ) -> Result<Self, ApiError> {
        let all = Prefix::new("").map_err(of_store)?;
        let listing = store.list(&all, ListOptions::default()).await.map_err(of_store)?;
        let watch = store.watch(&all, Revision::next(listing.revision)).await.map_err(of_store)?;
        let due = listing.items.into_iter().map(|kv| (kv.key.as_str().to_owned(), kv)).collect();
        Ok(Reporter { node: node.into(), watch, due, gone: VecDeque::new(), news, told: BTreeMap::new() })
    }

    /// The next report, waiting for something to tell. Dropping the future loses nothing; what was returned counts as told,
    /// so after a report that did not get through another reporter has to be started.
    ///
    /// # Errors
    /// What the store says.
    pub async fn next(&mut self) -> Result<NodeReport, ApiError> {
        loop {
            let report = self.gather()?;
            if !report.is_empty() {
                return Ok(report);
            }
            tokio::select! {
                batch = self.watch.next() => {
                    for event in batch.map_err(of_store)?.events {
                        self.note(event)?;
                    }
                }
                Some(gone) = self.news.recv() => self.gone.push_back(gone),
            }
        }
    }

    fn note(&mut self, event: Event) -> Result<(), ApiError> {
        match event {
            Event::Put { current, .. } => {
                self.due.insert(current.key.as_str().to_owned(), current);
            }
            Event::Delete { previous, .. } => {
                let key = previous.key.as_str();
                self.due.remove(key);
                self.told.remove(key);
                if Kind::of(key) == Kind::Replica {
                    let replica: Replica = of_bytes(key, &previous.value)?;
                    if replica.spec.node == self.node {
                        self.gone.push_back(reference(&replica));
                    }
                }
            }
        }
        Ok(())
    }

    fn gather(&mut self) -> Result<NodeReport, ApiError> {
        let mut report = NodeReport::default();
        while report.len() < REPORT_MAX {
            if let Some(gone) = self.gone.pop_front() {
                report.gone.push(gone);
                continue;
            }
            let Some((key, kv)) = self.due.pop_first() else { break };
            let Some(item) = self.item(&key, &kv)? else { continue };
            if self.told.get(&key) == Some(&item) {
                continue;
            }
            report.node = report.node.take().or_else(|| item.node.clone());
            report.replicas.extend(item.replicas.iter().cloned());
            report.services.extend(item.services.iter().cloned());
            report.policies.extend(item.policies.iter().cloned());
            self.told.insert(key, item);
        }
        Ok(report)
    }

    /// What there is to tell of one object: a report of one thing.
    fn item(&mut self, key: &str, kv: &KeyValue) -> Result<Option<NodeReport>, ApiError> {
        let mut item = NodeReport::default();
        match Kind::of(key) {
            Kind::Replica => {
                let replica: Replica = of_bytes(key, &kv.value)?;
                if replica.spec.node == self.node {
                    item.replicas
                        .push(ReplicaReport { replica: reference(&replica), status: replica.status });
                }
            }
            Kind::Service => {
                let service: Service = of_bytes(key, &kv.value)?;
                let problem = service.status.node_problems.get(&self.node).cloned();
                item.services.push(ServiceReport { service: reference(&service), problem });
            }
            Kind::Policy => {
                let policy: NetworkPolicy = of_bytes(key, &kv.value)?;
                if let Some(enforcement) = policy.status.nodes.get(&self.node) {
                    item.policies.push(PolicyReport {
                        policy: reference(&policy),
                        replicas: policy.status.replicas,
                        enforcement: enforcement.clone(),
                    });
                }
            }
            Kind::Node => {
                let node: Node = of_bytes(key, &kv.value)?;
                if node.metadata.name == self.node {
                    let mut status = node.status;
                    (status.state, status.since) = Default::default();
                    item.node = Some(status);
                }
            }
            Kind::Cluster | Kind::Shared | Kind::Volume | Kind::Other => {}
        }
        Ok((!item.is_empty()).then_some(item))
    }
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("node", &self.node).finish_non_exhaustive()
    }
}
