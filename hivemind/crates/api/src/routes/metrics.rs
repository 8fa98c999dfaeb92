//! Metrics.

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use hivemind_model::ApiError;
use hivemind_observe::Format;

use crate::{api::Serving, fault::Outcome};

/// What the node measures
///
/// In OpenMetrics, unless `Accept` prefers `text/plain`: then in Prometheus' text format 0.0.4.
#[utoipa::path(
    get, path = "/metrics", tag = "status", operation_id = "getMetrics",
    responses(
        (status = 200, description = "The metrics", content(
            (String = "application/openmetrics-text; version=1.0.0; charset=utf-8"),
            (String = "text/plain; version=0.0.4; charset=utf-8"),
        )),
        (status = 503, description = "The node cannot tell", body = ApiError),
    )
)]
pub(crate) async fn metrics(State(serving): State<Serving>, headers: HeaderMap) -> Outcome<Response> {
    // Several headers are one list (RFC 9110, section 5.3).
    let accepts: Vec<_> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::negotiate(Some(&accepts.join(",")));
    let text = serving.node().metrics(format, serving.api.statistics()).await?;
    let content_type = format.content_type();
    let headers =
        [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-store"), (header::VARY, "accept")];
    Ok((headers, text).into_response())
}
