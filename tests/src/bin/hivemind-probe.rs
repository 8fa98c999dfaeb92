//! Opens a connection, or sends or answers datagrams, and prints what came of it as one JSON object.
//!
//! `hivemind-probe dial ADDRESS:PORT`, `hivemind-probe ask ADDRESS:PORT SOCKETS connected|unconnected`,
//! `hivemind-probe move ADDRESS:PORT` (asks over a connected UDP socket, one after another, until somebody else answers; says
//! first who answers now), `hivemind-probe hold ADDRESS:PORT` (talks to an echo over one TCP connection until that ends; says
//! first that it stands), `hivemind-probe answer PORT NAME` (prints a dot when it is bound, and runs until it is killed).
#![forbid(unsafe_code)]

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    process::ExitCode,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(3);

/// How long it is waited for somebody else to answer.
const MOVE_LIMIT: Duration = Duration::from_secs(20);

/// After so many errors it is given up.
const ERRORS_MAX: usize = 20;

/// So many sockets stay open while further ones ask.
const KEPT_MAX: usize = 256;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["dial", address] => address.parse().ok().map(dial),
        ["ask", address, sockets, kind] => match (address.parse(), sockets.parse()) {
            (Ok(address), Ok(sockets)) => Some(ask(address, sockets, *kind == "connected")),
            _ => None,
        },
        ["move", address] => address.parse().ok().map(follow),
        ["hold", address] => address.parse().ok().map(hold),
        ["answer", port, name] => port.parse().ok().map(|port| match answer(port, name) {
            Ok(()) => Value::Null,
            Err(error) => json!({ "error": error.to_string() }),
        }),
        _ => None,
    };
    match done {
        Some(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        None => {
            eprintln!(
                "usage: hivemind-probe dial ADDRESS:PORT | ask ADDRESS:PORT SOCKETS KIND | move ADDRESS:PORT \
                 | hold ADDRESS:PORT | answer PORT NAME"
            );
            ExitCode::from(2)
        }
    }
}

fn dial(address: SocketAddr) -> Value {
    let began = Instant::now();
    let connected = TcpStream::connect_timeout(&address, LIMIT).and_then(|stream| stream.peer_addr());
    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    match connected {
        Ok(peer) => json!({ "peer": peer.to_string(), "ms": ms }),
        Err(error) => json!({ "error": format!("{:?}", error.kind()), "ms": ms }),
    }
}

fn ask(address: SocketAddr, sockets: usize, connected: bool) -> Value {
    let (mut answers, mut froms, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    // A port that is given out again would be the same connection.
    let mut kept = VecDeque::new();
    for _ in 0..sockets {
        match ask_once(address, connected) {
            Ok((answer, from, socket)) => {
                answers.push(answer);
                froms.push(from.to_string());
                kept.push_back(socket);
                if kept.len() > KEPT_MAX {
                    kept.pop_front();
                }
            }
            Err(error) => errors.push(format!("{:?}", error.kind())),
        }
    }
    json!({ "answers": answers, "froms": froms, "errors": errors })
}

/// A socket for datagrams to `address`.
fn datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(socket)
}

/// Asks over one connected socket, and over another after an error, until somebody else answers than at first: who, after how
/// many errors, and the longest that passed between two answers.
fn follow(address: SocketAddr) -> Value {
    let open = || {
        let socket = datagrams(address)?;
        socket.connect(address)?;
        Ok::<_, io::Error>(socket)
    };
    let request = |socket: &UdpSocket| {
        socket.send(b"who?")?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer)?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    let (mut socket, mut first, mut errors) = (open(), None, Vec::new());
    let began = Instant::now();
    let (mut answered, mut longest) = (Instant::now(), Duration::ZERO);
    loop {
        let answer = match &socket {
            Ok(socket) => request(socket),
            Err(error) => Err(io::Error::from(error.kind())),
        };
        match (answer, &first) {
            (Err(error), _) => {
                errors.push(error.to_string());
                if errors.len() > ERRORS_MAX {
                    return json!({ "answer": null, "errors": errors });
                }
                socket = open();
            }
            (Ok(name), None) => {
                println!("{}", json!({ "answer": name }));
                (first, answered) = (Some(name), Instant::now());
            }
            (Ok(name), Some(known)) => {
                longest = longest.max(answered.elapsed());
                answered = Instant::now();
                if name != *known || began.elapsed() > MOVE_LIMIT {
                    let ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
                    return json!({ "answer": name, "errors": errors, "ms": ms });
                }
            }
        }
    }
}

/// Talks to an echo over one connection until it ends: how, and after how long.
fn hold(address: SocketAddr) -> Value {
    let began = Instant::now();
    let talk = || -> io::Result<Infallible> {
        let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut stands = false;
        loop {
            stream.write_all(b"x")?;
            stream.read_exact(&mut [0])?;
            if !stands {
                println!("{}", json!({ "peer": stream.peer_addr()?.to_string() }));
                stands = true;
            }
            // A word now and then is enough.
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let Err(error) = talk();
    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    json!({ "error": format!("{:?}", error.kind()), "ms": ms })
}

fn ask_once(address: SocketAddr, connected: bool) -> io::Result<(String, SocketAddr, UdpSocket)> {
    let socket = datagrams(address)?;
    if connected {
        socket.connect(address)?;
        socket.send(b"who?")?;
    } else {
        socket.send_to(b"who?", address)?;
    }
    let mut answer = [0; 512];
    let (length, from) = socket.recv_from(&mut answer)?;
    Ok((String::from_utf8_lossy(&answer[..length]).into_owned(), from, socket))
}

fn answer(port: u16, name: &str) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
    let mut output = io::stdout();
    output.write_all(b".")?;
    output.flush()?;
    let mut question = [0; 512];
    loop {
        let (_, from) = socket.recv_from(&mut question)?;
        socket.send_to(name.as_bytes(), from)?;
    }
}
