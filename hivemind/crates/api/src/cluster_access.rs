//! What the API needs of the cluster around its node.

use std::net::Ipv4Addr;

use async_trait::async_trait;
use hivemind_model::{ApiError, App, ClusterFacts, ClusterStatus, Measurements};
use hivemind_scheduler::Decision;
use tokio_util::sync::CancellationToken;

/// The cluster, as far as requests reach through to it. Every method may fail with any [`ApiError`], which the caller sees
/// as it is.
#[async_trait]
pub trait ClusterAccess: Send + Sync + 'static {
    /// What all nodes agree on.
    fn facts(&self) -> ClusterFacts;

    /// The members as this node sees them.
    async fn status(&self) -> Result<ClusterStatus, ApiError>;

    /// Where the next replica of `app` would be put, and why.
    async fn placement(&self, app: &App) -> Result<Decision, ApiError>;

    /// Makes sure that other machines can reach this server, and says where: IPv4 address and port.
    ///
    /// # Errors
    /// That they cannot, and why.
    async fn open(&self) -> Result<(Ipv4Addr, u16), ApiError>;

    /// The SHA-256 of the authority's certificate, in hex.
    fn fingerprint(&self) -> String;

    /// Signs the request of node `name` (PKCS #10, in PEM): its certificate with the authority's (PEM), and the key that it
    /// will be known by.
    ///
    /// # Errors
    /// `Malformed` if it is no signing request.
    fn sign(&self, name: &str, request: &str) -> Result<(String, String), ApiError>;

    /// Takes what node `name` measured.
    fn take_measurements(&self, name: &str, measured: Measurements);

    /// Node `name` was removed, or has another certificate: this ends what goes on over connections of the old one.
    fn connections_of(&self, name: &str) -> CancellationToken;

    /// Ends what goes on over connections of node `name`.
    fn cut_off(&self, name: &str);

    /// Takes this node out of its cluster: its replicas are moved to others, then it forgets that it was a member, and the
    /// daemon ends. `force`: without waiting for others to have them.
    ///
    /// # Errors
    /// `Unsupported` on a server; that the server cannot be reached.
    async fn leave(&self, force: bool) -> Result<(), ApiError>;
}

/// What this node is in its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It keeps the store, and decides.
    Server,
    /// It runs what its server says; the objects are a copy of what concerns it.
    Agent {
        /// Where its server is, for people to read.
        server: String,
    },
}
