//! Codes and sessions of browsers.

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use hivemind_model::{ApiError, ErrorCode, Login, LoginCode, Session};

use crate::{
    access::{SESSION_COOKIE, SESSION_LIFETIME},
    api::Serving,
    caller::Caller,
    fault::Outcome,
    request::JsonBody,
    web::Encrypted,
};

/// Makes a code that opens the dashboard once
#[utoipa::path(
    post, path = "/v1/login-codes", tag = "access", operation_id = "createLoginCode",
    responses(
        (status = 201, description = "The code, valid once and for a minute", body = LoginCode),
        (status = 403, description = "The caller may only read (HM0802)", body = ApiError),
    )
)]
pub(crate) async fn make_code(
    State(serving): State<Serving>,
    caller: Caller,
) -> (StatusCode, Json<LoginCode>) {
    let mut code = serving.api.access.make_code(&caller);
    code.url = format!("{}/#code={}", serving.api.config.web_url, code.code);
    (StatusCode::CREATED, Json(code))
}

/// Begins a session, by a code or a token
///
/// The answer sets the cookie `hivemind_session`. A session lasts 12 hours at most, no longer than its token, and not
/// longer than the daemon runs.
#[utoipa::path(
    post, path = "/v1/login", tag = "access", operation_id = "login", request_body = Login,
    responses(
        (status = 200, description = "The session", body = Session),
        (status = 400, description = "The body names neither or both", body = ApiError),
        (status = 401, description = "The code or token is not valid (HM0801)", body = ApiError),
        (status = 413, description = "The body is larger than 1 MiB", body = ApiError),
        (status = 429, description = "Too many attempts failed (HM0513)", body = ApiError),
        (status = 503, description = "The store failed", body = ApiError),
    )
)]
pub(crate) async fn login(
    State(serving): State<Serving>,
    encrypted: Option<Extension<Encrypted>>,
    JsonBody(login): JsonBody<Login>,
) -> Outcome<Response> {
    let access = &serving.api.access;
    let (cookie, session) = match (&login.code, &login.token) {
        (Some(code), None) => access.begin_by_code(code)?,
        (None, Some(token)) => access.begin_by_token(token).await?,
        _ => {
            let what = "the body names neither a code nor a token, or both";
            return Err(
                ApiError::new(ErrorCode::Malformed, what, "send {\"code\": …} or {\"token\": …}").into()
            );
        }
    };
    let encrypted = encrypted.is_some_and(|Extension(Encrypted(encrypted))| encrypted);
    let set = set_cookie(&cookie, SESSION_LIFETIME.as_secs(), encrypted)?;
    Ok(([(header::SET_COOKIE, set)], Json(session)).into_response())
}

fn set_cookie(value: &str, seconds: i64, encrypted: bool) -> Result<HeaderValue, ApiError> {
    let secure = if encrypted { "; Secure" } else { "" };
    let text =
        format!("{SESSION_COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    HeaderValue::try_from(text)
        .map_err(|e| ApiError::new(ErrorCode::Internal, format!("the cookie cannot be set: {e}"), ""))
}

/// Ends the session of the browser that asks
#[utoipa::path(
    post, path = "/v1/logout", tag = "access", operation_id = "logout",
    responses(
        (status = 204, description = "The session has ended, and its cookie with it"),
        (status = 401, description = "There is no session", body = ApiError),
    )
)]
pub(crate) async fn logout(
    State(serving): State<Serving>,
    encrypted: Option<Extension<Encrypted>>,
    caller: Caller,
) -> Outcome<Response> {
    if let Some(cookie) = caller.cookie {
        serving.api.access.end_session(cookie);
    }
    let encrypted = encrypted.is_some_and(|Extension(Encrypted(encrypted))| encrypted);
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, set_cookie("", 0, encrypted)?)]).into_response())
}

/// Who the caller is, and what it may do
#[utoipa::path(
    get, path = "/v1/session", tag = "access", operation_id = "getSession",
    responses(
        (status = 200, description = "The caller", body = Session),
        (status = 401, description = "There is no token and no session", body = ApiError),
    )
)]
pub(crate) async fn session(caller: Caller) -> Json<Session> {
    Json(caller.session)
}
