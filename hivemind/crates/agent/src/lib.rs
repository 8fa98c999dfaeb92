//! One node: the replicas that are bound to it in, a running node out.
//!
//! [`Agent::start`] watches the store for what is meant for this node. Each replica has a worker that asks
//! [`lifecycle::next_step`], a pure function of what is wanted and what is seen, and carries that one step out: pull the
//! image, make the network, run the container, or take all of it down. Services are written to the data path and their
//! names to the DNS server by [`services`], policies by [`policies`]. An agent that starts adopts whatever runs already: it looks first, and touches
//! only what differs. What it does not do: choose nodes, count replicas, decide who is in a service (the controller does).
#![forbid(unsafe_code)]

mod addresses;
mod agent;
mod check;
mod ends;
mod fault;
mod files;
mod flows;
pub mod lifecycle;
mod node;
mod operate;
mod policies;
mod remote;
mod services;
mod status;
mod trace;
mod worker;

pub use addresses::{AddressPool, PoolExhausted};
pub use agent::{Agent, AgentConfig, AgentError};
pub use check::CheckSpec;
pub use ends::in_words;
pub use fault::{explain_datapath, explain_runtime};
pub use flows::{FlowLogConfig, FlowLogStatistics, FlowLosses, FlowQuery};
pub use policies::{BeforeForgetting, GoneIdentity, POLICY_TIME_BUCKETS, PolicyTimes, Times};
pub use services::{Zone, names};
pub use trace::{TraceEnd, TraceQuery};
pub use worker::release_host_paths;
