//! The typed client of the API: what the command line, and any other program, talks to a daemon with.
//!
//! It speaks HTTP/1.1 over the daemon's Unix socket or, with a token, over TLS to its web port, one connection a request,
//! and knows nothing of how results are shown. It keeps no state, repeats nothing by itself and has no cache: whoever
//! calls decides what a lost connection means. Start with [`Client`]; [`Watch`], [`LogStream`], [`FlowStream`] and
//! [`ExecOutput`] are what goes on after the first answer. [`Remote`] says how to reach a daemon elsewhere, and
//! [`Contexts`] keeps several of them under names;
//! [`NodeLink`] is for nodes of a cluster that speak with one another. Streams are read only as fast as they are polled: besides the line
//! that is being read nothing is buffered, so a slow reader slows the daemon's side of the connection down instead of
//! filling memory.
#![forbid(unsafe_code)]

mod access;
mod client;
mod cluster;
mod connection;
mod contexts;
mod exec;
mod fingerprint;
mod lines;
mod network;
mod node;
mod path;
mod remote;
mod trust;
mod watch;
mod way;

pub use client::{Client, LogOptions, Selection};
pub use contexts::{Context, Contexts};
pub use exec::{ExecEvent, ExecInput, ExecOutput, ExecRequest};
pub use fingerprint::Fingerprint;
pub use lines::{JsonLines, LogStream};
pub use network::{
    FlowOptions, FlowStream, PolicyCheckOptions, PolicyMatrixOptions, PolicySuggestOptions, TraceOptions,
};
pub use node::{FEED_SILENT_MAX, NodeLink, pinned};
pub use remote::{Remote, Trust};
pub use watch::{Watch, WatchItem};

/// How long connecting to a daemon may take, TLS included.
pub const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// How long a request that is not a stream may take, from its first byte to the last of the answer; of a stream, how
/// long the head of the answer may take.
pub const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
