//! The API as its callers see it: over real sockets, with a real store on disk, and a node whose processes are real.
#![allow(missing_docs, clippy::unwrap_used)]

mod access;
mod apps;
mod cluster;
mod exec;
mod flows;
mod harness;
mod joining;
mod matrix;
mod namespaces;
mod net;
mod node;
mod openapi;
mod policies;
mod services;
mod simulation;
mod streams;
mod things;
mod waiting;
mod watches;
mod web;
mod web_port;
