use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use hivemind_dns::{DnsServer, Lost, Records, limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use crate::client::{
    addresses_in, ask, ask_until_answered, code, config, query, records, send, send_tcp, with_edns,
};
use crate::upstream::{Reaction, Upstream, addresses};

async fn with_many_addresses(count: u16) -> DnsServer {
    let mut records = Records::new();
    let many = (0..count).map(|n| std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n).into());
    records.insert("many.local", many).unwrap();
    DnsServer::start(config(&[]), records).await.unwrap()
}

#[tokio::test]
async fn a_large_answer_is_truncated_to_what_the_client_takes_and_whole_over_tcp() {
    // 28 bytes an address: 30 exceed 512 bytes and fit 1,232; 60 exceed both.
    for (count, payload, truncated) in
        [(30, None, true), (30, Some(1232), false), (60, Some(1232), true), (60, Some(4096), true)]
    {
        let server = with_many_addresses(count).await;
        let at = server.addresses()[0];
        let plain = query("many.local", RecordType::AAAA);
        let question = payload.map_or(plain.clone(), |payload| with_edns(plain.clone(), payload));
        let answer = send(at, &question).await;
        assert_eq!(answer.metadata.truncation, truncated, "{count} {payload:?}");
        assert_eq!(answer.edns.is_some(), payload.is_some());
        // A resolver that does not speak TCP has some of them at least.
        assert!(answer.answers.len() >= 15);
        let size = answer.to_vec().unwrap().len();
        assert!(size <= usize::from(payload.unwrap_or(512).min(1232)));
        let whole = send_tcp(at, &[question]).await;
        assert_eq!(addresses_in(&whole[0]).len(), usize::from(count));
    }
}

#[tokio::test]
async fn a_name_with_more_addresses_than_an_answer_carries_gives_the_first() {
    let server = with_many_addresses(5000).await;
    let whole = send_tcp(server.addresses()[0], &[query("many.local", RecordType::AAAA)]).await;
    assert_eq!(addresses_in(&whole[0]).len(), limits::ADDRESSES_PER_ANSWER_MAX);
}

/// A server that waits for an upstream, which keeps its answers until it is told to release them.
async fn with_patient_upstream() -> (Upstream, DnsServer) {
    let upstream =
        Upstream::start(|question, _| Reaction::Hold(addresses(question, &[[1, 2, 3, 4]], 60))).await;
    let mut config = config(&[upstream.address]);
    config.upstream_timeout = Duration::from_secs(60);
    let server = DnsServer::start(config, records()).await.unwrap();
    (upstream, server)
}

#[tokio::test]
async fn questions_above_the_limit_fail_at_once_and_those_below_are_answered() {
    let (upstream, server) = with_patient_upstream().await;
    let at = server.addresses()[0];
    let mut clients = tokio::task::JoinSet::new();
    for batch in 0..8 {
        let size = limits::EXCHANGES_MAX / 8;
        for number in batch * size..(batch + 1) * size {
            clients.spawn(async move { ask(at, &format!("n{number}.example"), RecordType::A).await });
        }
        // In batches, so that neither side's socket buffer overflows.
        upstream.until_asked((batch + 1) * size).await;
    }
    let above = ask(at, "above.example", RecordType::A).await;
    assert_eq!(code(&above), ResponseCode::ServFail);
    assert_eq!(server.statistics().outcomes.failed, 1);
    assert_eq!(addresses_in(&ask(at, "web.local", RecordType::A).await).len(), 2);
    upstream.release();
    while let Some(answer) = clients.join_next().await {
        assert_eq!(code(&answer.unwrap()), ResponseCode::NoError);
    }
    assert_eq!(server.statistics().outcomes.forwarded, limits::EXCHANGES_MAX as u64);
    assert_eq!(code(&ask(at, "above.example", RecordType::A).await), ResponseCode::NoError);
}

#[tokio::test]
async fn queries_above_the_limit_of_those_that_wait_fail_at_once_and_local_names_are_answered() {
    const CLIENTS: usize = 32;
    let (upstream, server) = with_patient_upstream().await;
    let at = server.addresses()[0];
    let same = query("same.example", RecordType::A).to_vec().unwrap();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for _ in 0..limits::WAITING_PER_SOCKET_MAX / CLIENTS {
            client.send_to(&same, at).await.unwrap();
        }
        // The socket is a queue: once this is answered, all before it have been read.
        assert_eq!(addresses_in(&ask(at, "web.local", RecordType::A).await).len(), 2);
        clients.push(client);
    }
    assert_eq!(server.statistics().outcomes.failed, 0);
    assert_eq!(code(&ask(at, "same.example", RecordType::A).await), ResponseCode::ServFail);
    assert_eq!(server.statistics().outcomes.failed, 1);
    // The limit is the socket's own.
    let over_tcp = tokio::spawn(async move { send_tcp(at, &[query("same.example", RecordType::A)]).await });
    assert_eq!(addresses_in(&ask(at, "web.local", RecordType::A).await).len(), 2);
    upstream.release();
    assert_eq!(code(&over_tcp.await.unwrap()[0]), ResponseCode::NoError);
    for client in clients {
        for _ in 0..limits::WAITING_PER_SOCKET_MAX / CLIENTS {
            let mut buffer = [0; 512];
            let length = client.recv(&mut buffer).await.unwrap();
            assert_eq!(addresses_in(&Message::from_vec(&buffer[..length]).unwrap()).len(), 1);
        }
    }
    assert_eq!(upstream.asked_udp(), 1);
    // There is room again.
    assert_eq!(code(&ask(at, "other.example", RecordType::A).await), ResponseCode::NoError);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_silent_or_stops_half_way_is_closed_when_its_time_is_over() {
    let server = DnsServer::start(config(&[]), records()).await.unwrap();
    for sent in [&[][..], &[0], &[0, 40, 1]] {
        let mut connection = TcpStream::connect(server.addresses()[0]).await.unwrap();
        connection.write_all(sent).await.unwrap();
        let begun = tokio::time::Instant::now();
        // Closed without an answer, whether or not the kernel still had bytes of ours.
        let mut rest = Vec::new();
        let _ = connection.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
        let elapsed = begun.elapsed();
        let limit = limits::CONNECTION_IDLE;
        assert!(elapsed + Duration::from_secs(1) > limit && elapsed < limit * 2, "{elapsed:?}");
    }
}

#[tokio::test]
async fn connections_that_are_reset_before_they_are_accepted_leave_the_server_answering() {
    let server = DnsServer::start(config(&[]), records()).await.unwrap();
    let at = server.addresses()[0];
    for _ in 0..200 {
        // Not Tokio's, so that the only thread is not given up and nothing is accepted in between.
        let connection = std::net::TcpStream::connect(at).unwrap();
        connection.set_nonblocking(true).unwrap();
        let connection = TcpStream::from_std(connection).unwrap();
        connection.set_zero_linger().unwrap();
    }
    let answers = send_tcp(at, &[query("web.local", RecordType::A)]).await;
    assert_eq!(addresses_in(&answers[0]).len(), 2);
}

#[tokio::test]
async fn a_client_that_opens_too_many_connections_loses_its_oldest_and_no_other_client_one() {
    const TOO_MANY: usize = 10;
    let server = DnsServer::start(config(&[]), records()).await.unwrap();
    let at = server.addresses()[0];
    let from = |address: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
        socket.connect(at)
    };
    let mut other = from("127.0.0.77").await.unwrap();
    let mut all = Vec::new();
    for _ in 0..limits::CONNECTIONS_PER_CLIENT_MAX + TOO_MANY {
        all.push(from("127.0.0.1").await.unwrap());
    }
    for closed in &mut all[..TOO_MANY] {
        assert_eq!(closed.read(&mut [0; 1]).await.unwrap(), 0, "it is closed");
    }
    let question = query("web.local", RecordType::A);
    for open in all[TOO_MANY..].iter_mut().chain([&mut other]) {
        assert_eq!(addresses_in(&converse(open, &question).await).len(), 2);
    }
    assert_eq!(server.statistics().lost, Lost { connections: TOO_MANY as u64, ..Lost::default() });
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_used_all_the_time_is_closed_after_its_lifetime() {
    let server = DnsServer::start(config(&[]), records()).await.unwrap();
    let mut connection = TcpStream::connect(server.addresses()[0]).await.unwrap();
    let mut question = vec![0, 0];
    question.extend(query("web.local", RecordType::A).to_vec().unwrap());
    question[1] = u8::try_from(question.len() - 2).unwrap();
    let begun = tokio::time::Instant::now();
    loop {
        connection.write_all(&question).await.unwrap();
        assert!(read_without_time(&connection).await > 0, "it is answered");
        if begun.elapsed() >= limits::CONNECTION_LIFETIME {
            break;
        }
        tokio::time::advance(limits::CONNECTION_IDLE / 2).await;
    }
    assert_eq!(
        read_without_time(&connection).await,
        0,
        "it is closed with the answer, and not as being idle"
    );
}

/// Reads without ever being idle, in which a paused clock would go on.
async fn read_without_time(connection: &TcpStream) -> usize {
    for _ in 0..1_000_000 {
        match connection.try_read(&mut [0; 512]) {
            Ok(length) => return length,
            Err(_) => tokio::task::yield_now().await,
        }
    }
    panic!("there is nothing to read");
}

#[tokio::test]
async fn a_client_with_few_queries_is_taken_where_another_has_taken_all_room() {
    let (upstream, server) = with_patient_upstream().await;
    let at = server.addresses()[0];
    let greedy = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for number in 0..limits::EXCHANGES_MAX {
        let question = query(&format!("n{number}.example"), RecordType::A);
        greedy.send_to(&question.to_vec().unwrap(), at).await.unwrap();
        upstream.until_asked(number + 1).await;
    }
    let above = query("above.example", RecordType::A).to_vec().unwrap();
    let (mut buffer, mut modest) = ([0; 512], Vec::new());
    greedy.send_to(&above, at).await.unwrap();
    greedy.recv(&mut buffer).await.unwrap();
    assert_eq!(server.statistics().lost, Lost { queries: 1, ..Lost::default() });
    for number in 0..limits::WAITING_PER_MODEST_CLIENT_MAX {
        let client = UdpSocket::bind("127.0.0.78:0").await.unwrap();
        let question = query(&format!("modest{number}.example"), RecordType::A);
        client.send_to(&question.to_vec().unwrap(), at).await.unwrap();
        upstream.until_asked(limits::EXCHANGES_MAX + number + 1).await;
        modest.push(client);
    }
    upstream.release();
    for client in modest {
        let length = client.recv(&mut buffer).await.unwrap();
        assert_eq!(addresses_in(&Message::from_vec(&buffer[..length]).unwrap()).len(), 1);
    }
}

#[tokio::test]
async fn datagrams_that_the_kernel_dropped_are_counted() {
    let server = DnsServer::start(config(&[]), records()).await.unwrap();
    let at = server.addresses()[0];
    // Not Tokio's, so that the only thread is not given up and nothing is read in between.
    let flood = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let question = query("web.local", RecordType::A).to_vec().unwrap();
    for _ in 0..20_000 {
        flood.send_to(&question, at).unwrap();
    }
    assert_eq!(addresses_in(&ask_until_answered(at).await).len(), 2);
    let statistics = server.statistics();
    assert!(statistics.lost.datagrams > 1000, "{statistics:?}");
    assert!(statistics.outcomes.local + statistics.lost.datagrams >= 20_000, "{statistics:?}");
}

async fn converse(stream: &mut TcpStream, question: &Message) -> Message {
    let bytes = question.to_vec().unwrap();
    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}
