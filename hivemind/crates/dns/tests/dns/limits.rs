use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use hivemind_dns::{DnsServer, Records, limits};

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
async fn connections_above_the_limit_wait_until_one_closes() {
    let server = DnsServer::start(config(&[]), records()).await.unwrap();
    let at = server.addresses()[0];
    let mut open = Vec::new();
    for _ in 0..limits::CONNECTIONS_PER_SOCKET_MAX {
        open.push(tokio::net::TcpStream::connect(at).await.unwrap());
    }
    let late = tokio::spawn(async move { send_tcp(at, &[query("web.local", RecordType::A)]).await });
    // Datagrams are not held up.
    assert_eq!(addresses_in(&ask(at, "web.local", RecordType::A).await).len(), 2);
    assert!(!late.is_finished());
    open.pop();
    assert_eq!(addresses_in(&late.await.unwrap()[0]).len(), 2);
}
