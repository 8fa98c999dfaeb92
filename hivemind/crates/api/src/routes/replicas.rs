//! Replicas and what they wrote.

use axum::{extract::State, http::HeaderMap, response::Response};
use hivemind_model::{ApiError, List, LogLine, Replica};

use super::{Selection, kind::get_route, list_or_watch};
use crate::{
    api::Serving,
    caller::Caller,
    fault::Outcome,
    lines::{Format, WatchLine, stream_response},
    node_access::LogRequest,
    request::{LogParams, Params, Place, ReplicaListParams},
};

/// Replicas, or every change of them
///
/// A watch is as one of apps.
#[utoipa::path(
    get, path = "/v1/replicas", tag = "replicas", operation_id = "listReplicas", params(ReplicaListParams),
    responses(
        (status = 200, description = "The replicas, or the stream of a watch", content(
            (List<Replica> = "application/json"),
            (WatchLine<Replica> = "application/x-ndjson"),
            (WatchLine<Replica> = "text/event-stream"),
        )),
        (status = 400, description = "The query is not valid", body = ApiError),
        (status = 409, description = "The revision is no longer kept (HM0305): list again", body = ApiError),
        (status = 503, description = "The store failed", body = ApiError),
    )
)]
pub(crate) async fn list(
    State(serving): State<Serving>,
    caller: Caller,
    headers: HeaderMap,
    Params(params): Params<ReplicaListParams>,
) -> Outcome<Response> {
    let ReplicaListParams { namespace, app, watch, resource_version } = params;
    let selection = Selection { namespace, watch, resource_version };
    let of_app = move |replica: &Replica| app.as_ref().is_none_or(|app| replica.spec.app == *app);
    list_or_watch(&serving, &caller, &headers, selection, of_app).await
}

get_route!(
    Replica in namespace,
    "/v1/namespaces/{namespace}/replicas/{replica}",
    "replicas",
    "getReplica",
    "replica",
    "The replica's name, short id or uid",
    "A replica"
);

/// What a replica wrote
///
/// One line of JSON for each line of the container; blank lines say that the connection lives. If the log cannot be
/// read on, the last line is `{"type": "error", "error": …}`.
#[utoipa::path(
    get, path = "/v1/namespaces/{namespace}/replicas/{replica}/logs", tag = "replicas", operation_id = "getLogs",
    params(
        ("namespace" = String, Path, description = "The namespace"),
        ("replica" = String, Path, description = "The replica's name, short id or uid"),
        LogParams,
    ),
    responses(
        (status = 200, description = "The lines", body = LogLine, content_type = "application/x-ndjson"),
        (status = 400, description = "The query is not valid", body = ApiError),
        (status = 404, description = "There is no such replica or container, or it has not written yet", body = ApiError),
        (status = 503, description = "The log or the store cannot be read", body = ApiError),
    )
)]
pub(crate) async fn logs(
    State(serving): State<Serving>,
    caller: Caller,
    Place((namespace, word)): Place<(String, String)>,
    Params(LogParams { container, tail, follow }): Params<LogParams>,
) -> Outcome<Response> {
    let replica: Replica = serving.objects().find(&namespace, &word).await?;
    let lines = serving.node().logs(&replica, LogRequest { container, tail, follow }).await?;
    Ok(stream_response(lines, Format::Ndjson, |_| "line", serving.api.keep_alive, caller.ending(&serving)))
}
