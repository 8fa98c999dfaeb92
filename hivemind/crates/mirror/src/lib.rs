//! What a node without the store is told, and what it tells: a copy of what concerns it, on its own disk.
//!
//! The server's side is [`feed`]: it follows the store from a revision and says what of each change concerns one node
//! ([`view`]), in the order of revisions. The node's side is [`Mirror`]: it writes that into a store of its own, with the
//! revision up to which it knows everything, so that after a break it goes on from there. Parts of some objects are the
//! node's own to say (how its replicas are, what could not be set up): those it keeps as they are ([`merge`](mod@merge)),
//! and tells the server of ([`Reporter`]), who writes them down ([`take_report`]).
//!
//! So whatever reads and writes the store on a server works on a node just the same, with or without the server. What this
//! crate does not do: carry lines from one machine to the other, and say who is let in.
#![forbid(unsafe_code)]

mod fault;
mod feed;
mod key;
pub mod merge;
mod mirror;
mod reporter;
mod taken;
pub mod view;

pub use feed::feed;
pub use mirror::{Applied, Mirror};
pub use reporter::Reporter;
pub use taken::take_report;
