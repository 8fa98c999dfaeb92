//! The threads that make the changes: netlink and namespaces block, so they are kept off the executor.

use crate::{Error, node::Node, service};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot},
    time::timeout,
};

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
            services: start_services(node)?,
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
    start_taking(node, name, |receiver, _| receiver.blocking_recv())
}

/// Starts the thread of services. What they took is released on it as soon as it may be, also if nothing else is to be done: on
/// another thread it would be in the way of a service that is being set.
fn start_services(node: &Arc<Node>) -> Result<mpsc::Sender<Job>, Error> {
    let clock = Builder::new_current_thread().enable_time().build().map_err(Error::system("make a clock"))?;
    start_taking(node, "service", move |receiver, node| next_job_of_services(&clock, receiver, node))
}

/// Waits for a job, and releases meanwhile. `None` once there will be no more jobs.
fn next_job_of_services(clock: &Runtime, receiver: &mut mpsc::Receiver<Job>, node: &Node) -> Option<Job> {
    loop {
        let wait = node.services().next_release(Instant::now());
        let Some(wait) = wait else { return receiver.blocking_recv() };
        if wait > Duration::ZERO
            && let Ok(job) = clock.block_on(async { timeout(wait, receiver.recv()).await })
        {
            return job;
        }
        if let Err(error) = service::lifecycle::release(node) {
            tracing::warn!(%error, "What removed services took could not be released; trying again in a second");
        }
    }
}

/// Starts a thread that does the jobs which `take` waits for, until there are no more.
fn start_taking(
    node: &Arc<Node>,
    name: &str,
    take: impl Fn(&mut mpsc::Receiver<Job>, &Node) -> Option<Job> + Send + 'static,
) -> Result<mpsc::Sender<Job>, Error> {
    let (sender, mut receiver) = mpsc::channel::<Job>(QUEUE_MAX);
    let node = Arc::clone(node);
    let run = move || {
        while let Some(job) = take(&mut receiver, &node) {
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
