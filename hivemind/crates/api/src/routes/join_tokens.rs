//! Join tokens: what lets machines into the cluster.

use std::time::Duration;

use axum::{Json, extract::State, http::StatusCode};
use hivemind_model::{
    ApiError, DEFAULT_NAMESPACE, ErrorCode, JoinToken, JoinTokenRequest, JoinTokenSpec, List, Metadata,
    NewJoinToken, Problems, short_id,
};
use jiff::Timestamp;

use crate::{
    access::{Digest, TOKENS_MAX, draw},
    api::Serving,
    fault::Outcome,
    request::{JsonBody, Place},
};

/// How many machines may join by one token.
const USES: std::ops::RangeInclusive<u32> = 1..=1000;

/// How long one is valid, in seconds.
const VALID_S: std::ops::RangeInclusive<u64> = 60..=365 * 24 * 3600;

/// Join tokens, without their secrets
#[utoipa::path(
    get, path = "/v1/jointokens", tag = "nodes", operation_id = "listJoinTokens",
    responses(
        (status = 200, description = "The tokens", body = List<JoinToken>),
        (status = 403, description = "The caller may only read (HM0802)", body = ApiError),
        (status = 503, description = "The store failed", body = ApiError),
    )
)]
pub(crate) async fn list(State(serving): State<Serving>) -> Outcome<Json<List<JoinToken>>> {
    let mut list = serving.objects().list::<JoinToken>(None).await?;
    list.items.iter_mut().for_each(hide);
    Ok(Json(list))
}

/// Makes a join token
///
/// The answer holds its secret, which is not kept and shown this once. With the first one the server begins to listen for
/// other machines.
#[utoipa::path(
    post, path = "/v1/jointokens", tag = "nodes", operation_id = "createJoinToken",
    request_body = JoinTokenRequest,
    responses(
        (status = 201, description = "The token and its secret", body = NewJoinToken),
        (status = 400, description = "The request is not valid; all faults at once", body = ApiError),
        (status = 403, description = "The caller may only read (HM0802)", body = ApiError),
        (status = 413, description = "The body is larger than 1 MiB", body = ApiError),
        (status = 503, description = "Other machines could not reach this one (HM0510, HM0517), there are too many tokens \
            (HM0513), or the store failed", body = ApiError),
    )
)]
pub(crate) async fn create(
    State(serving): State<Serving>,
    JsonBody(JoinTokenRequest { uses, valid_s }): JsonBody<JoinTokenRequest>,
) -> Outcome<(StatusCode, Json<NewJoinToken>)> {
    check(uses, valid_s)?;
    let objects = serving.objects();
    forget_expired(&serving).await?;
    if objects.list::<JoinToken>(None).await?.items.len() >= TOKENS_MAX {
        let what = format!("there are {TOKENS_MAX} join tokens already");
        return Err(
            ApiError::new(ErrorCode::Busy, what, "delete some: hivemind node token delete NAME").into()
        );
    }
    let (address, port) = serving.cluster().open().await?;
    let secret = draw();
    let token = JoinToken {
        metadata: Metadata::new(DEFAULT_NAMESPACE, short_id("join")),
        spec: JoinTokenSpec {
            uses,
            expires_at: Timestamp::now() + Duration::from_secs(valid_s),
            hash: Digest::of(&secret).to_string(),
        },
    };
    let mut token = objects.create(&token).await?;
    hide(&mut token);
    tracing::info!(token = token.metadata.name, uses, "Join token was made.");
    let secret = format!("{JOIN_PREFIX}{secret}_{}", serving.cluster().fingerprint());
    Ok((StatusCode::CREATED, Json(NewJoinToken { token, secret, address: format!("{address}:{port}") })))
}

/// What a join token begins with; then the secret and the authority's fingerprint, both in hex, with an underscore between.
const JOIN_PREFIX: &str = "hmj_";

fn check(uses: u32, valid_s: u64) -> Result<(), ApiError> {
    let mut problems = Problems::default();
    if !USES.contains(&uses) {
        let what = format!("a join token for {uses} machines cannot be made");
        problems.add(ErrorCode::OutOfRange, "uses", what, "give 1 to 1000");
    }
    if !VALID_S.contains(&valid_s) {
        let what = format!("a join token cannot be valid for {valid_s} s");
        problems.add(ErrorCode::OutOfRange, "validS", what, "give a minute to a year");
    }
    problems.into_result()
}

/// Those that expired a day ago: until then whoever uses one is told what is wrong with it.
async fn forget_expired(serving: &Serving) -> Result<(), ApiError> {
    let objects = serving.objects();
    let day = Duration::from_secs(24 * 3600);
    for token in objects.list::<JoinToken>(None).await?.items {
        if token.spec.expires_at + day < Timestamp::now() {
            match objects.delete(&token).await {
                Err(error) if matches!(error.code, ErrorCode::Stale | ErrorCode::TokenNotFound) => {}
                done => done?,
            }
        }
    }
    Ok(())
}

/// The hash is nobody's business.
fn hide(token: &mut JoinToken) {
    token.spec.hash = String::new();
}

/// Deletes a join token: nobody joins by it any more
#[utoipa::path(
    delete, path = "/v1/jointokens/{token}", tag = "nodes", operation_id = "deleteJoinToken",
    params(("token" = String, Path, description = "The token's name, short id or uid")),
    responses(
        (status = 200, description = "The token as it last was; it is gone", body = JoinToken),
        (status = 403, description = "The caller may only read (HM0802)", body = ApiError),
        (status = 404, description = "There is no such token", body = ApiError),
        (status = 409, description = "It changed just now (HM0305)", body = ApiError),
        (status = 503, description = "The store failed", body = ApiError),
    )
)]
pub(crate) async fn revoke(
    State(serving): State<Serving>,
    Place(word): Place<String>,
) -> Outcome<Json<JoinToken>> {
    let mut token: JoinToken = serving.objects().find("", &word).await?;
    serving.objects().delete(&token).await?;
    tracing::info!(token = token.metadata.name, "Join token was deleted.");
    hide(&mut token);
    Ok(Json(token))
}
