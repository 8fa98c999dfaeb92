//! The authority of a cluster.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use crate::{
    Error,
    file::{make_directory, read, write_file},
    hash,
    node::NODE_VALID,
    peer::{SERVER_NAME, node_name},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long the certificate of a web port is valid.
pub const WEB_VALID: Duration = DAY.saturating_mul(90);

/// How long the authority is valid.
const AUTHORITY_VALID: Duration = DAY.saturating_mul(3650);

/// The authority of a cluster: its certificate, and the key that signs others.
pub struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

/// The key stays out of logs.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

impl Authority {
    /// The one that is kept in `directory` (`ca.crt` and `ca.key`, the latter readable by root alone); a new one if there
    /// is none.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Content`].
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let (certificate_file, key_file) = (directory.join("ca.crt"), directory.join("ca.key"));
        if !key_file.exists() {
            Self::make(directory, &certificate_file, &key_file)?;
        }
        let broken = |path: &PathBuf, what, error: &dyn std::fmt::Display| Error::Content {
            path: path.clone(),
            what,
            detail: error.to_string(),
        };
        let key = KeyPair::from_pem(&read(&key_file)?).map_err(|e| broken(&key_file, "a private key", &e))?;
        let pem = read(&certificate_file)?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| broken(&certificate_file, "a certificate", &e))?;
        Ok(Authority { certificate, pem, key })
    }

    fn make(directory: &Path, certificate_file: &Path, key_file: &Path) -> Result<(), Error> {
        let key = KeyPair::generate().map_err(Error::unusable)?;
        let certificate = Self::params().self_signed(&key).map_err(Error::unusable)?;
        make_directory(directory)?;
        // The key last: it is what says that both are there.
        write_file(certificate_file, &certificate.pem(), 0o644)?;
        write_file(key_file, &key.serialize_pem(), 0o600)
    }

    fn params() -> CertificateParams {
        let mut params = named("Hivemind authority", AUTHORITY_VALID);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its certificate, as it is kept (PEM).
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The SHA-256 of its certificate, in hex: what join tokens hold.
    pub fn fingerprint(&self) -> String {
        hash(&self.certificate)
    }

    /// A certificate for a web port with these names and addresses, with a key of its own.
    ///
    /// # Errors
    /// [`Error::Unusable`] for a name that cannot stand in a certificate.
    pub fn issue_web(&self, names: &[String], provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
        let mut params = leaf("Hivemind", WEB_VALID, names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(Error::unusable)?;
        let own = Self::params();
        let certificate =
            params.signed_by(&key, &Issuer::from_params(&own, &self.key)).map_err(Error::unusable)?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(Error::unusable)?;
        CertifiedKey::from_der(chain, key, provider).map_err(Error::unusable)
    }

    /// The certificate of the node `name` for the key that made `request` (PKCS #10, in PEM); whatever else the request
    /// asks for is not looked at. Returns it with the authority's own (PEM), and what the key will be known by
    /// ([`crate::Peer::key`]).
    ///
    /// # Errors
    /// [`Error::Request`].
    pub fn sign(&self, request: &str, name: &str, is_server: bool) -> Result<(String, String), Error> {
        let request = CertificateSigningRequestParams::from_pem(request)
            .map_err(|error| Error::Request(error.to_string()))?;
        let mut names = vec![node_name(name)];
        names.extend(is_server.then(|| SERVER_NAME.to_owned()));
        let mut params = leaf(name, NODE_VALID, &names)?;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let own = Self::params();
        let certificate = params
            .signed_by(&request.public_key, &Issuer::from_params(&own, &self.key))
            .map_err(Error::unusable)?;
        let key = hash(&request.public_key.subject_public_key_info());
        Ok((format!("{}{}", certificate.pem(), self.pem), key))
    }
}

/// The parameters of a certificate that `name` is said to have: valid from a day ago, for clocks that differ.
fn named(name: &str, valid: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + valid).into();
    params
}

/// The parameters of a certificate that signs no others.
fn leaf(name: &str, valid: Duration, names: &[String]) -> Result<CertificateParams, Error> {
    let of_names = CertificateParams::new(names.to_vec()).map_err(Error::unusable)?;
    let mut params = named(name, valid);
    params.subject_alt_names = of_names.subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}
