//! The threads that make the changes: netlink and namespaces block, so they are kept off the executor.

use crate::{Error, node::Node};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    thread,
};
use tokio::sync::{mpsc, oneshot};

/// How many endpoints are made at once. More would only wait for the kernel's one lock on links.
const ENDPOINT_THREADS: usize = 4;
/// How many requests wait for a thread before their callers do.
const QUEUE_MAX: usize = 64;

type Job = Box<dyn FnOnce(&Node) + Send>;

/// The threads. They end when this is dropped, after the jobs that they were given.
pub(crate) struct Workers {
    endpoints: Vec<mpsc::Sender<Job>>,
    services: mpsc::Sender<Job>,
    policies: mpsc::Sender<Job>,
    sweeps: mpsc::Sender<Job>,
    sockets: mpsc::Sender<Job>,
}

impl Workers {
    pub(crate) fn start(node: &Arc<Node>) -> Result<Self, Error> {
        let endpoints = (0..ENDPOINT_THREADS).map(|number| start(node, &format!("endpoint-{number}")));
        Ok(Self {
            endpoints: endpoints.collect::<Result<_, _>>()?,
            services: start(node, "service")?,
            policies: start(node, "policy")?,
            sweeps: start(node, "policy-sweep")?,
            sockets: start(node, "sockets")?,
        })
    }

    /// Runs a job about the endpoint `id`: one after the other for one endpoint.
    pub(crate) async fn on_endpoint<T: Send + 'static>(
        &self,
        id: &str,
        job: impl FnOnce(&Node) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        run(self.queue(id), job).await
    }

    /// Runs a job about the endpoint `id` some time later; not at all if too many wait.
    pub(crate) fn later(&self, id: &str, job: impl FnOnce(&Node) + Send + 'static) {
        if self.queue(id).try_send(Box::new(job)).is_err() {
            tracing::debug!(endpoint = id, "Too much is waiting for an endpoint's follow-up to be done");
        }
    }

    fn queue(&self, id: &str) -> &mpsc::Sender<Job> {
        // Any hash will do: it needs to be the same only as long as the process lives.
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        &self.endpoints[hasher.finish() as usize % self.endpoints.len()]
    }

    /// Runs a job about services, or about the node as a whole: one after the other.
    pub(crate) async fn on_services<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Node) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        run(&self.services, job).await
    }
}

impl Workers {
    /// Runs a job about policies: one after the other.
    pub(crate) async fn on_policies<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Node) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        run(&self.policies, job).await
    }

    /// Removes what is left of policies some time later; if too many such jobs wait, one of those does it.
    pub(crate) fn sweep_later(&self, job: impl FnOnce(&Node) + Send + 'static) {
        let _ = self.sweeps.try_send(Box::new(job));
    }

    /// Ends sockets whose other end is gone some time later; if too many such jobs wait, one of those does it.
    pub(crate) fn end_sockets_later(&self, job: impl FnOnce(&Node) + Send + 'static) {
        let _ = self.sockets.try_send(Box::new(job));
    }
}

fn start(node: &Arc<Node>, name: &str) -> Result<mpsc::Sender<Job>, Error> {
    let (sender, mut receiver) = mpsc::channel::<Job>(QUEUE_MAX);
    let node = Arc::clone(node);
    let run = move || {
        while let Some(job) = receiver.blocking_recv() {
            job(&node);
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(Error::system("start a thread"))?;
    Ok(sender)
}

async fn run<T: Send + 'static>(
    queue: &mpsc::Sender<Job>,
    job: impl FnOnce(&Node) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (answer, answered) = oneshot::channel();
    let job: Job = Box::new(move |node| {
        // Whoever asked may have gone; what was asked is done all the same.
        let _ = answer.send(job(node));
    });
    queue.send(job).await.map_err(|_| Error::Stopped)?;
    answered.await.map_err(|_| Error::Stopped)?
}
