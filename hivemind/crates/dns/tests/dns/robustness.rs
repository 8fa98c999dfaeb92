use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::RecordType;
use hivemind_dns::Statistics;
use proptest::prelude::*;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};

use crate::client::{addresses_in, ask, code, query, send, start};
use crate::upstream::{Reaction, Upstream};

#[tokio::test]
async fn any_and_transfers_and_updates_are_refused_without_records() {
    let server = start(&[]).await;
    let at = server.addresses()[0];
    for record_type in [RecordType::ANY, RecordType::AXFR, RecordType::IXFR] {
        let answer = ask(at, "web.local", record_type).await;
        assert_eq!((code(&answer), answer.answers.len()), (ResponseCode::Refused, 0));
    }
    assert_eq!(server.statistics(), Statistics { refused: 3, ..Statistics::default() });
}

#[tokio::test]
async fn who_does_not_want_recursion_gets_local_names_only() {
    let upstream = Upstream::answering([1, 2, 3, 4], 60).await;
    let server = start(&[upstream.address]).await;
    let at = server.addresses()[0];
    let without = |text| {
        let mut message = query(text, RecordType::A);
        message.metadata.recursion_desired = false;
        message
    };
    assert_eq!(addresses_in(&send(at, &without("web.local")).await).len(), 2);
    assert_eq!(code(&send(at, &without("a.example")).await), ResponseCode::Refused);
    assert_eq!(upstream.asked_udp(), 0);
}

#[tokio::test]
async fn a_response_and_a_packet_without_a_header_get_no_answer() {
    let server = start(&[]).await;
    let at = server.addresses()[0];
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(at).await.unwrap();
    let mut response = query("web.local", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    for packet in [response.to_vec().unwrap(), vec![1, 2, 3], Vec::new()] {
        socket.send(&packet).await.unwrap();
    }
    // The first and only answer is that to a question sent after them.
    let question = query("web.local", RecordType::AAAA);
    socket.send(&question.to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).await.unwrap();
    assert_eq!(addresses_in(&Message::from_vec(&buffer[..length]).unwrap()).len(), 1);
    assert_eq!(server.statistics(), Statistics { local: 1, malformed: 3, ..Statistics::default() });
}

#[tokio::test]
async fn a_connection_that_sends_too_much_or_stops_half_way_harms_no_other() {
    let server = start(&[]).await;
    let at = server.addresses()[0];
    let mut half = TcpStream::connect(at).await.unwrap();
    half.write_all(&[0, 40, 1]).await.unwrap();
    let mut long = TcpStream::connect(at).await.unwrap();
    long.write_all(&[0xff; 2]).await.unwrap();
    let mut rest = Vec::new();
    // Closed without an answer, whether or not the kernel still had bytes of ours.
    let _ = long.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    assert_eq!(addresses_in(&ask(at, "web.local", RecordType::A).await).len(), 2);
}

#[tokio::test]
async fn an_upstream_that_sends_garbage_is_a_failure_for_its_question_only() {
    let upstream = Upstream::start(|question, _| {
        let mut bytes = question.clone().into_response().to_vec().unwrap();
        bytes[7] = 200; // two hundred answers that are not there
        Reaction::Send(vec![bytes])
    })
    .await;
    let server = start(&[upstream.address]).await;
    let at = server.addresses()[0];
    assert_eq!(code(&ask(at, "a.example", RecordType::A).await), ResponseCode::ServFail);
    assert_eq!(addresses_in(&ask(at, "web.local", RecordType::A).await).len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_server_that_was_sent_garbage_still_answers(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..700), 1..40),
        changes in proptest::collection::vec((0..60_usize, any::<u8>()), 0..40),
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let server = start(&[]).await;
            let at = server.addresses()[0];
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let whole = query("web.local", RecordType::A).to_vec().unwrap();
            for packet in &packets {
                socket.send_to(packet, at).await.unwrap();
            }
            for (position, value) in &changes {
                let mut packet = whole.clone();
                let position = position % packet.len();
                packet[position] = *value;
                socket.send_to(&packet, at).await.unwrap();
            }
            assert_eq!(addresses_in(&ask(at, "web.local", RecordType::A).await).len(), 2);
            server.stop().await;
        });
    }
}
