//! Joining a cluster.

use std::{net::SocketAddrV4, path::Path};

use hivemind_client::{Client, NodeLink, pinned};
use hivemind_model::{ApiError, ErrorCode, JoinAnswer, JoinRequest};
use hivemind_pki::{NodeIdentity, NodeKey, SERVER_NAME};
use jiff::Timestamp;
use tracing::info;

use super::{address, membership::Membership};
use crate::daemon::{
    certificates::of_pki,
    config::{Config, Join},
};

/// What the machine is: a member of somebody's cluster, or the server of its own (`None`).
///
/// # Errors
/// What is in the way of joining, if that is wanted; nothing was changed then, on neither side.
pub(crate) async fn membership(config: &Config) -> Result<Option<(Membership, NodeIdentity)>, ApiError> {
    if let Some((membership, identity)) = Membership::load(&config.data_dir)? {
        if let Some(join) = &config.join {
            check_same(join, &membership, &identity)?;
        }
        return Ok(Some((membership, identity)));
    }
    let Some(join) = &config.join else { return Ok(None) };
    check_unused(&config.data_dir)?;
    let joined = join_cluster(config, join).await?;
    Ok(Some(joined))
}

/// A member that is told to join joins nothing else.
fn check_same(join: &Join, membership: &Membership, identity: &NodeIdentity) -> Result<(), ApiError> {
    let known: hivemind_client::Fingerprint = identity.fingerprint().parse()?;
    if known == join.authority {
        return Ok(());
    }
    let what = format!(
        "this machine is node {:?} of the cluster of {}, and the token is of another cluster",
        membership.name, membership.server_name
    );
    let hint = "leave the one first: hivemind node leave; then start the daemon with --join again";
    Err(ApiError::new(ErrorCode::OtherCluster, what, hint).at("--token"))
}

/// A machine that is a server has apps of its own, which would be lost.
fn check_unused(data_dir: &Path) -> Result<(), ApiError> {
    if !data_dir.join("store.redb").exists() {
        return Ok(());
    }
    let what =
        format!("this machine is a server of its own: its cluster's state is in {}", data_dir.display());
    let hint = "to give that up: hivemind daemon --teardown, then remove the directory; or join with another --data-dir";
    Err(ApiError::new(ErrorCode::OtherCluster, what, hint).at("--join"))
}

async fn join_cluster(config: &Config, join: &Join) -> Result<(Membership, NodeIdentity), ApiError> {
    let server = address::resolve(&join.address, config.node_port).await?;
    let address = address::towards(config, Some(*server.ip()))?;
    let client = client(server, join)?;
    let request = |signing_request| JoinRequest {
        token: join.secret.clone(),
        name: config.node_name.clone(),
        address,
        signing_request,
        time: Timestamp::now(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    // First what would come of it: once the server has a node, it counts on it.
    let answer = client.join(&request(None)).await?;
    let member = |answer: &JoinAnswer| Membership {
        name: config.node_name.clone(),
        number: answer.number,
        address,
        server,
        server_name: answer.server.clone(),
        facts: answer.cluster.clone(),
    };
    member(&answer).apply(&mut config.clone())?;
    address::check_ranges(&answer.cluster, &["hivemind0", "hivemind1"])?;
    std::fs::create_dir_all(&config.data_dir).map_err(|error| {
        crate::daemon::fault::file(&format!("the directory {}", config.data_dir.display()), &error)
    })?;

    let key = NodeKey::generate().map_err(of_pki)?;
    let answer = client.join(&request(Some(key.signing_request().map_err(of_pki)?))).await?;
    let certificate = answer.certificate.as_deref().ok_or_else(|| {
        let what = format!("{} let this machine in and sent no certificate", answer.server);
        ApiError::new(ErrorCode::Internal, what, "see whether both daemons have the same version")
    })?;
    let identity = key.with_certificate(certificate).map_err(of_pki)?;
    let membership = member(&answer);
    membership.save(&identity, &config.data_dir)?;
    info!(
        node = membership.name,
        number = membership.number,
        server = membership.server_name,
        %address,
        "This machine has joined a cluster"
    );
    Ok((membership, identity))
}

fn client(server: SocketAddrV4, join: &Join) -> Result<Client, ApiError> {
    Client::node(NodeLink {
        address: server,
        certificate_name: SERVER_NAME.to_owned(),
        tls: pinned(join.authority)?,
    })
}
