//! What systemd does for the daemon, where there is no systemd: in tests and under `cargo xtask up`.
//!
//! [`FdStore`] is systemd's file descriptor store: it keeps the descriptors that a program gives it by sd_notify(3) and hands
//! them to the next program that is started, as sd_listen_fds(3) says. [`Supervisor`] starts a program again and again, each
//! time with what is in the store; `hivemind-supervise` does so from the command line.
//!
//! It follows systemd where the daemon can tell the difference: several descriptors may have one name, removal is by name,
//! what is there already is not kept twice, and what is too many is closed. It does not watch the descriptors for errors
//! (all of ours are sent with `FDPOLL=0`), and takes messages from whoever can reach its socket.
#![forbid(unsafe_code)]

mod fd_store;
#[doc(hidden)]
pub mod fuzzing;
mod message;
mod supervisor;

pub use fd_store::{AS_MAIN_PROCESS, DESCRIPTORS_MAX, FdStore};
pub use supervisor::Supervisor;
