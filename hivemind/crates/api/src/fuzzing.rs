//! What a machine that has not joined may ask, without a connection: for the fuzzer in `fuzz/` and the test that feeds the
//! same without one.

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, header},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::{
    api::{Api, Serving},
    node_port::server_router,
};

/// No answer to such a request is longer, in bytes.
const ANSWER_MAX: usize = 64 << 10;

/// The port of nodes of a server, for who shows no certificate.
pub struct NodePort {
    router: Router,
}

impl NodePort {
    /// The port that `api` would be served on.
    #[must_use]
    pub fn new(api: Api) -> Self {
        NodePort { router: server_router(Serving::new(api, &CancellationToken::new())) }
    }

    /// Answers a request to join with this body: the status and the body of the answer.
    ///
    /// # Panics
    /// If the server does, or answers at more length than it may.
    pub async fn join(&self, body: &[u8]) -> (u16, Vec<u8>) {
        let request = Request::post("/v1/join")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_vec()))
            .expect("a request");
        let answer = self.router.clone().oneshot(request).await.expect("an answer");
        let status = answer.status().as_u16();
        (status, to_bytes(answer.into_body(), ANSWER_MAX).await.expect("a short answer").into())
    }
}
