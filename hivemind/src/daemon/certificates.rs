//! The certificate of the web port: the operator's, or one that an authority of the daemon's own issues.
//!
//! The authority is made when it is first needed and kept in `tls/` of the data directory, its key readable by root alone.
//! What it issues lives in memory and is renewed long before it expires, so clients are to trust the authority (by its
//! fingerprint or its file), not the certificate. The operator's files are read again when they change.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use hivemind_client::Fingerprint;
use hivemind_model::{ApiError, ErrorCode};
use hivemind_pki::Authority;
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

/// When another certificate takes the place of one of our own, which is valid for three times as long.
const RENEWED_AFTER: Duration = DAY.saturating_mul(30);

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
                let authority = open_authority(config)?;
                let mut names = names(config);
                names.extend([
                    "localhost".into(),
                    Ipv4Addr::LOCALHOST.to_string(),
                    Ipv6Addr::LOCALHOST.to_string(),
                ]);
                let first = authority.issue_web(&names, &provider).map_err(of_pki)?;
                let fingerprint = Fingerprint::of(authority.certificate());
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

    /// What is shown, as it is from now on.
    pub(super) fn shown(&self) -> Shown {
        Shown(Arc::clone(&self.resolver))
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
                authority.issue_web(names, &self.provider).map_err(of_pki)
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

/// The certificate that is shown.
pub(super) struct Shown(Arc<Resolver>);

impl Shown {
    /// When it expires, unless it says nothing of that.
    pub(super) fn expires_at(&self) -> Option<SystemTime> {
        let current = Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner));
        hivemind_pki::expires_at(current.cert.first()?)
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

/// The authority of the cluster whose server this daemon is.
///
/// # Errors
/// `FileFailed` and the like.
pub(super) fn open_authority(config: &Config) -> Result<Authority, ApiError> {
    Authority::open(&config.data_dir.join("tls")).map_err(of_pki)
}

/// What is wrong with certificates, in the words of users.
pub(super) fn of_pki(error: hivemind_pki::Error) -> ApiError {
    use hivemind_pki::Error;
    match &error {
        Error::File { path, source, .. } => fault::file(&format!("the file {}", path.display()), source),
        Error::Content { path, .. } => {
            let directory = path.parent().unwrap_or(path).display();
            let hint = format!(
                "put it back from a backup, or move {directory} away: clients and nodes have to trust a new one then"
            );
            ApiError::new(ErrorCode::FileFailed, error.to_string(), hint)
        }
        Error::Request(_) => ApiError::new(ErrorCode::Malformed, error.to_string(), "send PKCS #10 in PEM"),
        Error::Unusable(_) => {
            ApiError::new(ErrorCode::Internal, format!("certificates cannot be made: {error}"), "")
        }
    }
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
