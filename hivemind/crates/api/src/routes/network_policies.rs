//! Network policies.

use axum::{Json, extract::State};
use hivemind_model::{
    ApiError, AppliedPolicies, ApplyAction, ApplyPolicies, DEFAULT_NAMESPACE, FlowSelection, FlowWords,
    NetworkPolicy, PolicyCheck, PolicyMatrix, PolicySimulation, PolicySuggestion, Problems, SimulatePolicies,
    check_name,
};
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::kind::{get_route, list_route};
use crate::{
    api::Serving,
    body::OBJECTS_BYTES_MAX,
    fault::Outcome,
    policies,
    policy_check::{self, Question},
    policy_matrix, policy_simulation, policy_suggest,
    request::{CreateParams, JsonBody, ListParams, Params, Place},
};

list_route!(
    NetworkPolicy,
    ListParams,
    "/v1/networkpolicies",
    "networkpolicies",
    "listNetworkPolicies",
    "Network policies, or every change of them"
);

get_route!(
    NetworkPolicy in namespace,
    "/v1/namespaces/{namespace}/networkpolicies/{policy}",
    "networkpolicies",
    "getNetworkPolicy",
    "policy",
    "The policy's name, short id or uid",
    "A network policy"
);

/// Makes network policies, or changes those that are there
///
/// At most 1,000, all of them or, if one is refused, none. One of the whole cluster is put into the namespace `hivemind-system`,
/// whatever it says. Namespaces that are not there are made with them. What an author should know
/// comes as warnings with each. They are enforced a moment later: `status.enforcedGeneration` of a policy says when.
#[utoipa::path(
    post, path = "/v1/networkpolicies/apply", tag = "networkpolicies", operation_id = "applyNetworkPolicies",
    params(CreateParams),
    request_body = ApplyPolicies,
    responses(
        (status = 200, description = "What was done with each, or would be", body = AppliedPolicies),
        (status = 400, description = "Some are not valid; all faults of all of them at once", body = ApiError),
        (status = 409, description = "A policy of another kind has the name of one of them (HM0312), or they were changed by others again and again (HM0305)", body = ApiError),
        (status = 413, description = "The body is larger than 4 MiB", body = ApiError),
        (status = 503, description = "The disk is full, or the store failed", body = ApiError),
    )
)]
pub(crate) async fn apply(
    State(serving): State<Serving>,
    Params(CreateParams { dry_run }): Params<CreateParams>,
    JsonBody(ApplyPolicies { items }): JsonBody<ApplyPolicies, OBJECTS_BYTES_MAX>,
) -> Outcome<Json<AppliedPolicies>> {
    let applied = policies::apply(&serving.api.config, items, dry_run).await?;
    for item in applied.items.iter().filter(|item| !dry_run && item.action != ApplyAction::Unchanged) {
        let metadata = &item.policy.metadata;
        tracing::info!(policy = metadata.name, namespace = metadata.namespace, "Network policy was applied.");
    }
    Ok(Json(applied))
}

/// Which connection to check.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CheckParams {
    /// Who makes it: `app`, `namespace/app`, `host`, `world`, or an address.
    from: String,
    /// With whom; in the same way, or `dns`, or the name of a domain: whatever address outside it has.
    to: String,
    /// `tcp` (if it is left out), `udp`, `sctp`, or `icmp` for an echo request.
    protocol: Option<String>,
    /// The port of the end that takes it, of a protocol that has ports.
    port: Option<u16>,
    /// The namespace of apps that are named without one; `default` if it is left out.
    namespace: Option<String>,
}

/// What policies say of a connection, and why
///
/// Judged by what the policies mean, as they are now: of both ends, tier by tier, with the rules that decide.
#[utoipa::path(
    get, path = "/v1/networkpolicies/check", tag = "networkpolicies", operation_id = "checkNetworkPolicies",
    params(CheckParams),
    responses(
        (status = 200, description = "What comes of it", body = PolicyCheck),
        (status = 400, description = "The query is not valid", body = ApiError),
        (status = 404, description = "There is no such app, or it has no replica with an address", body = ApiError),
        (status = 503, description = "The store failed", body = ApiError),
    )
)]
pub(crate) async fn check(
    State(serving): State<Serving>,
    Params(params): Params<CheckParams>,
) -> Outcome<Json<PolicyCheck>> {
    let namespace = params.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    super::check_namespace(namespace)?;
    let question = Question {
        from: &params.from,
        to: &params.to,
        protocol: params.protocol.as_deref().unwrap_or("tcp"),
        port: params.port,
        namespace,
    };
    Ok(Json(policy_check::check(&serving.api.config, &question).await?))
}

/// Which records a request asks for: since `ago` if it does not say, and until now. Both times are always said.
fn recorded(
    since: Option<String>,
    until: Option<String>,
    ago: &str,
    problems: &mut Problems,
) -> FlowSelection {
    let now = Timestamp::now();
    let since = since.or_else(|| Some(ago.to_owned()));
    let until = until.or_else(|| Some(now.to_string()));
    FlowWords { since, until, ..FlowWords::default() }.read(now, problems)
}

/// Since when flows are looked at if the request does not say.
const SIMULATED: &str = "1h";

/// The time of which flows are looked at.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SimulateParams {
    /// From then on: a time (RFC 3339), or how long ago (`30s`, `30m`, `1h`, `2d`); one hour ago if it is left out.
    since: Option<String>,
    /// Before then; as `since`.
    until: Option<String>,
}

/// What other policies would make of recorded flows
///
/// As if the policies of the body were applied, and those that it names deleted: the flows that all nodes have recorded are judged
/// by the policies as they are and as they would be. Nothing is written. Connections of ICMP are judged as echo requests. What
/// several nodes counted may be the same connections: then a number has bounds.
#[utoipa::path(
    post, path = "/v1/networkpolicies/simulate", tag = "networkpolicies", operation_id = "simulateNetworkPolicies",
    params(SimulateParams),
    request_body = SimulatePolicies,
    responses(
        (status = 200, description = "What would change", body = PolicySimulation),
        (status = 400, description = "The query or some policies are not valid; all faults of all of them at once", body = ApiError),
        (status = 404, description = "A policy to delete is not there", body = ApiError),
        (status = 409, description = "As of applying them", body = ApiError),
        (status = 413, description = "The body is larger than 4 MiB", body = ApiError),
        (status = 503, description = "The store failed, or the node cannot tell its flows", body = ApiError),
    )
)]
pub(crate) async fn simulate(
    State(serving): State<Serving>,
    Params(SimulateParams { since, until }): Params<SimulateParams>,
    JsonBody(wanted): JsonBody<SimulatePolicies, OBJECTS_BYTES_MAX>,
) -> Outcome<Json<PolicySimulation>> {
    let mut problems = Problems::default();
    let selection = recorded(since, until, SIMULATED, &mut problems);
    problems.into_result()?;
    // It reads all of what a stream of the history would send.
    let _place = serving.api.watches.take()?;
    let simulation =
        policy_simulation::simulate(&serving.api.config, serving.node(), wanted, selection).await?;
    Ok(Json(simulation))
}

/// How far back records are read, if the request does not say.
const SUGGEST_SINCE: &str = "24h";

/// For what policies are suggested.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SuggestParams {
    /// The app's name, short id or uid; all apps of the namespace if it is left out.
    app: Option<String>,
    /// The namespace; `default` if it is left out.
    namespace: Option<String>,
    /// By what was seen from then on: a time (RFC 3339), or how long ago (`30s`, `30m`, `1h`, `2d`); `24h` if it is left out.
    since: Option<String>,
    /// By what was seen before then; as `since`.
    until: Option<String>,
}

/// The least policies that allow what was seen
///
/// By the records of flows that the nodes keep by minute: one policy for each app, with what speaks for each of its rules. What was
/// denied becomes no rule, and an app of which nothing was seen gets no policy. Nothing is applied.
#[utoipa::path(
    get, path = "/v1/networkpolicies/suggest", tag = "networkpolicies", operation_id = "suggestNetworkPolicies",
    params(SuggestParams),
    responses(
        (status = 200, description = "The policies", body = PolicySuggestion),
        (status = 400, description = "The query is not valid, all faults at once, or more was seen than fits (HM0103)", body = ApiError),
        (status = 404, description = "There is no such app or namespace, or nothing was seen (HM0212)", body = ApiError),
        (status = 503, description = "The node cannot tell, the store failed, or there are too many watches (HM0513)", body = ApiError),
    )
)]
pub(crate) async fn suggest(
    State(serving): State<Serving>,
    Params(params): Params<SuggestParams>,
) -> Outcome<Json<PolicySuggestion>> {
    let SuggestParams { app, namespace, since, until } = params;
    let namespace = namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let mut problems = Problems::default();
    check_name("namespace", namespace, 63, &mut problems);
    let selection = recorded(since, until, SUGGEST_SINCE, &mut problems);
    problems.into_result()?;
    let wanted = policy_suggest::wanted(serving.objects(), namespace, app.as_deref()).await?;
    let _held = serving.api.watches.take()?;
    let flows = serving.node().flow_history(selection).await?;
    Ok(Json(policy_suggest::suggest(serving.objects(), &wanted, flows).await?))
}

/// Of what a matrix is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct MatrixParams {
    /// Only pairs of which one end is an app of this namespace; all if it is left out.
    namespace: Option<String>,
    /// Beside what was seen from then on: a time (RFC 3339), or how long ago (`30s`, `30m`, `1h`, `2d`); one hour ago if it is left
    /// out.
    since: Option<String>,
    /// Beside what was seen before then; as `since`.
    until: Option<String>,
}

/// Who may speak to whom, beside who does
///
/// For each pair of apps, and of apps with the nodes, the DNS server and the outside: what the policies of both ends allow as they are now,
/// judged by what they mean, what passed by the records of flows that the nodes keep, what was tried and refused, and what is allowed and
/// was never used. Pairs of which the same is allowed and nothing was recorded are told together.
#[utoipa::path(
    get, path = "/v1/networkpolicies/matrix", tag = "networkpolicies", operation_id = "matrixNetworkPolicies",
    params(MatrixParams),
    responses(
        (status = 200, description = "The matrix", body = PolicyMatrix),
        (status = 400, description = "The query is not valid, all faults at once", body = ApiError),
        (status = 404, description = "There is no such namespace", body = ApiError),
        (status = 409, description = "The node is no server (HM0316)", body = ApiError),
        (status = 503, description = "The node cannot tell, the store failed, or there are too many watches (HM0513)", body = ApiError),
    )
)]
pub(crate) async fn matrix(
    State(serving): State<Serving>,
    Params(MatrixParams { namespace, since, until }): Params<MatrixParams>,
) -> Outcome<Json<PolicyMatrix>> {
    let mut problems = Problems::default();
    if let Some(namespace) = &namespace {
        check_name("namespace", namespace, 63, &mut problems);
    }
    let selection = recorded(since, until, SIMULATED, &mut problems);
    problems.into_result()?;
    let _held = serving.api.watches.take()?;
    let config = &serving.api.config;
    Ok(Json(policy_matrix::matrix(config, serving.node(), namespace.as_deref(), selection).await?))
}

/// Deletes a network policy
#[utoipa::path(
    delete, path = "/v1/namespaces/{namespace}/networkpolicies/{policy}", tag = "networkpolicies",
    operation_id = "deleteNetworkPolicy",
    params(
        ("namespace" = String, Path, description = "The namespace"),
        ("policy" = String, Path, description = "The policy's name, short id or uid"),
    ),
    responses(
        (status = 200, description = "The policy as it last was; it is gone", body = NetworkPolicy),
        (status = 404, description = "There is no such policy", body = ApiError),
        (status = 409, description = "It changes without pause (HM0305)", body = ApiError),
        (status = 503, description = "The store failed", body = ApiError),
    )
)]
pub(crate) async fn delete(
    State(serving): State<Serving>,
    Place((namespace, word)): Place<(String, String)>,
) -> Outcome<Json<NetworkPolicy>> {
    let policy = policies::delete(serving.objects(), &namespace, &word).await?;
    tracing::info!(policy = policy.metadata.name, namespace, "Network policy was deleted.");
    Ok(Json(policy))
}
