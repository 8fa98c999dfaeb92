//! Whatever a machine that has not joined sends.

use std::collections::BTreeSet;

use hivemind_api::fuzzing::NodePort;
use hivemind_model::{ApiError, ErrorCode, JoinAnswer, JoinRequest, Node};
use hivemind_pki::NodeKey;
use jiff::Timestamp;
use serde_json::json;

use crate::harness::Server;

/// A server with a token that lets machines in, and one that is used up.
pub(crate) struct Strangers {
    server: Server,
    port: NodePort,
    /// Requests to be changed, as bytes.
    pub(crate) seeds: Vec<Vec<u8>>,
    /// How many requests were let in, and how many were refused for what they said rather than for not being read.
    pub(crate) joined: usize,
    pub(crate) understood: usize,
}

impl Strangers {
    pub(crate) async fn new() -> Self {
        let server = Server::start().await;
        server.create_node().await;
        let (_, made) = server.send("POST", "/v1/jointokens", json!({"uses": 1000, "validS": 3600})).await;
        let secret = made["secret"].as_str().unwrap();
        let token = secret.strip_prefix("hmj_").unwrap().split_once('_').unwrap().0;
        let request = JoinRequest {
            token: token.into(),
            name: "two".into(),
            address: "192.0.2.2".parse().unwrap(),
            signing_request: Some(NodeKey::generate().unwrap().signing_request().unwrap()),
            time: Timestamp::now(),
            version: "0.1.0".into(),
        };
        let asks = JoinRequest { signing_request: None, ..request.clone() };
        let unknown = JoinRequest { token: "unknown".into(), ..request.clone() };
        let seeds = [request, asks, unknown].map(|seed| serde_json::to_vec(&seed).unwrap()).into();
        let port = NodePort::new(server.api.clone());
        Strangers { server, port, seeds, joined: 0, understood: 0 }
    }

    /// Sends `body` and looks at the answer, and at what it did to the cluster.
    pub(crate) async fn send(&mut self, body: &[u8]) {
        let shown = || String::from_utf8_lossy(body).into_owned();
        let (status, answer) = self.port.join(body).await;
        let nodes = self.server.objects.list::<Node>(None).await.unwrap().items;
        let joined = nodes.iter().filter(|node| node.metadata.name != "n1");
        let joined: Vec<_> = joined.cloned().collect();
        if status == 200 {
            let answer: JoinAnswer =
                serde_json::from_slice(&answer).unwrap_or_else(|_| panic!("{}", shown()));
            let asked: JoinRequest = serde_json::from_slice(body).unwrap_or_else(|_| panic!("{}", shown()));
            assert_eq!(joined.len(), usize::from(answer.certificate.is_some()), "{}", shown());
            if let [node] = &*joined {
                assert_eq!(
                    (&node.metadata.name, node.spec.number),
                    (&asked.name, answer.number),
                    "{}",
                    shown()
                );
                assert_eq!(node.spec.address, Some(asked.address), "{}", shown());
                self.joined += 1;
            }
            // There is room for the next one.
            for node in &joined {
                self.server.objects.delete(node).await.unwrap();
            }
        } else {
            let error: ApiError = serde_json::from_slice(&answer).unwrap_or_else(|_| panic!("{}", shown()));
            // A wrong clock, and tokens guessed without end, are no faults of the server either.
            let refused = status < 500 || matches!(error.code, ErrorCode::ClockSkew | ErrorCode::Busy);
            assert!(refused && !error.message.is_empty(), "{status} {error}: {}", shown());
            assert!(joined.is_empty(), "refused, and yet there: {}", shown());
            self.understood += usize::from(status != 400);
        }
        let numbers: BTreeSet<u16> = nodes.iter().map(|node| node.spec.number).collect();
        assert_eq!(numbers.len(), nodes.len(), "a number is there twice: {}", shown());
    }
}

/// A few changes of the kinds that break parsers: other bytes, lengths, and parts that come twice.
#[cfg(test)]
fn mutated(random: &mut rand::rngs::StdRng, seed: &[u8]) -> Vec<u8> {
    use rand::Rng as _;
    let mut body = seed.to_vec();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..=body.len());
        match random.random_range(0..7) {
            0 => body.truncate(at),
            1 => body.insert(at, random.random_range(b' '..=b'~')),
            2 if at < body.len() => body[at] = random.random_range(b' '..=b'~'),
            3 if at < body.len() => body[at] ^= 1 << random.random_range(0..8),
            4 => {
                let end = body.len().min(at + random.random_range(0..64));
                body.drain(at..end);
            }
            5 => body.extend_from_within(at..),
            _ if at < body.len() => body[at] = random.random_range(b'0'..=b'9'),
            _ => {}
        }
    }
    body
}

#[tokio::test]
async fn no_body_brings_the_server_down_or_a_stranger_in() {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
    const BODIES: usize = 20_000;
    let mut strangers = Strangers::new().await;
    let seeds = strangers.seeds.clone();
    for seed in &seeds {
        strangers.send(seed).await;
    }
    assert_eq!(strangers.joined, 1, "what is changed is valid");
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..BODIES {
        let seed = &seeds[random.random_range(0..seeds.len())];
        let body = mutated(&mut random, seed);
        strangers.send(&body).await;
    }
    let (joined, understood) = (strangers.joined, strangers.understood);
    assert!(
        joined > 10 && understood > 500,
        "the bodies are too broken to say anything: {joined}, {understood}"
    );
}
