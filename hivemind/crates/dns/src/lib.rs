#![forbid(unsafe_code)]
//! The DNS server that replicas and the host ask: it answers names of services from a table that the daemon
//! publishes, and forwards and caches everything else.
//!
//! It does not watch services, does not validate DNSSEC (the bits are passed through), does not recurse from
//! the root, and keeps no access list: whoever reaches the address may ask. Zone transfers, updates and `ANY`
//! are refused.
//!
//! Start at [`DnsServer::start`], which takes a [`Config`] and the first [`Records`]; replace the table with
//! [`DnsServer::publish`]. Inside, a packet goes through `request` (is it a question we take?), `responder`
//! (local, cached or forwarded?), and for the last through `forwarder` (coalescing, cache) and `exchange` (one
//! question to one upstream). `reply` writes what goes back.
//!
//! Sockets are our own rather than those of hickory-server, which starts a task for each datagram and accepts
//! each connection: here the common answers are given on the socket's own task, and everything that waits is
//! counted against a limit (see [`limits`]). The wire format is hickory-proto's.
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
mod records;
mod reply;
mod request;
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
