//! The certificate of the web port: the operator's, or one that an authority of the daemon's own issues.
//!
//! The authority is made when it is first needed and kept in `tls/` of the data directory, its key readable by root alone.
//! What it issues lives in memory and is renewed long before it expires, so clients are to trust the authority (by its
//! fingerprint or its file), not the certificate. The operator's files are read again when they change.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use hivemind_client::Fingerprint;
use hivemind_model::{ApiError, ErrorCode};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{config::Config, fault};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long a certificate of our own is valid, and when another takes its place.
const VALID: Duration = DAY.saturating_mul(90);
const RENEWED_AFTER: Duration = DAY.saturating_mul(30);

/// How long the authority is valid.
const AUTHORITY_VALID: Duration = DAY.saturating_mul(3650);

/// How often it is seen whether the certificate has to be another.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// The certificate of the web port, as it is now.
pub(super) struct Certificates {
    source: Source,
    resolver: Arc<Resolver>,
    provider: Arc<CryptoProvider>,
}

enum Source {
    Own { authority: Box<Authority>, names: Vec<String>, issued_at: SystemTime },
    Files { certificate: PathBuf, key: PathBuf, changed_at: (SystemTime, SystemTime) },
}

/// Names and addresses of this machine under which the web port may be asked.
pub(super) fn names(config: &Config) -> Vec<String> {
    let mut names: BTreeSet<String> = config.web_hosts.iter().cloned().collect();
    if config.is_encrypted() {
        let full = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        for name in full.iter().flat_map(|name| [name.as_str(), name.split('.').next().unwrap_or_default()]) {
            if !name.is_empty() {
                names.insert(name.to_ascii_lowercase());
            }
        }
    }
    if config.web.ip().is_unspecified() {
        names.extend(addresses().map(|address| address.to_string()));
    } else {
        names.insert(config.web.ip().to_string());
    }
    names.into_iter().collect()
}

/// The machine's addresses, save for those that mean something on one link only.
fn addresses() -> impl Iterator<Item = IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().ok().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
    });
    addresses.filter(|address| match address {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    })
}

impl Certificates {
    /// The certificate that `config` says.
    ///
    /// # Errors
    /// `InvalidConfig` for files of the operator's that cannot be used, `FileFailed` and the like for our own.
    pub(super) fn open(config: &Config) -> Result<Self, ApiError> {
        let provider = Arc::new(ring::default_provider());
        let (source, first) = match &config.tls {
            Some((certificate, key)) => {
                let changed_at = changed_at(certificate, key);
                let first = read(certificate, key, &provider)?;
                (Source::Files { certificate: certificate.clone(), key: key.clone(), changed_at }, first)
            }
            None => {
                let authority = Authority::open(&config.data_dir.join("tls"))?;
                let mut names = names(config);
                names.extend([
                    "localhost".into(),
                    Ipv4Addr::LOCALHOST.to_string(),
                    Ipv6Addr::LOCALHOST.to_string(),
                ]);
                let first = authority.issue(&names, &provider)?;
                let fingerprint = Fingerprint::of(&authority.certificate);
                info!(%fingerprint, "The web port's certificate is issued by the daemon's own authority");
                (Source::Own { authority: Box::new(authority), names, issued_at: SystemTime::now() }, first)
            }
        };
        let resolver = Arc::new(Resolver { current: RwLock::new(Arc::new(first)) });
        Ok(Certificates { source, resolver, provider })
    }

    /// The TLS of a server that shows the certificate, always the latest.
    pub(super) fn server_config(&self) -> Result<Arc<ServerConfig>, ApiError> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.resolver.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Renews the certificate, or reads the operator's again, until `stop`.
    pub(super) async fn keep(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.look(SystemTime::now()),
            }
        }
    }

    fn look(&mut self, now: SystemTime) {
        let next = match &mut self.source {
            Source::Own { authority, names, issued_at } => {
                // A clock that was set back must not keep it from being renewed for ever.
                let due = now.duration_since(*issued_at).is_ok_and(|age| age >= RENEWED_AFTER);
                if !due {
                    return;
                }
                *issued_at = now;
                authority.issue(names, &self.provider)
            }
            Source::Files { certificate, key, changed_at: known } => {
                let changed = changed_at(certificate, key);
                if *known == changed {
                    return;
                }
                *known = changed;
                read(certificate, key, &self.provider)
            }
        };
        match next {
            Ok(next) => {
                self.resolver.replace(next);
                info!("The web port's certificate was renewed");
            }
            Err(error) => warn!(error = error.message, "The web port's certificate is the old one still"),
        }
    }
}

/// Shows whoever connects the certificate as it is now.
#[derive(Debug)]
struct Resolver {
    current: RwLock<Arc<CertifiedKey>>,
}

impl Resolver {
    fn replace(&self, next: CertifiedKey) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The daemon's own authority.
struct Authority {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Authority {
    /// The one that is kept in `directory`; a new one if there is none.
    fn open(directory: &Path) -> Result<Self, ApiError> {
        let (certificate_file, key_file) = (directory.join("ca.crt"), directory.join("ca.key"));
        if !key_file.exists() {
            Self::make(directory, &certificate_file, &key_file)?;
        }
        let text = |path: &Path| {
            fs::read_to_string(path)
                .map_err(|error| fault::file(&format!("the file {}", path.display()), &error))
        };
        let broken = |path: &Path, error: &dyn std::fmt::Display| {
            let what = format!("{} cannot be read: {error}", path.display());
            let hint = format!(
                "put it back from a backup, or move {} away: clients have to trust the new one then",
                directory.display()
            );
            ApiError::new(ErrorCode::FileFailed, what, hint)
        };
        let key = KeyPair::from_pem(&text(&key_file)?).map_err(|error| broken(&key_file, &error))?;
        let certificate = CertificateDer::from_pem_slice(text(&certificate_file)?.as_bytes())
            .map_err(|error| broken(&certificate_file, &error))?;
        Ok(Authority { certificate, key })
    }

    fn make(directory: &Path, certificate_file: &Path, key_file: &Path) -> Result<(), ApiError> {
        let key = KeyPair::generate().map_err(|error| unusable(&error))?;
        let certificate = Self::params().self_signed(&key).map_err(|error| unusable(&error))?;
        let written = (|| {
            fs::DirBuilder::new().recursive(true).mode(0o711).create(directory)?;
            // The key last: it is what says that both are there.
            write(certificate_file, &certificate.pem(), 0o644)?;
            write(key_file, &key.serialize_pem(), 0o600)
        })();
        written.map_err(|error| fault::file(&format!("the directory {}", directory.display()), &error))
    }

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Hivemind authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params, AUTHORITY_VALID);
        params
    }

    /// A certificate for `names` with a key of its own.
    fn issue(&self, names: &[String], provider: &CryptoProvider) -> Result<CertifiedKey, ApiError> {
        let mut params = CertificateParams::new(names.to_vec()).map_err(|error| unusable(&error))?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Hivemind");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, VALID);
        let key = KeyPair::generate().map_err(|error| unusable(&error))?;
        let own = Self::params();
        let issuer = Issuer::from_params(&own, &self.key);
        let certificate = params.signed_by(&key, &issuer).map_err(|error| unusable(&error))?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| unusable(&error))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|error| unusable(&error))
    }
}

/// Valid from a day ago, for clocks that differ, and for so long.
fn validity(params: &mut CertificateParams, how_long: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + how_long).into();
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let half_made = path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&half_made)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&half_made, path)
}

/// When the operator's files were last changed.
fn changed_at(certificate: &Path, key: &Path) -> (SystemTime, SystemTime) {
    let time = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    (time(certificate), time(key))
}

/// The operator's certificate and key.
fn read(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, ApiError> {
    let wrong = |flag: &str, path: &Path, error: &dyn std::fmt::Display| {
        let what = format!("{} cannot be used: {error}", path.display());
        ApiError::new(ErrorCode::InvalidConfig, what, "give a file in PEM that root may read").at(flag)
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| wrong("--tls-cert", certificate, &error))?;
    if chain.is_empty() {
        return Err(wrong("--tls-cert", certificate, &"it holds no certificate"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong("--tls-key", key, &error))?;
    CertifiedKey::from_der(chain, private, provider).map_err(|error| wrong("--tls-key", key, &error))
}

fn unusable(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::Internal, format!("the web port's certificate cannot be made: {error}"), "")
}

#[cfg(test)]
mod tests;
