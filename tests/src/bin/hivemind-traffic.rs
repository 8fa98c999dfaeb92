//! `hivemind-traffic ADDRESS:PORT LONG`: keeps LONG connections open and asks for a page on each again and again, and opens a
//! stream of new connections besides. When its standard input ends, it stops and prints what it saw as one JSON object.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The pause between two requests on a long connection.
const LONG_PAUSE: Duration = Duration::from_millis(60);

/// After so many requests a long connection is replaced by another: servers close one after a thousand.
const LONG_REQUESTS_MAX: u64 = 950;

/// The pause between two new connections.
const NEW_PAUSE: Duration = Duration::from_millis(5);

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// However long it runs, it ends after this.
const RUN_MAX: Duration = Duration::from_secs(900);

#[derive(Default)]
struct Seen {
    long_requests: AtomicU64,
    new_connections: AtomicU64,
    longest_wait_us: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Seen {
    fn fail(&self, what: &str, error: &dyn std::fmt::Display) {
        let mut failures = self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if failures.len() < 20 {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            // The time within the minute, to be compared with logs.
            failures.push(format!("{what} at {}.{:03} s: {error}", now.as_secs() % 60, now.subsec_millis()));
        }
    }

    fn waited(&self, since: Instant) {
        let waited = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.longest_wait_us.fetch_max(waited, Ordering::Relaxed);
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, long] = words.as_slice() else { return usage() };
    let (Ok(address), Ok(long)) = (address.parse::<SocketAddr>(), long.parse::<usize>()) else {
        return usage();
    };
    let seen = Arc::new(Seen::default());
    let stop = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for _ in 0..long {
        let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
        threads.push(thread::spawn(move || keep_asking(address, &seen, &stop)));
    }
    let (new_seen, new_stop) = (Arc::clone(&seen), Arc::clone(&stop));
    threads.push(thread::spawn(move || keep_connecting(address, &new_seen, &new_stop)));
    println!("running");
    let limit = Arc::clone(&stop);
    thread::spawn(move || {
        thread::sleep(RUN_MAX);
        limit.store(true, Ordering::Relaxed);
    });
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        let _ = thread.join();
    }
    let failures = seen.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    println!(
        "{}",
        serde_json::json!({
            "longRequests": seen.long_requests.load(Ordering::Relaxed),
            "newConnections": seen.new_connections.load(Ordering::Relaxed),
            "longestWaitMs": seen.longest_wait_us.load(Ordering::Relaxed) / 1000,
            "failures": *failures,
        })
    );
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: hivemind-traffic ADDRESS:PORT LONG");
    ExitCode::from(2)
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One request on an open connection, its answer read to its end.
fn ask(stream: &mut TcpStream) -> std::io::Result<()> {
    let wrong = |what: &str| std::io::Error::other(what.to_owned());
    stream.write_all(b"GET /hostname HTTP/1.1\r\nHost: traffic\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned));
            let length: usize =
                length.and_then(|l| l.trim().parse().ok()).ok_or_else(|| wrong("no content-length"))?;
            if body.len() >= length {
                return if head.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(wrong(head)) };
            }
        }
        match stream.read(&mut piece)? {
            0 => return Err(wrong("the connection was closed")),
            n => answer.extend_from_slice(&piece[..n]),
        }
    }
}

fn keep_asking(address: SocketAddr, seen: &Seen, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Err(error) = ask_at_length(address, seen, stop) {
            return seen.fail("long connection", &error);
        }
    }
}

/// One long connection, to its end.
fn ask_at_length(address: SocketAddr, seen: &Seen, stop: &AtomicBool) -> std::io::Result<()> {
    let mut stream = connect(address)?;
    for _ in 0..LONG_REQUESTS_MAX {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let began = Instant::now();
        ask(&mut stream)?;
        seen.waited(began);
        seen.long_requests.fetch_add(1, Ordering::Relaxed);
        thread::sleep(LONG_PAUSE);
    }
    Ok(())
}

fn keep_connecting(address: SocketAddr, seen: &Seen, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        if let Err(error) = connect(address).and_then(|mut stream| ask(&mut stream)) {
            seen.fail("new connection", &error);
        }
        seen.waited(began);
        seen.new_connections.fetch_add(1, Ordering::Relaxed);
        thread::sleep(NEW_PAUSE);
    }
}
