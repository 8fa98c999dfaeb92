//! An upstream that does as the test says: answers, lies, is silent, or waits.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{RData, Record};
use hivemind_dns::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::name;

/// What to do with a question.
pub(crate) enum Reaction {
    /// Send these, one after another.
    Send(Vec<Vec<u8>>),
    /// Send this once the test releases it.
    Hold(Message),
    /// Say nothing.
    Silence,
}

impl From<Message> for Reaction {
    fn from(message: Message) -> Self {
        Self::Send(vec![message.to_vec().unwrap()])
    }
}

type React = dyn Fn(&Message, Protocol) -> Reaction + Send + Sync;

/// Runs until it is dropped.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    react: Box<React>,
    udp: watch::Sender<usize>,
    tcp: watch::Sender<usize>,
    probes: watch::Sender<usize>,
    released: watch::Sender<bool>,
}

impl Upstream {
    pub(crate) async fn start(
        react: impl Fn(&Message, Protocol) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (Arc::new(udp), tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let shared = Arc::new(Shared {
            react: Box::new(react),
            udp: watch::Sender::new(0),
            tcp: watch::Sender::new(0),
            probes: watch::Sender::new(0),
            released: watch::Sender::new(false),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, Arc::clone(&shared)));
        tasks.spawn(serve_tcp(tcp, Arc::clone(&shared)));
        Self { address, shared, _tasks: tasks }
    }

    /// Answers every question with the same address.
    pub(crate) async fn answering(address: [u8; 4], ttl: u32) -> Self {
        Self::start(move |question, _| addresses(question, &[address], ttl).into()).await
    }

    /// How many questions came over UDP, probes not counted.
    pub(crate) fn asked_udp(&self) -> usize {
        *self.shared.udp.borrow()
    }

    /// How many questions came over TCP.
    pub(crate) fn asked_tcp(&self) -> usize {
        *self.shared.tcp.borrow()
    }

    /// Returns when `count` questions have come over UDP.
    pub(crate) async fn until_asked(&self, count: usize) {
        self.shared.udp.subscribe().wait_for(|asked| *asked >= count).await.unwrap();
    }

    /// Returns when `count` probes have come.
    pub(crate) async fn until_probed(&self, count: usize) {
        self.shared.probes.subscribe().wait_for(|probes| *probes >= count).await.unwrap();
    }

    /// Sends what is held, and from now on holds nothing.
    pub(crate) fn release(&self) {
        self.shared.released.send_replace(true);
    }
}

impl Shared {
    async fn react(&self, question: &Message, protocol: Protocol) -> Vec<Vec<u8>> {
        let reaction = (self.react)(question, protocol);
        let count = match protocol {
            _ if question.queries[0].name().is_root() => &self.probes,
            Protocol::Udp => &self.udp,
            Protocol::Tcp => &self.tcp,
        };
        count.send_modify(|count| *count += 1);
        match reaction {
            Reaction::Send(messages) => messages,
            Reaction::Hold(message) => {
                self.released.subscribe().wait_for(|released| *released).await.unwrap();
                vec![message.to_vec().unwrap()]
            }
            Reaction::Silence => Vec::new(),
        }
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; 65536];
    while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
        let question = Message::from_vec(&buffer[..length]).unwrap();
        let (socket, shared) = (Arc::clone(&socket), Arc::clone(&shared));
        tasks.spawn(async move {
            for bytes in shared.react(&question, Protocol::Udp).await {
                // The server may have given up and closed its socket.
                let _ = socket.send_to(&bytes, client).await;
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        tasks.spawn(converse(stream, Arc::clone(&shared)));
    }
}

async fn converse(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Ok(length) = stream.read_u16().await {
        let mut bytes = vec![0; usize::from(length)];
        stream.read_exact(&mut bytes).await.unwrap();
        let question = Message::from_vec(&bytes).unwrap();
        for bytes in shared.react(&question, Protocol::Tcp).await {
            stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        }
    }
}

/// An answer with `addresses`.
pub(crate) fn addresses(question: &Message, addresses: &[[u8; 4]], ttl: u32) -> Message {
    let mut answer = question.clone().into_response();
    answer.metadata.recursion_available = true;
    let owner = question.queries[0].name().clone();
    for address in addresses {
        answer.add_answer(Record::from_rdata(owner.clone(), ttl, RData::A(A(Ipv4Addr::from(*address)))));
    }
    answer
}

/// An answer with a code and, for negative caching, an SOA record.
pub(crate) fn negative(question: &Message, code: ResponseCode, minimum: u32) -> Message {
    let mut answer = question.clone().into_response();
    answer.metadata.response_code = code;
    let soa = SOA::new(name("ns.example"), name("root.example"), 1, 1, 1, 1, minimum);
    answer.add_authority(Record::from_rdata(name("example"), 300, RData::SOA(soa)));
    answer
}
