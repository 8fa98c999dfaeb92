//! The dashboard's files, as `build.rs` packed them into the program.
//!
//! They are kept compressed and sent so; for the rare client that does not take gzip they are unpacked on the way. Names
//! under `/assets/` hold a hash of their content and never change, all others are asked for again with their `ETag`.
//! The files are the same for everybody and hold nothing of the cluster, so no token is needed for them: what they show
//! comes from `/v1`, which wants one.

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{fault::path_not_found, packed};

/// One file.
struct File {
    /// As a browser asks for it.
    path: &'static str,
    content_type: &'static str,
    /// Of the content before compression, so that it holds for both forms: a weak one.
    etag: &'static str,
    gzip: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

/// What the page may load and ask: itself and the API it came from, nothing inline, nobody else's.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Serves `/`, the files, and the page itself at every address that could be one of its own.
pub(crate) fn router() -> Router {
    Router::new().route("/", get(answer)).route("/{*path}", get(answer))
}

async fn answer(request: Request) -> Response {
    match find(request.uri(), request.headers()) {
        Some(file) => send(file, request.headers()),
        None => path_not_found(request.uri().clone()).await.into_response(),
    }
}

fn find(uri: &Uri, headers: &HeaderMap) -> Option<&'static File> {
    let path = if is_page(uri.path(), headers) { "/index.html" } else { uri.path() };
    FILES.iter().find(|file| file.path == path)
}

/// Whether a browser asks for the page: at `/`, or at an address within it (that has no dot in it and is none of the
/// API's), where only a browser that goes to a page says that it takes HTML.
fn is_page(path: &str, headers: &HeaderMap) -> bool {
    let takes_html = || {
        let accepts = headers.get_all(header::ACCEPT);
        accepts.iter().filter_map(|value| value.to_str().ok()).any(|value| value.contains("text/html"))
    };
    path == "/" || (!path.contains('.') && path != "/v1" && !path.starts_with("/v1/") && takes_html())
}

fn send(file: &'static File, headers: &HeaderMap) -> Response {
    let immutable = file.path.starts_with("/assets/");
    let cache = if immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut response = if is_known(file.etag, headers) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        packed::respond(file.path, file.gzip, headers)
    };
    let all = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, file.content_type),
        (header::CACHE_CONTROL, cache),
        (header::ETAG, file.etag),
        (header::VARY, "accept-encoding"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        all.insert(name, HeaderValue::from_static(value));
    }
    all.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    all.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

/// Whether the client has this version already (RFC 9110, section 13.1.2: weak comparison).
fn is_known(etag: &str, headers: &HeaderMap) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let tags = headers.get_all(header::IF_NONE_MATCH);
    tags.iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use axum::body::{Body, to_bytes};
    use flate2::read::GzDecoder;
    use hivemind_model::{ApiError, ErrorCode};
    use tower::ServiceExt as _;

    use super::*;

    async fn get(path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Vec<u8>) {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status, parts.headers, to_bytes(body, 1 << 22).await.unwrap().to_vec())
    }

    #[tokio::test]
    async fn the_page_comes_packed_to_who_takes_it_and_plain_to_who_does_not() {
        let (status, headers, plain) = get("/", &[]).await;
        assert_eq!((status, headers.get(header::CONTENT_ENCODING)), (StatusCode::OK, None));
        assert!(String::from_utf8(plain.clone()).unwrap().contains("<title>Hivemind</title>"));
        let (_, headers, packed) = get("/", &[("accept-encoding", "br;q=1, gzip; q=0.5")]).await;
        assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
        let mut unpacked = Vec::new();
        GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, plain);
        let (_, headers, _) = get("/", &[("accept-encoding", "gzip;q=0, br")]).await;
        assert_eq!(headers.get(header::CONTENT_ENCODING), None);
    }

    #[tokio::test]
    async fn a_page_that_is_known_is_not_sent_again() {
        let (_, headers, _) = get("/", &[]).await;
        assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
        let etag = headers[header::ETAG].to_str().unwrap();
        let (status, _, body) = get("/", &[("if-none-match", &format!("\"other\", {etag}"))]).await;
        assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
        assert_eq!(get("/", &[("if-none-match", "\"other\"")]).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn nothing_inline_and_nobody_elses_may_run_in_the_page() {
        let (_, headers, page) = get("/", &[]).await;
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let page = String::from_utf8(page).unwrap();
        assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains("http"), "{page}");
        assert!(!page.contains("<script>"), "{page}");
    }

    #[tokio::test]
    async fn addresses_within_the_page_lead_to_it_and_all_others_nowhere() {
        let html = [("accept", "text/html,*/*;q=0.8")];
        let (_, _, page) = get("/", &[]).await;
        assert_eq!(get("/apps/default/web", &html).await.2, page);
        for (path, headers) in [
            ("/apps/default/web", &[][..]),
            ("/assets/none.js", &html[..]),
            ("/none.js", &html[..]),
            ("/v1/apps", &html[..]),
            ("/../Cargo.toml", &html[..]),
        ] {
            let (status, _, body) = get(path, headers).await;
            let error: ApiError = serde_json::from_slice(&body).unwrap();
            assert_eq!((status, error.code), (StatusCode::NOT_FOUND, ErrorCode::PathNotFound), "{path}");
        }
    }

    #[tokio::test]
    async fn files_with_a_hash_in_their_name_are_kept_for_good() {
        for file in FILES.iter().filter(|file| file.path.starts_with("/assets/")) {
            let (status, headers, _) = get(file.path, &[]).await;
            assert_eq!(
                (status, headers[header::CONTENT_TYPE].to_str().unwrap()),
                (StatusCode::OK, file.content_type)
            );
            assert!(headers[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"), "{}", file.path);
        }
    }
}
