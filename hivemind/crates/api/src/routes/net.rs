//! What the network does with a packet, and whether every path of it works.

use std::net::{IpAddr, SocketAddr};

use axum::{Json, extract::State};
use hivemind_model::{
    ApiError, App, DEFAULT_NAMESPACE, ErrorCode, NetCheck, NetTrace, Protocol, Replica, Service,
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    api::Serving,
    fault::Outcome,
    node_access::{TraceFrom, TraceRequest, TraceTo},
    request::Params,
};

/// Which packet to trace.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TraceParams {
    /// Who sends it: `app` (its first replica that has an address), `app/replica`, `host`, or an address.
    from: String,
    /// Where it is sent to: `app` (the address of its service), `app/replica`, `host`, or an address.
    to: String,
    /// The port that it is sent to.
    port: u16,
    /// `tcp` if it is left out.
    #[serde(default)]
    #[param(inline)]
    protocol: Option<Protocol>,
    /// The port that it is sent from; one from which nothing is known if it is left out.
    source_port: Option<u16>,
    /// The namespace of apps; `default` if it is left out.
    namespace: Option<String>,
    /// Whether names stand for IPv6 addresses.
    #[serde(default)]
    ipv6: bool,
    /// The node whose programs are asked, where it is no replica that sends; the one that answers if it is left out.
    node: Option<String>,
}

/// What would become of the first packet of a connection
///
/// The programs of the node that sends it are run on it, by what they know now, with tables of their own for all that they
/// write: nothing is sent, and nothing changed.
#[utoipa::path(
    get, path = "/v1/net/trace", tag = "net", operation_id = "traceNet", params(TraceParams),
    responses(
        (status = 200, description = "What happens to the packet, step by step, and to the answer", body = NetTrace),
        (status = 400, description = "The query is not valid", body = ApiError),
        (status = 404, description = "There is no such app, replica or node, or it has no network", body = ApiError),
        (status = 409, description = "Another node sends it, which only a server asks (HM0316)", body = ApiError),
        (status = 503, description = "The programs cannot be run, or the store failed", body = ApiError),
    )
)]
pub(crate) async fn trace(
    State(serving): State<Serving>,
    Params(params): Params<TraceParams>,
) -> Outcome<Json<NetTrace>> {
    let namespace = params.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    super::check_namespace(namespace)?;
    let from = from(&serving, namespace, &params.from).await.map_err(|error| error.at("from"))?;
    let to = to(&serving, namespace, &params.to, params.ipv6).await.map_err(|error| error.at("to"))?;
    if params.port == 0 || params.source_port == Some(0) {
        let error = ApiError::new(ErrorCode::OutOfRange, "0 is no port", "give one from 1 to 65535");
        return Err(error.at(if params.port == 0 { "port" } else { "sourcePort" }).into());
    }
    let request = TraceRequest {
        node: params.node,
        from,
        to,
        port: params.port,
        protocol: params.protocol.unwrap_or_default(),
        source_port: params.source_port,
    };
    Ok(Json(serving.node().trace(request).await?))
}

async fn from(serving: &Serving, namespace: &str, word: &str) -> Result<TraceFrom, ApiError> {
    if word == "host" {
        return Ok(TraceFrom::Host);
    }
    if let Ok(address) = word.parse::<IpAddr>() {
        let replicas = serving.objects().list::<Replica>(None).await?.items;
        let found = replicas.into_iter().find(|replica| has(replica, address));
        return Ok(found.map_or(TraceFrom::Address(address), |found| TraceFrom::Replica(Box::new(found))));
    }
    let (app, replica) = split(word);
    Ok(TraceFrom::Replica(Box::new(replica_of(serving, namespace, app, replica).await?)))
}

async fn to(serving: &Serving, namespace: &str, word: &str, ipv6: bool) -> Result<TraceTo, ApiError> {
    if word == "host" {
        return Ok(TraceTo::Host { ipv6 });
    }
    if let Ok(address) = word.parse() {
        return Ok(TraceTo::Address(address));
    }
    let (app, replica) = split(word);
    if replica.is_none() {
        let found: App = serving.objects().find(namespace, app).await?;
        let service: Service = serving.objects().get(namespace, &found.metadata.name).await?;
        let spec = service.spec;
        let address = if ipv6 { spec.ipv6.map(IpAddr::from) } else { spec.ipv4.map(IpAddr::from) };
        // A headless one has none: its name stands for the replicas.
        if let Some(address) = address {
            return Ok(TraceTo::Address(address));
        }
    }
    let status = replica_of(serving, namespace, app, replica).await?.status;
    let address = if ipv6 { status.ipv6.map(IpAddr::from) } else { status.ipv4.map(IpAddr::from) };
    address.map(TraceTo::Address).ok_or_else(|| without_network(word))
}

/// An app and, behind a slash, one of its replicas.
fn split(word: &str) -> (&str, Option<&str>) {
    word.split_once('/').map_or((word, None), |(app, replica)| (app, Some(replica)))
}

fn has(replica: &Replica, address: IpAddr) -> bool {
    let status = &replica.status;
    [status.ipv4.map(IpAddr::from), status.ipv6.map(IpAddr::from)].contains(&Some(address))
}

/// The replica of that name, or of an app the first that has an address.
async fn replica_of(
    serving: &Serving,
    namespace: &str,
    app: &str,
    replica: Option<&str>,
) -> Result<Replica, ApiError> {
    if let Some(word) = replica {
        let found: Replica = serving.objects().find(namespace, word).await?;
        if found.spec.app != app {
            let what = format!("replica {word:?} is one of app {:?}", found.spec.app);
            return Err(ApiError::new(
                ErrorCode::InvalidName,
                what,
                format!("name it {}/{word}", found.spec.app),
            ));
        }
        return Ok(found);
    }
    let replicas = serving.objects().list::<Replica>(Some(namespace)).await?.items;
    let mut of_app = replicas.into_iter().filter(|replica| replica.spec.app == app).peekable();
    if of_app.peek().is_none() {
        // An app that is not there has an error of its own.
        let _: App = serving.objects().find(namespace, app).await?;
    }
    of_app.find(|replica| replica.status.ipv4.is_some()).ok_or_else(|| without_network(app))
}

fn without_network(word: &str) -> ApiError {
    let what = format!("{word:?} has no replica with an address");
    ApiError::new(ErrorCode::NothingRunning, what, "see `hivemind app info`")
}

/// What to check.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CheckParams {
    /// The node; the one that answers if it is left out.
    node: Option<String>,
    /// `address:port` of somebody off the machine who takes TCP connections; nothing is sent there if it is left out.
    #[param(value_type = Option<String>)]
    outside: Option<SocketAddr>,
}

/// Walks every path of a node's network
///
/// Two ends are made for as long as that takes, and speak to one another and to the node. What was made is removed before
/// the answer comes, and also if the request is given up.
#[utoipa::path(
    post, path = "/v1/net/check", tag = "net", operation_id = "checkNet", params(CheckParams),
    responses(
        (status = 200, description = "How each path was found", body = NetCheck),
        (status = 400, description = "The query is not valid", body = ApiError),
        (status = 404, description = "There is no such node", body = ApiError),
        (status = 409, description = "It is another node, which only a server asks (HM0316)", body = ApiError),
        (status = 503, description = "Another check goes on (HM0513), or the ends could not be made", body = ApiError),
    )
)]
pub(crate) async fn check(
    State(serving): State<Serving>,
    Params(params): Params<CheckParams>,
) -> Outcome<Json<NetCheck>> {
    let node = params.node.as_deref();
    Ok(Json(serving.node().check_network(node, params.outside).await?))
}
