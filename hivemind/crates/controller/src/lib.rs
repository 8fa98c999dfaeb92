//! The cluster's loops: they make what users wrote in specs come true as objects, and tell in statuses how far it is.
//!
//! [`plan`] is pure: a snapshot of all objects in, a list of [`Action`]s out, the same for the same snapshot save for the
//! names of new replicas. [`Controller`] is its executor: it lists, plans, acts, and does so again whenever something
//! changed. It may be killed at any point and started again: it remembers nothing. Besides apps and what belongs to them,
//! it has the scheduler say where new replicas go, takes replicas of nodes that stay away for lost, and has those of nodes
//! that are emptied moved. It keeps the workload identities that policies and flows speak of, and the objects of namespaces. Containers are none of its business;
//! a node's agent brings up the replicas that are bound to it.
#![forbid(unsafe_code)]

mod executor;
mod identity_counter;
mod plan;
mod signals;
mod snapshot;

pub use executor::{Controller, ControllerConfig, explain};
pub use plan::{Action, plan};
pub use snapshot::{Measured, Snapshot};
