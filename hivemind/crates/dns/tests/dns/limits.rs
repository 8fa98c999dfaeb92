use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use hivemind_dns::{DnsServer, Records, limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::client::{addresses_in, ask, code, config, query, records, send, send_tcp, with_edns};
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

#[tokio::test]
async fn questions_above_the_limit_fail_at_once_and_those_below_are_answered() {
    let upstream =
        Upstream::start(|question, _| Reaction::Hold(addresses(question, &[[1, 2, 3, 4]], 60))).await;
    let mut config = config(&[upstream.address]);
    config.upstream_timeout = Duration::from_secs(60);
    let server = DnsServer::start(config, records()).await.unwrap();
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
    assert_eq!(server.statistics().failed, 1);
    assert_eq!(addresses_in(&ask(at, "web.local", RecordType::A).await).len(), 2);
    upstream.release();
    while let Some(answer) = clients.join_next().await {
        assert_eq!(code(&answer.unwrap()), ResponseCode::NoError);
    }
    assert_eq!(server.statistics().forwarded, limits::EXCHANGES_MAX as u64);
    assert_eq!(code(&ask(at, "above.example", RecordType::A).await), ResponseCode::NoError);
}

#[tokio::test]
async fn queries_above_the_limit_of_those_that_wait_fail_at_once_and_local_names_are_answered() {
    const CLIENTS: usize = 32;
    let upstream =
        Upstream::start(|question, _| Reaction::Hold(addresses(question, &[[1, 2, 3, 4]], 60))).await;
    let mut config = config(&[upstream.address]);
    config.upstream_timeout = Duration::from_secs(60);
    let server = DnsServer::start(config, records()).await.unwrap();
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
    assert_eq!(server.statistics().failed, 0);
    assert_eq!(code(&ask(at, "same.example", RecordType::A).await), ResponseCode::ServFail);
    assert_eq!(server.statistics().failed, 1);
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
