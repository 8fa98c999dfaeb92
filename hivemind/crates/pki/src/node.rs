//! What a node shows of itself: its key, and the certificate that the authority issued for it.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::prelude::*;

use crate::{
    Error,
    file::{make_directory, read, write_file},
};

/// How long the certificate of a node is valid.
pub const NODE_VALID: Duration = Duration::from_secs(90 * 24 * 3600);

/// A key that was just made, without a certificate.
pub struct NodeKey {
    key: KeyPair,
}

impl NodeKey {
    /// A new one.
    ///
    /// # Errors
    /// [`Error::Unusable`], if there is no randomness to be had.
    pub fn generate() -> Result<Self, Error> {
        Ok(NodeKey { key: KeyPair::generate().map_err(Error::unusable)? })
    }

    /// What the authority is to sign (PKCS #10, in PEM).
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn signing_request(&self) -> Result<String, Error> {
        let request = CertificateParams::default().serialize_request(&self.key).map_err(Error::unusable)?;
        request.pem().map_err(Error::unusable)
    }

    /// The key with what the authority answered (PEM).
    ///
    /// # Errors
    /// [`Error::Unusable`] if that is not a certificate followed by the authority's.
    pub fn with_certificate(&self, chain: &str) -> Result<NodeIdentity, Error> {
        NodeIdentity::of(chain.to_owned(), self.key.serialize_pem()).map_err(Error::Unusable)
    }
}

/// A node's key and certificate.
pub struct NodeIdentity {
    /// Its certificate, then the authority's.
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    chain_pem: String,
    key_pem: String,
    valid: (SystemTime, SystemTime),
}

/// The key stays out of logs.
impl std::fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeIdentity").field("valid", &self.valid).finish_non_exhaustive()
    }
}

impl NodeIdentity {
    fn of(chain_pem: String, key_pem: String) -> Result<Self, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect();
        let chain = chain.map_err(|error| error.to_string())?;
        if chain.len() != 2 {
            return Err(format!("there are {} certificates in the place of two", chain.len()));
        }
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| error.to_string())?;
        let valid = validity(&chain[0]).ok_or("the certificate cannot be read")?;
        Ok(NodeIdentity { chain, key, chain_pem, key_pem, valid })
    }

    /// The identity that is kept in `directory` (`node.crt` and `node.key`), if one is.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Content`].
    pub fn load(directory: &Path) -> Result<Option<Self>, Error> {
        let (chain, key) = (directory.join("node.crt"), directory.join("node.key"));
        if !chain.exists() {
            return Ok(None);
        }
        let found = Self::of(read(&chain)?, read(&key)?);
        found.map(Some).map_err(|detail| Error::Content { path: chain, what: "a node's certificate", detail })
    }

    /// Keeps it in `directory`, the key readable by root alone.
    ///
    /// # Errors
    /// [`Error::File`]; an identity that was there before may be without its key then.
    pub fn save(&self, directory: &Path) -> Result<(), Error> {
        make_directory(directory)?;
        // The certificate last: it is what says that both are there.
        write_file(&directory.join("node.key"), &self.key_pem, 0o600)?;
        write_file(&directory.join("node.crt"), &self.chain_pem, 0o644)
    }

    /// Its certificate, then the authority's.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The authority's certificate.
    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.chain[1]
    }

    /// The SHA-256 of the authority's certificate, in hex.
    pub fn fingerprint(&self) -> String {
        crate::hash(self.authority())
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }

    /// When its certificate expires.
    pub fn expires_at(&self) -> SystemTime {
        self.valid.1
    }

    /// When another certificate should take its place: after two thirds of its life.
    pub fn renew_at(&self) -> SystemTime {
        let (from, to) = self.valid;
        from + to.duration_since(from).unwrap_or_default() / 3 * 2
    }
}

/// When a certificate expires; nothing if it cannot be read.
pub fn expires_at(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    validity(certificate).map(|(_, to)| to)
}

fn validity(certificate: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let time = |at: ASN1Time| {
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(at.timestamp()).ok()?))
    };
    Some((time(parsed.validity().not_before)?, time(parsed.validity().not_after)?))
}
