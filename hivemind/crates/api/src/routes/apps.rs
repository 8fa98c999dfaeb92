//! Apps.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use hivemind_model::{ApiError, App, List, Scale};
use hivemind_scheduler::Decision;
use jiff::Timestamp;

use super::{check_replacement, kind::get_route, list_or_watch, place_in};
use crate::{
    api::Serving,
    caller::Caller,
    deployment,
    fault::Outcome,
    lines::WatchLine,
    request::{CreateParams, JsonBody, ListParams, Params, Place},
};

/// Apps, or every change of them
///
/// A watch begins with an `added` line for each app, then a `bookmark`, then every change as it happens; blank lines
/// say that the connection lives. A reader that is too slow is told the difference, never a gap.
#[utoipa::path(
    get, path = "/v1/apps", tag = "apps", operation_id = "listApps", params(ListParams),
    responses(
        (status = 200, description = "The apps, or the stream of a watch", content(
            (List<App> = "application/json"),
            (WatchLine<App> = "application/x-ndjson"),
            (WatchLine<App> = "text/event-stream"),
        )),
        (status = 400, description = "The query is not valid", body = ApiError),
        (status = 409, description = "The revision is no longer kept (HM0305): list again", body = ApiError),
        (status = 503, description = "The store failed", body = ApiError),
    )
)]
pub(crate) async fn list(
    State(serving): State<Serving>,
    caller: Caller,
    headers: HeaderMap,
    Params(params): Params<ListParams>,
) -> Outcome<Response> {
    list_or_watch(&serving, &caller, &headers, params.into(), |_: &App| true).await
}

/// Deploys an app
///
/// The app, its names, its published ports and its service with its addresses are made all together or not at all.
/// Replicas follow: watch the app and its replicas to see them come up.
#[utoipa::path(
    post, path = "/v1/namespaces/{namespace}/apps", tag = "apps", operation_id = "createApp",
    params(("namespace" = String, Path, description = "The namespace"), CreateParams),
    request_body = App,
    responses(
        (status = 201, description = "The app as it was made, or would be", body = App),
        (status = 400, description = "The app is not valid; all faults at once", body = ApiError),
        (status = 409, description = "The app exists (HM0301), is being deleted (HM0307), or a name (HM0302) or port \
            (HM0303) belongs to another, or another program has the port (HM0304); all at once", body = ApiError),
        (status = 413, description = "The body is larger than 1 MiB", body = ApiError),
        (status = 503, description = "No address is free, the disk is full, or the store failed", body = ApiError),
    )
)]
pub(crate) async fn create(
    State(serving): State<Serving>,
    Place(namespace): Place<String>,
    Params(params): Params<CreateParams>,
    JsonBody(mut app): JsonBody<App>,
) -> Outcome<(StatusCode, Json<App>)> {
    place_in(namespace, &mut app)?;
    let app = deployment::create(&serving.api.config, app, params.dry_run).await?;
    if !params.dry_run {
        tracing::info!(app = app.metadata.name, namespace = app.metadata.namespace, "App was created.");
    }
    Ok((StatusCode::CREATED, Json(app)))
}

get_route!(
    App in namespace,
    "/v1/namespaces/{namespace}/apps/{app}",
    "apps",
    "getApp",
    "app",
    "The app's name, short id or uid",
    "An app"
);

/// Replaces what is wanted of an app
///
/// Labels, annotations and spec become those of the body, if the app has still the `resourceVersion` that the body
/// names. Whether its service has addresses stays for an app's life.
#[utoipa::path(
    put, path = "/v1/namespaces/{namespace}/apps/{app}", tag = "apps", operation_id = "replaceApp",
    params(
        ("namespace" = String, Path, description = "The namespace"),
        ("app" = String, Path, description = "The app's name, short id or uid"),
        CreateParams,
    ),
    request_body = App,
    responses(
        (status = 200, description = "The app as it is now, or would be", body = App),
        (status = 400, description = "The app is not valid, or changes what cannot change", body = ApiError),
        (status = 404, description = "There is no such app", body = ApiError),
        (status = 409, description = "The app changed since (HM0305), or is being deleted (HM0307), or a name (HM0302) or port \
            (HM0303) belongs to another, or another program has the port (HM0304)", body = ApiError),
        (status = 413, description = "The body is larger than 1 MiB", body = ApiError),
        (status = 503, description = "The disk is full, or the store failed", body = ApiError),
    )
)]
pub(crate) async fn replace(
    State(serving): State<Serving>,
    Place((namespace, word)): Place<(String, String)>,
    Params(params): Params<CreateParams>,
    JsonBody(mut wanted): JsonBody<App>,
) -> Outcome<Json<App>> {
    place_in(namespace.clone(), &mut wanted)?;
    let mut app: App = serving.objects().find(&namespace, &word).await?;
    check_replacement("app", &app.metadata, &wanted.metadata)?;
    app.metadata.resource_version = wanted.metadata.resource_version;
    deployment::replace(&serving.api.config, &mut app, wanted).await?;
    if params.dry_run {
        return Ok(Json(serving.objects().try_update(&app).await?));
    }
    Ok(Json(serving.objects().update(&app).await?))
}

/// Deletes an app
///
/// Its replicas, its service and its names go first, then the app itself: watch it, or get it until it is not found. To
/// ask again changes nothing.
#[utoipa::path(
    delete, path = "/v1/namespaces/{namespace}/apps/{app}", tag = "apps", operation_id = "deleteApp",
    params(
        ("namespace" = String, Path, description = "The namespace"),
        ("app" = String, Path, description = "The app's name, short id or uid"),
    ),
    responses(
        (status = 202, description = "The app, on its way out", body = App),
        (status = 404, description = "There is no such app", body = ApiError),
        (status = 503, description = "The disk is full, or the store failed", body = ApiError),
    )
)]
pub(crate) async fn delete(
    State(serving): State<Serving>,
    Place((namespace, word)): Place<(String, String)>,
) -> Outcome<(StatusCode, Json<App>)> {
    let found: App = serving.objects().find(&namespace, &word).await?;
    let now = Timestamp::now();
    let mark = |app: &mut App| {
        app.metadata.deletion_timestamp.get_or_insert(now);
        Ok(())
    };
    let app = serving.objects().update_with(&namespace, &found.metadata.name, mark).await?;
    if !found.metadata.is_deleting() {
        tracing::info!(app = app.metadata.name, namespace, "App is being deleted.");
    }
    Ok((StatusCode::ACCEPTED, Json(app)))
}

/// Sets the number of an app's replicas
#[utoipa::path(
    put, path = "/v1/namespaces/{namespace}/apps/{app}/scale", tag = "apps", operation_id = "scaleApp",
    params(
        ("namespace" = String, Path, description = "The namespace"),
        ("app" = String, Path, description = "The app's name, short id or uid"),
    ),
    request_body = Scale,
    responses(
        (status = 200, description = "The app", body = App),
        (status = 400, description = "The number is out of range", body = ApiError),
        (status = 404, description = "There is no such app", body = ApiError),
        (status = 409, description = "The app is being deleted (HM0307)", body = ApiError),
        (status = 503, description = "The disk is full, or the store failed", body = ApiError),
    )
)]
pub(crate) async fn scale(
    State(serving): State<Serving>,
    Place((namespace, word)): Place<(String, String)>,
    JsonBody(Scale { replicas }): JsonBody<Scale>,
) -> Outcome<Json<App>> {
    let found: App = serving.objects().find(&namespace, &word).await?;
    let change = |app: &mut App| deployment::scale(app, replicas);
    let app = serving.objects().update_with(&namespace, &found.metadata.name, change).await?;
    tracing::info!(app = app.metadata.name, namespace, replicas, "App was scaled.");
    Ok(Json(app))
}

/// Replaces all replicas of an app, one after the other
#[utoipa::path(
    post, path = "/v1/namespaces/{namespace}/apps/{app}/restart", tag = "apps", operation_id = "restartApp",
    params(
        ("namespace" = String, Path, description = "The namespace"),
        ("app" = String, Path, description = "The app's name, short id or uid"),
    ),
    responses(
        (status = 200, description = "The app", body = App),
        (status = 404, description = "There is no such app", body = ApiError),
        (status = 409, description = "The app is being deleted (HM0307)", body = ApiError),
        (status = 503, description = "The disk is full, or the store failed", body = ApiError),
    )
)]
pub(crate) async fn restart(
    State(serving): State<Serving>,
    Place((namespace, word)): Place<(String, String)>,
) -> Outcome<Json<App>> {
    let found: App = serving.objects().find(&namespace, &word).await?;
    let now = Timestamp::now();
    let change = |app: &mut App| deployment::restart(app, now);
    let app = serving.objects().update_with(&namespace, &found.metadata.name, change).await?;
    tracing::info!(app = app.metadata.name, namespace, "App is being restarted.");
    Ok(Json(app))
}

/// Where the next replica of an app would be put, and why
///
/// Nothing is put anywhere. What is told is by the state of the cluster and of the network now.
#[utoipa::path(
    get, path = "/v1/namespaces/{namespace}/apps/{app}/placement", tag = "apps", operation_id = "explainPlacement",
    params(
        ("namespace" = String, Path, description = "The namespace"),
        ("app" = String, Path, description = "The app's name, short id or uid"),
    ),
    responses(
        (status = 200, description = "Every node with what speaks for and against it", body = Decision),
        (status = 404, description = "There is no such app", body = ApiError),
        (status = 409, description = "The node is no server (HM0316)", body = ApiError),
        (status = 503, description = "The store failed", body = ApiError),
    )
)]
pub(crate) async fn placement(
    State(serving): State<Serving>,
    Place((namespace, word)): Place<(String, String)>,
) -> Outcome<Json<Decision>> {
    let app: App = serving.objects().find(&namespace, &word).await?;
    Ok(Json(serving.cluster().placement(&app).await?))
}
