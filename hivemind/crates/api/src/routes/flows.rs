//! Flows.

use axum::{extract::State, http::HeaderMap, response::Response};
use futures::{StreamExt, stream::BoxStream};
use hivemind_model::{ApiError, ErrorCode, FlowLine, FlowWords, Problems};
use jiff::Timestamp;

use crate::{
    api::Serving,
    caller::Caller,
    fault::Outcome,
    lines::{Format, stream_response},
    node_access::FlowsRequest,
    request::{FlowHistoryParams, FlowParams, Params},
    watches::WatchPlace,
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
    Ok(told(flows, place, &headers, &caller, &serving))
}

/// What went in past minutes
///
/// One line of JSON for each minute, pair of ends, protocol and port, in the order in which they were written; a node's log keeps
/// the newest of them up to its size. Numbers that are not exact say so, and so does what is missing. What goes from node to node is told by
/// both. If the stream cannot go on, the last line is `{"type": "error", "error": …}`.
#[utoipa::path(
    get, path = "/v1/flows/history", tag = "flows", operation_id = "listFlowHistory", params(FlowHistoryParams),
    responses(
        (status = 200, description = "The flows by minute", content(
            (FlowLine = "application/x-ndjson"),
            (FlowLine = "text/event-stream"),
        )),
        (status = 400, description = "The query is not valid; all faults at once", body = ApiError),
        (status = 503, description = "The node cannot tell, or there are too many watches (HM0513)", body = ApiError),
    )
)]
pub(crate) async fn history(
    State(serving): State<Serving>,
    caller: Caller,
    headers: HeaderMap,
    Params(params): Params<FlowHistoryParams>,
) -> Outcome<Response> {
    let FlowHistoryParams { since, until, from, to, port, protocol, verdict, reason } = params;
    let words = FlowWords { from, to, port, protocol, verdict, reason, since, until };
    let mut problems = Problems::default();
    let selection = words.read(Timestamp::now(), &mut problems);
    problems.into_result()?;
    let place = serving.api.watches.take()?;
    let flows = serving.node().flow_history(selection).await?;
    Ok(told(flows, place, &headers, &caller, &serving))
}

/// The answer. The place is held as long as the stream is.
fn told(
    flows: BoxStream<'static, Result<FlowLine, ApiError>>,
    place: WatchPlace,
    headers: &HeaderMap,
    caller: &Caller,
    serving: &Serving,
) -> Response {
    let flows = flows.map(move |flow| {
        let _held = &place;
        flow
    });
    let name = |line: &FlowLine| match line {
        FlowLine::Flow(_) => "flow",
        FlowLine::Lost(_) => "lost",
        FlowLine::Minute(_) => "minute",
        FlowLine::Reach(_) => "reach",
    };
    let (format, ending) = (Format::wanted(headers), caller.ending(serving));
    stream_response(flows.boxed(), format, name, serving.api.keep_alive, ending)
}

fn read(params: FlowParams) -> Result<FlowsRequest, ApiError> {
    let FlowParams { from, to, port, protocol, verdict, reason, since, follow, tail } = params;
    let words = FlowWords { from, to, port, protocol, verdict, reason, since, until: None };
    let mut problems = Problems::default();
    let selection = words.read(Timestamp::now(), &mut problems);
    let tail = tail.unwrap_or(TAIL);
    if tail > TAIL_MAX {
        let what = format!("{tail} flows are more than a node remembers");
        problems.add(ErrorCode::OutOfRange, "tail", what, format!("ask for {TAIL_MAX} at most"));
    }
    problems.into_result()?;
    Ok(FlowsRequest { selection, follow, tail })
}
