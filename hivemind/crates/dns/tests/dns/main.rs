//! The server as its clients meet it: over real sockets on the loopback interface, with upstreams of the
//! tests' own.

#![allow(clippy::unwrap_used, reason = "everything here is test code, also what has no test attribute")]

mod adoption;
mod aliases;
mod client;
mod forwarding;
mod limits;
mod local_names;
mod observing;
mod real_resolver;
mod robustness;
mod services;
mod upstream;
