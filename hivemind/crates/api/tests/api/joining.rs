//! Whatever a machine that has not joined sends.

use std::collections::BTreeSet;

use hivemind_api::fuzzing::NodePort;
use hivemind_model::{ApiError, ErrorCode, JoinAnswer, JoinRequest, Node};
use hivemind_pki::NodeKey;
use jiff::Timestamp;
use serde_json::json;

use crate::harness::Server;

/// A server, and what lets a machine in there.
pub(crate) struct Strangers {
    server: Server,
    port: NodePort,
    token: String,
    signing_request: String,
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
        let token = secret.strip_prefix("hmj_").unwrap().split_once('_').unwrap().0.to_owned();
        let signing_request = NodeKey::generate().unwrap().signing_request().unwrap().replace('\n', "\\n");
        let port = NodePort::new(server.api.clone());
        Strangers { server, port, token, signing_request, joined: 0, understood: 0 }
    }

    /// What `input` stands for: `$T` for the token, `$R` for a signing request, `$N` for the time.
    fn body(&self, input: &[u8]) -> Vec<u8> {
        let Ok(text) = str::from_utf8(input) else { return input.to_vec() };
        let filled = text.replace("$T", &self.token).replace("$R", &self.signing_request);
        filled.replace("$N", &Timestamp::now().to_string()).into_bytes()
    }

    /// Sends what `input` stands for, and looks at the answer and at what it did to the cluster.
    pub(crate) async fn send(&mut self, input: &[u8]) {
        let body = &*self.body(input);
        let shown = || String::from_utf8_lossy(body).into_owned();
        let (status, answer) = self.port.join(body).await;
        let nodes = self.server.objects.list::<Node>(None).await.unwrap().items;
        let joined = nodes.iter().filter(|node| node.metadata.name != "n1");
        let joined: Vec<_> = joined.cloned().collect();
        if status == 200 {
            let answer: JoinAnswer =
                serde_json::from_slice(&answer).unwrap_or_else(|_| panic!("{}", shown()));
            let asked: JoinRequest = serde_json::from_slice(body).unwrap_or_else(|_| panic!("{}", shown()));
            assert_eq!(asked.token, self.token, "{}", shown());
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
    let valid = include_str!("../../fuzz/seeds/join/valid.json");
    let asks = valid.replace(r#","signingRequest":"$R""#, "");
    let mut seeds = [valid.to_owned(), asks, valid.replace("$T", "unknown")].map(String::into_bytes).to_vec();
    for seed in &seeds {
        strangers.send(seed).await;
    }
    assert_eq!((strangers.joined, strangers.understood), (1, 1), "what is changed is valid, or has no token");
    // The signing request is changed too where it is written out.
    let written_out: Vec<_> = seeds.iter().map(|seed| strangers.body(seed)).collect();
    seeds.extend(written_out);
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
