//! A call of gRPC's health checking protocol (grpc/doc/health-checking.md of the gRPC project).

use std::sync::Mutex;

use hivemind_model::GrpcProbe;
use hyper::http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tonic::{client::Grpc, transport::Endpoint};
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::{CheckError, Target, connect};

const METHOD: &str = "/grpc.health.v1.Health/Check";

/// The most bytes of an answer; one that is right has two.
const ANSWER_BYTES_MAX: usize = 1 << 10;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `ServingStatus` of the protocol.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: i32 = 1;

pub(super) async fn ask(probe: &GrpcProbe, target: &dyn Target) -> Result<(), CheckError> {
    let what = match probe.service.as_str() {
        "" => "gRPC's health check".to_owned(),
        service => format!("gRPC's health check of {service}"),
    };
    let not_understood = |reason: String| CheckError::NotUnderstood { what: what.clone(), reason };
    // The connection is there already; it is handed out once.
    let stream = Mutex::new(Some(TokioIo::new(connect(target, probe.port).await?)));
    let connector = service_fn(move |_| {
        let stream = stream.lock().ok().and_then(|mut stream| stream.take());
        std::future::ready(stream.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected)))
    });
    let endpoint = Endpoint::from_static("http://replica");
    let channel = endpoint.connect_with_connector(connector).await;
    let channel = channel.map_err(|error| not_understood(with_causes(&error)))?;
    let mut client = Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    client.ready().await.map_err(|error| not_understood(with_causes(&error)))?;
    let request = tonic::Request::new(HealthCheckRequest { service: probe.service.clone() });
    let codec: ProstCodec<HealthCheckRequest, HealthCheckResponse> = ProstCodec::default();
    match client.unary(request, PathAndQuery::from_static(METHOD), codec).await {
        Ok(answer) => match answer.into_inner().status {
            SERVING => Ok(()),
            status => {
                let name = usize::try_from(status).ok().and_then(|status| STATUSES.get(status));
                let answer = name.map_or_else(|| format!("status {status}"), |name| (*name).to_owned());
                Err(CheckError::Unwell { what, answer })
            }
        },
        // What the server itself says has no other cause.
        Err(status) if std::error::Error::source(&status).is_some() => {
            Err(not_understood(format!("{:?}: {}", status.code(), status.message())))
        }
        Err(status) => {
            let message = if status.message().is_empty() { "" } else { ": " };
            let answer = format!("{:?}{message}{}", status.code(), status.message());
            Err(CheckError::Unwell { what, answer })
        }
    }
}

fn with_causes(error: &tonic::transport::Error) -> String {
    let cause = std::error::Error::source(error);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
