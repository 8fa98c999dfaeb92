//! Nodes.

use axum::{Json, extract::State};
use hivemind_model::{
    ApiError, ErrorCode, Node, NodeSpec, NodeState, Problems, Replica, Taint, check_label, check_name,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::kind::{get_route, list_route};
use crate::{
    api::Serving,
    fault::Outcome,
    request::{ClusterListParams, JsonBody, Params, Place},
};

/// The most taints of a node.
const TAINTS_MAX: usize = 32;

list_route!(Node, ClusterListParams, "/v1/nodes", "nodes", "listNodes", "Nodes, or every change of them");

get_route!(
    Node,
    "/v1/nodes/{node}",
    "nodes",
    "getNode",
    "node",
    "The node's name, short id or uid",
    "A node"
);

/// Changes a node's labels, taints, and whether replicas are put there
///
/// Labels, annotations, `taints`, `cordoned` and `draining` become those of the body, if the node has still the
/// `resourceVersion` that the body names. The rest of the body is not looked at.
#[utoipa::path(
    put, path = "/v1/nodes/{node}", tag = "nodes", operation_id = "replaceNode",
    params(("node" = String, Path, description = "The node's name, short id or uid")),
    request_body = Node,
    responses(
        (status = 200, description = "The node", body = Node),
        (status = 400, description = "The node is not valid; all faults at once", body = ApiError),
        (status = 404, description = "There is no such node", body = ApiError),
        (status = 409, description = "The node changed since (HM0305)", body = ApiError),
        (status = 413, description = "The body is larger than 1 MiB", body = ApiError),
        (status = 503, description = "The disk is full, or the store failed", body = ApiError),
    )
)]
pub(crate) async fn replace(
    State(serving): State<Serving>,
    Place(word): Place<String>,
    JsonBody(wanted): JsonBody<Node>,
) -> Outcome<Json<Node>> {
    let mut node: Node = serving.objects().find("", &word).await?;
    super::check_replacement("node", &node.metadata, &wanted.metadata)?;
    node.metadata.resource_version = wanted.metadata.resource_version;
    node.metadata.labels = wanted.metadata.labels;
    node.metadata.annotations = wanted.metadata.annotations;
    let NodeSpec { cordoned, draining, mut taints, .. } = wanted.spec;
    taints.sort();
    (node.spec.cordoned, node.spec.draining, node.spec.taints) = (cordoned, draining, taints);
    check(&node)?;
    Ok(Json(serving.objects().update(&node).await?))
}

fn check(node: &Node) -> Result<(), ApiError> {
    let mut problems = Problems::default();
    check_name("metadata.name", &node.metadata.name, 63, &mut problems);
    for (key, value) in &node.metadata.labels {
        check_label("metadata.labels", key, value, &mut problems);
    }
    let taints = &node.spec.taints;
    for (i, Taint { key, value, effect }) in taints.iter().enumerate() {
        let field = format!("spec.taints[{i}]");
        check_label(&field, key, value, &mut problems);
        if taints[..i].iter().any(|other| other.key == *key && other.effect == *effect) {
            let what = format!("the taint {key}:{} is there twice", effect.as_str());
            problems.add(ErrorCode::Repeated, field, what, "give each key and effect once");
        }
    }
    if taints.len() > TAINTS_MAX {
        let what = format!("{} taints are too many", taints.len());
        problems.add(ErrorCode::OutOfRange, "spec.taints", what, format!("a node has up to {TAINTS_MAX}"));
    }
    problems.into_result()
}

/// How to remove a node.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RemoveParams {
    /// Also one that is up and runs replicas.
    force: bool,
}

/// Removes a node from the cluster
///
/// It is not let in any more, whatever certificate it has; its replicas are started on other nodes.
#[utoipa::path(
    delete, path = "/v1/nodes/{node}", tag = "nodes", operation_id = "removeNode",
    params(("node" = String, Path, description = "The node's name, short id or uid"), RemoveParams),
    responses(
        (status = 200, description = "The node as it last was; it is no member any more", body = Node),
        (status = 400, description = "The node is a server (HM0108)", body = ApiError),
        (status = 404, description = "There is no such node", body = ApiError),
        (status = 409, description = "The node is up and runs replicas (HM0317), or changed just now (HM0305)",
            body = ApiError),
        (status = 503, description = "The store failed", body = ApiError),
    )
)]
pub(crate) async fn delete(
    State(serving): State<Serving>,
    Place(word): Place<String>,
    Params(RemoveParams { force }): Params<RemoveParams>,
) -> Outcome<Json<Node>> {
    let node: Node = serving.objects().find("", &word).await?;
    let name = &node.metadata.name;
    let runs = |replica: &&Replica| replica.spec.node == *name;
    let replicas = serving.objects().list::<Replica>(None).await?.items.iter().filter(runs).count();
    let is_up = matches!(node.status.state, NodeState::Ready | NodeState::Suspect);
    if is_up && replicas > 0 && !force {
        let what = format!("node {name:?} is up and runs {replicas} replicas");
        let hint = format!("move them first: hivemind node drain {name}; or use --force");
        return Err(ApiError::new(ErrorCode::NodeInUse, what, hint).into());
    }
    remove(&serving, &node).await?;
    tracing::info!(node = name, "A node was removed.");
    Ok(Json(node))
}

/// Removes a node that is no server, and ends its connections.
pub(crate) async fn remove(serving: &Serving, node: &Node) -> Result<(), ApiError> {
    if node.spec.server {
        let what = format!("node {:?} is the server: it holds the cluster's state", node.metadata.name);
        return Err(ApiError::new(ErrorCode::Unsupported, what, "remove the others, then tear it down"));
    }
    serving.objects().delete(node).await?;
    serving.cluster().cut_off(&node.metadata.name);
    Ok(())
}
