//! Sockets that talk to one another in tests.

use crate::world::PATIENCE;
use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
};

/// Listens with TCP and answers every connection's bytes with `name` and then the bytes, until the process ends.
/// Call it where the server shall stand; it returns once connections are taken.
pub(crate) fn serve_tcp(address: SocketAddr, name: u8) {
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            thread::spawn(move || answer(stream, name));
        }
    });
}

fn answer(mut stream: TcpStream, name: u8) -> io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        let count = stream.read(&mut bytes[1..])?;
        if count == 0 {
            return Ok(());
        }
        bytes[0] = name;
        stream.write_all(&bytes[..=count])?;
    }
}

/// Answers every datagram with `name` and the datagram.
pub(crate) fn serve_udp(address: SocketAddr, name: u8) {
    let socket = UdpSocket::bind(address).unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 9_000];
        while let Ok((count, from)) = socket.recv_from(&mut bytes[1..]) {
            bytes[0] = name;
            let _ = socket.send_to(&bytes[..=count], from);
        }
    });
}

/// Connects, says one byte, and returns the connection and who answered.
pub(crate) fn connect(to: SocketAddr) -> io::Result<(TcpStream, u8)> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = echo(&mut stream)?;
    Ok((stream, name))
}

/// Says one byte and returns who answered.
pub(crate) fn echo(stream: &mut TcpStream) -> io::Result<u8> {
    stream.write_all(b"x")?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer)?;
    assert_eq!(answer[1], b'x');
    Ok(answer[0])
}

/// A datagram socket of the family of `like`.
pub(crate) fn datagrams(like: IpAddr) -> UdpSocket {
    datagrams_from(like, 0)
}

/// The same, with this port.
pub(crate) fn datagrams_from(like: IpAddr, port: u16) -> UdpSocket {
    let any = if like.is_ipv4() { "0.0.0.0" } else { "::" };
    let socket = UdpSocket::bind((any, port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends a datagram and returns who answered, from where.
pub(crate) fn ask(socket: &UdpSocket, to: SocketAddr) -> io::Result<(u8, SocketAddr)> {
    socket.send_to(b"x", to)?;
    let mut answer = [0; 16];
    let (count, from) = socket.recv_from(&mut answer)?;
    assert_eq!(&answer[1..count], b"x");
    Ok((answer[0], from))
}
