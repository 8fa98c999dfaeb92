//! What nodes ask one another, over TLS with certificates of the cluster.
//!
//! A server takes machines that join (they have no certificate yet), tells nodes what concerns them, and hears what they
//! report. A node answers its servers what people ask of its replicas. Nobody else is answered.

use std::{convert::Infallible, io, sync::Arc};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use futures::StreamExt;
use hivemind_model::{
    ApiError, ErrorCode, JoinAnswer, JoinRequest, Measurements, Node, NodeReport, RenewAnswer, RenewRequest,
};
use hivemind_pki::Peer;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Api, Serving},
    caller::Caller,
    cluster_access::Role,
    fault::{Outcome, method_not_allowed, path_not_found},
    join,
    request::{JsonBody, Params},
    routes,
    serve::{HANDSHAKE_TIMEOUT, serve},
    tls,
};

/// Serves the node port, with what `tls` says at the time for each connection. Returns once `shutdown` is cancelled and all connections have ended, at the latest after 5 s.
///
/// # Errors
/// The listener has no address.
pub async fn serve_nodes(
    listener: TcpListener,
    tls: impl Fn() -> Arc<ServerConfig> + Send + Sync + 'static,
    api: Api,
    shutdown: CancellationToken,
) -> io::Result<()> {
    listener.local_addr()?;
    let serving = Serving::new(api, &shutdown);
    let router = match serving.api.config.role {
        Role::Server => server_router(serving.clone()),
        Role::Agent { .. } => agent_router(serving.clone()),
    };
    let open = move |stream| tls::open(stream, Some(TlsAcceptor::from(tls())), HANDSHAKE_TIMEOUT);
    serve(listener, open, router, serving).await;
    Ok(())
}

pub(crate) fn server_router(serving: Serving) -> Router {
    let members = Router::new()
        .route("/v1/nodes/{node}/feed", get(feed))
        .route("/v1/nodes/{node}/report", post(report))
        .route("/v1/nodes/{node}/measurements", post(measurements))
        .route("/v1/nodes/{node}/renew", post(renew))
        .route("/v1/nodes/{node}/leave", post(leave))
        .layer(middleware::from_fn_with_state(serving.clone(), check_member));
    Router::new()
        .route("/v1/join", post(join_cluster))
        .merge(members)
        .fallback(path_not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(serving)
}

fn agent_router(serving: Serving) -> Router {
    routes::handlers()
        .fallback(path_not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(check_server))
        .with_state(serving)
}

/// Lets a node through that is still a member, and speaks for itself.
async fn check_member(
    State(serving): State<Serving>,
    peer: Option<Extension<Peer>>,
    Path(asked): Path<String>,
    request: Request,
    next: Next,
) -> Outcome<Response> {
    let Some(Extension(peer)) = peer else {
        let hint = "join the cluster first: hivemind daemon --join ADDRESS --token TOKEN";
        return Err(
            ApiError::new(ErrorCode::Unauthorized, "this port wants a node's certificate", hint).into()
        );
    };
    if peer.name != asked {
        let what = format!("node {:?} does not speak for {asked:?}", peer.name);
        return Err(ApiError::new(ErrorCode::Forbidden, what, "").into());
    }
    let node = match serving.objects().get::<Node>("", &peer.name).await {
        Err(error) if error.code == ErrorCode::NodeNotFound => Err(removed(&peer.name)),
        found => found,
    }?;
    if node.spec.key != peer.key {
        return Err(removed(&peer.name).into());
    }
    Ok(next.run(request).await)
}

fn removed(name: &str) -> ApiError {
    ApiError::new(
        ErrorCode::NodeRemoved,
        format!("node {name:?} is not a member of this cluster any more"),
        "to join again: stop the daemon, remove `node` and `mirror.redb` from its data directory, and start it with --join and \
         a new token",
    )
}

/// Lets servers of the cluster through, and nobody else.
async fn check_server(peer: Option<Extension<Peer>>, mut request: Request, next: Next) -> Outcome<Response> {
    if !peer.is_some_and(|Extension(peer)| peer.is_server) {
        let what = "only servers of the cluster are answered here";
        return Err(ApiError::new(ErrorCode::Forbidden, what, "ask a server").into());
    }
    request.extensions_mut().insert(Caller::server());
    Ok(next.run(request).await)
}

async fn join_cluster(
    State(serving): State<Serving>,
    JsonBody(request): JsonBody<JoinRequest>,
) -> Outcome<Json<JoinAnswer>> {
    let config = &serving.api.config;
    match join::join(&config.objects, &*config.cluster, &config.node_name, request).await {
        Ok(answer) => Ok(Json(answer)),
        // Secrets are guessed here as elsewhere.
        Err(error) if error.code == ErrorCode::JoinTokenInvalid => Err(serving.api.access.refuse(error)),
        Err(error) => Err(error.into()),
    }
}

/// From where a node goes on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeedParams {
    since: Option<u64>,
}

async fn feed(
    State(serving): State<Serving>,
    Path(node): Path<String>,
    Params(FeedParams { since }): Params<FeedParams>,
) -> Outcome<Response> {
    let store = Arc::clone(serving.objects().store());
    let cut_off = serving.api.config.cluster.connections_of(&node);
    let lines = hivemind_mirror::feed(store, node.clone(), since).await?;
    let lines = lines.map(move |line| {
        let line = line.inspect_err(|error| {
            tracing::warn!(
                node,
                error = error.message,
                "What concerns a node can no longer be told; it begins anew."
            );
        });
        let mut text = serde_json::to_vec(&line.map_err(io::Error::other)?).map_err(io::Error::other)?;
        text.push(b'\n');
        Ok::<_, io::Error>(Bytes::from(text))
    });
    let shutdown = serving.shutdown.clone();
    let ended = async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = cut_off.cancelled() => {}
        }
    };
    let mut response = Body::from_stream(lines.take_until(Box::pin(ended))).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

async fn report(
    State(serving): State<Serving>,
    Path(node): Path<String>,
    JsonBody(report): JsonBody<NodeReport>,
) -> Outcome<StatusCode> {
    hivemind_mirror::take_report(serving.objects(), &node, report).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn measurements(
    State(serving): State<Serving>,
    Path(node): Path<String>,
    JsonBody(measured): JsonBody<Measurements>,
) -> Result<StatusCode, Infallible> {
    serving.api.config.cluster.take_measurements(&node, measured);
    Ok(StatusCode::NO_CONTENT)
}

async fn renew(
    State(serving): State<Serving>,
    Path(name): Path<String>,
    JsonBody(request): JsonBody<RenewRequest>,
) -> Outcome<Json<RenewAnswer>> {
    let (certificate, key) = serving.api.config.cluster.sign(&name, &request.signing_request)?;
    let set = |node: &mut Node| {
        node.spec.key.clone_from(&key);
        Ok(())
    };
    serving.objects().update_with("", &name, set).await?;
    tracing::info!(node = name, "A node has a new certificate.");
    Ok(Json(RenewAnswer { certificate }))
}

/// What a node says that leaves.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LeaveParams {
    /// Whether its replicas are still to be moved: then it stays a member until it asks again.
    #[serde(default)]
    drain: bool,
}

async fn leave(
    State(serving): State<Serving>,
    Path(name): Path<String>,
    Params(LeaveParams { drain }): Params<LeaveParams>,
) -> Outcome<StatusCode> {
    if drain {
        let set = |node: &mut Node| {
            (node.spec.cordoned, node.spec.draining) = (true, true);
            Ok(())
        };
        serving.objects().update_with("", &name, set).await?;
    } else {
        let node: Node = serving.objects().get("", &name).await?;
        routes::nodes::remove(&serving, &node).await?;
        tracing::info!(node = name, "A node left.");
    }
    Ok(StatusCode::NO_CONTENT)
}
