//! Several kinds over one connection.
//!
//! A browser opens at most six connections to a server that has no HTTP/2, for all of its pages together, so a page
//! cannot spend one on each kind that it shows.

use axum::{extract::State, response::Response};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use hivemind_model::{ApiError, App, ErrorCode, Namespace, NetworkPolicy, Node, Replica, Service, Volume};
use hivemind_store::Object;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    api::Serving,
    caller::Caller,
    fault::{Fault, Outcome},
    lines::{Format, WatchLine, held_response, watch_from_list},
    request::Params,
};

/// A line of the watch of one of the kinds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "kind", content = "line", rename_all = "lowercase")]
pub(crate) enum KindLine {
    /// Of apps.
    Apps(WatchLine<App>),
    /// Of replicas.
    Replicas(WatchLine<Replica>),
    /// Of services.
    Services(WatchLine<Service>),
    /// Of volumes.
    Volumes(WatchLine<Volume>),
    /// Of network policies.
    NetworkPolicies(WatchLine<NetworkPolicy>),
    /// Of namespaces.
    Namespaces(WatchLine<Namespace>),
    /// Of nodes.
    Nodes(WatchLine<Node>),
}

type Lines = BoxStream<'static, Result<KindLine, ApiError>>;

/// The kinds by the names that their paths have.
const KINDS: [&str; 7] =
    ["apps", "replicas", "services", "volumes", "networkpolicies", "namespaces", "nodes"];

/// What is to be watched.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WatchParams {
    /// The kinds, with commas between them: `apps`, `replicas`, `services`, `volumes`, `networkpolicies`, `namespaces`,
    /// `nodes`; all of them if it is left out.
    pub(crate) kinds: Option<String>,
}

/// Every change of several kinds, over one connection
///
/// Each kind begins with an `added` line for each object, then a `bookmark`, then every change as it happens, as in the
/// watch of the kind alone; lines of different kinds come in any order. Blank lines say that the connection lives. If
/// one of the watches cannot go on, the stream ends with `{"type": "error", "error": …}`: begin again.
#[utoipa::path(
    get, path = "/v1/watch", tag = "status", operation_id = "watch", params(WatchParams),
    responses(
        (status = 200, description = "The lines", body = KindLine, content_type = "application/x-ndjson"),
        (status = 400, description = "The query is not valid", body = ApiError),
        (status = 503, description = "The store failed", body = ApiError),
    )
)]
pub(crate) async fn watch(
    State(serving): State<Serving>,
    caller: Caller,
    Params(WatchParams { kinds }): Params<WatchParams>,
) -> Outcome<Response> {
    let wanted = wanted(kinds.as_deref())?;
    let place = serving.api.watches.take()?;
    let mut all: Vec<Lines> = Vec::with_capacity(wanted.len());
    for kind in wanted {
        all.push(match kind {
            "apps" => lines(&serving, KindLine::Apps).await?,
            "replicas" => lines(&serving, KindLine::Replicas).await?,
            "services" => lines(&serving, KindLine::Services).await?,
            "volumes" => lines(&serving, KindLine::Volumes).await?,
            "networkpolicies" => lines(&serving, KindLine::NetworkPolicies).await?,
            "namespaces" => lines(&serving, KindLine::Namespaces).await?,
            _ => lines(&serving, KindLine::Nodes).await?,
        });
    }
    let (format, ending) = (Format::Ndjson, caller.ending(&serving));
    Ok(held_response(stream::select_all(all).boxed(), format, |_| "line", place, &serving, ending))
}

/// The kinds that are named, each once.
fn wanted(kinds: Option<&str>) -> Result<Vec<&'static str>, Fault> {
    let Some(kinds) = kinds else { return Ok(KINDS.to_vec()) };
    for kind in kinds.split(',') {
        if !KINDS.contains(&kind) {
            let hint = format!("the kinds are {}", KINDS.join(", "));
            let error = ApiError::new(ErrorCode::OutOfRange, format!("{kind:?} is no kind"), hint);
            return Err(error.at("kinds").into());
        }
    }
    Ok(KINDS.into_iter().filter(|kind| kinds.split(',').any(|named| named == *kind)).collect())
}

async fn lines<T: Object>(serving: &Serving, of: fn(WatchLine<T>) -> KindLine) -> Result<Lines, ApiError> {
    let (list, watch) = serving.objects().list_and_watch::<T>(None).await?;
    let lines = watch_from_list(list, watch).map(move |(line, _)| match line {
        WatchLine::Error { error } => Err(error),
        line => Ok(of(line)),
    });
    Ok(lines.boxed())
}
