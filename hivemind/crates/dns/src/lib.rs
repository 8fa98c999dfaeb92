#![forbid(unsafe_code)]
//! The DNS server that replicas and the host ask: it answers names of services from a table that the daemon
//! publishes, and forwards and caches everything else.
//!
//! It does not watch services, does not validate DNSSEC (the bits are passed through), does not recurse from
//! the root, and keeps no access list: whoever reaches the address may ask. Zone transfers, updates and `ANY`
//! are refused.
//!
//! Start at [`DnsServer::start`], which takes a [`Config`] and the first [`Records`]; replace the table with
//! [`DnsServer::publish`]. A server that goes on with the sockets of an earlier one is [`DnsServer::start_on`]. Inside, `server` reads the sockets and bounds what waits there; `responder` decides whether
//! the answer is local, cached or forwarded. What was answered before is kept in wire format (`answer`, `cache`) and found
//! without decoding the query (`wire`); else `question` decodes it, and `reply` holds what goes back and fits it to the
//! client. What is forwarded goes through `forwarder` (coalescing, second tries, cache), `upstreams` (which of them
//! answer) and `exchange` (one question to one upstream).
//!
//! # What is lost in a flood
//! Nothing is queued here before it is answered: a datagram that is not read in time is dropped by the kernel, whose buffer
//! is bounded. Queries that wait for upstreams, questions that are with them and connections are bounded by [`limits`], and
//! a client that has few of them gets in where others have taken all. What is lost is counted ([`Lost`]) and told in the
//! log once a minute at most.
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use hivemind_dns::{Config, DnsServer, Records};
//!
//! let mut records = Records::new();
//! records.insert("web.default.svc.hivemind.internal", ["10.204.0.7".parse()?])?;
//! let config = Config { listen: vec!["127.0.0.1:5353".parse()?], ..Config::default() };
//! let server = DnsServer::start(config, records).await?;
//! assert_eq!(server.statistics().outcomes.local, 0);
//! server.stop().await;
//! # Ok(())
//! # }
//! ```

mod answer;
mod cache;
mod config;
mod exchange;
mod forwarder;
#[doc(hidden)]
pub mod fuzzing;
mod losses;
mod observer;
mod question;
mod records;
mod reply;
mod resolv_conf;
mod responder;
mod server;
mod statistics;
mod upstreams;
mod wire;

pub mod limits;

pub use config::Config;
pub use observer::{NAMES_MAX, Observer, Seen};
pub use records::{NameError, Records};
pub use resolv_conf::{parse_resolv_conf, upstreams_from_resolv_conf};
pub use server::{DnsServer, Protocol, Sockets, StartError};
pub use statistics::{Caches, Fill, Latency, Lost, Outcomes, Queries, Statistics, UpstreamStatistics};
