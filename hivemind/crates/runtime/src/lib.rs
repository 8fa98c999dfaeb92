//! Containers and images on one node, through containerd.
//!
//! The crate pulls and imports images, runs containers in network namespaces that others have made, executes
//! processes in them, tells when they end, measures them, and keeps their output in files. It decides nothing: when a
//! container is started, restarted or removed is its caller's business, and so are addresses, policies and volumes.
//!
//! Start at [`Runtime`]: [`Runtime::connect`] finds (or starts) a containerd, and everything else is a method of it.
//! Nothing is remembered between calls that containerd does not know too, so a process that dies at any point is
//! replaced by one that connects again, subscribes to [`Runtime::events`] and reads [`Runtime::list`].

mod config;
mod containerd;
mod containers;
mod error;
mod images;
pub mod logs;
mod runtime;

pub use config::{Config, PrivateContainerd, Registries};
pub use containers::{
    BindMount, ContainerId, ContainerIdError, ContainerSpec, ContainerState, ContainerStatus, Rlimit,
    Running, Tmpfs,
    events::{Event, Events},
    exec::{ExecControl, ExecEnd, ExecInput, ExecSession, ExecSpec, TerminalSize},
    metrics::Metrics,
};
pub use error::Error;
pub use images::{Image, ImageConfig, ImageError, PullPhase, PullProgress};
pub use nix::sys::signal::Signal;
pub use runtime::Runtime;

/// Makes ring the process's provider of TLS cryptography. May be called any number of times; whoever installed
/// another provider first keeps it.
pub fn install_crypto() {
    // An error only says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
