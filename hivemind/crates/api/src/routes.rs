//! The handlers, one file a noun, and the router made of them.

mod access;
mod apps;
mod cluster;
mod exec;
mod flows;
mod images;
mod join_tokens;
mod kind;
mod metrics;
mod namespaces;
mod net;
mod network_policies;
pub(crate) mod nodes;
mod replicas;
mod services;
pub(crate) mod status;
mod tokens;
mod volumes;
mod watch;

use axum::{
    Extension, Json,
    handler::Handler,
    http::HeaderMap,
    middleware,
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter},
};
use futures::{StreamExt, future};
use hivemind_model::{ApiError, ErrorCode, Metadata, Problems, check_name};
use hivemind_store::Object;
use pastey::paste;
use utoipa::{
    OpenApi as _,
    openapi::{HttpMethod, OpenApi},
};

use crate::{
    api::Serving,
    caller::Caller,
    fault::{Fault, Outcome, method_not_allowed, path_not_found},
    lines::{Format, Told, watch_from_list, watch_on, watch_response},
    role,
};

/// Hands every handler to a macro, those of one path in one row.
macro_rules! of_all_handlers {
    ($make:ident) => {
        $make! {
            status::healthz;
            status::openapi;
            status::status;
            watch::watch;
            apps::list;
            apps::create;
            apps::get, apps::replace, apps::delete;
            apps::scale;
            apps::restart;
            apps::placement;
            replicas::list;
            replicas::get;
            replicas::logs;
            exec::exec;
            services::list;
            services::create;
            services::get, services::delete;
            volumes::list;
            volumes::create;
            volumes::get, volumes::delete;
            namespaces::list, namespaces::create;
            namespaces::get, namespaces::replace, namespaces::delete;
            network_policies::list;
            network_policies::apply;
            network_policies::check;
            network_policies::simulate;
            network_policies::suggest;
            network_policies::matrix;
            network_policies::get, network_policies::delete;
            nodes::list;
            nodes::get, nodes::replace, nodes::delete;
            cluster::status;
            cluster::leave;
            join_tokens::list, join_tokens::create;
            join_tokens::revoke;
            images::list;
            images::import;
            flows::flows;
            flows::history;
            net::trace;
            net::check;
            metrics::metrics;
            tokens::list, tokens::create;
            tokens::revoke;
            access::make_code;
            access::login;
            access::logout;
            access::session;
        }
    };
}

macro_rules! describe {
    ($($($module:ident::$handler:ident),+;)+) => {
        /// The paths and schemas of all handlers.
        #[derive(utoipa::OpenApi)]
        #[openapi(paths($($($module::$handler),+),+))]
        struct Described;
    };
}

of_all_handlers!(describe);

macro_rules! route {
    ($($($module:ident::$handler:ident),+;)+) => {
        paste! {
            axum::Router::new()$($(.route(
                &<$module::[<__path_ $handler>] as utoipa::Path>::path(),
                on_each(&<$module::[<__path_ $handler>] as utoipa::Path>::methods(), $module::$handler),
            ))+)+
        }
    };
}

/// What the handlers say of themselves, which takes tens of milliseconds and several megabytes to put together.
pub(crate) fn described() -> OpenApi {
    Described::openapi()
}

/// All handlers, each at its path.
pub(crate) fn handlers() -> axum::Router<Serving> {
    of_all_handlers!(route)
}

fn on_each<H, T>(methods: &[HttpMethod], handler: H) -> MethodRouter<Serving>
where
    H: Handler<T, Serving>,
    T: 'static,
{
    let on = |router: MethodRouter<Serving>, method: &HttpMethod| router.on(filter(method), handler.clone());
    methods.iter().fold(MethodRouter::new(), on)
}

const fn filter(method: &HttpMethod) -> MethodFilter {
    match method {
        HttpMethod::Get => MethodFilter::GET,
        HttpMethod::Put => MethodFilter::PUT,
        HttpMethod::Post => MethodFilter::POST,
        HttpMethod::Delete => MethodFilter::DELETE,
        HttpMethod::Options => MethodFilter::OPTIONS,
        HttpMethod::Head => MethodFilter::HEAD,
        HttpMethod::Patch => MethodFilter::PATCH,
        HttpMethod::Trace => MethodFilter::TRACE,
    }
}

/// The router of the API, for callers who may do everything.
pub(crate) fn router(serving: Serving) -> axum::Router {
    handlers()
        .fallback(path_not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(serving.clone(), role::check))
        .layer(Extension(Caller::socket()))
        .with_state(serving)
}

/// The router of what may be measured.
pub(crate) fn metrics_router(serving: Serving) -> axum::Router {
    let handlers: axum::Router<Serving> = route! {
        status::healthz;
        metrics::metrics;
    };
    handlers.fallback(path_not_found).method_not_allowed_fallback(method_not_allowed).with_state(serving)
}

/// What a list or watch of any kind asks for.
pub(crate) struct Selection {
    pub(crate) namespace: Option<String>,
    pub(crate) watch: bool,
    pub(crate) resource_version: Option<u64>,
}

/// Answers a list or a watch of the objects for which `wanted` holds, which has to say the same of an object for all of
/// its life.
async fn list_or_watch<T: Object>(
    serving: &Serving,
    caller: &Caller,
    headers: &HeaderMap,
    selection: Selection,
    wanted: impl Fn(&T) -> bool + Clone + Send + Sync + 'static,
) -> Outcome<Response> {
    let namespace = selection.namespace.as_deref();
    if let Some(namespace) = namespace {
        check_namespace(namespace)?;
    }
    if !selection.watch {
        if selection.resource_version.is_some() {
            let hint = "add watch=true, or leave out resourceVersion";
            return Err(Fault::malformed("a list is always of the present", hint));
        }
        let mut list = serving.objects().list::<T>(namespace).await?;
        list.items.retain(|object| wanted(object));
        return Ok(Json(list).into_response());
    }
    let format = Format::wanted(headers);
    let (place, ending) = (serving.api.watches.take()?, caller.ending(serving));
    let keep = move |line: &Told<T>| future::ready(line.0.object().is_none_or(&wanted));
    Ok(match selection.resource_version.or_else(|| last_event_id(headers)) {
        Some(from) => {
            let watch = serving.objects().watch(namespace, from).await?;
            watch_response(watch_on(watch).filter(keep), format, place, serving, ending)
        }
        None => {
            let (list, watch) = serving.objects().list_and_watch(namespace).await?;
            watch_response(watch_from_list(list, watch).filter(keep), format, place, serving, ending)
        }
    })
}

/// Where a browser that lost its stream wants to go on (WHATWG HTML, section 9.2.4).
fn last_event_id(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id")?.to_str().ok()?.parse().ok()
}

fn check_namespace(namespace: &str) -> Result<(), ApiError> {
    let mut problems = Problems::default();
    check_name("namespace", namespace, 63, &mut problems);
    problems.into_result()
}

/// Puts the namespace of the path into an object that is to be made.
fn place_in(namespace: String, object: &mut impl Object) -> Result<(), ApiError> {
    let metadata = object.metadata_mut();
    // A body that says nothing reads as `default`, so that is no contradiction.
    if metadata.namespace != namespace && metadata.namespace != hivemind_model::DEFAULT_NAMESPACE {
        let what = format!("the body says namespace {:?}, the path {namespace:?}", metadata.namespace);
        let error = ApiError::new(ErrorCode::InvalidName, what, "say the same, or leave it out of the body");
        return Err(error.at("metadata.namespace"));
    }
    metadata.namespace = namespace;
    Ok(())
}

/// Whether `wanted` may replace what `there` is the metadata of: the same name, and a `resourceVersion`.
fn check_replacement(kind: &str, there: &Metadata, wanted: &Metadata) -> Result<(), ApiError> {
    if wanted.name != there.name {
        let what = format!("the body is of {kind} {:?}, the path of {:?}", wanted.name, there.name);
        let error = ApiError::new(ErrorCode::InvalidName, what, "nothing can be renamed: make another one");
        return Err(error.at("metadata.name"));
    }
    if wanted.resource_version == 0 {
        let hint = format!("get the {kind}, change it, and put it back with its resourceVersion");
        let error = ApiError::new(ErrorCode::OutOfRange, "the body names no resourceVersion", hint);
        return Err(error.at("metadata.resourceVersion"));
    }
    Ok(())
}
