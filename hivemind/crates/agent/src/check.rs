//! Whether every path of this node's network works, found out by walking it.
//!
//! Two endpoints are made for as long as that takes, with an identity of their own that everything lets through, and a
//! service with a name and a published port in front of one of them ([`stand`]). Real sockets in their namespaces, and in the
//! node's, speak to one another ([`probes`]). All of it is removed afterwards, also if nobody waits for the result any more;
//! what a daemon that was killed left goes at the next start, as all endpoints and services that belong to nothing.

mod dns;
mod place;
mod probes;
mod report;
mod stand;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use hivemind_model::{ApiError, ErrorCode, NetCheck};
use ipnet::{Ipv4Net, Ipv6Net};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::Agent;
use stand::Stand;

/// What to check besides what every node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckSpec {
    /// Addresses of services that no service has.
    pub service: (Ipv4Addr, Ipv6Addr),
    /// A TCP port of the node that replicas must not reach.
    pub guarded_port: u16,
    /// Somebody outside of the node who takes TCP connections.
    pub outside: Option<SocketAddr>,
}

impl Agent {
    /// The addresses of services.
    pub fn service_range(&self) -> (Ipv4Net, Ipv6Net) {
        self.shared.datapath.service_range()
    }

    /// Walks every path of the node's network. Takes a second or two, with nothing wrong; each path that does not answer
    /// takes some seconds more. Dropping the future ends it; what was made is removed all the same.
    ///
    /// # Errors
    /// `Busy` while another check goes on; when its ends could not be made.
    pub async fn check_network(&self, spec: CheckSpec) -> Result<NetCheck, ApiError> {
        let Ok(turn) = std::sync::Arc::clone(&self.shared.checking).try_lock_owned() else {
            let what = "another check of this node's network goes on";
            return Err(ApiError::new(
                ErrorCode::Busy,
                what,
                "wait until it has ended: it takes some seconds",
            ));
        };
        let (answer, answered) = oneshot::channel();
        let given_up = CancellationToken::new();
        let _on_drop = given_up.clone().drop_guard();
        let shared = std::sync::Arc::clone(&self.shared);
        // A task of its own: whoever asked may go away, and what was made must not stay.
        let check = async move {
            let _turn = turn;
            let mut stand = Stand::new(&shared, &spec);
            let found = tokio::select! {
                () = given_up.cancelled() => None,
                () = shared.stop.cancelled() => None,
                found = walk(&mut stand, &spec) => Some(found),
            };
            let removed = stand.remove().await;
            if let Some(found) = found {
                // Nobody may be there to hear it.
                let _ = answer.send(found.and_then(|check| removed.map(|()| check)));
            }
        };
        self.tasks.lock().await.spawn(Box::pin(check));
        answered.await.unwrap_or_else(|_| {
            Err(ApiError::new(
                ErrorCode::Internal,
                "the check was ended",
                "the daemon is being stopped; ask again",
            ))
        })
    }
}

async fn walk(stand: &mut Stand<'_>, spec: &CheckSpec) -> Result<NetCheck, ApiError> {
    stand.make().await?;
    let probes = Box::pin(probes::walk_all(stand, spec)).await;
    Ok(NetCheck { node: stand.shared.config.node.clone(), probes })
}
