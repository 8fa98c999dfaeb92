//! A client that shows every bit of what it gets, and the servers it asks.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use hivemind_dns::{Config, DnsServer, Records};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Longer than any answer takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn config(upstreams: &[SocketAddr]) -> Config {
    Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        upstreams: upstreams.to_vec(),
        upstream_timeout: Duration::from_millis(700),
        // Only the tests of second tries want them.
        second_try_after: Duration::from_secs(60),
        ..Config::default()
    }
}

/// `web` with two IPv4 and one IPv6 address, as a service and as `web.local`, and reverse names.
pub(crate) fn records() -> Records {
    let mut records = Records::new();
    for name in ["web.default.svc.hivemind.internal", "web.local"] {
        records.insert(name, addresses(&["10.204.0.7", "10.204.0.8", "fd00:204::7"])).unwrap();
    }
    records.insert("v4only.default.svc.hivemind.internal", addresses(&["10.204.0.9"])).unwrap();
    for address in addresses(&["10.204.0.7", "fd00:204::7"]) {
        records.insert_reverse(address, "web.default.svc.hivemind.internal").unwrap();
    }
    records
}

pub(crate) fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(crate) async fn start(upstreams: &[SocketAddr]) -> DnsServer {
    DnsServer::start(config(upstreams), records()).await.unwrap()
}

pub(crate) fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

pub(crate) fn query(text: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(0x5a5a, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), record_type));
    message
}

pub(crate) fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

pub(crate) async fn ask(server: SocketAddr, text: &str, record_type: RecordType) -> Message {
    send(server, &query(text, record_type)).await
}

pub(crate) async fn send(server: SocketAddr, message: &Message) -> Message {
    let bytes = send_bytes(server, &message.to_vec().unwrap()).await;
    let answer = Message::from_vec(&bytes).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    answer
}

/// Asks until the queue has room for the question.
pub(crate) async fn ask_until_answered(at: SocketAddr) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let question = query("web.local", RecordType::A).to_vec().unwrap();
    let mut buffer = [0; 512];
    loop {
        socket.send_to(&question, at).await.unwrap();
        let answer = timeout(Duration::from_millis(100), socket.recv(&mut buffer)).await;
        if let Ok(length) = answer {
            return Message::from_vec(&buffer[..length.unwrap()]).unwrap();
        }
    }
}

/// Tries until `holds`; each time is given to the server.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let trying = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, trying).await.unwrap_or_else(|_| panic!("{what} does not come to be"));
}

pub(crate) async fn send_bytes(server: SocketAddr, packet: &[u8]) -> Vec<u8> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(packet).await.unwrap();
    let mut buffer = vec![0; 65536];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("an answer").unwrap();
    buffer.truncate(length);
    buffer
}

/// Sends all `messages` over one connection before it reads any answer.
pub(crate) async fn send_tcp(server: SocketAddr, messages: &[Message]) -> Vec<Message> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    for message in messages {
        let bytes = message.to_vec().unwrap();
        stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    }
    let mut answers = Vec::new();
    for _ in messages {
        let length = timeout(PATIENCE, stream.read_u16()).await.expect("an answer").unwrap();
        let mut bytes = vec![0; usize::from(length)];
        stream.read_exact(&mut bytes).await.unwrap();
        answers.push(Message::from_vec(&bytes).unwrap());
    }
    answers
}

/// The addresses in an answer, in its order.
pub(crate) fn addresses_in(answer: &Message) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    };
    answer.answers.iter().filter_map(|record| address(&record.data)).collect()
}

pub(crate) fn code(answer: &Message) -> ResponseCode {
    answer.metadata.response_code
}
