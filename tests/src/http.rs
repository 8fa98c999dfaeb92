//! Just enough HTTP/1.1 to ask a server for a page and see what came back (RFC 9112).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The most that is read of a response, in bytes.
const RESPONSE_BYTES_MAX: u64 = 16 << 20;

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body as text; bytes that are no UTF-8 are replaced.
    pub body: String,
}

/// Gets a page over a new TCP connection. Blocks for at most about three times `limit`.
///
/// # Errors
/// When the connection fails or is reset, when the server is silent for `limit`, when the answer is no HTTP.
pub fn get(address: SocketAddr, path: &str, limit: Duration) -> Result<Response> {
    exchange(
        connect(address, limit)?,
        &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"),
    )
}

/// As [`get`], of the media type that is preferred most of those that `accept` names.
///
/// # Errors
/// As [`get`].
pub fn get_accepting(address: SocketAddr, path: &str, accept: &str, limit: Duration) -> Result<Response> {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    exchange(connect(address, limit)?, &request)
}

fn connect(address: SocketAddr, limit: Duration) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, limit)
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

/// Gets a page over a Unix socket. Blocks for at most about twice `limit`.
///
/// # Errors
/// As [`get`].
pub fn get_unix(socket: &Path, path: &str, limit: Duration) -> Result<Response> {
    let stream = connect_unix(socket, limit)?;
    exchange(stream, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

fn connect_unix(socket: &Path, limit: Duration) -> Result<UnixStream> {
    let stream =
        UnixStream::connect(socket).with_context(|| format!("cannot connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

fn exchange(mut stream: impl Read + Write, request: &str) -> Result<Response> {
    stream.write_all(request.as_bytes()).context("cannot ask")?;
    let mut answer = Vec::new();
    stream.take(RESPONSE_BYTES_MAX).read_to_end(&mut answer).context("the answer did not come whole")?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> Result<Response> {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        bail!("the server closed the connection after {} bytes", answer.len());
    };
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let status = status.context("the answer is no HTTP")?;
    let header = |name: &str| {
        head.lines().filter_map(|line| line.split_once(':')).find_map(|(key, value)| {
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
        })
    };
    if header("transfer-encoding").is_some_and(|encoding| encoding.contains("chunked")) {
        return Ok(Response { status, body: unchunked(body)? });
    }
    if let Some(length) = header("content-length").and_then(|length| length.parse::<usize>().ok())
        && answer.len() - (head.len() + 4) < length
    {
        bail!("the connection ended within the answer");
    }
    Ok(Response { status, body: body.to_owned() })
}

fn unchunked(mut body: &str) -> Result<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").context("a chunk without a size")?;
        let size = usize::from_str_radix(size.trim(), 16).context("a chunk's size is no number")?;
        if size == 0 {
            return Ok(whole);
        }
        whole.push_str(rest.get(..size).context("the connection ended within a chunk")?);
        body = rest.get(size + 2..).context("the connection ended after a chunk")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_and_a_chunked_answer_read_the_same() {
        let plain = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
        let chunked =
            parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
                .unwrap();
        assert_eq!(plain, Response { status: 200, body: "hello".to_owned() });
        assert_eq!(plain, chunked);
    }

    #[test]
    fn an_answer_that_was_cut_off_is_an_error() {
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\nConte").is_err());
        assert!(parse(b"").is_err());
    }
}
