//! Which certificates are taken for a daemon's own.

use std::{fmt, io, path::Path, sync::Arc};

use hivemind_model::{ApiError, ErrorCode};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use crate::{fingerprint::Fingerprint, remote::Trust};

/// The TLS side of a client that trusts so.
pub(crate) fn client_config(trust: &Trust) -> Result<ClientConfig, ApiError> {
    let provider = Arc::new(ring::default_provider());
    let expected = match trust {
        Trust::System => Expected::Authorities(authorities(system_roots()?, &provider, None)?),
        Trust::CaFile(path) => Expected::Authorities(authorities(read_file(path)?, &provider, Some(path))?),
        Trust::Fingerprint(fingerprint) => Expected::Pinned(*fingerprint),
    };
    let verifier = Arc::new(Verifier { expected, provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| ApiError::new(ErrorCode::Internal, format!("TLS cannot be set up: {e}"), ""))?;
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>, ApiError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map(|e| format!(": {e}")).unwrap_or_default();
        return Err(ApiError::new(
            ErrorCode::FileFailed,
            format!("this machine has no certificates of authorities{why}"),
            "name the daemon's own: --ca FILE or --fingerprint SHA256",
        ));
    }
    Ok(found.certs)
}

fn read_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, ApiError> {
    let unreadable = |why: &dyn fmt::Display| {
        let what = format!("the certificate {} cannot be read: {why}", path.display());
        ApiError::new(ErrorCode::FileFailed, what, "give a file with certificates in PEM").at("ca-file")
    };
    let text = std::fs::read(path).map_err(|e: io::Error| unreadable(&e))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|e| unreadable(&e))?;
    if certificates.is_empty() { Err(unreadable(&"it holds none")) } else { Ok(certificates) }
}

fn authorities(
    certificates: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
    file: Option<&Path>,
) -> Result<Arc<WebPkiServerVerifier>, ApiError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build().map_err(|error| {
        let place = file.map(|file| format!(" in {}", file.display())).unwrap_or_default();
        let what = format!("no certificate{place} can be trusted: {error}");
        ApiError::new(
            ErrorCode::FileFailed,
            what,
            "give the certificate of the authority that issued the daemon's",
        )
        .at("ca-file")
    })
}

#[derive(Debug)]
enum Expected {
    Authorities(Arc<WebPkiServerVerifier>),
    Pinned(Fingerprint),
}

#[derive(Debug)]
struct Verifier {
    expected: Expected,
    provider: Arc<CryptoProvider>,
}

/// A certificate that is not taken for the daemon's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unexpected {
    /// Of the daemon's own certificate.
    seen: Fingerprint,
    /// What was expected, if it was one certificate.
    expected: Option<Fingerprint>,
    /// What is wrong with it.
    pub(crate) fault: CertificateError,
}

impl fmt::Display for Unexpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.fault, self.seen)
    }
}

impl std::error::Error for Unexpected {}

impl Unexpected {
    /// The error that is told to a user of the daemon at `url`.
    pub(crate) fn told(&self, url: &str) -> ApiError {
        let seen = self.seen;
        let what = match (&self.expected, &self.fault) {
            (Some(expected), CertificateError::UnknownIssuer) => {
                format!("the certificate of {url} is {seen}, and neither it nor its issuer is {expected}")
            }
            (_, CertificateError::UnknownIssuer) => {
                format!("the certificate of {url} ({seen}) was not issued by an authority that is trusted")
            }
            (Some(expected), fault) => {
                format!("the certificate of {url} ({seen}), issued by {expected}, is not valid: {fault}")
            }
            (None, fault) => format!("the certificate of {url} ({seen}) is not valid: {fault}"),
        };
        let hint = match &self.fault {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                "compare the clocks of both machines; a daemon renews a certificate of its own by itself"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "use a name that the certificate bears, or start the daemon with --web-host NAME"
            }
            _ => {
                "if the daemon was set up anew, compare with what it logs at its start (or with \
                 `openssl x509 -in /var/lib/hivemind/tls/ca.crt -noout -fingerprint -sha256` there) and add the context \
                 again; if not, someone else may have answered"
            }
        };
        ApiError::new(ErrorCode::CertificateMismatch, what, hint)
    }
}

impl Verifier {
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = match &self.expected {
            Expected::Authorities(verifier) => {
                return verifier.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
            }
            Expected::Pinned(pinned) => *pinned,
        };
        if Fingerprint::of(end_entity) == pinned {
            // The certificate itself: that the other side has its key is what the handshake's signature shows.
            return Ok(ServerCertVerified::assertion());
        }
        let authority = intermediates.iter().find(|certificate| Fingerprint::of(certificate) == pinned);
        let Some(authority) = authority else {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), self.provider.clone())
            .build()
            .map_err(|e| Error::General(e.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let checked = self.check(end_entity, intermediates, server_name, ocsp_response, now);
        checked.map_err(|error| match error {
            Error::InvalidCertificate(fault) => {
                let expected = match &self.expected {
                    Expected::Authorities(_) => None,
                    Expected::Pinned(fingerprint) => Some(*fingerprint),
                };
                let unexpected = Unexpected { seen: Fingerprint::of(end_entity), expected, fault };
                Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(unexpected))))
            }
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
