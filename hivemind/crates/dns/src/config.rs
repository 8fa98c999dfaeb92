//! What a server needs to know before it starts.

use std::net::SocketAddr;
use std::time::Duration;

/// How a [`DnsServer`](crate::DnsServer) is to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to answer, over UDP and TCP each. Name addresses of this host: from a wildcard address, answers
    /// may leave with another source than the one that was asked. Port 0 takes a free port, the same for both.
    pub listen: Vec<SocketAddr>,
    /// The cluster domain. A name in or below it is never forwarded.
    pub domain: String,
    /// Servers for all other names, in the order in which they are tried; the first
    /// [`UPSTREAMS_MAX`](crate::limits::UPSTREAMS_MAX) that are not ourselves are used. With none, other names
    /// get SERVFAIL at once.
    pub upstreams: Vec<SocketAddr>,
    /// How many forwarded answers are kept, 0 for none; each takes some 400 bytes, at most
    /// [`CACHED_ANSWER_BYTES_MAX`](crate::limits::CACHED_ANSWER_BYTES_MAX) and its name.
    pub cache_entries: usize,
    /// How long to wait for one answer of one upstream, over UDP and again over TCP.
    pub upstream_timeout: Duration,
    /// After which time without an answer the next upstream is asked too, or a single one again; the first answer counts.
    pub second_try_after: Duration,
    /// Whether names outside are answered only once there is an observer
    /// ([`DnsServer::observe_by`](crate::DnsServer::observe_by)), for
    /// [`OBSERVER_PATIENCE`](crate::limits::OBSERVER_PATIENCE) at most, and then that they failed.
    pub is_observed: bool,
}

impl Default for Config {
    /// The domain `hivemind.internal`, 2,048 cache entries, 2 seconds for an upstream and a second try after 0.3;
    /// no address to listen on and no upstreams.
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            domain: "hivemind.internal".to_owned(),
            upstreams: Vec::new(),
            cache_entries: 2048,
            upstream_timeout: Duration::from_secs(2),
            second_try_after: Duration::from_millis(300),
            is_observed: false,
        }
    }
}
