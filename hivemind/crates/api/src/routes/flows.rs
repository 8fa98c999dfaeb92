//! Flows.

use axum::{extract::State, http::HeaderMap, response::Response};
use futures::StreamExt;
use hivemind_model::{ApiError, ErrorCode, FlowLine, Problems};

use crate::{
    api::Serving,
    caller::Caller,
    fault::Outcome,
    lines::{Format, stream_response},
    node_access::{FlowFilter, FlowsRequest},
    request::{FlowParams, Params},
};

/// How many flows are told if the request does not say.
const TAIL: usize = 100;

/// The most that may be asked for: a node remembers no more.
const TAIL_MAX: usize = 4096;

/// Who speaks to whom, and what becomes of it
///
/// One line of JSON for each flow, or for events that were lost before it; blank lines say that the connection lives. If
/// the stream cannot go on, the last line is `{"type": "error", "error": …}`.
#[utoipa::path(
    get, path = "/v1/flows", tag = "flows", operation_id = "listFlows", params(FlowParams),
    responses(
        (status = 200, description = "The flows", content(
            (FlowLine = "application/x-ndjson"),
            (FlowLine = "text/event-stream"),
        )),
        (status = 400, description = "The query is not valid; all faults at once", body = ApiError),
        (status = 503, description = "The node cannot tell, or there are too many watches (HM0513)", body = ApiError),
    )
)]
pub(crate) async fn flows(
    State(serving): State<Serving>,
    caller: Caller,
    headers: HeaderMap,
    Params(params): Params<FlowParams>,
) -> Outcome<Response> {
    let request = read(params)?;
    let place = serving.api.watches.take()?;
    let flows = serving.node().flows(request).await?;
    // The place is held as long as the stream is.
    let flows = flows.map(move |flow| {
        let _held = &place;
        flow
    });
    let name = |line: &FlowLine| match line {
        FlowLine::Flow(_) => "flow",
        FlowLine::Lost(_) => "lost",
    };
    let (format, ending) = (Format::wanted(&headers), caller.ending(&serving));
    Ok(stream_response(flows.boxed(), format, name, serving.api.keep_alive, ending))
}

fn read(params: FlowParams) -> Result<FlowsRequest, ApiError> {
    let FlowParams { from, to, verdict, follow, tail } = params;
    let mut problems = Problems::default();
    let mut end = |field: &str, text: Option<String>| match text?.parse::<FlowFilter>() {
        Ok(filter) => Some(filter),
        Err(error) => {
            problems.add(error.code, field, error.message, error.hint);
            None
        }
    };
    let (from, to) = (end("from", from), end("to", to));
    let tail = tail.unwrap_or(TAIL);
    if tail > TAIL_MAX {
        let what = format!("{tail} flows are more than a node remembers");
        problems.add(ErrorCode::OutOfRange, "tail", what, format!("ask for {TAIL_MAX} at most"));
    }
    problems.into_result()?;
    Ok(FlowsRequest { from, to, verdict, follow, tail })
}
