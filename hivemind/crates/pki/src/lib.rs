//! The certificates of a cluster: the authority that the first daemon makes, what it issues to nodes and to the web port,
//! and the TLS that nodes speak with one another.
//!
//! A node's certificate says its name ([`node_name`]); a server's says besides that it is one ([`SERVER_NAME`]), so that no
//! other node can pass for one. Who connects to a node checks that name, not an address. The key of a node is made on the
//! node and never leaves it: the authority signs a request for it ([`NodeKey::signing_request`], [`Authority::sign`]). A
//! node that joins knows nothing of the cluster but the fingerprint of the authority's certificate, which its token holds.
//!
//! It does no network I/O, and knows nothing of which nodes there are: whoever is let in is checked again by the key of
//! its certificate ([`Peer::key`]). Start with [`Authority`], then [`NodeIdentity`] and [`tls`].
#![forbid(unsafe_code)]

mod authority;
mod error;
mod file;
mod node;
mod peer;
pub mod tls;

pub use authority::{Authority, WEB_VALID};
pub use error::Error;
pub use file::write_file;
pub use node::{NODE_VALID, NodeIdentity, NodeKey, expires_at};
pub use peer::{Peer, SERVER_NAME, node_name};

use sha2::{Digest as _, Sha256};

/// SHA-256 in hex.
fn hash(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
