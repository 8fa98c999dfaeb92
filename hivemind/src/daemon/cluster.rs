//! The node in its cluster: what all nodes agree on, how a machine joins, and what goes on between nodes.
//!
//! A daemon that joined no cluster is the server of its own ([`facts`]). A machine that joins keeps what it was told in
//! `node/` of its data directory ([`membership`]). What other nodes need of this one (the node port, gossip, the way for
//! packets) is opened once there is a second node ([`open`]).

pub(crate) mod access;
pub(crate) mod address;
pub(crate) mod facts;
pub(crate) mod health;
pub(crate) mod join;
pub(crate) mod link;
pub(crate) mod measure;
pub(crate) mod membership;
pub(crate) mod open;
pub(crate) mod remote;
pub(crate) mod topology;
