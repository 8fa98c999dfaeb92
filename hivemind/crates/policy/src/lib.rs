//! Network policies and workload identities in, verdicts and the data path's table entries out. No I/O.
//!
//! [`Tables`] are what the data path holds for one identity: [`hivemind_common::policy`] says how it decides by them.
#![forbid(unsafe_code)]

mod tables;

pub use tables::{TableEntry, TablePrefix, Tables, Transport};
