//! Nodes.

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use hivemind_model::{ApiError, List, Node};

use super::{Selection, list_or_watch};
use crate::{
    api::Serving,
    fault::Outcome,
    lines::WatchLine,
    request::{ClusterListParams, Params, Place},
};

/// Nodes, or every change of them
///
/// A watch is as one of apps.
#[utoipa::path(
    get, path = "/v1/nodes", tag = "nodes", operation_id = "listNodes", params(ClusterListParams),
    responses(
        (status = 200, description = "The nodes, or the stream of a watch", content(
            (List<Node> = "application/json"),
            (WatchLine<Node> = "application/x-ndjson"),
            (WatchLine<Node> = "text/event-stream"),
        )),
        (status = 400, description = "The query is not valid", body = ApiError),
        (status = 409, description = "The revision is no longer kept (HM0305): list again", body = ApiError),
        (status = 503, description = "The store failed", body = ApiError),
    )
)]
pub(crate) async fn list(
    State(serving): State<Serving>,
    headers: HeaderMap,
    Params(params): Params<ClusterListParams>,
) -> Outcome<Response> {
    let ClusterListParams { watch, resource_version } = params;
    let selection = Selection { namespace: None, watch, resource_version };
    list_or_watch(&serving, &headers, selection, |_: &Node| true).await
}

/// A node
#[utoipa::path(
    get, path = "/v1/nodes/{node}", tag = "nodes", operation_id = "getNode",
    params(("node" = String, Path, description = "The node's name, short id or uid")),
    responses(
        (status = 200, description = "The node", body = Node),
        (status = 404, description = "There is no such node", body = ApiError),
        (status = 503, description = "The store failed", body = ApiError),
    )
)]
pub(crate) async fn get(State(serving): State<Serving>, Place(word): Place<String>) -> Outcome<Json<Node>> {
    // Nodes are in no namespace.
    Ok(Json(serving.objects().find("", &word).await?))
}
