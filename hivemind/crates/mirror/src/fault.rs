//! Errors of the store in the words of users.

use hivemind_model::{ApiError, ErrorCode};

pub(crate) fn of_store(error: hivemind_store::Error) -> ApiError {
    error.into()
}

pub(crate) fn malformed(key: &str, error: &serde_json::Error) -> ApiError {
    let what = format!("what is kept under {key:?} cannot be read: {error}");
    ApiError::new(ErrorCode::StoreFailed, what, "the daemon's log has more")
}
