//! A request by HTTP/1.1, of whose answer only the head is read.

use bytes::Bytes;
use hivemind_model::{HttpProbe, HttpScheme};
use http_body_util::Empty;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{CheckError, Target, connect, tls};

/// The most bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 32 << 10;

const USER_AGENT: &str = concat!("hivemind-probe/", env!("CARGO_PKG_VERSION"));

pub(super) async fn ask(probe: &HttpProbe, target: &dyn Target) -> Result<(), CheckError> {
    let what = format!("GET {}", probe.path);
    let not_understood = |reason: String| CheckError::NotUnderstood { what: what.clone(), reason };
    let authority = std::net::SocketAddr::new(target.address(), probe.port).to_string();
    let mut request = Request::get(&probe.path)
        .header(header::HOST, probe.host.as_deref().unwrap_or(&authority))
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close");
    if let Some(headers) = request.headers_mut() {
        for given in &probe.headers {
            let name = header::HeaderName::try_from(&given.name);
            if let (Ok(name), Ok(value)) = (name, header::HeaderValue::try_from(&given.value)) {
                // In place of ours, where it is one of them.
                headers.insert(name, value);
            }
        }
    }
    let request = request.body(Empty::new()).map_err(|error| not_understood(error.to_string()))?;
    let stream = connect(target, probe.port).await?;
    let status = match probe.scheme {
        HttpScheme::Http => status(stream, request).await,
        HttpScheme::Https => {
            let name = probe.host.as_deref().and_then(|host| host.split(':').next());
            let secured = tls::secure(stream, name, target.address()).await;
            status(secured.map_err(|error| not_understood(format!("TLS failed: {error}")))?, request).await
        }
    };
    let status = status.map_err(|error| not_understood(error.to_string()))?;
    if (200..400).contains(&status.as_u16()) {
        Ok(())
    } else {
        Err(CheckError::Unwell { what, answer: status.to_string() })
    }
}

async fn status(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<hyper::StatusCode, hyper::Error> {
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let answer = async move { sender.send_request(request).await.map(|response| response.status()) };
    tokio::pin!(connection, answer);
    tokio::select! {
        biased;
        status = &mut answer => status,
        // It ends first where the server closes without an answer; then the answer is an error.
        _ = &mut connection => answer.await,
    }
}
