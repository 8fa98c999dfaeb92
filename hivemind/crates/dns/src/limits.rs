//! Every bound of this crate: how long, how large, how many.
//!
//! Two numbers have none, since hickory-server gives no way to limit them: the TCP connections that are open
//! (each for [`CONNECTION_IDLE`] at most after its last query), and the datagrams that were read while no thread
//! was free to answer them, which take some 4 KB each.

use std::time::Duration;

/// Time to live of a local answer, also of a local negative one. Short, since a service's addresses change
/// with it, and asking again costs one round trip on the same host.
pub const LOCAL_TTL: Duration = Duration::from_secs(5);

/// The longest that a forwarded answer is cached, and the largest TTL that is handed on.
pub const CACHED_TTL_MAX: Duration = Duration::from_secs(3600);

/// The largest forwarded answer that is cached. With [`Config::cache_entries`](crate::Config::cache_entries)
/// it bounds the cache's memory; larger answers are passed on and forgotten.
pub const CACHED_ANSWER_BYTES_MAX: usize = 4096;

/// The largest query that is taken; a longer one is malformed. Questions need at most 300 bytes, the rest is room
/// for EDNS options. Over UDP no more is read; over TCP a longer one is read, and refused.
pub const QUERY_BYTES_MAX: usize = 4096;

/// The largest UDP payload we send or ask for, whatever a client allows: it passes every link unfragmented
/// (DNS flag day 2020). Longer answers are cut to the records that fit, and the client asks again over TCP.
pub const UDP_PAYLOAD_BYTES_MAX: u16 = 1232;

/// How many addresses of a name one answer carries: the first ones. All of them still fit a TCP message.
pub const ADDRESSES_PER_ANSWER_MAX: usize = 1000;

/// How many different questions are with upstreams at a time, each with a socket of its own. A question above
/// that gets SERVFAIL.
pub const EXCHANGES_MAX: usize = 512;

/// How many queries a socket keeps waiting for upstreams, identical ones included; those of all connections count
/// together. A query above that gets SERVFAIL at once; what is local or cached is answered all the same.
pub const WAITING_PER_SOCKET_MAX: usize = 2048;

/// How many upstreams are used: the first ones. The resolver of the C library has the same limit.
pub const UPSTREAMS_MAX: usize = 3;

/// How many times a question is put to upstreams in all; a single upstream is asked twice, since a datagram
/// may be lost.
pub const ATTEMPTS_MAX: usize = 3;

/// How long a TCP connection may take from one query to the end of the next, its last answer included; it is
/// closed after that.
pub const CONNECTION_IDLE: Duration = Duration::from_secs(10);
