use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hivemind_dns::{DnsServer, Outcomes, Protocol};

use crate::client::{
    addresses, addresses_in, ask, code, config, query, records, send, send_tcp, start, until, with_edns,
};
use crate::upstream::{Reaction, Upstream, addresses as answer, negative};

#[tokio::test]
async fn a_foreign_name_is_forwarded_once_and_then_comes_from_the_cache_in_each_spelling() {
    let upstream = Upstream::answering([1, 2, 3, 4], 60).await;
    let server = start(&[upstream.address]).await;
    for spelled in ["www.example.com.", "www.example.com.", "WWW.Example.com."] {
        let answer = ask(server.addresses()[0], spelled, RecordType::A).await;
        assert_eq!(addresses_in(&answer), addresses(&["1.2.3.4"]));
        assert_eq!(answer.queries[0].name().to_ascii(), spelled);
        assert!(!answer.metadata.authoritative && answer.metadata.recursion_available);
        assert!(answer.answers[0].ttl <= 60 && answer.answers[0].ttl > 50);
        assert!(answer.edns.is_none(), "the client did not speak EDNS");
    }
    assert_eq!(upstream.asked_udp(), 1);
    assert_eq!(server.statistics().outcomes, Outcomes { forwarded: 1, cached: 2, ..Outcomes::default() });
}

#[tokio::test]
async fn an_answer_without_a_lifetime_is_asked_for_each_time_and_a_long_one_is_cut_to_an_hour() {
    let upstream = Upstream::start(|question, _| {
        let ttl = if question.queries[0].name().to_ascii().starts_with("now") { 0 } else { 1_000_000 };
        answer(question, &[[1, 2, 3, 4]], ttl).into()
    })
    .await;
    let server = start(&[upstream.address]).await;
    for _ in 0..2 {
        assert_eq!(ask(server.addresses()[0], "now.example", RecordType::A).await.answers[0].ttl, 0);
    }
    assert_eq!(upstream.asked_udp(), 2);
    assert_eq!(ask(server.addresses()[0], "long.example", RecordType::A).await.answers[0].ttl, 3600);
}

#[tokio::test]
async fn no_such_name_is_remembered_as_long_as_its_soa_says_and_a_failure_for_a_moment() {
    let upstream = Upstream::start(|question, _| {
        let first = question.queries[0].name().to_ascii();
        if first.starts_with("no") {
            negative(question, ResponseCode::NXDomain, 30).into()
        } else {
            negative(question, ResponseCode::ServFail, 30).into()
        }
    })
    .await;
    let server = start(&[upstream.address]).await;
    let at = server.addresses()[0];
    for ttl_max in [300, 30] {
        let answer = ask(at, "no.example", RecordType::A).await;
        assert_eq!(code(&answer), ResponseCode::NXDomain);
        assert!(answer.authorities[0].ttl <= ttl_max);
    }
    assert_eq!(upstream.asked_udp(), 1);
    for _ in 0..3 {
        assert_eq!(code(&ask(at, "broken.example", RecordType::A).await), ResponseCode::ServFail);
        assert_eq!(upstream.asked_udp(), 2, "who says that it failed is not asked again");
    }
    assert_eq!(server.statistics().caches.failures.entries, 1);
    let expected = Outcomes { forwarded: 1, cached: 1, failed: 3, ..Outcomes::default() };
    assert_eq!(server.statistics().outcomes, expected);
}

#[tokio::test]
async fn the_cache_counts_ttls_down_and_forgets_at_their_end() {
    let upstream = Upstream::answering([1, 2, 3, 4], 2).await;
    let server = start(&[upstream.address]).await;
    let at = server.addresses()[0];
    let mut seen = BTreeSet::new();
    // Asks until the two seconds are over, which shows as one more question at the upstream.
    let asking = async {
        while upstream.asked_udp() < 2 {
            seen.insert(ask(at, "short.example", RecordType::A).await.answers[0].ttl);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking).await.expect("the answer expires");
    assert_eq!(seen, BTreeSet::from([1, 2]));
    assert!(server.statistics().outcomes.cached > 0);
}

#[tokio::test]
async fn a_truncated_answer_is_fetched_over_tcp_and_fits_the_client_or_is_truncated_again() {
    let upstream = Upstream::start(|question, protocol| {
        let many: Vec<_> = (0..100).map(|n| [10, 0, 0, n]).collect();
        let mut whole = answer(question, &many, 60);
        if protocol == Protocol::Udp {
            whole = whole.truncate();
        }
        whole.into()
    })
    .await;
    let server = start(&[upstream.address]).await;
    let at = server.addresses()[0];
    let over_udp = ask(at, "many.example", RecordType::A).await;
    assert!(over_udp.metadata.truncation);
    assert_eq!(addresses_in(&over_udp).len(), 30, "as many as fit 512 bytes");
    assert_eq!((upstream.asked_udp(), upstream.asked_tcp()), (1, 1));
    let over_tcp = send_tcp(at, &[query("many.example", RecordType::A)]).await;
    assert!(!over_tcp[0].metadata.truncation);
    assert_eq!(addresses_in(&over_tcp[0]).len(), 100);
    assert_eq!(server.statistics().outcomes, Outcomes { forwarded: 1, cached: 1, ..Outcomes::default() });
}

#[tokio::test]
async fn a_silent_a_lying_and_a_closed_upstream_are_passed_over_for_the_next() {
    let silent = Upstream::start(|_, _| Reaction::Silence).await;
    let lying = Upstream::start(|question, _| negative(question, ResponseCode::ServFail, 1).into()).await;
    let refusing = Upstream::start(|question, _| negative(question, ResponseCode::Refused, 1).into()).await;
    let closed = {
        let socket = tokio::net::UdpSocket::bind("127.0.0.9:0").await.unwrap();
        socket.local_addr().unwrap()
    };
    for bad in [silent.address, lying.address, refusing.address, closed] {
        let good = Upstream::answering([1, 2, 3, 4], 60).await;
        let server = start(&[bad, good.address]).await;
        let at = server.addresses()[0];
        assert_eq!(addresses_in(&ask(at, "a.example", RecordType::A).await), addresses(&["1.2.3.4"]));
        assert_eq!(server.statistics().outcomes, Outcomes { forwarded: 1, ..Outcomes::default() });
    }
    assert_eq!((silent.asked_udp(), lying.asked_udp(), refusing.asked_udp()), (1, 1, 1));
}

#[tokio::test]
async fn an_upstream_that_failed_is_not_the_first_to_be_asked_again() {
    let silent = Upstream::start(|_, _| Reaction::Silence).await;
    let good = Upstream::answering([1, 2, 3, 4], 60).await;
    let server = start(&[silent.address, good.address]).await;
    for text in ["a.example", "b.example", "c.example"] {
        assert_eq!(code(&ask(server.addresses()[0], text, RecordType::A).await), ResponseCode::NoError);
    }
    assert_eq!((silent.asked_udp(), good.asked_udp()), (1, 3));
}

#[tokio::test]
async fn upstreams_that_are_all_silent_end_in_a_failure_in_bounded_time() {
    let silent = Upstream::start(|_, _| Reaction::Silence).await;
    let other = Upstream::start(|_, _| Reaction::Silence).await;
    let server = start(&[silent.address, other.address]).await;
    let begun = std::time::Instant::now();
    let answer = ask(server.addresses()[0], "a.example", RecordType::A).await;
    assert_eq!(code(&answer), ResponseCode::ServFail);
    assert!(begun.elapsed() >= Duration::from_millis(2100), "three attempts of 0.7 s");
    assert_eq!((silent.asked_udp(), other.asked_udp()), (2, 1));
    assert_eq!(server.statistics().outcomes, Outcomes { failed: 1, ..Outcomes::default() });
    until("that both are down", || server.statistics().upstreams.iter().all(|upstream| !upstream.is_up))
        .await;
    let begun = std::time::Instant::now();
    assert_eq!(code(&ask(server.addresses()[0], "b.example", RecordType::A).await), ResponseCode::ServFail);
    assert!(begun.elapsed() < Duration::from_millis(600), "nobody is asked, who would be waited for 0.7 s");
    assert_eq!((silent.asked_udp(), other.asked_udp()), (2, 1));
}

#[tokio::test]
async fn without_upstreams_foreign_names_fail_at_once_and_ours_are_answered() {
    let server = start(&[]).await;
    let at = server.addresses()[0];
    assert_eq!(code(&ask(at, "www.example.com", RecordType::A).await), ResponseCode::ServFail);
    assert_eq!(addresses_in(&ask(at, "web.local", RecordType::A).await).len(), 2);
    assert_eq!(server.statistics().outcomes, Outcomes { local: 1, failed: 1, ..Outcomes::default() });
}

#[tokio::test]
async fn upstreams_can_be_replaced_while_it_runs_and_never_are_the_server_itself() {
    let server = start(&[]).await;
    let at = server.addresses()[0];
    server.set_upstreams(&[at]);
    assert_eq!(code(&ask(at, "a.example", RecordType::A).await), ResponseCode::ServFail);
    let upstream = Upstream::answering([1, 2, 3, 4], 60).await;
    server.set_upstreams(&[at, upstream.address]);
    assert_eq!(addresses_in(&ask(at, "a.example", RecordType::A).await), addresses(&["1.2.3.4"]));
}

#[tokio::test]
async fn two_servers_that_forward_to_each_other_end_in_a_failure_and_not_in_a_storm() {
    let one = start(&[]).await;
    let other = start(&[one.addresses()[0]]).await;
    one.set_upstreams(&[other.addresses()[0]]);
    let answer = ask(one.addresses()[0], "loop.example", RecordType::A).await;
    assert_eq!(code(&answer), ResponseCode::ServFail);
    // Our question and at most two attempts from the other, each of which waits for the first.
    let (first, second) = (one.statistics().outcomes, other.statistics().outcomes);
    assert!(first.failed >= 1 && first.failed + second.failed <= 7, "{first:?} {second:?}");
}

#[tokio::test]
async fn forged_answers_are_ignored_and_the_true_one_is_taken() {
    let upstream = Upstream::start(|question, _| {
        let forged = |edit: fn(&mut Message)| {
            let mut forged = answer(question, &[[6, 6, 6, 6]], 60);
            edit(&mut forged);
            forged.to_vec().unwrap()
        };
        Reaction::Send(vec![
            forged(|message| message.metadata.id = message.metadata.id.wrapping_add(1)),
            forged(|message| {
                message.queries[0].set_name(Name::from_ascii("other.example.").unwrap());
            }),
            vec![0xff; 40],
            answer(question, &[[1, 2, 3, 4]], 60).to_vec().unwrap(),
        ])
    })
    .await;
    let server = start(&[upstream.address]).await;
    let answer = ask(server.addresses()[0], "a.example", RecordType::A).await;
    assert_eq!(addresses_in(&answer), addresses(&["1.2.3.4"]));
}

#[tokio::test]
async fn identical_questions_that_wait_are_asked_once_and_all_answered() {
    let upstream = Upstream::start(|question, _| Reaction::Hold(answer(question, &[[1, 2, 3, 4]], 60))).await;
    let mut config = config(&[upstream.address]);
    config.upstream_timeout = Duration::from_secs(20);
    let server = DnsServer::start(config, records()).await.unwrap();
    let at = server.addresses()[0];
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..50 {
        let spelled = if client % 2 == 0 { "slow.example" } else { "SLOW.example" };
        clients.spawn(async move { ask(at, spelled, RecordType::A).await });
    }
    upstream.until_asked(1).await;
    // A local name is answered meanwhile.
    assert_eq!(addresses_in(&ask(at, "web.local", RecordType::A).await).len(), 2);
    upstream.release();
    while let Some(answer) = clients.join_next().await {
        assert_eq!(addresses_in(&answer.unwrap()), addresses(&["1.2.3.4"]));
    }
    assert_eq!(upstream.asked_udp(), 1);
    let statistics = server.statistics().outcomes;
    assert_eq!(statistics.forwarded + statistics.cached, 50);
}

#[tokio::test]
async fn a_server_stops_at_once_while_queries_wait_for_upstreams() {
    let upstream = Upstream::start(|_, _| Reaction::Silence).await;
    let mut config = config(&[upstream.address]);
    config.upstream_timeout = Duration::from_secs(600);
    let server = DnsServer::start(config, records()).await.unwrap();
    let at = server.addresses()[0];
    let client = tokio::spawn(async move { ask(at, "a.example", RecordType::A).await });
    upstream.until_asked(1).await;
    tokio::time::timeout(Duration::from_secs(10), server.stop())
        .await
        .expect("it does not wait for upstreams");
    client.abort();
}

#[tokio::test]
async fn the_wish_for_dnssec_is_passed_on_and_cached_apart() {
    let upstream = Upstream::start(|question, _| {
        let wanted = question.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        let mut answer = answer(question, &[[1, 2, 3, if wanted { 1 } else { 0 }]], 60);
        answer.metadata.authentic_data = true;
        answer.into()
    })
    .await;
    let server = start(&[upstream.address]).await;
    let plain = query("a.example", RecordType::A);
    let mut secure = with_edns(plain.clone(), 1232);
    secure.edns.as_mut().unwrap().set_dnssec_ok(true);
    for _ in 0..2 {
        let answer = send(server.addresses()[0], &plain).await;
        assert_eq!(addresses_in(&answer), addresses(&["1.2.3.0"]));
        assert!(!answer.metadata.authentic_data, "it was not asked for");
        let answer = send(server.addresses()[0], &secure).await;
        assert_eq!(addresses_in(&answer), addresses(&["1.2.3.1"]));
        assert!(answer.metadata.authentic_data && answer.edns.unwrap().flags().dnssec_ok);
    }
    assert_eq!(upstream.asked_udp(), 2);
}

#[tokio::test]
async fn a_slow_upstream_is_overtaken_by_the_next_and_asked_after_it_from_then_on() {
    let silent = Upstream::start(|_, _| Reaction::Silence).await;
    let good = Upstream::answering([1, 2, 3, 4], 60).await;
    let mut config = config(&[silent.address, good.address]);
    config.upstream_timeout = Duration::from_secs(60);
    config.second_try_after = Duration::from_millis(50);
    let server = DnsServer::start(config, records()).await.unwrap();
    let at = server.addresses()[0];
    let begun = std::time::Instant::now();
    for text in ["a.example", "b.example", "c.example"] {
        assert_eq!(addresses_in(&ask(at, text, RecordType::A).await), addresses(&["1.2.3.4"]));
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "the patience of a minute was not used up");
    assert_eq!((silent.asked_udp(), good.asked_udp()), (1, 3));
    let [first, second] = &server.statistics().upstreams[..] else { panic!("not two upstreams") };
    assert_eq!((first.sent, first.failed, second.sent, second.failed), (1, 1, 3, 0));
    assert_eq!(second.latency.buckets.iter().sum::<u64>(), 3);
}

#[tokio::test]
async fn a_lost_datagram_to_the_only_upstream_is_sent_again() {
    let asked = AtomicUsize::new(0);
    let upstream = Upstream::start(move |question, _| {
        if asked.fetch_add(1, Ordering::Relaxed) == 0 {
            return Reaction::Silence;
        }
        answer(question, &[[1, 2, 3, 4]], 60).into()
    })
    .await;
    let mut config = config(&[upstream.address]);
    config.upstream_timeout = Duration::from_secs(60);
    config.second_try_after = Duration::from_millis(50);
    let server = DnsServer::start(config, records()).await.unwrap();
    let answer = ask(server.addresses()[0], "a.example", RecordType::A).await;
    assert_eq!(addresses_in(&answer), addresses(&["1.2.3.4"]));
}

#[tokio::test]
async fn an_upstream_that_recovers_is_the_first_to_be_asked_again() {
    let works = Arc::new(AtomicBool::new(false));
    let works_too = Arc::clone(&works);
    let first = Upstream::start(move |question, _| match works_too.load(Ordering::Relaxed) {
        true => answer(question, &[[1, 1, 1, 1]], 60).into(),
        false => Reaction::Silence,
    })
    .await;
    let second = Upstream::answering([2, 2, 2, 2], 60).await;
    let server = start(&[first.address, second.address]).await;
    let at = server.addresses()[0];
    let is_up = || server.statistics().upstreams[0].is_up;
    assert_eq!(addresses_in(&ask(at, "a.example", RecordType::A).await), addresses(&["2.2.2.2"]));
    until("that it is down", || !is_up()).await;
    first.until_probed(2).await;
    assert_eq!(addresses_in(&ask(at, "b.example", RecordType::A).await), addresses(&["2.2.2.2"]));
    assert_eq!(first.asked_udp(), 1, "one that is down is not asked");
    works.store(true, Ordering::Relaxed);
    until("that it is up", is_up).await;
    assert_eq!(addresses_in(&ask(at, "c.example", RecordType::A).await), addresses(&["1.1.1.1"]));
}

#[tokio::test]
async fn a_failure_is_forgotten_when_there_is_hope() {
    let failing = Upstream::start(|question, _| negative(question, ResponseCode::ServFail, 1).into()).await;
    let server = start(&[failing.address]).await;
    let at = server.addresses()[0];
    assert_eq!(code(&ask(at, "a.example", RecordType::A).await), ResponseCode::ServFail);
    let good = Upstream::answering([1, 2, 3, 4], 60).await;
    server.set_upstreams(&[good.address]);
    assert_eq!(addresses_in(&ask(at, "a.example", RecordType::A).await), addresses(&["1.2.3.4"]));
}

#[tokio::test]
async fn an_upstream_that_does_not_understand_edns_is_asked_without_and_spared_it_from_then_on() {
    let upstream = Upstream::start(|question, _| match question.edns {
        // As an old server does: no more than a header.
        Some(_) => {
            let mut error = Message::error_msg(question.metadata.id, OpCode::Query, ResponseCode::FormErr);
            error.metadata.message_type = MessageType::Response;
            error.into()
        }
        None => answer(question, &[[1, 2, 3, 4]], 60).into(),
    })
    .await;
    let server = start(&[upstream.address]).await;
    for (text, asked) in [("a.example", 2), ("b.example", 3)] {
        let question = with_edns(query(text, RecordType::A), 1232);
        let answer = send(server.addresses()[0], &question).await;
        assert_eq!(addresses_in(&answer), addresses(&["1.2.3.4"]));
        assert!(answer.edns.is_some(), "the client's matter is another");
        assert_eq!(upstream.asked_udp(), asked);
    }
}

#[tokio::test]
async fn a_name_that_becomes_ours_is_answered_from_our_names_and_not_from_the_cache() {
    let upstream = Upstream::answering([1, 2, 3, 4], 60).await;
    let server = start(&[upstream.address]).await;
    let at = server.addresses()[0];
    for _ in 0..3 {
        assert_eq!(addresses_in(&ask(at, "new.local", RecordType::A).await), addresses(&["1.2.3.4"]));
    }
    let mut next = records();
    next.insert("new.local", addresses(&["10.204.0.77"])).unwrap();
    server.publish(next);
    for _ in 0..2 {
        assert_eq!(addresses_in(&ask(at, "new.local", RecordType::A).await), addresses(&["10.204.0.77"]));
    }
    server.publish(records());
    assert_eq!(addresses_in(&ask(at, "new.local", RecordType::A).await), addresses(&["1.2.3.4"]));
    assert_eq!(upstream.asked_udp(), 1);
}
