//! Services.

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use hivemind_model::{ApiError, List, Service};

use super::{Selection, list_or_watch};
use crate::{
    api::Serving,
    fault::Outcome,
    lines::WatchLine,
    request::{ListParams, Params, Place},
};

/// Services, or every change of them
///
/// A watch is as one of apps.
#[utoipa::path(
    get, path = "/v1/services", tag = "services", operation_id = "listServices", params(ListParams),
    responses(
        (status = 200, description = "The services, or the stream of a watch", content(
            (List<Service> = "application/json"),
            (WatchLine<Service> = "application/x-ndjson"),
            (WatchLine<Service> = "text/event-stream"),
        )),
        (status = 400, description = "The query is not valid", body = ApiError),
        (status = 409, description = "The revision is no longer kept (HM0305): list again", body = ApiError),
        (status = 503, description = "The store failed", body = ApiError),
    )
)]
pub(crate) async fn list(
    State(serving): State<Serving>,
    headers: HeaderMap,
    Params(params): Params<ListParams>,
) -> Outcome<Response> {
    let ListParams { namespace, watch, resource_version } = params;
    let selection = Selection { namespace, watch, resource_version };
    list_or_watch(&serving, &headers, selection, |_: &Service| true).await
}

/// A service
#[utoipa::path(
    get, path = "/v1/namespaces/{namespace}/services/{service}", tag = "services", operation_id = "getService",
    params(
        ("namespace" = String, Path, description = "The namespace"),
        ("service" = String, Path, description = "The service's name (that of its app), short id or uid"),
    ),
    responses(
        (status = 200, description = "The service", body = Service),
        (status = 404, description = "There is no such service", body = ApiError),
        (status = 503, description = "The store failed", body = ApiError),
    )
)]
pub(crate) async fn get(
    State(serving): State<Serving>,
    Place((namespace, word)): Place<(String, String)>,
) -> Outcome<Json<Service>> {
    Ok(Json(serving.objects().find(&namespace, &word).await?))
}
