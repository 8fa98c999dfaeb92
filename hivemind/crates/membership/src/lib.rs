#![forbid(unsafe_code)]
//! Which nodes of the cluster are there: SWIM by gossip over UDP, every datagram sealed with a key of the cluster's.
//!
//! It tells who is alive, suspected, dead or gone by its own will, and how far away in µs. It decides nothing from that,
//! holds no state of the cluster's, and who belongs to the cluster is told to it: the list of nodes comes from the server.
//!
//! Start at [`Membership::start`], which runs the protocol on a socket; [`Core`] is the same without socket and clock.
//! Inside, foca is the protocol (probes, suspicion, gossip). Around it `core` checks senders, announces to those that are
//! not alive so that nodes find each other again, measures by echoes and says goodbye; `packet` seals; `watched` makes
//! views of foca's members; `timing` holds the intervals and why they are what they are.
//!
//! # How soon a death is seen
//! By every survivor in 2 s at the median, and in less than 4 s ninety-nine times in a hundred, in clusters of up to 20
//! nodes; in 3 s and 5 s among 100 nodes. So the simulator says (`tests/simulator.rs`); `timing` says why. A node that was taken
//! for dead and is not (it was cut off or held up) finds out when it is heard again, and comes back as a new generation.
//!
//! # Who is believed
//! Whoever holds the key can speak for any node; source addresses are checked, which keeps out mistakes, not a holder of
//! the key. Datagrams can be replayed by whoever sees them; see `packet` for what that can do.
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use hivemind_membership::{Config, Key, Membership, NodeName, Peer, State};
//!
//! let own = Peer { number: 1.try_into()?, name: NodeName::new("one")?, address: "10.0.0.1:4484".parse()? };
//! let two = Peer { number: 2.try_into()?, name: NodeName::new("two")?, address: "10.0.0.2:4484".parse()? };
//! let socket = tokio::net::UdpSocket::bind(own.address).await?;
//! let keys = vec![Key { id: 1, secret: [7; 32] }];
//! let membership = Membership::start(Config { own, keys, peers: vec![two] }, socket)?;
//!
//! let mut view = membership.view();
//! view.wait_for(|view| view.members.iter().all(|member| member.state == State::Alive)).await?;
//! membership.leave().await;
//! # Ok(())
//! # }
//! ```

mod config;
mod core;
mod effects;
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod membership;
mod packet;
mod rtt;
mod statistics;
mod timers;
mod timing;
mod view;
mod watched;

pub mod limits;

pub use config::{Config, ConfigError, Key, Peer};
pub use core::{Core, Start};
pub use effects::Transmit;
pub use identity::{NodeName, NodeNameError, NodeNumber, NodeNumberError};
pub use membership::{Membership, StartError};
pub use rtt::Rtt;
pub use statistics::{Refused, Statistics};
pub use view::{MemberView, State, View};
