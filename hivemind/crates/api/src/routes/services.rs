//! Services.

use axum::{Json, extract::State, http::StatusCode};
use hivemind_model::{ApiError, ErrorCode, Service};

use super::{
    kind::{get_route, list_route},
    place_in,
};
use crate::{
    api::Serving,
    deployment,
    fault::Outcome,
    request::{CreateParams, JsonBody, ListParams, Params, Place},
};

list_route!(
    Service,
    ListParams,
    "/v1/services",
    "services",
    "listServices",
    "Services, or every change of them"
);

get_route!(
    Service in namespace,
    "/v1/namespaces/{namespace}/services/{service}",
    "services",
    "getService",
    "service",
    "The service's name (that of its app), short id or uid",
    "A service"
);

/// Makes a service for a name outside
///
/// Its names then stand for `spec.externalName` (CNAME), and answers carry the addresses that it has. Services of apps come
/// with their apps.
#[utoipa::path(
    post, path = "/v1/namespaces/{namespace}/services", tag = "services", operation_id = "createService",
    params(("namespace" = String, Path, description = "The namespace"), CreateParams),
    request_body = Service,
    responses(
        (status = 201, description = "The service as it was made, or would be", body = Service),
        (status = 400, description = "The service is not valid; all faults at once", body = ApiError),
        (status = 409, description = "A name belongs to another (HM0302); all at once", body = ApiError),
        (status = 413, description = "The body is larger than 1 MiB", body = ApiError),
        (status = 503, description = "The disk is full, or the store failed", body = ApiError),
    )
)]
pub(crate) async fn create(
    State(serving): State<Serving>,
    Place(namespace): Place<String>,
    Params(params): Params<CreateParams>,
    JsonBody(mut service): JsonBody<Service>,
) -> Outcome<(StatusCode, Json<Service>)> {
    place_in(namespace, &mut service)?;
    let service = deployment::create_service(&serving.api.config, service, params.dry_run).await?;
    if !params.dry_run {
        let (name, namespace) = (&service.metadata.name, &service.metadata.namespace);
        tracing::info!(service = name, namespace, "Service was created.");
    }
    Ok((StatusCode::CREATED, Json(service)))
}

/// Deletes a service for a name outside
#[utoipa::path(
    delete, path = "/v1/namespaces/{namespace}/services/{service}", tag = "services", operation_id = "deleteService",
    params(
        ("namespace" = String, Path, description = "The namespace"),
        ("service" = String, Path, description = "The service's name, short id or uid"),
    ),
    responses(
        (status = 200, description = "The service as it last was; it is gone", body = Service),
        (status = 400, description = "The service is an app's (HM0108)", body = ApiError),
        (status = 404, description = "There is no such service", body = ApiError),
        (status = 409, description = "The service changed just now (HM0305)", body = ApiError),
        (status = 503, description = "The disk is full, or the store failed", body = ApiError),
    )
)]
pub(crate) async fn delete(
    State(serving): State<Serving>,
    Place((namespace, word)): Place<(String, String)>,
) -> Outcome<Json<Service>> {
    let service: Service = serving.objects().find(&namespace, &word).await?;
    let name = &service.metadata.name;
    if service.spec.external_name.is_none() {
        let what = format!("the service {name:?} is that of the app {name:?}");
        return Err(
            ApiError::new(ErrorCode::Unsupported, what, "delete the app: its service goes with it").into()
        );
    }
    serving.objects().delete(&service).await?;
    tracing::info!(service = name, namespace, "Service was deleted.");
    Ok(Json(service))
}
