//! One question to one upstream: over UDP, and over TCP where the answer was truncated.
//!
//! Each question has a socket and an id of its own, so that a forged answer must guess the source port and the
//! id (RFC 5452); what does not match is ignored, not believed.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{error::Elapsed, timeout};

use crate::forwarder::Key;
use crate::limits::UDP_PAYLOAD_BYTES_MAX;
use crate::upstreams::Upstream;

/// Room for an answer over UDP: more than we ask for, for upstreams that do not listen.
const DATAGRAM_BYTES_MAX: usize = 4096;

/// Why an upstream gave no answer. Nothing is left behind; ask the next one.
#[derive(Debug, Error)]
pub(crate) enum ExchangeError {
    /// The question cannot be written.
    #[error("the question cannot be encoded")]
    Encode(#[from] ProtoError),
    /// This host has no socket for it.
    #[error("no socket for the question")]
    Socket(#[source] io::Error),
    /// The upstream does not accept, or there is no way to it.
    #[error("the upstream cannot be reached")]
    Unreachable(#[source] io::Error),
    /// It said nothing that matches the question in time.
    #[error("the upstream did not answer in time")]
    Timeout(#[from] Elapsed),
    /// It answered over TCP what does not match the question.
    #[error("the upstream answered something else")]
    Mismatch,
    /// It answered that it cannot or will not.
    #[error("the upstream answered {0}")]
    Code(ResponseCode),
}

/// Asks `upstream`, waiting at most `patience` over UDP and as long again over TCP. Gives an answer that
/// matches, with the code "no error" or "no such name". An upstream that does not understand EDNS is asked again
/// without (RFC 6891 section 7), and spared it for a while.
pub(crate) async fn ask(
    upstream: &Upstream,
    key: &Key,
    patience: Duration,
) -> Result<Message, ExchangeError> {
    let plain = upstream.is_plain(Instant::now());
    let answer = converse(upstream.address, &question(key, !plain), patience).await?;
    let answer = match answer.metadata.response_code {
        ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS if !plain => {
            let answer = converse(upstream.address, &question(key, false), patience).await?;
            upstream.set_plain(Instant::now());
            answer
        }
        _ => answer,
    };
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(answer),
        code => Err(ExchangeError::Code(code)),
    }
}

/// Whether `upstream` answers anything within `patience`.
pub(crate) async fn probe(upstream: SocketAddr, patience: Duration) -> Result<(), ExchangeError> {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(Name::root(), RecordType::NS));
    let bytes = question.to_vec()?;
    timeout(patience, ask_udp(upstream, &question, &bytes)).await?.map(drop)
}

/// The answer over UDP, or over TCP if it is cut.
async fn converse(
    upstream: SocketAddr,
    question: &Message,
    patience: Duration,
) -> Result<Message, ExchangeError> {
    let bytes = question.to_vec()?;
    let answer = timeout(patience, ask_udp(upstream, question, &bytes)).await??;
    if !answer.metadata.truncation {
        return Ok(answer);
    }
    timeout(patience, ask_tcp(upstream, question, &bytes)).await?
}

/// The question with a random id.
pub(crate) fn question(key: &Key, edns: bool) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = key.checking_disabled;
    message.add_query(Query::query(Name::from(&key.name), key.record_type));
    if edns {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD_BYTES_MAX);
        edns.set_dnssec_ok(key.dnssec_ok);
        message.set_edns(edns);
    }
    message
}

async fn ask_udp(upstream: SocketAddr, question: &Message, bytes: &[u8]) -> Result<Message, ExchangeError> {
    let any = match upstream {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await.map_err(ExchangeError::Socket)?;
    // Connected, so that only the upstream's datagrams are received and its port being closed is an error.
    socket.connect(upstream).await.map_err(ExchangeError::Unreachable)?;
    socket.send(bytes).await.map_err(ExchangeError::Unreachable)?;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(ExchangeError::Unreachable)?;
        if let Some(answer) = matching(question, &buffer[..length]) {
            return Ok(answer);
        }
    }
}

/// What fails here is a mismatch: the upstream has answered over UDP just now.
async fn ask_tcp(upstream: SocketAddr, question: &Message, bytes: &[u8]) -> Result<Message, ExchangeError> {
    let answer = read_over_tcp(upstream, bytes).await.map_err(|_| ExchangeError::Mismatch)?;
    matching(question, &answer).ok_or(ExchangeError::Mismatch)
}

async fn read_over_tcp(upstream: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(bytes);
    stream.write_all(&framed).await?;
    let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buffer).await?;
    Ok(buffer)
}

/// The answer in `bytes` if it is one to `question`.
pub(crate) fn matching(question: &Message, bytes: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let same = answer.metadata.message_type == MessageType::Response
        && answer.metadata.op_code == OpCode::Query
        && answer.metadata.id == question.metadata.id;
    // A server that does not understand the question may leave it out (RFC 1035 section 4.1.1), but then it
    // has no answer either.
    let echoed = answer.queries == question.queries
        || (answer.queries.is_empty() && answer.metadata.response_code != ResponseCode::NoError);
    (same && echoed).then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::LowerName;
    use proptest::prelude::*;

    fn asked() -> Message {
        let name = LowerName::new(&Name::from_ascii("a.example.").unwrap());
        question(&Key { name, record_type: RecordType::A, dnssec_ok: false, checking_disabled: false }, true)
    }

    #[test]
    fn an_answer_matches_by_id_question_and_direction_in_any_spelling() {
        let question = asked();
        let mut answer = question.clone().into_response();
        answer.queries[0].set_name(Name::from_ascii("A.eXample.").unwrap());
        assert!(matching(&question, &answer.to_vec().unwrap()).is_some());

        let mut other_id = answer.clone();
        other_id.metadata.id ^= 1;
        let mut other_name = answer.clone();
        other_name.queries[0].set_name(Name::from_ascii("b.example.").unwrap());
        let mut other_type = answer.clone();
        other_type.queries[0].set_query_type(RecordType::AAAA);
        let mut no_question = answer.clone();
        no_question.queries.clear();
        let mut query = answer.clone();
        query.metadata.message_type = MessageType::Query;
        for wrong in [other_id, other_name, other_type, no_question, query] {
            assert!(matching(&question, &wrong.to_vec().unwrap()).is_none());
        }
    }

    proptest! {
        #[test]
        fn random_bytes_from_an_upstream_are_never_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..600)
        ) {
            let _ = matching(&asked(), &bytes);
        }
    }
}
