//! How the daemon is, and what its API looks like.

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use hivemind_model::{ApiError, Status};

use crate::{api::Serving, fault::Outcome};

/// Whether the daemon answers
#[utoipa::path(
    get, path = "/healthz", tag = "status", operation_id = "health",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain", example = "ok"))
)]
pub(crate) async fn healthz() -> &'static str {
    "ok"
}

/// This document
#[utoipa::path(
    get, path = "/openapi.json", tag = "status", operation_id = "openapi",
    responses((status = 200, description = "The OpenAPI document", body = Object, content_type = "application/json"))
)]
pub(crate) async fn openapi() -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")];
    (headers, crate::openapi::json()).into_response()
}

/// How the daemon and its node are
#[utoipa::path(
    get, path = "/v1/status", tag = "status", operation_id = "getStatus",
    responses(
        (status = 200, description = "The status", body = Status),
        (status = 503, description = "The store failed", body = ApiError),
    )
)]
pub(crate) async fn status(State(serving): State<Serving>) -> Outcome<Json<Status>> {
    Ok(Json(serving.node().status().await?))
}
