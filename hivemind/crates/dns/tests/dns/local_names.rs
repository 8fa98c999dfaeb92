use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use hivemind_dns::{DnsServer, Outcomes, Records, StartError};

use crate::client::{
    addresses, addresses_in, ask, code, config, name, query, records, send, send_tcp, start,
};
use crate::upstream::Upstream;

const WEB: &str = "web.default.svc.hivemind.internal";

fn soa_owner(answer: &Message) -> String {
    let [record] = &answer.authorities[..] else { panic!("not one authority: {answer}") };
    let RData::SOA(soa) = &record.data else { panic!("no SOA: {answer}") };
    assert_eq!((record.ttl, soa.minimum), (5, 5));
    record.name.to_ascii()
}

#[tokio::test]
async fn a_service_has_its_addresses_authoritatively_for_five_seconds_over_both_protocols() {
    let server = start(&[]).await;
    let at = server.addresses()[0];
    let questions = [query(WEB, RecordType::A), query(WEB, RecordType::AAAA)];
    let over_udp = [send(at, &questions[0]).await, send(at, &questions[1]).await];
    let over_tcp = send_tcp(at, &questions).await;
    for answers in [&over_udp[..], &over_tcp[..]] {
        assert_eq!(addresses_in(&answers[0]), addresses(&["10.204.0.7", "10.204.0.8"]));
        assert_eq!(addresses_in(&answers[1]), addresses(&["fd00:204::7"]));
        for answer in answers {
            assert_eq!(code(answer), ResponseCode::NoError);
            assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
            assert!(answer.answers.iter().all(|record| record.ttl == 5));
        }
    }
    assert_eq!(server.statistics().outcomes, Outcomes { local: 4, ..Outcomes::default() });
}

#[tokio::test]
async fn the_question_comes_back_in_the_spelling_of_the_client() {
    let server = start(&[]).await;
    let spelled = "WeB.dEfault.SVC.hivemind.INTERNAL.";
    let answer = ask(server.addresses()[0], spelled, RecordType::A).await;
    assert_eq!(answer.queries[0].name().to_ascii(), spelled);
    assert_eq!(answer.answers[0].name.to_ascii(), spelled);
    assert_eq!(addresses_in(&answer).len(), 2);
}

#[tokio::test]
async fn a_name_without_the_type_that_is_asked_has_no_data_and_says_for_how_long() {
    let server = start(&[]).await;
    let at = server.addresses()[0];
    for (text, record_type, owner) in [
        ("v4only.default.svc.hivemind.internal", RecordType::AAAA, "hivemind.internal."),
        (WEB, RecordType::TXT, "hivemind.internal."),
        ("default.svc.hivemind.internal", RecordType::A, "hivemind.internal."),
        ("hivemind.internal", RecordType::A, "hivemind.internal."),
        ("web.local", RecordType::MX, "web.local."),
    ] {
        let answer = ask(at, text, record_type).await;
        assert_eq!((code(&answer), answer.answers.len()), (ResponseCode::NoError, 0), "{text}");
        assert_eq!(soa_owner(&answer), owner);
    }
}

#[tokio::test]
async fn an_unknown_name_below_the_cluster_domain_does_not_exist_and_is_not_forwarded() {
    let upstream = Upstream::answering([9, 9, 9, 9], 60).await;
    let server = start(&[upstream.address]).await;
    for text in ["gone.default.svc.hivemind.internal", "x.y.z.HIVEMIND.internal"] {
        let answer = ask(server.addresses()[0], text, RecordType::A).await;
        assert_eq!(code(&answer), ResponseCode::NXDomain);
        assert!(answer.metadata.authoritative);
        assert_eq!(soa_owner(&answer), "hivemind.internal.");
    }
    assert_eq!(upstream.asked_udp(), 0);
    assert_eq!(server.statistics().outcomes, Outcomes { local: 2, ..Outcomes::default() });
}

#[tokio::test]
async fn a_name_of_ours_outside_the_domain_wins_over_upstreams_and_its_neighbours_are_forwarded() {
    let upstream = Upstream::answering([9, 9, 9, 9], 60).await;
    let server = start(&[upstream.address]).await;
    let at = server.addresses()[0];
    let ours = ask(at, "web.local", RecordType::A).await;
    assert_eq!(addresses_in(&ours), addresses(&["10.204.0.7", "10.204.0.8"]));
    for text in ["printer.local", "local", "a.web.local"] {
        assert_eq!(addresses_in(&ask(at, text, RecordType::A).await), addresses(&["9.9.9.9"]), "{text}");
    }
    assert_eq!(upstream.asked_udp(), 3);
    assert_eq!(server.statistics().outcomes, Outcomes { local: 1, forwarded: 3, ..Outcomes::default() });
}

#[tokio::test]
async fn an_address_has_its_name_in_reverse() {
    let server = start(&[]).await;
    for address in addresses(&["10.204.0.7", "fd00:204::7"]) {
        let reverse = hickory_proto::rr::Name::from(address).to_ascii();
        let answer = ask(server.addresses()[0], &reverse, RecordType::PTR).await;
        let [record] = &answer.answers[..] else { panic!("not one name: {answer}") };
        let RData::PTR(pointer) = &record.data else { panic!("no PTR: {answer}") };
        assert_eq!(pointer.0, name(WEB));
        let other = ask(server.addresses()[0], &reverse, RecordType::TXT).await;
        assert_eq!((code(&other), soa_owner(&other)), (ResponseCode::NoError, reverse));
    }
}

#[tokio::test]
async fn the_domain_has_a_start_of_authority() {
    let server = start(&[]).await;
    let answer = ask(server.addresses()[0], "hivemind.internal", RecordType::SOA).await;
    assert!(matches!(&answer.answers[0].data, RData::SOA(soa) if soa.minimum == 5));
}

#[tokio::test]
async fn what_is_published_is_answered_at_once_and_what_was_before_is_gone() {
    let server = start(&[]).await;
    let at = server.addresses()[0];
    assert_eq!(addresses_in(&ask(at, WEB, RecordType::A).await).len(), 2);
    let mut next = Records::new();
    next.insert("api.default.svc.hivemind.internal", addresses(&["10.204.1.1"])).unwrap();
    server.publish(next);
    assert_eq!(code(&ask(at, WEB, RecordType::A).await), ResponseCode::NXDomain);
    let api = ask(at, "api.default.svc.hivemind.internal", RecordType::A).await;
    assert_eq!(addresses_in(&api), addresses(&["10.204.1.1"]));
}

#[tokio::test]
async fn a_query_sees_one_table_or_the_other_while_they_are_replaced() {
    let table = |last: u8| {
        let mut records = Records::new();
        let of = |third: u8| format!("10.204.{third}.{last}").parse().unwrap();
        records.insert(WEB, [of(1), of(2), of(3)]).unwrap();
        records
    };
    let server = DnsServer::start(config(&[]), table(0)).await.unwrap();
    let at = server.addresses()[0];
    let asking = tokio::spawn(async move {
        for _ in 0..300 {
            let found = addresses_in(&ask(at, WEB, RecordType::A).await);
            let last: Vec<u8> = found.iter().map(|address| address.to_string().as_bytes()[9]).collect();
            assert!(last.len() == 3 && last.iter().all(|digit| *digit == last[0]), "{found:?}");
        }
    });
    let mut turn = 0;
    while !asking.is_finished() {
        turn = (turn + 1) % 10;
        server.publish(table(turn));
        tokio::task::yield_now().await;
    }
    asking.await.unwrap();
}

#[tokio::test]
async fn a_server_answers_at_each_of_its_addresses_and_at_none_after_it_has_stopped() {
    let mut config = config(&[]);
    config.listen = ["127.0.0.2:0", "127.0.0.3:0", "[::1]:0"].map(|text| text.parse().unwrap()).to_vec();
    let server = DnsServer::start(config, records()).await.unwrap();
    let at = server.addresses().to_vec();
    for &address in &at {
        assert_eq!(addresses_in(&ask(address, WEB, RecordType::A).await).len(), 2, "{address}");
    }
    server.stop().await;
    for address in at {
        tokio::net::UdpSocket::bind(address).await.expect("the UDP port is free again");
        tokio::net::TcpListener::bind(address).await.expect("the TCP port is free again");
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_a_clear_error_and_leaves_no_socket() {
    let taken = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let listener = loop {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        if tokio::net::UdpSocket::bind(listener.local_addr().unwrap()).await.is_ok() {
            break listener;
        }
    };
    let start = async |listen: &str| {
        let mut config = config(&[]);
        config.listen = vec![listen.parse().unwrap()];
        DnsServer::start(config, Records::new()).await.unwrap_err()
    };
    let udp = taken.local_addr().unwrap();
    let error = start(&udp.to_string()).await;
    assert_eq!(error.to_string(), format!("{udp} is in use for UDP by another program"));
    let tcp = listener.local_addr().unwrap();
    let error = start(&tcp.to_string()).await;
    assert_eq!(error.to_string(), format!("{tcp} is in use for TCP by another program"));
    tokio::net::UdpSocket::bind(tcp).await.expect("the UDP socket is closed again");
    let error = start("192.0.2.1:0").await;
    assert_eq!(error.to_string(), "no interface has the address 192.0.2.1:0");

    let mut nowhere = config(&[]);
    nowhere.listen.clear();
    let error = DnsServer::start(nowhere, Records::new()).await.unwrap_err();
    assert!(matches!(error, StartError::NoAddress));
    let mut nameless = config(&[]);
    nameless.domain = "not a domain".to_owned();
    let error = DnsServer::start(nameless, Records::new()).await.unwrap_err();
    assert!(matches!(error, StartError::Domain(_)));
}
