//! What a name of ours has besides addresses, and reverse names of networks of ours.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use hivemind_dns::{DnsServer, Records};

use crate::client::{addresses, addresses_in, ask, code, config, name, query, records, send, with_edns};
use crate::upstream::Upstream;

const HTTP: &str = "_80._tcp.web.default.svc.hivemind.internal";
const WEB: &str = "web.default.svc.hivemind.internal";

fn more_records() -> Records {
    let mut records = records();
    records.insert_server(HTTP, WEB, 80).unwrap();
    records.insert_server(HTTP, WEB, 80).unwrap();
    records.insert_text("dns-version.hivemind.internal", "1.1.0").unwrap();
    records.insert("dns.hivemind.internal", addresses(&["169.254.20.10", "fd00:20::10"])).unwrap();
    records.own_network("10.204.0.0/16".parse().unwrap());
    records
}

async fn server(upstream: &Upstream) -> DnsServer {
    DnsServer::start(config(&[upstream.address]), more_records()).await.unwrap()
}

fn additional(answer: &Message) -> Vec<(String, RData)> {
    answer.additionals.iter().map(|record| (record.name.to_ascii(), record.data.clone())).collect()
}

#[tokio::test]
async fn a_service_names_its_server_with_its_addresses() {
    let upstream = Upstream::answering([9, 9, 9, 9], 60).await;
    let server = server(&upstream).await;
    let answer = ask(server.addresses()[0], HTTP, RecordType::SRV).await;
    let [record] = &answer.answers[..] else { panic!("not one server: {answer}") };
    let RData::SRV(found) = &record.data else { panic!("no SRV: {answer}") };
    assert_eq!((found.port, &found.target), (80, &name(WEB)));
    let additional = additional(&answer);
    assert_eq!(additional.len(), 3, "two IPv4 addresses and one of IPv6: {additional:?}");
    assert!(additional.iter().all(|(owner, _)| *owner == format!("{WEB}.")));
    let none = ask(server.addresses()[0], HTTP, RecordType::A).await;
    assert_eq!((code(&none), none.answers.len()), (ResponseCode::NoError, 0), "it exists, without addresses");
    let label = ask(server.addresses()[0], "_tcp.web.default.svc.hivemind.internal", RecordType::SRV).await;
    assert_eq!((code(&label), label.answers.len()), (ResponseCode::NoError, 0));
    let other =
        ask(server.addresses()[0], "_81._tcp.web.default.svc.hivemind.internal", RecordType::SRV).await;
    assert_eq!(code(&other), ResponseCode::NXDomain);
    assert_eq!(upstream.asked_udp(), 0);
}

#[tokio::test]
async fn the_zone_tells_its_version_and_who_answers_for_it() {
    let upstream = Upstream::answering([9, 9, 9, 9], 60).await;
    let server = server(&upstream).await;
    let at = server.addresses()[0];
    let text = ask(at, "dns-version.hivemind.internal", RecordType::TXT).await;
    let RData::TXT(found) = &text.answers[0].data else { panic!("no TXT: {text}") };
    assert_eq!(found.to_string(), "1.1.0");
    let answer = ask(at, "hivemind.internal", RecordType::NS).await;
    let RData::NS(found) = &answer.answers[0].data else { panic!("no NS: {answer}") };
    assert_eq!(found.0, name("dns.hivemind.internal"));
    assert_eq!(answer.additionals.len(), 2);
    let soa = ask(at, "hivemind.internal", RecordType::SOA).await;
    let RData::SOA(found) = &soa.answers[0].data else { panic!("no SOA: {soa}") };
    assert_eq!(found.mname, name("dns.hivemind.internal"));
    let address = ask(at, "dns.hivemind.internal", RecordType::A).await;
    assert_eq!(addresses_in(&address), addresses(&["169.254.20.10"]));
}

#[tokio::test]
async fn an_address_of_ours_without_a_name_has_none_and_upstreams_do_not_hear_of_it() {
    let upstream = Upstream::answering([9, 9, 9, 9], 60).await;
    let server = server(&upstream).await;
    let at = server.addresses()[0];
    let known = ask(at, "7.0.204.10.in-addr.arpa", RecordType::PTR).await;
    assert!(matches!(&known.answers[0].data, RData::PTR(found) if found.0 == name(WEB)));
    let unknown = ask(at, "99.0.204.10.in-addr.arpa", RecordType::PTR).await;
    assert_eq!(code(&unknown), ResponseCode::NXDomain);
    let RData::SOA(_) = &unknown.authorities[0].data else { panic!("no SOA: {unknown}") };
    assert_eq!(unknown.authorities[0].name, name("204.10.in-addr.arpa"));
    let between = ask(at, "0.204.10.in-addr.arpa", RecordType::PTR).await;
    assert_eq!((code(&between), between.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(upstream.asked_udp(), 0);
    ask(at, "1.0.0.10.in-addr.arpa", RecordType::PTR).await;
    assert_eq!(upstream.asked_udp(), 1, "another network is others' matter");
}

#[tokio::test]
async fn addresses_beside_an_answer_give_way_where_there_is_no_room() {
    let mut records = more_records();
    let many: Vec<_> = (0..200).map(|last| format!("fd00:204::{last:x}").parse().unwrap()).collect();
    records.insert(WEB, many).unwrap();
    let server = DnsServer::start(config(&[]), records).await.unwrap();
    let answer = send(server.addresses()[0], &with_edns(query(HTTP, RecordType::SRV), 1232)).await;
    assert!(!answer.metadata.truncation, "the answer itself is whole");
    assert_eq!((answer.answers.len(), answer.additionals.len()), (1, 0));
}
