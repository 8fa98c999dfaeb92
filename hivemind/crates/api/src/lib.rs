//! The HTTP server of the API: `/v1` with JSON, lists and watches, log streams and exec sessions, and the OpenAPI
//! document that is generated from the handlers.
//!
//! It reads and writes objects in the store and decides what only the server can decide: whether a request is valid,
//! whether it clashes with what is there, which addresses a service gets. It starts no containers and touches no
//! network: controllers and agents act on what it writes, and what only the node knows (logs, processes, images) comes
//! through [`NodeAccess`].
//!
//! Whoever may open the Unix socket may do everything. On the web port, every request says who it comes from, by a token
//! or a browser's session (`access`), and may do what that allows (`caller`); requests that a page of another site made
//! are refused (`web`).
//!
//! Nodes of a cluster speak with one another on a port of their own ([`serve_nodes`]), by certificates. On a node that is no
//! server the objects are a copy of what concerns it, and what only a server can do is refused (`role`).
//!
//! Start with [`Api`] and [`serve_unix`]; the handlers are in `routes/`, one file a noun.
#![forbid(unsafe_code)]

mod access;
mod addresses;
mod api;
mod body;
mod caller;
mod cluster_access;
mod dashboard;
mod deployment;
mod fault;
#[doc(hidden)]
pub mod fuzzing;
mod identities;
mod join;
mod lines;
mod node_access;
mod node_port;
mod openapi;
mod packed;
mod policies;
mod policy_check;
mod policy_matrix;
mod policy_simulation;
mod policy_suggest;
mod record;
mod request;
mod role;
mod routes;
mod serve;
mod statistics;
mod tls;
mod watches;
mod web;

pub use addresses::{ServiceAddresses, ServiceRanges, check_addresses, choose_addresses};
pub use api::{Api, ApiConfig};
pub use cluster_access::{ClusterAccess, Role};
pub use node_access::{
    EXEC_QUEUE, ExecInput, ExecOutput, ExecRequest, ExecStreams, FlowsRequest, LogRequest, NodeAccess,
    TraceFrom, TraceRequest, TraceTo,
};
pub use node_port::serve_nodes;
pub use openapi::document;
pub use serve::{CONNECTIONS_MAX, Web, serve_metrics, serve_unix, serve_web};
pub use statistics::Statistics;
pub use watches::WATCHES_MAX;
