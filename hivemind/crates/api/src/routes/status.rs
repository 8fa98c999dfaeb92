//! How the daemon is, and what its API looks like.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use hivemind_model::{ApiError, Status};

use crate::{api::Serving, fault::Outcome, packed};

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
pub(crate) async fn openapi(headers: HeaderMap) -> Response {
    let mut response = packed::respond("the document", crate::openapi::GZIP, &headers);
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::VARY, "accept-encoding"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
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
