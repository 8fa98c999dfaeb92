//! Finds out whether a container is well: whether it has started, takes connections, and lives.
//!
//! [`follow`] makes a container's checks for as long as it runs and tells its [`Health`]; what follows from that, being out of
//! services or being restarted, is the caller's. When a check is due and what its outcome means is a state machine without
//! I/O and clock ([`Course`]); the checks themselves (`check`) go through a [`Target`], which knows how to reach into the
//! container: this crate knows neither namespaces nor containerd.
//!
//! No check costs a process, save for commands in the container.
#![forbid(unsafe_code)]

mod check;
mod course;
mod follow;

pub use check::{CheckError, Exit, Target};
pub use course::{Course, Verdict};
pub use follow::{Failing, Health, follow};
