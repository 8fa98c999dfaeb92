//! Namespaces.

use axum::{Json, extract::State, http::StatusCode};
use hivemind_model::{
    ApiError, App, ErrorCode, Namespace, NetworkPolicy, Problems, Replica, Service, Volume, check_label,
    check_name,
};
use hivemind_store::{Changes, Object, Objects};

use super::kind::{get_route, list_route};
use crate::{
    api::Serving,
    fault::Outcome,
    request::{ClusterListParams, CreateParams, JsonBody, Params, Place},
};

/// The most names of one kind that are told of what is in a namespace.
const NAMES_TOLD_MAX: usize = 5;

list_route!(
    Namespace,
    ClusterListParams,
    "/v1/namespaces",
    "namespaces",
    "listNamespaces",
    "Namespaces, or every change of them"
);

get_route!(
    Namespace,
    "/v1/namespaces/{namespace}",
    "namespaces",
    "getNamespace",
    "namespace",
    "The namespace's name, short id or uid",
    "A namespace"
);

/// Makes a namespace
///
/// To give it labels before anything is in it: a namespace also comes by itself with the first thing that is made in it.
#[utoipa::path(
    post, path = "/v1/namespaces", tag = "namespaces", operation_id = "createNamespace", params(CreateParams),
    request_body = Namespace,
    responses(
        (status = 201, description = "The namespace as it was made, or would be", body = Namespace),
        (status = 400, description = "The namespace is not valid; all faults at once", body = ApiError),
        (status = 409, description = "There is a namespace of this name already (HM0309)", body = ApiError),
        (status = 413, description = "The body is larger than 1 MiB", body = ApiError),
        (status = 503, description = "The disk is full, or the store failed", body = ApiError),
    )
)]
pub(crate) async fn create(
    State(serving): State<Serving>,
    Params(CreateParams { dry_run }): Params<CreateParams>,
    JsonBody(wanted): JsonBody<Namespace>,
) -> Outcome<(StatusCode, Json<Namespace>)> {
    let mut namespace = Namespace::new(&wanted.metadata.name);
    take_over(&mut namespace, wanted)?;
    if dry_run {
        let mut changes = Changes::new();
        changes.create(&mut namespace)?;
        serving.objects().check(changes).await?;
    } else {
        namespace = serving.objects().create(&namespace).await?;
        tracing::info!(namespace = namespace.metadata.name, "Namespace was created.");
    }
    Ok((StatusCode::CREATED, Json(namespace)))
}

/// Replaces a namespace's labels, annotations and permissions
///
/// They become those of the body, if the namespace has still the `resourceVersion` that the body names. The label
/// `kubernetes.io/metadata.name` stays. What runs goes on with what it has when a permission is taken away.
#[utoipa::path(
    put, path = "/v1/namespaces/{namespace}", tag = "namespaces", operation_id = "replaceNamespace",
    params(("namespace" = String, Path, description = "The namespace's name, short id or uid")),
    request_body = Namespace,
    responses(
        (status = 200, description = "The namespace", body = Namespace),
        (status = 400, description = "The namespace is not valid; all faults at once", body = ApiError),
        (status = 404, description = "There is no such namespace", body = ApiError),
        (status = 409, description = "The namespace changed since (HM0305)", body = ApiError),
        (status = 413, description = "The body is larger than 1 MiB", body = ApiError),
        (status = 503, description = "The disk is full, or the store failed", body = ApiError),
    )
)]
pub(crate) async fn replace(
    State(serving): State<Serving>,
    Place(word): Place<String>,
    JsonBody(wanted): JsonBody<Namespace>,
) -> Outcome<Json<Namespace>> {
    let mut namespace: Namespace = serving.objects().find("", &word).await?;
    super::check_replacement("namespace", &namespace.metadata, &wanted.metadata)?;
    namespace.metadata.resource_version = wanted.metadata.resource_version;
    take_over(&mut namespace, wanted)?;
    Ok(Json(serving.objects().update(&namespace).await?))
}

/// Gives `namespace` the labels, annotations and permissions that a request says.
fn take_over(namespace: &mut Namespace, wanted: Namespace) -> Result<(), ApiError> {
    namespace.metadata.labels = wanted.metadata.labels;
    namespace.metadata.annotations = wanted.metadata.annotations;
    namespace.spec = wanted.spec;
    namespace.normalize();
    let mut problems = Problems::default();
    namespace.spec.check(&mut problems);
    check_name("metadata.name", &namespace.metadata.name, 63, &mut problems);
    for (key, value) in namespace.labels() {
        check_label("metadata.labels", key, value, &mut problems);
    }
    problems.into_result()
}

/// Deletes a namespace in which nothing is
#[utoipa::path(
    delete, path = "/v1/namespaces/{namespace}", tag = "namespaces", operation_id = "deleteNamespace",
    params(("namespace" = String, Path, description = "The namespace's name, short id or uid")),
    responses(
        (status = 200, description = "The namespace as it last was; it is gone", body = Namespace),
        (status = 400, description = "The namespace is built in (HM0108)", body = ApiError),
        (status = 404, description = "There is no such namespace", body = ApiError),
        (status = 409, description = "Something is in the namespace (HM0310), or it changed just now (HM0305)",
            body = ApiError),
        (status = 503, description = "The store failed", body = ApiError),
    )
)]
pub(crate) async fn delete(
    State(serving): State<Serving>,
    Place(word): Place<String>,
) -> Outcome<Json<Namespace>> {
    let objects = serving.objects();
    let namespace: Namespace = objects.find("", &word).await?;
    let name = &namespace.metadata.name;
    if Namespace::is_built_in(name) {
        let what = format!("the namespace {name:?} is built in");
        return Err(ApiError::new(ErrorCode::Unsupported, what, "delete what is in it instead").into());
    }
    let mut inside = Vec::from_iter(told::<App>(objects, name, "app").await?);
    inside.extend(told::<Replica>(objects, name, "replica").await?);
    let external = |service: &Service| service.spec.external_name.is_some();
    inside.extend(told_of::<Service>(objects, name, "service", external).await?);
    inside.extend(told::<Volume>(objects, name, "volume").await?);
    inside.extend(told::<NetworkPolicy>(objects, name, "network policy").await?);
    if !inside.is_empty() {
        let what = format!("in namespace {name:?} there is {}", inside.join("; "));
        return Err(ApiError::new(ErrorCode::NamespaceInUse, what, "delete that first").into());
    }
    objects.delete(&namespace).await?;
    tracing::info!(namespace = name, "Namespace was deleted.");
    Ok(Json(namespace))
}

/// What there is of a kind in a namespace, in words; nothing if there is none.
async fn told<T: Object>(objects: &Objects, namespace: &str, noun: &str) -> Result<Option<String>, ApiError> {
    told_of::<T>(objects, namespace, noun, |_| true).await
}

/// The same of those that count.
async fn told_of<T: Object>(
    objects: &Objects,
    namespace: &str,
    noun: &str,
    counts: impl Fn(&T) -> bool,
) -> Result<Option<String>, ApiError> {
    let mut items = objects.list::<T>(Some(namespace)).await?.items;
    items.retain(counts);
    let names: Vec<_> = items.iter().take(NAMES_TOLD_MAX).map(|item| item.metadata().name.as_str()).collect();
    let more = items.len() - names.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Ok((!names.is_empty()).then(|| format!("{noun} {}{more}", names.join(", "))))
}
