//! What requests say, read with errors that tell what is wrong with them.

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{StatusCode, request::Parts},
};
use hivemind_model::{ApiError, ErrorCode, FlowVerdict};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;
use utoipa::IntoParams;

use crate::{
    body::{BODY_BYTES_MAX, BODY_TIMEOUT, read_whole},
    fault::Fault,
    node_access::ExecRequest,
    routes::Selection,
};

/// A body of JSON, of whatever content type.
pub(crate) struct JsonBody<T, const BYTES_MAX: usize = BODY_BYTES_MAX>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync, const BYTES_MAX: usize> FromRequest<S> for JsonBody<T, BYTES_MAX> {
    type Rejection = Fault;

    async fn from_request(request: Request, _: &S) -> Result<Self, Fault> {
        let bytes =
            timeout(BODY_TIMEOUT, read_whole(request.into_body(), BYTES_MAX)).await.map_err(|_| {
                let what = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
                ApiError::new(ErrorCode::TimedOut, what, "send it again")
            })??;
        let reader = &mut serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut *reader).map_err(|error| {
            let path = error.path().to_string();
            unreadable(error.inner(), (path != ".").then_some(path))
        })?;
        reader.end().map_err(|error| unreadable(&error, None))?;
        Ok(JsonBody(value))
    }
}

fn unreadable(error: &serde_json::Error, field: Option<String>) -> Fault {
    let hint =
        if error.is_data() { "GET /openapi.json describes the fields" } else { "send the object as JSON" };
    let fault = ApiError::new(ErrorCode::Malformed, format!("the body cannot be read: {error}"), hint);
    match field {
        Some(field) => fault.at(field).into(),
        None => fault.into(),
    }
}

/// The query, of which every key has to be known.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Params(value)),
            Err(rejection) => {
                let mut source: &dyn std::error::Error = &rejection;
                while let Some(deeper) = source.source() {
                    source = deeper;
                }
                Err(bad_query(&source.to_string()))
            }
        }
    }
}

fn bad_query(what: &str) -> Fault {
    Fault::malformed(
        format!("the query cannot be read: {what}"),
        "GET /openapi.json describes the parameters",
    )
}

/// The parts of the path that stand for something.
pub(crate) struct Place<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Place<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(value)| Place(value)).map_err(|error| {
            Fault::malformed(format!("the path cannot be read: {error}"), "encode it as UTF-8")
        })
    }
}

/// What a list or watch asks for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Only this namespace; all if it is left out.
    pub(crate) namespace: Option<String>,
    /// Whether to follow: a stream of changes instead of a list.
    #[serde(default)]
    pub(crate) watch: bool,
    /// With `watch`: tell only what came after this revision. Name one of which everything was told: a list's, a
    /// bookmark's, or one less than that of the last event.
    pub(crate) resource_version: Option<u64>,
}

/// What a list or watch of replicas asks for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReplicaListParams {
    /// Only this namespace; all if it is left out.
    pub(crate) namespace: Option<String>,
    /// Only the replicas of this app.
    pub(crate) app: Option<String>,
    /// Whether to follow: a stream of changes instead of a list.
    #[serde(default)]
    pub(crate) watch: bool,
    /// With `watch`: tell only what came after this revision. Name one of which everything was told: a list's, a
    /// bookmark's, or one less than that of the last event.
    pub(crate) resource_version: Option<u64>,
}

/// What a list or watch of things without a namespace asks for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ClusterListParams {
    /// Whether to follow: a stream of changes instead of a list.
    #[serde(default)]
    pub(crate) watch: bool,
    /// With `watch`: tell only what came after this revision. Name one of which everything was told: a list's, a
    /// bookmark's, or one less than that of the last event.
    pub(crate) resource_version: Option<u64>,
}

impl From<ListParams> for Selection {
    fn from(ListParams { namespace, watch, resource_version }: ListParams) -> Self {
        Selection { namespace, watch, resource_version }
    }
}

impl From<ClusterListParams> for Selection {
    fn from(ClusterListParams { watch, resource_version }: ClusterListParams) -> Self {
        Selection { namespace: None, watch, resource_version }
    }
}

/// How an object is made or replaced.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CreateParams {
    /// Whether to say only what would happen.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// Which lines are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogParams {
    /// The container's name; left out: the first one.
    pub(crate) container: Option<String>,
    /// The last so many lines; all that are kept if it is left out.
    pub(crate) tail: Option<usize>,
    /// Whether to go on with new lines as they come.
    #[serde(default)]
    pub(crate) follow: bool,
}

/// Which flows are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FlowParams {
    /// Only those that this began: `app`, `namespace/app`, `namespace/*`, `node/name` (the processes of a node), `host` (those
    /// of the node that tells), `dns`, `world`, `unknown`, an address or a CIDR.
    pub(crate) from: Option<String>,
    /// Only those with this at the other end: as `from`, or the domain name for which an address outside was answered last.
    pub(crate) to: Option<String>,
    /// Only those to these ports: `80`, `80/tcp`, `8000-8099`.
    pub(crate) port: Option<String>,
    /// Only those of this protocol: `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, or its number.
    pub(crate) protocol: Option<String>,
    /// Only those that were judged so.
    #[param(inline)]
    pub(crate) verdict: Option<FlowVerdict>,
    /// Only those that did not pass for this reason, a stable word such as `policy_ingress`.
    pub(crate) reason: Option<String>,
    /// Only what happened from then on: a time (RFC 3339), or how long ago (`30s`, `30m`, `1h`, `2d`). The first line then says
    /// how far back the node remembers.
    pub(crate) since: Option<String>,
    /// Whether to go on with new ones as they come.
    #[serde(default)]
    pub(crate) follow: bool,
    /// The last so many of those that are remembered, at most 4096; 100 if it is left out.
    pub(crate) tail: Option<usize>,
}

/// Which minutes' flows are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FlowHistoryParams {
    /// Only what happened from then on: a time (RFC 3339), or how long ago (`30s`, `30m`, `1h`, `2d`).
    pub(crate) since: Option<String>,
    /// Only what happened before then; as `since`.
    pub(crate) until: Option<String>,
    /// Only those that this began: `app`, `namespace/app`, `namespace/*`, `node/name` (the processes of a node), `host` (those
    /// of the node that tells), `dns`, `world`, `unknown`, an address or a CIDR.
    pub(crate) from: Option<String>,
    /// Only those with this at the other end: as `from`, or the domain name for which an address outside was answered last.
    pub(crate) to: Option<String>,
    /// Only those to these ports: `80`, `80/tcp`, `8000-8099`.
    pub(crate) port: Option<String>,
    /// Only those of this protocol: `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, or its number.
    pub(crate) protocol: Option<String>,
    /// Only those that were judged so.
    #[param(inline)]
    pub(crate) verdict: Option<FlowVerdict>,
    /// Only those that did not pass for this reason, a stable word such as `policy_ingress`.
    pub(crate) reason: Option<String>,
}

/// What to run.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only describes the query: `ExecQuery` reads it, since `command` repeats")]
pub(crate) struct ExecParams {
    /// The program and its arguments, one a `command`.
    command: Vec<String>,
    /// Whether the process gets a terminal.
    tty: Option<bool>,
    /// As which user; the container's if it is left out.
    user: Option<String>,
    /// The container's name; left out: the first one.
    container: Option<String>,
}

/// The query of an exec request.
pub(crate) struct ExecQuery(pub(crate) ExecRequest);

impl<S: Send + Sync> FromRequestParts<S> for ExecQuery {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let mut request = ExecRequest::default();
        for (key, value) in form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
            match &*key {
                "command" => request.command.push(value.into_owned()),
                "tty" => {
                    request.tty = value
                        .parse()
                        .map_err(|_| bad_query(&format!("tty is true or false, not {value:?}")))?;
                }
                "container" => request.container = Some(value.into_owned()).filter(|name| !name.is_empty()),
                "user" => request.user = Some(value.into_owned()).filter(|user| !user.is_empty()),
                other => return Err(bad_query(&format!("unknown parameter {other:?}"))),
            }
        }
        if request.command.first().is_none_or(String::is_empty) {
            return Err(Fault::malformed("no command was given", "name it: ?command=ls&command=-l"));
        }
        Ok(ExecQuery(request))
    }
}

/// The body is larger than what is taken.
pub(crate) fn too_large(limit_bytes: usize) -> Fault {
    let what = format!("the body is larger than {limit_bytes} bytes");
    let error = ApiError::new(ErrorCode::OutOfRange, what, "make the object smaller");
    Fault::with_status(error, StatusCode::PAYLOAD_TOO_LARGE)
}
