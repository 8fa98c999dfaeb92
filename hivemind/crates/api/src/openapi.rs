//! The OpenAPI document, generated from the handlers.

use utoipa::{
    OpenApi as _,
    openapi::{
        OpenApi, Server,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use crate::access::SESSION_COOKIE;

/// What the document says besides the paths.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Hivemind",
        description = "The API of Hivemind: apps and what becomes of them. Errors are an `ApiError` with the HTTP \
            status of its code's kind, on every path: also 404 for paths and 405 for methods that are not listed here, and, \
            off the Unix socket, 401 without a valid token, 403 for what the token does not allow, 429 after too many that \
            were not valid.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    components(schemas(hivemind_model::FlowLine, hivemind_model::Login, hivemind_model::Session)),
    tags(
        (name = "apps", description = "What users deploy"),
        (name = "replicas", description = "Running copies of apps"),
        (name = "services", description = "Names and addresses of apps"),
        (name = "volumes", description = "Directories that outlive replicas"),
        (name = "namespaces", description = "What names are unique within, and what policies select by labels"),
        (name = "networkpolicies", description = "Which connections replicas may take and make"),
        (name = "flows", description = "Who speaks to whom, and what becomes of it"),
        (name = "net", description = "What the network does with a packet, and whether all of it works"),
        (name = "access", description = "Tokens, and sessions of browsers"),
        (name = "nodes", description = "Machines with a daemon"),
        (name = "images", description = "What replicas are made from"),
        (name = "status", description = "The daemon itself"),
    )
)]
struct Head;

fn head() -> OpenApi {
    let mut head = Head::openapi();
    head.info.version = env!("CARGO_PKG_VERSION").to_owned();
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(SESSION_COOKIE)));
    let components = head.components.get_or_insert_default();
    components.add_security_scheme("token", bearer);
    components.add_security_scheme("session", cookie);
    let none = [""; 0];
    head.security =
        Some(vec![SecurityRequirement::new("token", none), SecurityRequirement::new("session", none)]);
    head.servers = Some(vec![Server::new("/")]);
    head
}

/// The OpenAPI document of the API: every path with its parameters, bodies, responses and errors.
pub fn document() -> OpenApi {
    let mut document = head();
    document.merge(crate::routes::described());
    document
}

/// The document as `docs/reference/openapi.json` has it, compressed. A test holds that file to [`document`]: what makes it would be a
/// fortieth of the program.
pub(crate) static GZIP: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json.gz"));
