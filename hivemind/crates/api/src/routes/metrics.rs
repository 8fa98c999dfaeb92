//! Metrics.

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use hivemind_model::ApiError;

use crate::{api::Serving, fault::Outcome, node_access::MetricsFormat};

/// What the node measures
///
/// In OpenMetrics if `Accept` names `application/openmetrics-text`, else in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "status", operation_id = "getMetrics",
    responses(
        (status = 200, description = "The metrics", content(
            (String = "text/plain; version=0.0.4; charset=utf-8"),
            (String = "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        )),
        (status = 503, description = "The node cannot tell", body = ApiError),
    )
)]
pub(crate) async fn metrics(State(serving): State<Serving>, headers: HeaderMap) -> Outcome<Response> {
    let format = wanted(&headers);
    let text = serving.node().metrics(format).await?;
    let content_type = match format {
        MetricsFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        MetricsFormat::Text => "text/plain; version=0.0.4; charset=utf-8",
    };
    Ok(([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-store")], text).into_response())
}

fn wanted(headers: &HeaderMap) -> MetricsFormat {
    let accepts = headers.get_all(header::ACCEPT);
    let open = accepts
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains("application/openmetrics-text"));
    if open { MetricsFormat::OpenMetrics } else { MetricsFormat::Text }
}
