//! Names of ours that stand for others, ours or not.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hivemind_dns::{DnsServer, Outcomes, Records};

use crate::client::{addresses, addresses_in, ask, code, config, name, query, records, send, send_tcp};
use crate::upstream::{Upstream, addresses as answer, negative};

const DB: &str = "db.default.svc.hivemind.internal";
const WEB: &str = "web.default.svc.hivemind.internal";

fn aliased() -> Records {
    let mut records = records();
    for (name, target) in [
        (DB, "db.example.com"),
        ("db.local", DB),
        ("site.local", WEB),
        ("gone.local", "gone.default.svc.hivemind.internal"),
        ("a.local", "b.local"),
        ("b.local", "a.local"),
    ] {
        records.insert_alias(name, target).unwrap();
    }
    records
}

/// An upstream that knows `db.example.com` by its true name, as resolvers do.
async fn upstream() -> Upstream {
    Upstream::start(|question, _| match question.queries[0].name().to_ascii().as_str() {
        "db.example.com." => {
            let mut answer = question.clone().into_response();
            let link = RData::CNAME(CNAME(name("primary.example.net")));
            answer.add_answer(Record::from_rdata(name("db.example.com"), 60, link));
            if question.queries[0].query_type() == RecordType::A {
                let address = RData::A(A::new(192, 0, 2, 7));
                answer.add_answer(Record::from_rdata(name("primary.example.net"), 30, address));
            }
            answer.into()
        }
        "nobody.example.com." => negative(question, ResponseCode::NXDomain, 30).into(),
        _ => answer(question, &[[9, 9, 9, 9]], 60).into(),
    })
    .await
}

async fn server(upstream: &Upstream) -> DnsServer {
    DnsServer::start(config(&[upstream.address]), aliased()).await.unwrap()
}

/// The owners of the records of an answer, in their order, and what those that are aliases stand for.
fn chain(answer: &Message) -> Vec<(String, Option<Name>)> {
    let target = |data: &RData| match data {
        RData::CNAME(target) => Some(target.0.clone()),
        _ => None,
    };
    answer.answers.iter().map(|record| (record.name.to_ascii(), target(&record.data))).collect()
}

fn link(owner: &str, target: &str) -> (String, Option<Name>) {
    (owner.to_owned(), Some(name(target)))
}

#[tokio::test]
async fn a_name_outside_is_answered_with_the_alias_and_its_addresses_from_upstream_and_the_cache() {
    let upstream = upstream().await;
    let server = server(&upstream).await;
    let spelled = "DB.default.svc.hivemind.internal.";
    for _ in 0..3 {
        let answer = ask(server.addresses()[0], spelled, RecordType::A).await;
        assert_eq!(code(&answer), ResponseCode::NoError);
        assert_eq!(answer.queries[0].name().to_ascii(), spelled);
        let expected = [
            link(spelled, "db.example.com"),
            link("db.example.com.", "primary.example.net"),
            ("primary.example.net.".to_owned(), None),
        ];
        assert_eq!(chain(&answer), expected);
        assert_eq!(addresses_in(&answer), addresses(&["192.0.2.7"]));
        assert_eq!(answer.answers[0].ttl, 5, "what is ours is believed as long as what is ours");
    }
    assert_eq!(upstream.asked_udp(), 1);
    assert_eq!(server.statistics().outcomes, Outcomes { forwarded: 1, cached: 2, ..Outcomes::default() });
    let six = ask(server.addresses()[0], DB, RecordType::AAAA).await;
    assert_eq!((code(&six), chain(&six).len(), addresses_in(&six).len()), (ResponseCode::NoError, 2, 0));
}

#[tokio::test]
async fn an_alias_of_an_alias_is_followed_and_one_of_ours_asks_nobody() {
    let upstream = upstream().await;
    let server = server(&upstream).await;
    let at = server.addresses()[0];
    let site = ask(at, "site.local", RecordType::A).await;
    assert_eq!(chain(&site)[0], link("site.local.", WEB));
    assert_eq!(addresses_in(&site), addresses(&["10.204.0.7", "10.204.0.8"]));
    assert!(site.answers[1..].iter().all(|record| record.name == name(WEB)));
    assert!(site.metadata.authoritative);
    let none = ask(at, "site.local", RecordType::TXT).await;
    assert_eq!((code(&none), chain(&none)), (ResponseCode::NoError, vec![link("site.local.", WEB)]));
    assert_eq!(none.authorities.len(), 1, "how long it may be believed that there is nothing");
    let gone = ask(at, "gone.local", RecordType::A).await;
    assert_eq!((code(&gone), gone.answers.len()), (ResponseCode::NXDomain, 1));
    assert_eq!(upstream.asked_udp(), 0);
    let long = ask(at, "db.local", RecordType::A).await;
    assert_eq!(chain(&long)[..2], [link("db.local.", DB), link(&format!("{DB}."), "db.example.com")]);
    assert_eq!(addresses_in(&long), addresses(&["192.0.2.7"]));
    let over_tcp = send_tcp(at, &[query("db.local", RecordType::A)]).await;
    assert_eq!(chain(&over_tcp[0]), chain(&long));
}

#[tokio::test]
async fn the_alias_itself_is_told_without_what_it_stands_for() {
    let upstream = upstream().await;
    let server = server(&upstream).await;
    let at = server.addresses()[0];
    let alias = ask(at, "db.local", RecordType::CNAME).await;
    assert_eq!(chain(&alias), [link("db.local.", DB)]);
    let mut only_ours = query(DB, RecordType::A);
    only_ours.metadata.recursion_desired = false;
    let referred = send(at, &only_ours).await;
    assert_eq!((code(&referred), chain(&referred).len()), (ResponseCode::NoError, 1));
    assert_eq!(upstream.asked_udp(), 0);
}

#[tokio::test]
async fn names_that_stand_for_one_another_fail_and_what_is_not_outside_is_denied() {
    let upstream = upstream().await;
    let server = server(&upstream).await;
    let at = server.addresses()[0];
    assert_eq!(code(&ask(at, "a.local", RecordType::A).await), ResponseCode::ServFail);
    assert_eq!(upstream.asked_udp(), 0);
    let mut records = Records::new();
    records.insert_alias(DB, "nobody.example.com").unwrap();
    server.publish(records);
    let denied = ask(at, DB, RecordType::A).await;
    assert_eq!((code(&denied), chain(&denied).len()), (ResponseCode::NXDomain, 1));
    let alone = DnsServer::start(config(&[]), aliased()).await.unwrap();
    let failed = ask(alone.addresses()[0], DB, RecordType::A).await;
    assert_eq!((code(&failed), failed.answers.len()), (ResponseCode::ServFail, 0));
}

#[tokio::test]
async fn what_a_name_stands_for_changes_at_once() {
    let upstream = upstream().await;
    let server = server(&upstream).await;
    let at = server.addresses()[0];
    assert_eq!(addresses_in(&ask(at, DB, RecordType::A).await), addresses(&["192.0.2.7"]));
    let mut records = Records::new();
    records.insert_alias(DB, "other.example.com").unwrap();
    server.publish(records);
    assert_eq!(addresses_in(&ask(at, DB, RecordType::A).await), addresses(&["9.9.9.9"]));
    let mut records = Records::new();
    records.insert(DB, addresses(&["10.204.0.9"])).unwrap();
    server.publish(records);
    assert_eq!(addresses_in(&ask(at, DB, RecordType::A).await), addresses(&["10.204.0.9"]));
}
