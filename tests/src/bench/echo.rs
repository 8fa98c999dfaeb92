//! The two ends of the benches of the network: a server that sends back what it gets, and clients that count how often.
//!
//! They are programs of their own (`hivemind-bench echo` and `hivemind-bench ping`), so that each can be put into a
//! network namespace and onto one processor.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::time::{ClockId, clock_gettime};

/// What a client can count.
const KINDS: &str = "tcp|udp|crr|open|stream|paced";

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// However long it is asked to, a client ends after this.
const RUN_MAX: Duration = Duration::from_secs(60);

/// How much of a stream is written or read at a time.
const PIECE_BYTES: usize = 128 << 10;

/// How many clients share the work of opening connections at a given rate.
const OPENERS: u32 = 4;

/// Serves TCP and UDP at the address in the only argument until it is killed.
///
/// # Errors
/// When the argument is no address, or the address cannot be taken.
pub fn echo(arguments: &[String]) -> Result<()> {
    let [address] = arguments else { bail!("usage: hivemind-bench echo ADDRESS:PORT") };
    let address: SocketAddr = address.parse().context("the address cannot be read")?;
    let udp = UdpSocket::bind(address)?;
    let tcp = TcpListener::bind(address)?;
    let sink = TcpListener::bind(sink_of(address))?;
    thread::spawn(move || {
        let mut datagram = [0; 64];
        while let Ok((bytes, from)) = udp.recv_from(&mut datagram) {
            let _ = udp.send_to(&datagram[..bytes], from);
        }
    });
    thread::spawn(move || {
        for stream in sink.incoming().flatten() {
            thread::spawn(move || swallow(stream));
        }
    });
    println!("ready");
    for stream in tcp.incoming() {
        // One connection after the other, so that no start of a thread is measured. A client may reset its connection.
        let _ = send_back(stream?);
    }
    Ok(())
}

fn send_back(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

/// Where the server takes streams: beside where it answers.
fn sink_of(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port() + 1)
}

/// Reads a stream to its end and answers how many bytes there were, and how many nanoseconds of processor time it took.
fn swallow(mut stream: TcpStream) -> Result<()> {
    let before = processor_time()?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes: u64 = 0;
    loop {
        match stream.read(&mut piece)? {
            0 => break,
            more => bytes += more as u64,
        }
    }
    let spent_ns = u64::try_from((processor_time()? - before).as_nanos())?;
    stream.write_all(&[bytes.to_be_bytes(), spent_ns.to_be_bytes()].concat())?;
    Ok(())
}

/// What the kernel has booked of processors' time on this thread. Packets that it sends through interfaces without hardware
/// are carried to the other end's socket in its time, unless the kernel books interrupts apart
/// (CONFIG_IRQ_TIME_ACCOUNTING).
fn processor_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// `ping tcp|udp|crr|open|stream|paced ADDRESS:PORT MILLISECONDS [RATE]`: prints how many there were of something, and in how
/// many microseconds.
///
/// With `tcp` and `udp`, answers to requests on one connection, one after the other; with `crr`, each on a connection of its
/// own; with `open` several such at a time, RATE a second. With `stream`, the bytes that arrived of one stream; with `paced`
/// as well, of RATE Mbit/s, and the microseconds are those of processor time that both ends took. There is at least one of
/// each, however late it is.
///
/// # Errors
/// When the arguments cannot be read, when an answer does not come.
pub fn ping(arguments: &[String]) -> Result<()> {
    let (kind, address, millis, rate) = match arguments {
        [kind, address, millis] => (kind, address, millis, u32::MAX),
        [kind, address, millis, rate] => (kind, address, millis, rate.parse()?),
        _ => bail!("usage: hivemind-bench ping {KINDS} ADDRESS:PORT MILLISECONDS [RATE]"),
    };
    let address: SocketAddr = address.parse().context("the address cannot be read")?;
    let time = Duration::from_millis(millis.parse()?).min(RUN_MAX);
    let began = Instant::now();
    let counted = match kind.as_str() {
        "tcp" => ping_tcp(address, began, time)?,
        "udp" => ping_udp(address, began, time)?,
        "crr" => open_one_after_the_other(address, began, time, u32::MAX)?,
        "open" => open_all(address, began, time, rate)?,
        "stream" => stream(address, began, time, u32::MAX)?.bytes,
        "paced" => {
            let Streamed { bytes, spent } = stream(address, began, time, rate)?;
            println!("{bytes} {}", spent.as_micros());
            return Ok(());
        }
        other => bail!("{other} is none of {KINDS}"),
    };
    println!("{counted} {}", began.elapsed().as_micros());
    Ok(())
}

fn ping_tcp(address: SocketAddr, began: Instant, time: Duration) -> Result<u64> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let mut byte = [0];
    let mut answers = 0;
    loop {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte).context("no answer")?;
        answers += 1;
        if began.elapsed() >= time {
            return Ok(answers);
        }
    }
}

fn ping_udp(address: SocketAddr, began: Instant, time: Duration) -> Result<u64> {
    let any: SocketAddr = if address.is_ipv4() { "0.0.0.0:0".parse()? } else { "[::]:0".parse()? };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    let mut byte = [0];
    let mut answers = 0;
    loop {
        socket.send(&byte)?;
        socket.recv(&mut byte).context("no answer")?;
        answers += 1;
        if began.elapsed() >= time {
            return Ok(answers);
        }
    }
}

/// A stream that has arrived whole.
struct Streamed {
    bytes: u64,
    /// Processor time that both ends took.
    spent: Duration,
}

/// Returns once the server has told how many bytes arrived, which has to be all of them. Sends so many Mbit/s at most.
fn stream(address: SocketAddr, began: Instant, time: Duration, mbit_per_s: u32) -> Result<Streamed> {
    let mut stream = TcpStream::connect_timeout(&sink_of(address), ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let before = processor_time()?;
    let piece = vec![0; PIECE_BYTES];
    let mut sent: u64 = 0;
    loop {
        wait_until(began, Duration::from_nanos(sent * 8_000 / u64::from(mbit_per_s)));
        sent += stream.write(&piece)? as u64;
        if began.elapsed() >= time {
            break;
        }
    }
    let spent = processor_time()? - before;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = [[0; 8]; 2];
    stream.read_exact(answer.as_flattened_mut()).context("no answer")?;
    let [arrived, spent_ns] = answer.map(u64::from_be_bytes);
    ensure!(arrived == sent, "{arrived} of {sent} bytes arrived");
    Ok(Streamed { bytes: arrived, spent: spent + Duration::from_nanos(spent_ns) })
}

fn wait_until(began: Instant, due: Duration) {
    if let Some(early) = due.checked_sub(began.elapsed()) {
        thread::sleep(early);
    }
}

fn open_all(address: SocketAddr, began: Instant, time: Duration, per_s: u32) -> Result<u64> {
    let opener = move || open_one_after_the_other(address, began, time, (per_s / OPENERS).max(1));
    let openers: Vec<_> = (0..OPENERS).map(|_| thread::spawn(opener)).collect();
    openers.into_iter().try_fold(0, |answers, opener| {
        let more = opener.join().map_err(|_| anyhow::anyhow!("an opener failed"))??;
        Ok(answers + more)
    })
}

/// By as few system calls as it can be done with limits: where a connection lasts for one request they count.
fn connect(address: SocketAddr) -> Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let limit = TimeVal::seconds(ANSWER_LIMIT.as_secs().try_into()?);
    // Of connecting, too.
    setsockopt(&socket, sockopt::SendTimeout, &limit)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
    socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(address)).context("cannot connect")?;
    Ok(socket.into())
}

/// Opens a connection at each tick of the rate; those that it is late for, it makes up for.
fn open_one_after_the_other(address: SocketAddr, began: Instant, time: Duration, per_s: u32) -> Result<u64> {
    let mut answers: u64 = 0;
    loop {
        wait_until(began, Duration::from_nanos(answers * 1_000_000_000 / u64::from(per_s)));
        let mut stream = connect(address)?;
        // Reset at the end: ports that wait for a minute would run out.
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&stream, sockopt::Linger, &linger)?;
        let mut byte = [0];
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte).context("no answer")?;
        answers += 1;
        if began.elapsed() >= time {
            return Ok(answers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_client_gets_answers_from_the_server() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        thread::spawn(move || echo(&[free.to_string()]));
        crate::eventually(ANSWER_LIMIT, "the server", || TcpStream::connect(free)).unwrap();
        let time = Duration::from_millis(50);
        assert!(ping_tcp(free, Instant::now(), time).unwrap() > 1);
        assert!(ping_udp(free, Instant::now(), time).unwrap() > 1);
        assert!(open_one_after_the_other(free, Instant::now(), time, u32::MAX).unwrap() > 1);
        assert!(stream(free, Instant::now(), time, u32::MAX).unwrap().bytes > 1);
        let paced = stream(free, Instant::now(), time, 200).unwrap();
        // What was begun in time is sent, and one piece more.
        let most = 1_250_000 + 2 * PIECE_BYTES as u64;
        assert!((1..=most).contains(&paced.bytes), "{} bytes in 50 ms at 200 Mbit/s", paced.bytes);
        assert!(paced.spent > Duration::ZERO && paced.spent < ANSWER_LIMIT, "{:?}", paced.spent);
        let opened = open_all(free, Instant::now(), time, 400).unwrap();
        assert!((4..=40).contains(&opened), "{opened} connections in 50 ms at 400 a second");
    }
}
