//! Sockets that outlive a server: what is asked meanwhile is answered by the next one.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use hivemind_dns::{DnsServer, Sockets};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::client::{addresses_in, ask, ask_until_answered, config, query, records};

const PATIENCE: Duration = Duration::from_secs(20);

/// What stays when a server is gone.
struct Kept {
    address: SocketAddr,
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
}

impl Kept {
    async fn bind() -> (Self, Sockets) {
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let udp = sockets.udp().try_clone_to_owned().unwrap().into();
        let tcp = sockets.tcp().try_clone_to_owned().unwrap().into();
        (Self { address: sockets.address(), udp, tcp }, sockets)
    }

    async fn adopt(&self) -> DnsServer {
        let (udp, tcp) = (self.udp.try_clone().unwrap(), self.tcp.try_clone().unwrap());
        start(Sockets::adopt(self.address, Some(udp), Some(tcp)).await.unwrap())
    }
}

fn start(sockets: Sockets) -> DnsServer {
    DnsServer::start_on(vec![sockets], &config(&[]), records()).unwrap()
}

fn answered(bytes: &[u8]) -> usize {
    addresses_in(&Message::from_vec(bytes).unwrap()).len()
}

#[tokio::test]
async fn what_is_asked_while_there_is_no_server_is_answered_by_the_next() {
    let (kept, sockets) = Kept::bind().await;
    let server = start(sockets);
    ask(kept.address, "web.local", RecordType::A).await;
    server.stop().await;

    let question = query("web.local", RecordType::A).to_vec().unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    datagrams.connect(kept.address).await.unwrap();
    datagrams.send(&question).await.unwrap();
    let mut stream = TcpStream::connect(kept.address).await.unwrap();
    stream.write_u16(u16::try_from(question.len()).unwrap()).await.unwrap();
    stream.write_all(&question).await.unwrap();

    let server = kept.adopt().await;
    let mut buffer = [0; 512];
    let length = timeout(PATIENCE, datagrams.recv(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(answered(&buffer[..length]), 2);
    let length = usize::from(timeout(PATIENCE, stream.read_u16()).await.unwrap().unwrap());
    stream.read_exact(&mut buffer[..length]).await.unwrap();
    assert_eq!(answered(&buffer[..length]), 2);
    assert_eq!(server.addresses(), [kept.address]);
}

#[tokio::test]
async fn a_socket_that_is_missing_is_bound() {
    let (Kept { address, udp, tcp }, sockets) = Kept::bind().await;
    drop((sockets, tcp));
    let server = start(Sockets::adopt(address, Some(udp), None).await.unwrap());
    ask(address, "web.local", RecordType::A).await;
    TcpStream::connect(address).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn what_the_kernel_dropped_is_counted_once_also_without_a_server() {
    let (kept, sockets) = Kept::bind().await;
    let flood = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let question = query("web.local", RecordType::A).to_vec().unwrap();
    // Not Tokio's, so that the only thread is not given up and nothing is read in between.
    let send = |count| (0..count).for_each(|_| assert!(flood.send_to(&question, kept.address).is_ok()));
    let server = start(sockets);
    send(20_000);
    ask_until_answered(kept.address).await;
    assert!(server.statistics().lost.datagrams > 10_000, "{:?}", server.statistics());
    server.stop().await;

    send(5_000);
    let server = kept.adopt().await;
    ask_until_answered(kept.address).await;
    let lost = server.statistics().lost.datagrams;
    assert!((1..=5_000).contains(&lost), "{lost}");
}
