use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::RecordType;
use hivemind_dns::Outcomes;
use proptest::prelude::*;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};

use crate::client::{addresses_in, ask, code, query, send, send_bytes, send_tcp, start};
use crate::upstream::{Reaction, Upstream};

#[tokio::test]
async fn any_and_transfers_and_updates_are_refused_without_records() {
    let server = start(&[]).await;
    let at = server.addresses()[0];
    for record_type in [RecordType::ANY, RecordType::AXFR, RecordType::IXFR] {
        let answer = ask(at, "web.local", record_type).await;
        assert_eq!((code(&answer), answer.answers.len()), (ResponseCode::Refused, 0));
    }
    for operation in [OpCode::Update, OpCode::Notify, OpCode::Status] {
        let mut message = query("web.local", RecordType::SOA);
        message.metadata.op_code = operation;
        let answer = send(at, &message).await;
        assert_eq!((code(&answer), answer.answers.len()), (ResponseCode::NotImp, 0));
        assert_eq!(answer.metadata.op_code, operation);
    }
    assert_eq!(server.statistics().outcomes, Outcomes { refused: 6, ..Outcomes::default() });
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
    assert_eq!(server.statistics().outcomes, Outcomes { local: 1, ..Outcomes::default() });
}

#[tokio::test]
async fn what_cannot_be_decoded_and_what_is_no_single_question_is_a_format_error() {
    let server = start(&[]).await;
    let at = server.addresses()[0];
    let whole = query("web.local", RecordType::A);
    let mut two = whole.clone();
    two.add_query(whole.queries[0].clone());
    let mut none = whole.clone();
    none.queries.clear();
    let bytes = whole.to_vec().unwrap();
    let cut = bytes[..bytes.len() - 1].to_vec();
    let mut claims = bytes.clone();
    claims[4..6].copy_from_slice(&[0xff; 2]); // 65,535 questions, of which one is there
    for packet in [two.to_vec().unwrap(), none.to_vec().unwrap(), cut, claims] {
        let answer = Message::from_vec(&send_bytes(at, &packet).await).unwrap();
        assert_eq!(code(&answer), ResponseCode::FormErr);
        assert_eq!((answer.metadata.id, answer.queries.len()), (0x5a5a, 0));
    }
    assert_eq!(server.statistics().outcomes, Outcomes { malformed: 4, ..Outcomes::default() });
}

#[tokio::test]
async fn a_question_whose_name_points_into_its_own_header_is_no_panic() {
    let server = start(&[]).await;
    let at = server.addresses()[0];
    let mut packet = vec![0x08, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 0];
    packet.extend([0, 1, 0, 1]);
    let answer = send_bytes(at, &packet).await;
    assert_eq!((&answer[..2], answer[2] & 0x80), (&packet[..2], 0x80));
    assert_eq!(addresses_in(&ask(at, "web.local", RecordType::A).await).len(), 2);
}

#[tokio::test]
async fn a_connection_that_sends_too_much_or_stops_half_way_harms_no_other() {
    let server = start(&[]).await;
    let at = server.addresses()[0];
    let mut half = TcpStream::connect(at).await.unwrap();
    half.write_all(&[0, 40, 1]).await.unwrap();
    let mut long = TcpStream::connect(at).await.unwrap();
    let mut packet = query("web.local", RecordType::A).to_vec().unwrap();
    packet.resize(usize::from(u16::MAX), 0);
    long.write_all(&[0xff; 2]).await.unwrap();
    long.write_all(&packet).await.unwrap();
    let mut answer = vec![0; usize::from(long.read_u16().await.unwrap())];
    long.read_exact(&mut answer).await.unwrap();
    assert_eq!(code(&Message::from_vec(&answer).unwrap()), ResponseCode::FormErr);
    assert_eq!(addresses_in(&ask(at, "web.local", RecordType::A).await).len(), 2);
    assert_eq!(addresses_in(&send_tcp(at, &[query("web.local", RecordType::A)]).await[0]).len(), 2);
    assert_eq!(server.statistics().outcomes, Outcomes { local: 2, malformed: 1, ..Outcomes::default() });
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
