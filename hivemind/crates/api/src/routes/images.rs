//! Images on the node.

use axum::{Json, body::Body, extract::State};
use hivemind_model::{ApiError, ImageSummary, ImportResult};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{api::Serving, body::pieces, fault::Outcome};

/// The images on the node.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ImageList {
    /// In the order of their references.
    items: Vec<ImageSummary>,
}

/// An archive of images.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "only describes the body, which is read as it arrives")]
struct Archive(Vec<u8>);

/// The images on the node
#[utoipa::path(
    get, path = "/v1/images", tag = "images", operation_id = "listImages",
    responses(
        (status = 200, description = "The images", body = ImageList),
        (status = 503, description = "containerd does not answer", body = ApiError),
    )
)]
pub(crate) async fn list(State(serving): State<Serving>) -> Outcome<Json<ImageList>> {
    let mut items = serving.node().images().await?;
    items.sort_by(|a, b| a.reference.cmp(&b.reference));
    Ok(Json(ImageList { items }))
}

/// Takes images from an archive
///
/// The body is a tar as `docker save` or `skopeo copy … oci-archive:` write it, of any size.
#[utoipa::path(
    post, path = "/v1/images/import", tag = "images", operation_id = "importImages",
    request_body(content = inline(Archive), content_type = "application/x-tar", description = "The archive"),
    responses(
        (status = 200, description = "The references that can be deployed now", body = ImportResult),
        (status = 422, description = "The archive holds no image, or a damaged one", body = ApiError),
        (status = 503, description = "containerd does not answer, or the disk is full", body = ApiError),
    )
)]
pub(crate) async fn import(State(serving): State<Serving>, body: Body) -> Outcome<Json<ImportResult>> {
    Ok(Json(serving.node().import(pieces(body)).await?))
}
