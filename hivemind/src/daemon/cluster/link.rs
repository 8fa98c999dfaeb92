//! A member's connection to its server: what concerns the node comes in, what it has to tell goes out.
//!
//! Both go on for ever: when the server is away the node does as it was last told, and when it is back they go on from the
//! revision that was reached.

use std::{
    net::SocketAddrV4,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use futures::StreamExt;
use hivemind_client::{Client, FEED_SILENT_MAX, NodeLink};
use hivemind_mirror::{Mirror, Reporter};
use hivemind_model::{ApiError, ErrorCode, NodeReport, ObjectRef, Problem, RenewRequest};
use hivemind_pki::{NodeKey, SERVER_NAME};
use hivemind_store::Store;
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{membership, open::NodeTls};
use crate::daemon::certificates::of_pki;

/// How long after a failure the server is asked again, at first and at most.
const RETRY_AFTER: Duration = Duration::from_millis(250);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

/// How often it is seen whether the certificate has to be another.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// How many replicas that are gone may wait to be told.
const GONE_MAX: usize = 256;

/// How the connection is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    /// Nothing was heard yet.
    New,
    /// What concerns the node comes in.
    Connected,
    /// It does not, since then and for this reason.
    Disconnected { since: Timestamp, error: Arc<ApiError> },
}

/// A member's connection to its server.
pub(crate) struct Link {
    node: String,
    server: SocketAddrV4,
    server_name: String,
    data_dir: std::path::PathBuf,
    tls: Arc<NodeTls>,
    store: Arc<dyn Store>,
    state: watch::Sender<State>,
    /// Replicas of which the server is still to hear that they are gone.
    gone: Mutex<Option<mpsc::Sender<ObjectRef>>>,
}

impl Link {
    pub(crate) fn new(
        member: &membership::Membership,
        data_dir: std::path::PathBuf,
        tls: Arc<NodeTls>,
        store: Arc<dyn Store>,
    ) -> Arc<Self> {
        Arc::new(Link {
            node: member.name.clone(),
            server: member.server,
            server_name: member.server_name.clone(),
            data_dir,
            tls,
            store,
            state: watch::Sender::new(State::New),
            gone: Mutex::new(None),
        })
    }

    /// How the connection is, and every change of it.
    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// What a user is told while it is broken.
    pub(crate) fn problem(&self) -> Option<Problem> {
        let State::Disconnected { since, error } = &*self.state.borrow() else { return None };
        Some(Problem {
            code: ErrorCode::Disconnected,
            field: String::new(),
            message: format!(
                "this node has not heard from its server {} ({}) since {since:.0}, and goes on by what it knows: {}",
                self.server_name, self.server, error.message
            ),
            hint: error.hint.clone(),
        })
    }

    /// A client of the server.
    pub(crate) fn client(&self) -> Result<Client, ApiError> {
        Client::node(NodeLink {
            address: self.server,
            certificate_name: SERVER_NAME.to_owned(),
            tls: self.tls.client(),
        })
    }

    /// Keeps the connection until `stop`.
    pub(crate) fn start(self: &Arc<Self>, stop: &CancellationToken, tasks: &mut JoinSet<()>) {
        let (link, token) = (Arc::clone(self), stop.clone());
        tasks.spawn(async move { until(token, link.take_forever()).await });
        let (link, token) = (Arc::clone(self), stop.clone());
        tasks.spawn(async move { until(token, link.tell_forever()).await });
        let (link, token) = (Arc::clone(self), stop.clone());
        tasks.spawn(async move { until(token, link.renew_forever()).await });
    }

    async fn take_forever(&self) {
        let mut wait = RETRY_AFTER;
        loop {
            let error = match self.take().await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            if self.note_broken(error) {
                wait = RETRY_AFTER;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_AFTER_MAX);
        }
    }

    /// Says that the connection is broken; whether it was not before.
    fn note_broken(&self, error: ApiError) -> bool {
        let error = Arc::new(error);
        self.state.send_if_modified(|state| match state {
            State::Disconnected { error: known, .. } => {
                *known = Arc::clone(&error);
                false
            }
            State::New | State::Connected => {
                warn!(server = %self.server, error = error.message, "The server is not heard; the node goes on by what it knows");
                *state = State::Disconnected { since: Timestamp::now(), error: Arc::clone(&error) };
                true
            }
        })
    }

    async fn take(&self) -> Result<std::convert::Infallible, ApiError> {
        let mut mirror = Mirror::new(Arc::clone(&self.store), &self.node);
        let since = mirror.revision().await?;
        let mut lines = match self.client()?.feed(&self.node, since).await {
            // Others run its replicas by now.
            Err(error) if error.code == ErrorCode::NodeRemoved => {
                mirror.disown().await?;
                return Err(error);
            }
            lines => lines?,
        };
        loop {
            let silent = || ApiError::new(ErrorCode::TimedOut, "the server has fallen silent", "");
            let line = timeout(FEED_SILENT_MAX, lines.next()).await.map_err(|_| silent())?;
            let line = line.ok_or_else(|| {
                ApiError::new(ErrorCode::NodeUnreachable, "the server ended the connection", "")
            })??;
            let applied = mirror.take(line).await?;
            for gone in applied.gone {
                self.tell_gone(gone);
            }
            if applied.revision.is_some() {
                self.state.send_if_modified(|state| {
                    let is_news = *state != State::Connected;
                    if is_news {
                        info!(server = %self.server, "What the server says is known");
                        *state = State::Connected;
                    }
                    is_news
                });
            }
        }
    }

    /// Has the server told that a replica is gone. If too many wait, the next connection tells it.
    fn tell_gone(&self, gone: ObjectRef) {
        let sender = self.gone.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(sender) = sender {
            let _ = sender.try_send(gone);
        }
    }

    async fn tell_forever(&self) {
        let mut wait = RETRY_AFTER;
        loop {
            // Anew with each connection: what was told over the one before may not have arrived.
            let mut state = self.state();
            let _ = state.wait_for(|state| *state == State::Connected).await;
            let broken = async {
                let _ = state.wait_for(|state| *state != State::Connected).await;
            };
            let told = tokio::select! {
                () = broken => continue,
                told = self.tell() => told,
            };
            if let Err(error) = told {
                warn!(error = error.message, "What the node has to tell did not get through; trying again");
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_AFTER_MAX);
        }
    }

    async fn tell(&self) -> Result<(), ApiError> {
        let (sender, news) = mpsc::channel(GONE_MAX);
        *self.gone.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        let mut reporter = Reporter::start(&self.store, &self.node, news).await?;
        let client = self.client()?;
        loop {
            let report: NodeReport = reporter.next().await?;
            client.report(&self.node, &report).await?;
        }
    }

    async fn renew_forever(&self) {
        loop {
            let due = self.tls.renew_at() <= SystemTime::now();
            if due && let Err(error) = self.renew().await {
                warn!(
                    error = error.message,
                    "The node's certificate could not be renewed; trying again in an hour"
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn renew(&self) -> Result<(), ApiError> {
        let key = NodeKey::generate().map_err(of_pki)?;
        let signing_request = key.signing_request().map_err(of_pki)?;
        let answer = self.client()?.renew(&self.node, &RenewRequest { signing_request }).await?;
        let identity = key.with_certificate(&answer.certificate).map_err(of_pki)?;
        identity.save(&membership::directory(&self.data_dir)).map_err(of_pki)?;
        self.tls.replace(&identity)?;
        info!("The node's certificate was renewed");
        Ok(())
    }
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}
