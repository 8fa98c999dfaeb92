//! Who is at the other end of a connection between nodes.

use rustls::pki_types::CertificateDer;
use x509_parser::{extensions::GeneralName, prelude::*};

use crate::hash;

/// The name that only servers' certificates bear.
pub const SERVER_NAME: &str = "server.hivemind";

/// What nodes' names end in within certificates.
const NODE_SUFFIX: &str = ".node.hivemind";

/// The name of a node within certificates.
pub fn node_name(name: &str) -> String {
    format!("{name}{NODE_SUFFIX}")
}

/// Who a certificate that was checked belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The node's name.
    pub name: String,
    /// Whether it is a server.
    pub is_server: bool,
    /// The SHA-256 of its public key (as SubjectPublicKeyInfo), in hex.
    pub key: String,
}

impl Peer {
    /// The node that `certificate` was issued to, the first of what a peer showed; `None` if it is no node's. That the
    /// certificate is valid is for TLS to check, before.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let names = parsed.subject_alternative_name().ok()??;
        let mut dns = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        });
        let is_server = dns.clone().any(|name| name == SERVER_NAME);
        let name = dns.find_map(|name| name.strip_suffix(NODE_SUFFIX))?.to_owned();
        Some(Peer { name, is_server, key: hash(parsed.public_key().raw) })
    }
}
