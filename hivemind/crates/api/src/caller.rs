//! Who asks, and what they may do.

use std::time::Duration;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, Method, StatusCode, header, request::Parts},
};
use hivemind_model::{ApiError, ErrorCode, Session, TokenRole};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{
    access::{Access, Digest, SESSION_COOKIE},
    api::Serving,
    fault::{Fault, Outcome},
};

/// Who a request comes from; every listener of the API says it in the request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// As the API shows it.
    pub(crate) session: Session,
    /// The token that it stands on, if it stands on one.
    pub(crate) token: Option<Digest>,
    /// The cookie's hash, if it is a browser.
    pub(crate) cookie: Option<Digest>,
    /// Cancelled when the token is revoked, or the session ended.
    pub(crate) revoked: CancellationToken,
}

impl Caller {
    /// Whoever may open the Unix socket.
    pub(crate) fn socket() -> Self {
        let session = Session { role: TokenRole::Admin, name: "socket".to_owned(), expires_at: None };
        Caller { session, token: None, cookie: None, revoked: CancellationToken::new() }
    }

    /// A server of the cluster.
    pub(crate) fn server() -> Self {
        let session = Session { role: TokenRole::Admin, name: "server".to_owned(), expires_at: None };
        Caller { session, token: None, cookie: None, revoked: CancellationToken::new() }
    }

    /// When streams to this caller end.
    pub(crate) fn ending(&self, serving: &Serving) -> Ending {
        Ending {
            shutdown: serving.shutdown.clone(),
            revoked: self.revoked.clone(),
            expires_at: self.session.expires_at,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        parts.extensions.get().cloned().ok_or_else(|| nobody().into())
    }
}

/// What ends a stream that would otherwise go on for ever.
pub(crate) struct Ending {
    shutdown: CancellationToken,
    revoked: CancellationToken,
    expires_at: Option<Timestamp>,
}

impl Ending {
    /// Waits for it. Returns what the caller is to be told: nothing if the daemon stops.
    pub(crate) async fn reached(self) -> Option<ApiError> {
        let expired = async {
            match self.expires_at {
                // The clock may be set meanwhile: it is looked at again now and then.
                Some(at) => {
                    while Timestamp::now() < at {
                        let left =
                            Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
                        tokio::time::sleep(left.min(Duration::from_secs(60))).await;
                    }
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.shutdown.cancelled() => None,
            () = self.revoked.cancelled() => Some(invalid()),
            () = expired => Some(invalid()),
        }
    }
}

/// Who the headers say the caller is, and whether a cookie says so.
///
/// # Errors
/// `Unauthorized`, if they say nobody or nobody who is known; too many of those are answered with `Busy`.
pub(crate) async fn admit(access: &Access, headers: &HeaderMap) -> Outcome<(Caller, bool)> {
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        let secret = authorization.to_str().ok().and_then(|value| value.split_once(' '));
        let secret = secret.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let caller = match secret {
            Some((_, secret)) => access.by_token(Digest::of(secret.trim())).await?,
            None => None,
        };
        return caller.map(|caller| (caller, false)).ok_or_else(|| access.refuse(invalid()));
    }
    match cookie(headers) {
        Some(value) => {
            let caller = access.by_cookie(Digest::of(value)).await?;
            caller.map(|caller| (caller, true)).ok_or_else(|| access.refuse(ended()))
        }
        None => Err(nobody().into()),
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == SESSION_COOKIE).map(|(_, value)| value)
}

/// What somebody with the role of a reader may not look at: secrets are made there, and processes started.
const ADMIN_ONLY: [&str; 5] = [
    "/v1/tokens",
    "/v1/tokens/{token}",
    "/v1/jointokens",
    "/v1/jointokens/{token}",
    "/v1/namespaces/{namespace}/replicas/{replica}/exec",
];

/// Whether `caller` may ask so; `path` as it stands in the router.
///
/// # Errors
/// `Forbidden`.
pub(crate) fn permit(caller: &Caller, method: &Method, path: Option<&str>) -> Result<(), ApiError> {
    let looks =
        matches!(*method, Method::GET | Method::HEAD) && !path.is_some_and(|path| ADMIN_ONLY.contains(&path));
    let own = path == Some("/v1/logout");
    if looks || own || caller.session.role == TokenRole::Admin {
        return Ok(());
    }
    let what = format!("the token {:?} is for reading only", caller.session.name);
    let hint =
        "use a token with the role admin: hivemind token create NAME --role admin, on the daemon's machine";
    Err(ApiError::new(ErrorCode::Forbidden, what, hint))
}

fn nobody() -> ApiError {
    ApiError::new(
        ErrorCode::Unauthorized,
        "this port wants a token",
        "send Authorization: Bearer TOKEN; hivemind token create NAME makes one, and hivemind ui opens the dashboard, \
         both on the daemon's machine",
    )
}

/// A token that is not known, or no longer.
pub(crate) fn invalid() -> ApiError {
    let hint = "it may be revoked or have expired: hivemind token ls on the daemon's machine shows those that are valid";
    ApiError::new(ErrorCode::Unauthorized, "the token is not valid", hint)
}

fn ended() -> ApiError {
    ApiError::new(ErrorCode::Unauthorized, "the session has ended", "open the dashboard anew: hivemind ui")
}

/// Too many attempts with what is not valid.
pub(crate) fn too_many() -> Fault {
    let what = "too many requests with tokens that are not valid";
    let error =
        ApiError::new(ErrorCode::Busy, what, "wait a second; requests with a valid token are not held up");
    Fault::with_status(error, StatusCode::TOO_MANY_REQUESTS)
}
