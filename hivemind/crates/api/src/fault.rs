//! Errors as responses.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use hivemind_model::{ApiError, ErrorCode, ErrorKind};

/// An error as it is sent: with the status of its kind, save where HTTP has a more exact one.
#[derive(Debug)]
pub(crate) struct Fault {
    error: ApiError,
    status: Option<StatusCode>,
}

/// What a handler gives.
pub(crate) type Outcome<T> = Result<T, Fault>;

impl Fault {
    /// The error with a status other than that of its kind.
    pub(crate) fn with_status(error: ApiError, status: StatusCode) -> Self {
        Fault { error, status: Some(status) }
    }

    /// The request cannot be understood.
    pub(crate) fn malformed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        ApiError::new(ErrorCode::Malformed, message, hint).into()
    }
}

impl From<ApiError> for Fault {
    fn from(error: ApiError) -> Self {
        Fault { error, status: None }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let kind = self.error.code.kind();
        if matches!(kind, ErrorKind::Internal | ErrorKind::Environment) {
            tracing::warn!(code = %self.error.code, error = self.error.message, "Request failed.");
        }
        let status = self.status.unwrap_or_else(|| {
            StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        });
        let mut response = (status, Json(self.error)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110, section 11.6.1: a 401 names a scheme.
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The answer to a path that the API does not have.
pub(crate) async fn path_not_found(uri: Uri) -> Fault {
    let what = format!("the API has no path {}", uri.path());
    ApiError::new(ErrorCode::PathNotFound, what, "GET /openapi.json lists all paths").into()
}

/// The answer to a method that a path does not have; axum adds the `Allow` header.
pub(crate) async fn method_not_allowed(method: axum::http::Method, uri: Uri) -> Fault {
    let what = format!("{method} is not possible on {}", uri.path());
    let error =
        ApiError::new(ErrorCode::Unsupported, what, "GET /openapi.json lists the methods of each path");
    Fault::with_status(error, StatusCode::METHOD_NOT_ALLOWED)
}
