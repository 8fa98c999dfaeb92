//! What was asked of the API.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};

/// What was asked of the API since it was made, and what goes on, over all listeners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Answered requests by the class of their status: 1xx, 2xx, 3xx, 4xx, 5xx.
    pub requests: [u64; 5],
    /// Watches (of objects and of flows) that go on.
    pub watches: u64,
    /// Watches that were ended because they were not read.
    pub watches_given_up: u64,
    /// Requests with a token, a session or a code that was not valid.
    pub access_failures: u64,
    /// Sessions of browsers that go on.
    pub sessions: u64,
}

/// Counts as requests are answered.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: [AtomicU64; 5],
}

impl Counters {
    pub(crate) fn requests(&self) -> [u64; 5] {
        self.requests.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

/// The middleware that counts.
pub(crate) async fn count(State(counters): State<Arc<Counters>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let class = usize::from(response.status().as_u16() / 100).clamp(1, 5) - 1;
    counters.requests[class].fetch_add(1, Ordering::Relaxed);
    response
}
