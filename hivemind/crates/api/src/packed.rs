//! What `build.rs` packed into the program: kept compressed and sent so, unpacked on the way for the rare client that does not take
//! gzip.

use std::io::Read as _;

use axum::{
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use flate2::read::GzDecoder;
use hivemind_model::{ApiError, ErrorCode};

use crate::fault::Fault;

/// The content as `headers` of the request allow it, without its type.
pub(crate) fn respond(name: &str, gzip: &'static [u8], headers: &HeaderMap) -> Response {
    if takes_gzip(headers) {
        return ([(header::CONTENT_ENCODING, "gzip")], gzip).into_response();
    }
    let mut content = Vec::new();
    if let Err(error) = GzDecoder::new(gzip).read_to_end(&mut content) {
        let what = format!("{name} cannot be unpacked: {error}");
        return Fault::from(ApiError::new(ErrorCode::Internal, what, "")).into_response();
    }
    content.into_response()
}

/// Whether `Accept-Encoding` names gzip and does not give it the weight 0 (RFC 9110, section 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING);
    values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").unwrap_or("1").parse::<f32>();
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_ok_and(|weight| weight > 0.0)
    })
}
