//! What hickory-server calls for each request that it has decoded.

use std::sync::Arc;

use async_trait::async_trait;
use hickory_proto::op::{Header, HeaderCounts, Metadata, ResponseCode};
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use tokio::sync::Semaphore;
use tracing::debug;

use crate::limits::WAITING_PER_SOCKET_MAX;
use crate::question::answer_bytes_max;
use crate::reply::Reply;
use crate::responder::{Responder, Step};

/// The requests of one socket.
#[derive(Clone, Debug)]
pub(super) struct Handler {
    responder: Arc<Responder>,
    /// A permit for each query that may wait for upstreams. Nothing else waits: an answer that is known is
    /// queued for the socket by the task that hickory-server has started, when that task first runs.
    room: Arc<Semaphore>,
}

impl Handler {
    pub(super) fn new(responder: Arc<Responder>) -> Self {
        Self { responder, room: Arc::new(Semaphore::new(WAITING_PER_SOCKET_MAX)) }
    }

    /// Returns when no query waits any more, and lets none wait from now on.
    pub(super) async fn drained(&self) {
        let all = u32::try_from(WAITING_PER_SOCKET_MAX).expect("the limit is thousands");
        if let Ok(permits) = self.room.acquire_many(all).await {
            permits.forget();
        }
    }

    async fn reply(&self, request: &Request) -> Reply {
        match self.responder.receive(request) {
            Step::Reply(reply) => reply,
            Step::Forward(question) => match self.room.try_acquire() {
                Ok(_permit) => self.responder.forward(&question).await,
                Err(_) => self.responder.overload(&question),
            },
        }
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response_handle: R,
    ) -> ResponseInfo {
        let mut reply = self.reply(request).await;
        if let Err(error) = reply.fit(&request.queries, answer_bytes_max(request)) {
            debug!(%error, client = %request.src(), "A DNS reply could not be written.");
            reply = Reply::bare(&request.metadata, ResponseCode::ServFail);
        }
        match response_handle.send_response(reply.response(&request.queries)).await {
            Ok(sent) => sent,
            Err(error) => {
                // As any datagram may be lost; the client asks again.
                debug!(%error, client = %request.src(), "A DNS reply could not be sent.");
                unsent(&request.metadata)
            }
        }
    }
}

/// What hickory-server is told of a reply that was not sent.
fn unsent(request: &Metadata) -> ResponseInfo {
    let mut metadata = Metadata::response_from_request(request);
    metadata.response_code = ResponseCode::ServFail;
    ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
}
