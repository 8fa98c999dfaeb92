//! `hivemind-load run RATE LONG ADDRESS:PORT...`: opens RATE new connections a second, TCP and UDP and the addresses by turns, and
//! keeps LONG connections of TCP and LONG of UDP open, on which it sends numbered messages. When its standard input ends, it
//! waits for the answers under way and prints what it saw as one JSON object.
//!
//! `hivemind-load serve PORT`: answers them.
#![forbid(unsafe_code)]

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    io::{self, Read},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    sync::watch,
    task::{JoinSet, LocalSet},
    time::{MissedTickBehavior, interval, timeout},
};

/// How long an answer may take. Longer than TCP takes to send a first packet twice again.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How long a datagram's answer may be under way when all is over.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// How often new connections are begun.
const TICK: Duration = Duration::from_millis(4);

/// The most that are begun in one go when the program was kept from running.
const BURST_MAX: u64 = 16;

/// The most that are under way at once.
const UNDER_WAY_MAX: usize = 4_096;

/// The pause between two messages of a long-lived connection.
const PAUSE: Duration = Duration::from_millis(40);

/// However long it runs, it ends after this.
const RUN_MAX: Duration = Duration::from_secs(120);

/// What a socket of datagrams may hold: what comes while its program is kept from running must find room.
const ROOM_BYTES: usize = 8 << 20;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Ok(executor) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    let local = LocalSet::new();
    let done = match words.as_slice() {
        ["run", rate, long, targets @ ..] if !targets.is_empty() => {
            let targets: Result<Vec<SocketAddr>, _> = targets.iter().map(|target| target.parse()).collect();
            let (Ok(rate), Ok(long), Ok(targets)) = (rate.parse(), long.parse(), targets) else {
                return usage();
            };
            local.block_on(&executor, run(rate, long, targets)).map(|report| println!("{report}"))
        }
        ["serve", port] => match port.parse() {
            Ok(port) => local.block_on(&executor, serve(port)),
            Err(_) => return usage(),
        },
        _ => return usage(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: hivemind-load run RATE LONG ADDRESS:PORT... | serve PORT");
    ExitCode::from(2)
}

#[derive(Default)]
struct Seen {
    new_tcp: u64,
    new_udp: u64,
    long_tcp: u64,
    long_udp: u64,
    lost: u64,
    duplicated: u64,
    longest_connect: Duration,
    failures: Vec<String>,
}

type Shared = Rc<RefCell<Seen>>;

fn fail(seen: &Shared, what: &str, target: SocketAddr, error: &dyn std::fmt::Display) {
    let failures = &mut seen.borrow_mut().failures;
    if failures.len() < 20 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // The time within the minute, to be compared with logs.
        let (s, ms) = (now.as_secs() % 60, now.subsec_millis());
        failures.push(format!("{what} to {target} at {s}.{ms:03} s: {error}"));
    }
}

async fn run(rate: u64, long: usize, targets: Vec<SocketAddr>) -> io::Result<Value> {
    let seen = Shared::default();
    let (stop, stopped) = watch::channel(false);
    let mut long_lived = JoinSet::new();
    for number in 0..long {
        let target = targets[number % targets.len()];
        let stream = open(target).await.map_err(|error| told(target, &error))?;
        let (of_tcp, stopped_tcp) = (Rc::clone(&seen), stopped.clone());
        long_lived.spawn_local(async move {
            if let Err(error) = keep_tcp(stream, &of_tcp, stopped_tcp).await {
                fail(&of_tcp, "a long-lived connection", target, &error);
            }
        });
        let socket = datagrams(target).await.map_err(|error| told(target, &error))?;
        let (of_udp, stopped_udp) = (Rc::clone(&seen), stopped.clone());
        long_lived.spawn_local(async move {
            if let Err(error) = keep_udp(socket, &of_udp, stopped_udp).await {
                fail(&of_udp, "a long-lived flow", target, &error);
            }
        });
    }
    let before = counters();
    println!("running");
    let began = Instant::now();
    let mut new = JoinSet::new();
    let input = tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        _ = input => {}
        () = tokio::time::sleep(RUN_MAX) => {}
        () = keep_opening(rate, &targets, &seen, &mut new) => {}
    }
    let time = began.elapsed();
    while new.join_next().await.is_some() {}
    let _ = stop.send(true);
    while long_lived.join_next().await.is_some() {}
    let after = counters();
    let more = |name: &str| after.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0);
    let seen = seen.borrow();
    Ok(json!({
        "newTcp": seen.new_tcp,
        "newUdp": seen.new_udp,
        "longTcp": seen.long_tcp,
        "longUdp": seen.long_udp,
        "lost": seen.lost,
        "duplicated": seen.duplicated,
        "ms": u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        "longestConnectMs": u64::try_from(seen.longest_connect.as_millis()).unwrap_or(u64::MAX),
        "synRetransmissions": more("TcpExt TCPSynRetrans"),
        "retransmissions": more("Tcp RetransSegs"),
        "failures": seen.failures,
    }))
}

fn told(target: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::other(format!("{target}: {error}"))
}

/// Opens connections at the rate, for as long as it is polled.
async fn keep_opening(rate: u64, targets: &[SocketAddr], seen: &Shared, new: &mut JoinSet<()>) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (began, mut opened) = (Instant::now(), 0_u64);
    loop {
        tick.tick().await;
        while new.try_join_next().is_some() {}
        let due = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX) * rate / 1_000;
        for _ in 0..due.saturating_sub(opened).min(BURST_MAX) {
            // Each target by TCP, then each by UDP.
            let turn = opened as usize;
            let target = targets[turn % targets.len()];
            let is_tcp = (turn / targets.len()).is_multiple_of(2);
            opened += 1;
            if new.len() >= UNDER_WAY_MAX {
                fail(seen, "a new connection", target, &"too many are under way");
                continue;
            }
            let seen = Rc::clone(seen);
            new.spawn_local(async move {
                let (what, done) = if is_tcp {
                    ("a new connection", new_tcp(target, &seen, opened).await)
                } else {
                    ("a new flow", new_udp(target, &seen, opened).await)
                };
                if let Err(error) = done {
                    fail(&seen, what, target, &error);
                }
            });
        }
    }
}

async fn within<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(ANSWER_LIMIT, what).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn open(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    // Bound before, so that its port is known if it does not get further.
    let any: std::net::IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    socket.bind((any, 0).into())?;
    let own = socket.local_addr()?;
    within(socket.connect(target)).await.map_err(|error| at("when it was opened", &error, own))
}

async fn datagrams(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    Ok(socket)
}

/// An error with the socket's own address, to be looked for in tables.
fn at(when: &str, error: &io::Error, own: SocketAddr) -> io::Error {
    io::Error::other(format!("{error} {when}, at {own}"))
}

async fn ask(stream: &mut TcpStream, number: u64) -> io::Result<()> {
    within(async {
        stream.write_all(&number.to_be_bytes()).await?;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).await?;
        if u64::from_be_bytes(answer) == number { Ok(()) } else { Err(io::Error::other("another answer")) }
    })
    .await
}

async fn new_tcp(target: SocketAddr, seen: &Shared, number: u64) -> io::Result<()> {
    let began = Instant::now();
    let mut stream = open(target).await?;
    let took = began.elapsed();
    let own = stream.local_addr()?;
    ask(&mut stream, number).await.map_err(|error| at("when it was used", &error, own))?;
    // Until the other side has closed too.
    stream.shutdown().await?;
    let closed = within(stream.read_to_end(&mut Vec::new())).await;
    closed.map_err(|error| at("when it was closed", &error, own))?;
    let mut seen = seen.borrow_mut();
    seen.longest_connect = seen.longest_connect.max(took);
    seen.new_tcp += 1;
    Ok(())
}

async fn new_udp(target: SocketAddr, seen: &Shared, number: u64) -> io::Result<()> {
    let socket = datagrams(target).await?;
    socket.send(&number.to_be_bytes()).await?;
    let mut answer = [0; 8];
    let own = socket.local_addr()?;
    within(socket.recv(&mut answer)).await.map_err(|error| at("when it was used", &error, own))?;
    if u64::from_be_bytes(answer) != number {
        return Err(io::Error::other("another answer"));
    }
    seen.borrow_mut().new_udp += 1;
    Ok(())
}

async fn keep_tcp(
    mut stream: TcpStream,
    seen: &Shared,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    for number in 0.. {
        ask(&mut stream, number).await?;
        seen.borrow_mut().long_tcp += 1;
        if timeout(PAUSE, stopped.wait_for(|stopped| *stopped)).await.is_ok() {
            break;
        }
    }
    Ok(())
}

async fn keep_udp(socket: UdpSocket, seen: &Shared, mut stopped: watch::Receiver<bool>) -> io::Result<()> {
    let (mut sent, mut answered) = (0_u64, BTreeMap::<u64, u64>::new());
    let mut tick = interval(PAUSE);
    let mut answer = [0; 16];
    while !*stopped.borrow() {
        tokio::select! {
            _ = tick.tick() => {
                socket.send(&sent.to_be_bytes()).await?;
                sent += 1;
            }
            count = socket.recv(&mut answer) => note(&mut answered, &answer[..count?])?,
            _ = stopped.changed() => {}
        }
    }
    // The last answers; what comes twice comes after the first.
    let last = Instant::now() + LAST_ANSWERS;
    while (answered.len() as u64) < sent {
        let left = last.saturating_duration_since(Instant::now());
        let Ok(count) = timeout(left, socket.recv(&mut answer)).await else { break };
        note(&mut answered, &answer[..count?])?;
    }
    let mut seen = seen.borrow_mut();
    seen.long_udp += sent;
    seen.lost += sent - answered.len() as u64;
    seen.duplicated += answered.values().map(|count| count - 1).sum::<u64>();
    Ok(())
}

fn note(answered: &mut BTreeMap<u64, u64>, answer: &[u8]) -> io::Result<()> {
    let number = answer.try_into().map_err(|_| io::Error::other("another answer"))?;
    *answered.entry(u64::from_be_bytes(number)).or_default() += 1;
    Ok(())
}

/// The kernel's counters of this network, such as `Tcp RetransSegs`.
fn counters() -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for file in ["/proc/thread-self/net/snmp", "/proc/thread-self/net/netstat"] {
        let text = fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.chunks_exact(2) {
            let Some((group, names)) = pair[0].split_once(": ") else { continue };
            let values = pair[1].split(' ').skip(1);
            for (name, value) in names.split(' ').zip(values) {
                found.insert(format!("{group} {name}"), value.parse().unwrap_or(0));
            }
        }
    }
    found
}

async fn serve(port: u16) -> io::Result<()> {
    // IPv4 comes in by it too.
    let any: SocketAddr = (Ipv6Addr::UNSPECIFIED, port).into();
    let listener = TcpSocket::new_v6()?;
    listener.set_reuseaddr(true)?;
    listener.bind(any)?;
    let listener = listener.listen(4_096)?;
    let socket = UdpSocket::bind(any).await?;
    setsockopt(&socket, sockopt::RcvBufForce, &ROOM_BYTES).map_err(io::Error::from)?;
    println!("serving");
    tokio::task::spawn_local(answer_datagrams(socket));
    answer_connections(listener).await
}

async fn answer_datagrams(socket: UdpSocket) {
    let mut bytes = [0; 2_048];
    loop {
        if let Ok((count, from)) = socket.recv_from(&mut bytes).await {
            // Who asked may be gone.
            let _ = socket.send_to(&bytes[..count], from).await;
        }
    }
}

async fn answer_connections(listener: TcpListener) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::task::spawn_local(async move {
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
    }
}
