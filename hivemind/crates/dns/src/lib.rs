#![forbid(unsafe_code)]
//! The DNS server that replicas and the host ask: it answers names of services from a table that the daemon
//! publishes, and forwards and caches everything else.
//!
//! It does not watch services, does not validate DNSSEC (the bits are passed through), does not recurse from
//! the root, and keeps no access list: whoever reaches the address may ask. Zone transfers, updates and `ANY`
//! are refused.
//!
//! Start at [`DnsServer::start`], which takes a [`Config`] and the first [`Records`]; replace the table with
//! [`DnsServer::publish`]. Inside, hickory-server reads the sockets, decodes, and calls `server::handler` for each
//! request; `question` decides whether it is one that we take, `responder` whether the answer is local, cached or
//! forwarded, and the last goes through `forwarder` (coalescing, cache) and `exchange` (one question to one
//! upstream). `reply` holds what goes back and fits it to the client.
//!
//! # What hickory-server does by itself
//! - It starts a task for each datagram, without a limit, and decodes there. Such a task ends when it first runs,
//!   unless it waits for upstreams, and what waits is counted against
//!   [`WAITING_PER_SOCKET_MAX`](limits::WAITING_PER_SOCKET_MAX); a local name is thus answered however many wait.
//!   Tasks that have not run yet are bounded only by Tokio, which lets the socket's task read some 128
//!   datagrams before it is another's turn.
//! - It accepts every TCP connection. Their number has no limit but that of the process's file descriptors, at
//!   which it tries again without a pause; each is closed after
//!   [`CONNECTION_IDLE`](limits::CONNECTION_IDLE), reads messages of up to 64 KiB and answers one at a time.
//! - It answers packets that it cannot decode, be they queries or responses, with a FORMERR of twelve bytes, and
//!   drops responses that it can, and what is shorter than a header. None of these reach us, and they are in no
//!   counter.
//! - It logs each answer at level info, with the targets `hickory_server` and `hickory_net`. Add
//!   [`LOG_DIRECTIVES`] to the log's filter.
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use hivemind_dns::{Config, DnsServer, Records};
//!
//! let mut records = Records::new();
//! records.insert("web.default.svc.hivemind.internal", ["10.204.0.7".parse()?])?;
//! let config = Config { listen: vec!["127.0.0.1:5353".parse()?], ..Config::default() };
//! let server = DnsServer::start(config, records).await?;
//! assert_eq!(server.statistics().local, 0);
//! server.stop().await;
//! # Ok(())
//! # }
//! ```

mod cache;
mod config;
mod exchange;
mod forwarder;
mod question;
mod records;
mod reply;
mod resolv_conf;
mod responder;
mod server;
mod statistics;

pub mod limits;

pub use config::Config;
pub use records::{NameError, Records};
pub use resolv_conf::{parse_resolv_conf, upstreams_from_resolv_conf};
pub use server::{DnsServer, Protocol, StartError};
pub use statistics::Statistics;

/// Directives for the filter of a log in which the DNS server is to be as quiet as its own lines are: without
/// them hickory-server writes two lines for each query, and a warning for each client that cannot be answered.
pub const LOG_DIRECTIVES: &str = "hickory_server=error,hickory_net=error";
