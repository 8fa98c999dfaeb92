//! The cluster.

use axum::{Json, extract::State, http::StatusCode};
use hivemind_model::{ApiError, ClusterStatus};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{api::Serving, fault::Outcome, request::Params};

/// The members of the cluster, as this node sees them
#[utoipa::path(
    get, path = "/v1/cluster", tag = "nodes", operation_id = "clusterStatus",
    responses(
        (status = 200, description = "The cluster", body = ClusterStatus),
        (status = 503, description = "The store failed", body = ApiError),
    )
)]
pub(crate) async fn status(State(serving): State<Serving>) -> Outcome<Json<ClusterStatus>> {
    Ok(Json(serving.cluster().status().await?))
}

/// How to leave.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LeaveParams {
    /// Do not wait until other nodes have its replicas.
    force: bool,
}

/// Takes this node out of its cluster
///
/// Its replicas are moved to other nodes, it forgets that it was a member, and the daemon ends.
#[utoipa::path(
    post, path = "/v1/leave", tag = "nodes", operation_id = "leaveCluster", params(LeaveParams),
    responses(
        (status = 204, description = "The node is no member any more; its daemon ends"),
        (status = 400, description = "The node is a server (HM0108)", body = ApiError),
        (status = 503, description = "The server cannot be reached (HM0602)", body = ApiError),
    )
)]
pub(crate) async fn leave(
    State(serving): State<Serving>,
    Params(LeaveParams { force }): Params<LeaveParams>,
) -> Outcome<StatusCode> {
    serving.cluster().leave(force).await?;
    Ok(StatusCode::NO_CONTENT)
}
