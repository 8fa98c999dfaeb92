//! The bench `policy`: how long it takes from the request to apply a policy until packets are judged by it, at all running
//! replicas that it selects; and what the engine takes for a large set of policies.
//!
//! One policy selects the replicas of several apps and is changed again and again: one time it lets the client in, the next
//! time it keeps it out. A prober sends datagrams from the client to every replica without pause, on connections that stay
//! the same, and notes when each of them heard the first one, and from when on none. Then the same with one replica in a
//! cluster of many.

mod compiling;
mod enforced;
mod rules;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hivemind_client::Client;
use hivemind_model::{
    ApplyPolicies, DEFAULT_NAMESPACE, IngressRule, IpBlock, LabelSelector, Metadata, NetworkPolicy,
    NetworkPolicySpec, PolicyPeer,
};

use super::figure::Figure;
use crate::Node;

/// How often each size of policy is applied: half of the times it opens the way, half of the times it closes it.
const APPLIES: usize = 200;

/// The apps that the policy selects, of one replica each: each has an identity, and so tables, of its own.
const APPS: usize = 10;

/// How many rules the policies have.
const RULES: [(usize, &str, &str); 2] = [
    (1, "policy_apply_p99", "policy_apply_p50"),
    (1_000, "policy_apply_r1000_p99", "policy_apply_r1000_p50"),
];

/// From the request until it is in force; of all, 99 in 100 keep to it.
const APPLY_MS_MAX: f64 = 100.0;

/// How long the prober rests between two rounds: what a time is known to.
const REST: Duration = Duration::from_micros(300);

/// How long nothing has to be heard on a way before it counts as closed.
const WATCHED_FOR: Duration = Duration::from_millis(30);

const LIMIT: Duration = Duration::from_secs(10);
const PORT: u16 = 7;
const NAME: &str = "bench";

pub(super) fn run(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    progress("policy: compiling a large set");
    let mut figures = compiling::run();
    figures.extend(rules::run(progress)?);
    progress(&format!("policy: a node with {} replicas", APPS + 1));
    let (node, registry) = Node::with_daemon()?;
    let apps: Vec<String> = (0..APPS).map(|number| format!("server-{number}")).collect();
    for app in apps.iter().map(String::as_str).chain(["client"]) {
        node.deploy_waiting(app, &["--label", if app == "client" { "role=client" } else { "role=server" }])?;
    }
    registry.stop()?;
    let prober = Prober::start(&node, &apps)?;
    let client = Client::unix(node.sandbox().outside(&node.socket()));
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let from = address(&node, "client")?;
    for (rules, p99, p50) in RULES {
        progress(&format!("policy: {APPLIES} times with {rules} rules"));
        let mut samples = Vec::new();
        for turn in 0..APPLIES {
            let is_open = turn % 2 == 0;
            let applied = executor.block_on(apply(&client, policy(from, rules, is_open), &prober, is_open));
            samples.push(applied.with_context(|| format!("turn {turn}, {rules} rules"))?);
        }
        figures.push(Figure::p99(p99, "ms", samples.clone()).at_most(APPLY_MS_MAX));
        figures.push(Figure::new(p50, "ms", samples));
    }
    prober.stop()?;
    node.daemon_kill9()?;
    node.stop()?;
    figures.extend(enforced::run(progress)?);
    Ok(figures)
}

fn address(node: &Node, app: &str) -> Result<IpAddr> {
    node.replica(app)?["status"]["ipv4"].as_str().context("no address")?.parse().context("no address")
}

/// Selects all servers. Its rules are blocks of addresses of nobody; the last one is the client's if the way is open.
fn policy(client: IpAddr, rules: usize, is_open: bool) -> NetworkPolicy {
    let block = |index: usize| match index + 1 == rules && is_open {
        true => format!("{client}/32"),
        false => format!("198.{}.{}.{}/32", 18 + (index >> 16), (index >> 8) & 255, index & 255),
    };
    let rule = |index| {
        let block = IpBlock { cidr: block(index), ..IpBlock::default() };
        let peer = PolicyPeer { ip_block: Some(block), ..PolicyPeer::default() };
        IngressRule { from: vec![peer], ..IngressRule::default() }
    };
    let servers = [("role".to_owned(), "server".to_owned())].into();
    NetworkPolicy {
        metadata: Metadata::new(DEFAULT_NAMESPACE, NAME),
        spec: NetworkPolicySpec {
            pod_selector: LabelSelector { match_labels: servers, ..LabelSelector::default() },
            ingress: (0..rules).map(rule).collect(),
            ..NetworkPolicySpec::default()
        }
        .into(),
        status: Default::default(),
    }
}

/// Applies a policy; returns how many milliseconds passed from then until every replica was under it.
async fn apply(client: &Client, policy: NetworkPolicy, prober: &Prober, is_open: bool) -> Result<f64> {
    let name = policy.metadata.name.clone();
    let began = prober.forget();
    let applied = client.apply_policies(&ApplyPolicies { items: vec![policy] }).await?;
    let generation = applied.items.first().context("nothing was applied")?.policy.metadata.generation;
    // The daemon is not asked before: what it would spend on the answers would be measured too.
    let heard = loop {
        let heard = prober.heard();
        let has_changed = |heard: &Heard| match is_open {
            true => heard.first.is_some(),
            false => heard.none_since.is_some_and(|since| since.elapsed() > WATCHED_FOR),
        };
        if heard.iter().all(has_changed) {
            break heard;
        }
        ensure!(!prober.thread.is_finished(), "the prober ended");
        ensure!(began.elapsed() < LIMIT, "it does not come into force: {heard:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let told = loop {
        let policy = client.policy(DEFAULT_NAMESPACE, &name).await?;
        if policy.status.enforced_generation >= generation {
            break Instant::now();
        }
        ensure!(began.elapsed() < LIMIT, "it is in force and not told to be: {:?}", policy.status.problem);
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let is_late = |heard: &Heard| !is_open && heard.last_sent.is_some_and(|sent| sent > told);
    ensure!(!prober.heard().iter().any(is_late), "a packet passed after the policy was told to be in force");
    let changed = heard.iter().filter_map(|heard| if is_open { heard.first } else { heard.none_since });
    Ok((changed.max().unwrap_or(began) - began).as_secs_f64() * 1e3)
}

/// What a replica heard since this was asked anew.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    /// When it had heard the first datagram.
    first: Option<Instant>,
    /// When the last datagram that it heard was sent.
    last_sent: Option<Instant>,
    /// When it had not heard the first one after that.
    none_since: Option<Instant>,
}

/// Somebody in the client's network who sends to all servers, and listens at them.
struct Prober {
    heard: Arc<Mutex<Vec<Heard>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
}

impl Prober {
    fn start(node: &Node, apps: &[String]) -> Result<Self> {
        let mut ends = Vec::new();
        for app in apps {
            let at = SocketAddr::new(address(node, app)?, PORT);
            let server = node.in_network_of(app, || UdpSocket::bind(at))??;
            server.set_nonblocking(true)?;
            let client = node.in_network_of("client", || {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                socket.connect(at).map(|()| socket)
            })??;
            ends.push((client, server));
        }
        let heard = Arc::new(Mutex::new(vec![Heard::default(); ends.len()]));
        let stop = Arc::new(AtomicBool::new(false));
        let (noted, end) = (Arc::clone(&heard), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                for (index, (client, server)) in ends.iter().enumerate() {
                    probe(client, server, &noted, index)?;
                }
                thread::sleep(REST);
            }
            Ok(())
        });
        Ok(Self { heard, stop, thread })
    }

    /// Begins anew; returns when that was.
    fn forget(&self) -> Instant {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.fill(Heard::default());
        Instant::now()
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.thread.join().map_err(|_| anyhow::anyhow!("the prober panicked"))??)
    }
}

/// Sends one datagram, and notes whether it was heard: between two replicas of a node it is there when the call that sends
/// it returns, and else it is noted with the next one.
fn probe(client: &UdpSocket, server: &UdpSocket, heard: &Mutex<Vec<Heard>>, index: usize) -> io::Result<()> {
    let heard = &mut heard.lock().unwrap_or_else(PoisonError::into_inner)[index];
    let sent = Instant::now();
    client.send(b"p")?;
    let mut is_heard = false;
    loop {
        match server.recv(&mut [0; 8]) {
            Ok(_) => is_heard = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    let now = Instant::now();
    if is_heard {
        heard.first.get_or_insert(now);
        (heard.last_sent, heard.none_since) = (Some(sent), None);
    } else {
        heard.none_since.get_or_insert(now);
    }
    Ok(())
}
