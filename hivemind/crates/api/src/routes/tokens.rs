//! Tokens.

use axum::{Json, extract::State, http::StatusCode};
use hivemind_model::{
    ApiError, DEFAULT_NAMESPACE, ErrorCode, List, Metadata, NewToken, Problems, Token, TokenSpec,
    check_label, check_name,
};
use jiff::Timestamp;

use crate::{
    access::{Digest, TOKENS_MAX, draw_token},
    api::Serving,
    fault::Outcome,
    request::{JsonBody, Place},
};

/// Tokens, without their secrets
#[utoipa::path(
    get, path = "/v1/tokens", tag = "access", operation_id = "listTokens",
    responses(
        (status = 200, description = "The tokens", body = List<Token>),
        (status = 403, description = "The caller may only read (HM0802)", body = ApiError),
        (status = 503, description = "The store failed", body = ApiError),
    )
)]
pub(crate) async fn list(State(serving): State<Serving>) -> Outcome<Json<List<Token>>> {
    let mut list = serving.objects().list::<Token>(None).await?;
    list.items.iter_mut().for_each(hide);
    Ok(Json(list))
}

/// Makes a token
///
/// The answer holds its secret, which is not kept and shown this once.
#[utoipa::path(
    post, path = "/v1/tokens", tag = "access", operation_id = "createToken", request_body = Token,
    responses(
        (status = 201, description = "The token and its secret", body = NewToken),
        (status = 400, description = "The token is not valid; all faults at once", body = ApiError),
        (status = 403, description = "The caller may only read (HM0802)", body = ApiError),
        (status = 409, description = "There is a token of this name already (HM0311)", body = ApiError),
        (status = 413, description = "The body is larger than 1 MiB", body = ApiError),
        (status = 503, description = "There are too many (HM0513), the disk is full, or the store failed", body = ApiError),
    )
)]
pub(crate) async fn create(
    State(serving): State<Serving>,
    JsonBody(Token { metadata, spec }): JsonBody<Token>,
) -> Outcome<(StatusCode, Json<NewToken>)> {
    check(&metadata, &spec)?;
    let objects = serving.objects();
    if objects.list::<Token>(None).await?.items.len() >= TOKENS_MAX {
        let what = format!("there are {TOKENS_MAX} tokens already");
        return Err(ApiError::new(ErrorCode::Busy, what, "revoke some: hivemind token revoke NAME").into());
    }
    let secret = draw_token();
    let mut token = Token {
        metadata: Metadata::new(DEFAULT_NAMESPACE, metadata.name),
        spec: TokenSpec { hash: Digest::of(&secret).to_string(), ..spec },
    };
    token.metadata.labels = metadata.labels;
    token.metadata.annotations = metadata.annotations;
    let mut token = objects.create(&token).await?;
    hide(&mut token);
    tracing::info!(token = token.metadata.name, role = ?token.spec.role, "Token was made.");
    Ok((StatusCode::CREATED, Json(NewToken { token, secret })))
}

fn check(metadata: &Metadata, spec: &TokenSpec) -> Result<(), ApiError> {
    let mut problems = Problems::default();
    check_name("metadata.name", &metadata.name, 63, &mut problems);
    for (key, value) in &metadata.labels {
        check_label("metadata.labels", key, value, &mut problems);
    }
    if !spec.hash.is_empty() {
        let hint = "leave it out: the secret is drawn by the server";
        problems.add(ErrorCode::Unsupported, "spec.hash", "a token's hash cannot be chosen", hint);
    }
    if spec.expires_at.is_some_and(|at| at <= Timestamp::now()) {
        let hint = "give a time to come, or leave it out";
        problems.add(ErrorCode::OutOfRange, "spec.expiresAt", "the token would have expired already", hint);
    }
    problems.into_result()
}

/// The hash is nobody's business.
fn hide(token: &mut Token) {
    token.spec.hash = String::new();
}

/// Revokes a token
///
/// What it began ends at once: streams, exec sessions, sessions of browsers.
#[utoipa::path(
    delete, path = "/v1/tokens/{token}", tag = "access", operation_id = "revokeToken",
    params(("token" = String, Path, description = "The token's name, short id or uid")),
    responses(
        (status = 200, description = "The token as it last was; it is gone", body = Token),
        (status = 403, description = "The caller may only read (HM0802)", body = ApiError),
        (status = 404, description = "There is no such token", body = ApiError),
        (status = 409, description = "It changed just now (HM0305)", body = ApiError),
        (status = 503, description = "The store failed", body = ApiError),
    )
)]
pub(crate) async fn revoke(
    State(serving): State<Serving>,
    Place(word): Place<String>,
) -> Outcome<Json<Token>> {
    let mut token: Token = serving.objects().find("", &word).await?;
    serving.objects().delete(&token).await?;
    tracing::info!(token = token.metadata.name, "Token was revoked.");
    hide(&mut token);
    Ok(Json(token))
}
