//! The API as its callers see it: over real sockets, with a real store on disk, and a node whose processes are real.
#![allow(missing_docs, clippy::unwrap_used)]

mod apps;
mod exec;
mod harness;
mod node;
mod openapi;
mod streams;
mod things;
mod watches;
mod web;
