//! The runtime against a real containerd, runc and kernel. Each test is a node of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod containers;
mod image;
mod images;
mod logs;
mod node;
mod registry;
mod start_cost;
