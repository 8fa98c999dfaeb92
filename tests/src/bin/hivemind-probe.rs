//! Opens a connection, or sends or answers datagrams, and prints what came of it as one JSON object.
//!
//! `hivemind-probe dial ADDRESS:PORT`, `hivemind-probe ask ADDRESS:PORT SOCKETS connected|unconnected`,
//! `hivemind-probe answer PORT NAME` (prints a dot when it is bound, and runs until it is killed).
#![forbid(unsafe_code)]

use std::{
    io::{self, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    process::ExitCode,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["dial", address] => address.parse().ok().map(dial),
        ["ask", address, sockets, kind] => match (address.parse(), sockets.parse()) {
            (Ok(address), Ok(sockets)) => Some(ask(address, sockets, *kind == "connected")),
            _ => None,
        },
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
                "usage: hivemind-probe dial ADDRESS:PORT | ask ADDRESS:PORT SOCKETS KIND | answer PORT NAME"
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
    for _ in 0..sockets {
        match ask_once(address, connected) {
            Ok((answer, from)) => {
                answers.push(answer);
                froms.push(from.to_string());
            }
            Err(error) => errors.push(format!("{:?}", error.kind())),
        }
    }
    json!({ "answers": answers, "froms": froms, "errors": errors })
}

fn ask_once(address: SocketAddr, connected: bool) -> io::Result<(String, SocketAddr)> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(LIMIT))?;
    if connected {
        socket.connect(address)?;
        socket.send(b"who?")?;
    } else {
        socket.send_to(b"who?", address)?;
    }
    let mut answer = [0; 512];
    let (length, from) = socket.recv_from(&mut answer)?;
    Ok((String::from_utf8_lossy(&answer[..length]).into_owned(), from))
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
