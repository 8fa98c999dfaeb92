//! The web port: the dashboard for everybody who may reach it, the API for those who say who they are.

use std::{collections::HashSet, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use hivemind_model::{ApiError, ErrorCode};

use crate::{
    api::Serving,
    caller::{admit, permit},
    dashboard,
    fault::{Fault, Outcome, method_not_allowed, path_not_found},
    routes,
};

/// The names under which the web port may be asked: a page elsewhere whose name was made to point here (DNS rebinding)
/// sends its own name as `Host`, and gets no answer.
pub(crate) struct Names {
    names: HashSet<String>,
    port: u16,
    encrypted: bool,
}

impl Names {
    pub(crate) fn new(local: SocketAddr, hosts: impl IntoIterator<Item = String>, encrypted: bool) -> Self {
        let mut names: HashSet<_> = hosts.into_iter().map(|host| bare(&host)).collect();
        names.extend(["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()]);
        names.insert(local.ip().to_string());
        Names { names, port: local.port(), encrypted }
    }

    /// Whether `authority`, as a `Host` header or the target of a request says it, means this server.
    fn mean(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        let port = match authority.port() {
            Some(port) => port.as_str().parse::<u16>().ok(),
            None if authority.as_str().ends_with(':') => None,
            None => Some(if self.encrypted { 443 } else { 80 }),
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

/// What the middleware of the web port works with.
#[derive(Clone)]
struct Gate {
    names: Arc<Names>,
    serving: Serving,
}

pub(crate) fn router(names: Names, serving: Serving) -> Router {
    let gate = Gate { names: Arc::new(names), serving: serving.clone() };
    routes::handlers()
        .layer(middleware::from_fn_with_state(serving.clone(), crate::role::check))
        .with_state(serving)
        .merge(dashboard::router())
        .fallback(path_not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(gate.clone(), check_caller))
        .layer(middleware::from_fn_with_state(gate, check_host))
}

/// Lets only those through to the API who say who they are and may do what they ask.
async fn check_caller(
    State(gate): State<Gate>,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let asked = request.uri().path();
    if asked != "/v1" && !asked.starts_with("/v1/") && asked != "/metrics" {
        return next.run(request).await;
    }
    let passed = gate.judge(path.as_ref().map(MatchedPath::as_str), &mut request).await;
    let mut response = match passed {
        Ok(()) => next.run(request).await,
        Err(fault) => fault.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The path at which a session begins: whoever asks there has none yet.
const LOGIN: &str = "/v1/login";

impl Gate {
    async fn judge(&self, path: Option<&str>, request: &mut Request) -> Outcome<()> {
        let origin = self.origin(request.headers());
        if origin == Origin::Elsewhere {
            let hint = "open the dashboard at the daemon's own address";
            let what = "a page of another site may not ask this daemon";
            return Err(ApiError::new(ErrorCode::Forbidden, what, hint).into());
        }
        request.extensions_mut().insert(Encrypted(self.names.encrypted));
        if path == Some(LOGIN) {
            return Ok(());
        }
        let (caller, by_cookie) = admit(&self.serving.api.access, request.headers()).await?;
        let changes = !matches!(*request.method(), Method::GET | Method::HEAD)
            || request.headers().contains_key(header::UPGRADE);
        // A browser sends its cookies along with whatever any page of this machine's makes it ask.
        if by_cookie && changes && origin != Origin::Own {
            let hint = "use a browser that sends Origin, or a token: Authorization: Bearer …";
            let what = "a request with a session's cookie has to say which page it comes from";
            return Err(ApiError::new(ErrorCode::Forbidden, what, hint).at("Origin").into());
        }
        permit(&caller, request.method(), path)?;
        request.extensions_mut().insert(caller);
        Ok(())
    }

    /// Which page a request comes from, by what browsers say and pages cannot change.
    fn origin(&self, headers: &HeaderMap) -> Origin {
        let mut origin = Origin::Unsaid;
        for site in headers.get_all("sec-fetch-site") {
            match site.as_bytes() {
                b"same-origin" => origin = Origin::Own,
                // The user's own doing: an address that was typed, a bookmark.
                b"none" => {}
                _ => return Origin::Elsewhere,
            }
        }
        for said in headers.get_all(header::ORIGIN) {
            let scheme = if self.names.encrypted { "https://" } else { "http://" };
            let authority = said.to_str().ok().and_then(|said| said.strip_prefix(scheme));
            if !authority.is_some_and(|authority| self.names.mean(authority)) {
                return Origin::Elsewhere;
            }
            origin = Origin::Own;
        }
        origin
    }
}

/// Which page made a browser ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// One of this daemon's.
    Own,
    /// None, or no browser asks.
    Unsaid,
    /// One of another site, or of another port of this machine.
    Elsewhere,
}

/// Whether a request came over TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encrypted(pub(crate) bool);

async fn check_host(State(Gate { names, .. }): State<Gate>, request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(header::HOST);
    let mut asked: Vec<_> = hosts.iter().map(|host| host.to_str().unwrap_or_default()).collect();
    // A target in absolute form overrides the header (RFC 9112, section 3.2.2).
    asked.extend(request.uri().authority().map(Authority::as_str));
    let ours = !asked.is_empty() && asked.iter().all(|host| names.mean(host));
    let mut response =
        if ours { next.run(request).await } else { misdirected(&asked.join(", "), &names).into_response() };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

fn misdirected(host: &str, names: &Names) -> Fault {
    let scheme = if names.encrypted { "https" } else { "http" };
    let hint = format!(
        "use {scheme}://localhost:{}, or a name that the daemon was given with --web-host",
        names.port
    );
    let error = ApiError::new(ErrorCode::InvalidName, format!("this server is not {host:?}"), hint);
    Fault::with_status(error.at("Host"), StatusCode::MISDIRECTED_REQUEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new(
            "0.0.0.0:3000".parse().unwrap(),
            ["Node-1.example.com".to_owned(), "[fd00::1]".to_owned()],
            false,
        )
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
        let names = Names::new("127.0.0.1:80".parse().unwrap(), [], false);
        assert!(names.mean("localhost") && names.mean("localhost:80") && !names.mean("localhost:81"));
    }
}
