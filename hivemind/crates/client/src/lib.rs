//! The typed client of the API: what the command line, and any other program on the machine, talks to the daemon with.
//!
//! It speaks HTTP/1.1 over the daemon's Unix socket, one connection a request, and knows nothing of how results are
//! shown. It keeps no state, repeats nothing by itself and has no cache: whoever calls decides what a lost connection
//! means. Start with [`Client`]; [`Watch`], [`LogStream`] and [`ExecOutput`] are what goes on after the first answer.
//! Streams are read only as fast as they are polled: besides the line that is being read nothing is buffered, so a slow
//! reader slows the daemon's side of the connection down instead of filling memory.
#![forbid(unsafe_code)]

mod client;
mod connection;
mod exec;
mod lines;
mod path;
mod watch;

pub use client::{Client, LogOptions, Selection};
pub use exec::{ExecEvent, ExecInput, ExecOutput, ExecRequest};
pub use lines::LogStream;
pub use watch::{Watch, WatchItem};

/// How long connecting to the socket may take.
pub const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// How long a request that is not a stream may take, from its first byte to the last of the answer; of a stream, how
/// long the head of the answer may take.
pub const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
