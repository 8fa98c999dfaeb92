//! Every bound of this crate: how long, how large, how many.

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

/// How many servers of a service one answer carries: the first ones. With the longest names they still fit a TCP message.
pub const SERVERS_PER_ANSWER_MAX: usize = 250;

/// How many aliases of ours are followed one after the other; a name with more gets SERVFAIL. What an upstream follows is its
/// matter.
pub const ALIASES_MAX: usize = 8;

/// How many local answers are kept in wire format until the names change, and how long each may be, bytes.
pub const LOCAL_ANSWERS_MAX: usize = 512;
/// See [`LOCAL_ANSWERS_MAX`]; longer ones are made anew for each query.
pub const LOCAL_ANSWER_BYTES_MAX: usize = 512;

/// How many different questions are with upstreams at a time. A question above that gets SERVFAIL.
pub const EXCHANGES_MAX: usize = 512;

/// How many sockets to upstreams are open at a time. A second try needs one of its own; where there is none, it waits
/// until the first has failed.
pub const EXCHANGE_SOCKETS_MAX: usize = 640;

/// How many queries a socket keeps waiting for upstreams, identical ones included; those of all connections count
/// together. A query above that gets SERVFAIL at once; what is local or cached is answered all the same.
pub const WAITING_PER_SOCKET_MAX: usize = 2048;

/// A client, by its address, that has fewer queries than this waiting still gets in where others have taken all room
/// ([`WAITING_PER_SOCKET_MAX`], [`EXCHANGES_MAX`]), as long as [`WAITING_RESERVE`] lasts.
pub const WAITING_PER_MODEST_CLIENT_MAX: usize = 4;

/// How many further queries, and questions, are taken of modest clients.
pub const WAITING_RESERVE: usize = 64;

/// How many upstreams are used: the first ones. The resolver of the C library has the same limit.
pub const UPSTREAMS_MAX: usize = 3;

/// How many times a question is put to upstreams in all; a single upstream is asked twice if it is silent, since a
/// datagram may be lost.
pub const ATTEMPTS_MAX: usize = 3;

/// How long a failure is remembered, so that a name that cannot be resolved is not asked for again and again (RFC 9520).
pub const FAILURE_LIFETIME: Duration = Duration::from_secs(5);

/// How many failures are remembered.
pub const FAILURES_MAX: usize = 512;

/// How long an upstream that does not understand EDNS is asked without it.
pub const PLAIN_LIFETIME: Duration = Duration::from_secs(600);

/// How often an upstream that does not answer is asked whether it does again: at first, and at most. While there is no
/// other, at the first rate.
pub const PROBE_PAUSE_MIN: Duration = Duration::from_secs(1);
/// See [`PROBE_PAUSE_MIN`].
pub const PROBE_PAUSE_MAX: Duration = Duration::from_secs(8);

/// How long such an upstream may take to answer.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// How many TCP connections are open, of all clients to all addresses. For one more, the longest idle one of the client
/// with the most is closed; if none is idle, the new one.
pub const CONNECTIONS_MAX: usize = 256;

/// How many TCP connections one client has, by its address. For one more, its longest idle one is closed; if none is
/// idle, the new one.
pub const CONNECTIONS_PER_CLIENT_MAX: usize = 64;

/// How long a TCP connection may take from one query to the end of the next, its last answer included; it is
/// closed after that.
pub const CONNECTION_IDLE: Duration = Duration::from_secs(10);

/// How long a TCP connection may last; it is closed with the first answer after that.
pub const CONNECTION_LIFETIME: Duration = Duration::from_secs(120);

/// How many datagrams are read and answered in one turn.
pub const DATAGRAMS_PER_TURN_MAX: usize = 16;

/// How often the log tells of what was lost in floods.
pub const LOSS_LOG_PAUSE: Duration = Duration::from_secs(60);

/// How long an answer waits for who is to observe it, at the start.
pub const OBSERVER_PATIENCE: Duration = Duration::from_secs(5);
