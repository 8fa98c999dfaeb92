//! The steps that concern the replica as a whole.

use std::time::Duration;

use futures::future::join_all;
use hivemind_datapath::EndpointSpec;
use hivemind_model::{ErrorCode, Phase, Problem, PullProgress};
use tokio::sync::watch;
use tracing::info;

use super::Worker;
use crate::{
    fault::{self, problem},
    lifecycle::Container,
};

/// How long a replica that left its service goes on, for connections that were about to be opened.
const DRAIN: Duration = Duration::from_secs(1);

/// How often a pull's progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

impl Worker {
    /// Brings the images of all containers, one after the other.
    pub(super) async fn pull(&mut self) -> Result<(), Problem> {
        for i in 0..self.members.len() {
            let digest = self.pull_image(i).await?;
            self.status.update(|status| {
                status.pull = None;
                if i == self.init {
                    status.image_digest = Some(digest);
                }
            });
        }
        self.images = true;
        Ok(())
    }

    /// Brings the image of one container, if it is not there; its digest.
    async fn pull_image(&self, i: usize) -> Result<String, Problem> {
        let reference = self.members[i].reference()?;
        if let Some(image) = self.shared.runtime.image(&reference).await.map_err(|e| fault::of_runtime(&e))? {
            return Ok(image.digest);
        }
        info!(replica = %self.id, image = %reference, "Pulling an image");
        self.status.update(|status| status.phase = Phase::Pulling);
        let (progress, mut reports) = watch::channel(hivemind_runtime::PullProgress::default());
        let pull = self.shared.runtime.pull(&reference, &progress);
        tokio::pin!(pull);
        let mut tick = tokio::time::interval(PROGRESS_EVERY);
        loop {
            tokio::select! {
                done = &mut pull => return done.map(|image| image.digest).map_err(|e| fault::of_pull(&e)),
                _ = tick.tick() => {
                    let report = *reports.borrow_and_update();
                    let pull = PullProgress { done_bytes: report.bytes_done, total_bytes: report.bytes_total };
                    self.status.update(|status| status.pull = Some(pull));
                }
            }
        }
    }

    /// The replica's identity, under which its policies are in force already.
    async fn identity(&self) -> Result<u32, Problem> {
        let identity = self.replica.borrow().spec.identity;
        if identity == 0 {
            return Err(problem(
                ErrorCode::NetworkFailed,
                "the replica has no workload identity yet",
                "it is given one; then it starts",
            ));
        }
        self.shared.policies.enforce(identity, self.identity).await?;
        Ok(identity)
    }

    pub(super) async fn make_network(&mut self) -> Result<(), Problem> {
        self.status.update(|status| status.phase = Phase::Starting);
        let identity = self.identity().await?;
        let (ipv4, ipv6) = match self.addresses {
            Some(addresses) => addresses,
            None => self.shared.pool().take().map_err(|error| {
                problem(
                    ErrorCode::AddressesExhausted,
                    error.to_string(),
                    "delete replicas, or give the node a larger range",
                )
            })?,
        };
        self.addresses = Some((ipv4, ipv6));
        // Until its container runs it must not be in its service, whatever the store remembers of it.
        self.shared.services.withdraw(self.service(), ipv4).await;
        let spec = EndpointSpec { id: self.id.as_str().to_owned(), ipv4, ipv6, identity };
        self.shared.datapath.ensure_endpoint(spec).await.map_err(|e| fault::of_datapath(&e))?;
        self.network = true;
        // What runs first may have prepared the network.
        self.members[..self.init].iter_mut().for_each(|member| member.seen.end = None);
        self.now_identified(Some(identity));
        Ok(())
    }

    /// Gives the endpoint the replica's identity, the policies of which are in force already.
    pub(super) async fn identify(&mut self) -> Result<(), Problem> {
        let identity = self.identity().await?;
        let identified = self.shared.datapath.identify_endpoint(self.id.as_str(), identity).await;
        identified.map_err(|error| fault::of_datapath(&error))?;
        info!(replica = %self.id, identity, "A replica has another identity");
        self.now_identified(Some(identity));
        let is_ready = self.admitted;
        self.status.update(|status| {
            if is_ready {
                status.problem = None;
            }
        });
        Ok(())
    }

    /// Takes the replica out of its services and ends all of its containers, each by its own signal.
    pub(super) async fn stop(&mut self) -> Result<(), Problem> {
        self.status.update(|status| {
            status.phase = Phase::Stopping;
            status.ready = false;
        });
        self.admitted = false;
        if let Some((ipv4, _)) = self.addresses
            && self.shared.services.withdraw(self.service(), ipv4).await > 0
        {
            tokio::time::sleep(DRAIN).await;
        }
        let running: Vec<usize> = (0..self.members.len())
            .filter(|i| self.members[*i].seen.container == Container::Running)
            .collect();
        let ended = join_all(running.iter().map(|i| self.end_container(*i))).await;
        for (i, ended) in running.iter().zip(&ended) {
            if ended.is_ok() {
                self.members[*i].now_ended();
            }
        }
        ended.into_iter().collect()
    }

    pub(super) async fn remove_network(&mut self) -> Result<(), Problem> {
        self.shared.datapath.remove_endpoint(self.id.as_str()).await.map_err(|e| fault::of_datapath(&e))?;
        self.network = false;
        self.now_identified(None);
        self.status.update(|status| (status.ipv4, status.ipv6) = (None, None));
        if let Some((ipv4, _)) = self.addresses.take() {
            self.shared.services.forget(self.service(), ipv4).await;
            self.shared.pool().give_back(ipv4);
        }
        Ok(())
    }
}
