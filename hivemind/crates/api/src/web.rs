//! The web port: what may be seen without a token.

use std::{collections::HashSet, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, Uri, header, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use hivemind_model::{ApiError, ErrorCode};

use crate::{
    dashboard,
    fault::{Fault, method_not_allowed, path_not_found},
    routes::status,
};

/// The names under which the web port may be asked: a page elsewhere whose name was made to point here (DNS rebinding)
/// sends its own name as `Host`, and gets no answer.
pub(crate) struct Names {
    names: HashSet<String>,
    port: u16,
}

impl Names {
    pub(crate) fn new(local: SocketAddr, hosts: impl IntoIterator<Item = String>) -> Self {
        let mut names: HashSet<_> = hosts.into_iter().map(|host| bare(&host)).collect();
        names.extend(["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()]);
        names.insert(local.ip().to_string());
        Names { names, port: local.port() }
    }

    /// Whether `authority`, as a `Host` header or the target of a request says it, means this server.
    fn mean(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        let port = match authority.port() {
            Some(port) => port.as_str().parse::<u16>().ok(),
            None if authority.as_str().ends_with(':') => None,
            None => Some(80),
        };
        port == Some(self.port)
            && !authority.as_str().contains('@')
            && self.names.contains(&bare(authority.host()))
    }
}

/// A host as it is compared: lower case, without the brackets of an IPv6 address.
fn bare(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase()
}

pub(crate) fn router(names: Names) -> Router {
    Router::new()
        .route("/healthz", get(status::healthz))
        .route("/openapi.json", get(status::openapi))
        .route("/v1", any(unauthorized))
        .route("/v1/", any(unauthorized))
        .route("/v1/{*path}", any(unauthorized))
        .merge(dashboard::router())
        .fallback(path_not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::new(names), check_host))
}

async fn check_host(State(names): State<Arc<Names>>, request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(header::HOST);
    let mut asked: Vec<_> = hosts.iter().map(|host| host.to_str().unwrap_or_default()).collect();
    // A target in absolute form overrides the header (RFC 9112, section 3.2.2).
    asked.extend(request.uri().authority().map(Authority::as_str));
    let ours = !asked.is_empty() && asked.iter().all(|host| names.mean(host));
    let mut response = if ours {
        next.run(request).await
    } else {
        misdirected(&asked.join(", "), names.port).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

fn misdirected(host: &str, port: u16) -> Fault {
    let hint = format!("use http://localhost:{port}, or the address that the daemon was given");
    let error = ApiError::new(ErrorCode::InvalidName, format!("this server is not {host:?}"), hint);
    Fault::with_status(error.at("Host"), StatusCode::MISDIRECTED_REQUEST)
}

async fn unauthorized(uri: Uri) -> Fault {
    let what =
        format!("{} is not served on this port: this version serves /v1 on the Unix socket only", uri.path());
    let hint = "use the command line on this machine, or curl --unix-socket /run/hivemind/api.sock";
    ApiError::new(ErrorCode::Unauthorized, what, hint).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new("0.0.0.0:3000".parse().unwrap(), ["Node-1.example.com".to_owned(), "[fd00::1]".to_owned()])
    }

    #[test]
    fn the_servers_own_names_are_known_with_their_port() {
        for host in [
            "localhost:3000",
            "LOCALHOST:3000",
            "127.0.0.1:3000",
            "[::1]:3000",
            "node-1.EXAMPLE.com:3000",
            "[fd00::1]:3000",
        ] {
            assert!(names().mean(host), "{host}");
        }
    }

    #[test]
    fn other_names_and_other_ports_are_not() {
        for host in [
            "",
            "localhost",
            "localhost:",
            "localhost:3001",
            "localhost:3000.evil.example",
            "evil.example:3000",
            "localhost.evil.example:3000",
            "localhost@evil.example:3000",
            "evil@localhost:3000",
            "[::2]:3000",
            "127.0.0.1.nip.io:3000",
            "localhost:03000x",
        ] {
            assert!(!names().mean(host), "{host}");
        }
    }

    #[test]
    fn port_80_need_not_be_said() {
        let names = Names::new("127.0.0.1:80".parse().unwrap(), []);
        assert!(names.mean("localhost") && names.mean("localhost:80") && !names.mean("localhost:81"));
    }
}
