//! Volumes.

use axum::{Json, extract::State, http::StatusCode};
use hivemind_model::{
    ApiError, App, ErrorCode, Node, Problems, Volume, VolumeStatus, check_label, check_name,
};

use super::{
    kind::{get_route, list_route},
    place_in,
};
use crate::{
    api::Serving,
    fault::Outcome,
    request::{JsonBody, ListParams, Place},
};

list_route!(Volume, ListParams, "/v1/volumes", "volumes", "listVolumes", "Volumes, or every change of them");

get_route!(
    Volume in namespace,
    "/v1/namespaces/{namespace}/volumes/{volume}",
    "volumes",
    "getVolume",
    "volume",
    "The volume's name, short id or uid",
    "A volume"
);

/// Makes a volume
#[utoipa::path(
    post, path = "/v1/namespaces/{namespace}/volumes", tag = "volumes", operation_id = "createVolume",
    params(("namespace" = String, Path, description = "The namespace")),
    request_body = Volume,
    responses(
        (status = 201, description = "The volume", body = Volume),
        (status = 400, description = "The volume is not valid; all faults at once", body = ApiError),
        (status = 409, description = "There is a volume of this name already (HM0306)", body = ApiError),
        (status = 413, description = "The body is larger than 1 MiB", body = ApiError),
        (status = 503, description = "The disk is full, or the store failed", body = ApiError),
    )
)]
pub(crate) async fn create(
    State(serving): State<Serving>,
    Place(namespace): Place<String>,
    JsonBody(mut volume): JsonBody<Volume>,
) -> Outcome<(StatusCode, Json<Volume>)> {
    place_in(namespace, &mut volume)?;
    volume.status = VolumeStatus::default();
    check(&serving, &volume).await?;
    Ok((StatusCode::CREATED, Json(serving.objects().create(&volume).await?)))
}

async fn check(serving: &Serving, volume: &Volume) -> Result<(), ApiError> {
    let mut problems = Problems::default();
    check_name("metadata.name", &volume.metadata.name, 63, &mut problems);
    check_name("metadata.namespace", &volume.metadata.namespace, 63, &mut problems);
    for (key, value) in &volume.metadata.labels {
        check_label("metadata.labels", key, value, &mut problems);
    }
    let node = &volume.spec.node;
    match serving.objects().get::<Node>("", node).await {
        Err(error) if error.code == ErrorCode::NodeNotFound => {
            let what = format!("there is no node {node:?}");
            problems.add(ErrorCode::OutOfRange, "spec.node", what, "`hivemind node ls` shows the nodes");
        }
        other => drop(other?),
    }
    problems.into_result()
}

/// Deletes a volume and what is in it
#[utoipa::path(
    delete, path = "/v1/namespaces/{namespace}/volumes/{volume}", tag = "volumes", operation_id = "deleteVolume",
    params(
        ("namespace" = String, Path, description = "The namespace"),
        ("volume" = String, Path, description = "The volume's name, short id or uid"),
    ),
    responses(
        (status = 200, description = "The volume as it last was; it is gone", body = Volume),
        (status = 404, description = "There is no such volume", body = ApiError),
        (status = 409, description = "An app mounts the volume (HM0306), or it changed just now (HM0305)", body = ApiError),
        (status = 503, description = "The directory or the store failed", body = ApiError),
    )
)]
pub(crate) async fn delete(
    State(serving): State<Serving>,
    Place((namespace, word)): Place<(String, String)>,
) -> Outcome<Json<Volume>> {
    let volume: Volume = serving.objects().find(&namespace, &word).await?;
    refuse_mounted(&serving, &volume).await?;
    // First what it holds, then the object: if the node fails, the object is still there to try again with.
    serving.node().delete_volume(&volume).await?;
    serving.objects().delete(&volume).await?;
    tracing::info!(volume = volume.metadata.name, namespace, "Volume was deleted.");
    Ok(Json(volume))
}

async fn refuse_mounted(serving: &Serving, volume: &Volume) -> Result<(), ApiError> {
    let name = &volume.metadata.name;
    let apps = serving.objects().list::<App>(Some(&volume.metadata.namespace)).await?.items;
    let mounts = |app: &&App| {
        let mut mounts = app.spec.template.all_containers().flat_map(|container| &container.volume_mounts);
        mounts.any(|mount| mount.volume == *name)
    };
    let Some(app) = apps.iter().find(mounts) else { return Ok(()) };
    let what = format!("volume {name:?} is mounted by app {:?}", app.metadata.name);
    Err(ApiError::new(ErrorCode::VolumeInUse, what, "delete the app first"))
}
