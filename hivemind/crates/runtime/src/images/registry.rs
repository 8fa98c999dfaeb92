//! Where an image's reference leads: mirrors first, then the registry itself, each an endpoint that gives manifests
//! and blobs, and whose failures are sorted by what the user can do about them.

use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture};
use hivemind_model::ImageReference;
use oci_client::{
    client::{ClientConfig, ClientProtocol},
    errors::{DigestError, OciDistributionError, OciErrorCode},
    manifest::OciDescriptor,
    secrets::RegistryAuth,
};

use super::{
    ImageError,
    document::{DOCKER_LIST, DOCKER_MANIFEST, DOCUMENT_BYTES_MAX, Descriptor, OCI_INDEX, OCI_MANIFEST},
};
use crate::Registries;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A transfer that stands still for this long is broken.
const READ_LIMIT: Duration = Duration::from_secs(30);
const RETRIES: u32 = 3;
const FIRST_BACKOFF: Duration = Duration::from_millis(200);

/// One server that may have the image.
pub(super) struct Endpoint {
    client: oci_client::Client,
    /// `host` or `host:port`, for messages.
    pub(super) host: String,
    /// The image's path on that server.
    repository: String,
}

/// How a request to a registry failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection failed or broke: worth another try.
    Network(String),
    /// Nothing answered at all for as long as a connection may take: another try would take as long.
    Silent(String),
    /// It answered in plain HTTP, or another protocol, where TLS was to be spoken.
    NotTls,
    NotFound,
    Unauthorized,
    /// The bytes do not match their digest, or are no manifest.
    Corrupt(String),
    /// The registry answered with an error of its own.
    Refused(String),
}

/// A server that may have the image, and is not asked yet: a client reads every authority of the machine.
pub(super) struct Place {
    pub(super) host: String,
    is_plain: bool,
    repository: String,
}

impl Place {
    /// Where an image may be, in the order in which it is to be looked for.
    pub(super) fn all(registries: &Registries, reference: &ImageReference) -> Result<Vec<Self>, ImageError> {
        let mirrors = registries.mirrors.get(reference.registry()).into_iter().flatten();
        let mut places =
            mirrors.map(|url| Self::mirror(url, reference)).collect::<Result<Vec<_>, ImageError>>()?;
        let host = reference.registry().to_owned();
        let is_plain = registries.insecure.contains(&host);
        places.push(Place { host, is_plain, repository: reference.repository().to_owned() });
        Ok(places)
    }

    fn mirror(url: &str, reference: &ImageReference) -> Result<Self, ImageError> {
        let malformed = || ImageError::Mirror { url: url.to_owned() };
        let (scheme, rest) = url.split_once("://").ok_or_else(malformed)?;
        let is_plain = match scheme {
            "http" => true,
            "https" => false,
            _ => return Err(malformed()),
        };
        let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() {
            return Err(malformed());
        }
        let repository = match prefix.trim_matches('/') {
            "" => reference.repository().to_owned(),
            prefix => format!("{prefix}/{}", reference.repository()),
        };
        Ok(Place { host: host.to_owned(), is_plain, repository })
    }

    /// Makes what asks it.
    ///
    /// # Errors
    /// [`ImageError::Client`].
    pub(super) fn open(self) -> Result<Endpoint, ImageError> {
        let config = ClientConfig {
            protocol: if self.is_plain { ClientProtocol::Http } else { ClientProtocol::Https },
            connect_timeout: Some(CONNECT_LIMIT),
            read_timeout: Some(READ_LIMIT),
            user_agent: concat!("hivemind/", env!("CARGO_PKG_VERSION")),
            ..Default::default()
        };
        let client = oci_client::Client::try_from(config)
            .map_err(|error| ImageError::Client { reason: chain(&error) })?;
        Ok(Endpoint { client, host: self.host, repository: self.repository })
    }
}

impl Endpoint {
    /// The manifest or index at a digest or tag, as it came, verified against the digest if there is one.
    pub(super) async fn manifest(&self, reference: &ImageReference) -> Result<Bytes, Fault> {
        let name = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => self.by_digest(digest),
            (None, tag) => oci_client::Reference::with_tag(
                self.host.clone(),
                self.repository.clone(),
                tag.unwrap_or_default().to_owned(),
            ),
        };
        self.manifest_at(&name).await
    }

    /// The manifest with that digest.
    pub(super) async fn manifest_by_digest(&self, digest: &str) -> Result<Bytes, Fault> {
        self.manifest_at(&self.by_digest(digest)).await
    }

    async fn manifest_at(&self, name: &oci_client::Reference) -> Result<Bytes, Fault> {
        let accepted = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];
        let accepted = &accepted;
        let attempt = move || {
            let attempt = async move {
                let pulled = self.client.pull_manifest_raw(name, &RegistryAuth::Anonymous, accepted).await;
                let (raw, _) = pulled.map_err(Fault::from)?;
                if raw.len() as u64 > DOCUMENT_BYTES_MAX {
                    return Err(Fault::Corrupt(format!("a manifest of {} bytes", raw.len())));
                }
                Ok(raw)
            };
            attempt.boxed()
        };
        retrying(attempt).await
    }

    /// The bytes of a blob; the stream fails if they do not match the digest.
    pub(super) async fn blob(
        &self,
        blob: &Descriptor,
    ) -> Result<impl Stream<Item = Result<Bytes, Fault>> + Unpin + use<>, Fault> {
        let name = self.by_digest(&blob.digest);
        let descriptor = OciDescriptor {
            digest: blob.digest.clone(),
            size: i64::try_from(blob.size).unwrap_or(i64::MAX),
            media_type: blob.media_type.clone(),
            ..Default::default()
        };
        let stream = self.client.pull_blob_stream(&name, &descriptor).await.map_err(Fault::from)?;
        Ok(stream.map(|chunk| chunk.map_err(Fault::from)))
    }

    fn by_digest(&self, digest: &str) -> oci_client::Reference {
        oci_client::Reference::with_digest(self.host.clone(), self.repository.clone(), digest.to_owned())
    }
}

/// Repeats what fails for the network's sake, at most three times, each time waiting longer.
///
/// The attempts are boxed so that the whole is known to be `Send`, which cannot be said of an async closure's futures.
pub(super) async fn retrying<'a, T>(
    attempt: impl Fn() -> BoxFuture<'a, Result<T, Fault>>,
) -> Result<T, Fault> {
    let mut backoff = FIRST_BACKOFF;
    for _ in 0..RETRIES {
        match attempt().await {
            Err(Fault::Network(reason)) => {
                tracing::debug!(reason, "A registry request failed and will be repeated");
                // Jitter keeps nodes that lost the same registry from returning in step.
                tokio::time::sleep(backoff.mul_f64(rand::random_range(0.75..1.25))).await;
                backoff *= 2;
            }
            outcome => return outcome,
        }
    }
    attempt().await
}

impl Fault {
    /// The fault as an error about `reference`, at the server that caused it.
    pub(super) fn about(self, reference: &ImageReference, host: &str) -> ImageError {
        let (reference, host) = (reference.clone(), host.to_owned());
        match self {
            Self::Network(reason) | Self::Silent(reason) => ImageError::RegistryUnreachable { host, reason },
            Self::NotTls => ImageError::RegistryWithoutTls { host },
            Self::NotFound => ImageError::NotFound { reference, host },
            Self::Unauthorized => ImageError::Unauthorized { reference, host },
            Self::Corrupt(reason) => ImageError::Corrupt { what: format!("{reference} at {host}"), reason },
            Self::Refused(reason) => ImageError::RegistryFailed { host, reason },
        }
    }
}

impl From<OciDistributionError> for Fault {
    fn from(error: OciDistributionError) -> Self {
        use OciDistributionError as E;
        match error {
            E::RequestError(cause) if is_no_tls(&cause) => Self::NotTls,
            E::RequestError(cause) if cause.is_connect() && cause.is_timeout() => Self::Silent(chain(&cause)),
            E::RequestError(cause) => Self::Network(chain(&cause)),
            E::IoError(cause) => Self::from(cause),
            E::DigestError(cause) => Self::Corrupt(cause.to_string()),
            E::UnauthorizedError { .. } | E::AuthenticationFailure(_) => Self::Unauthorized,
            E::ImageManifestNotFoundError(_) => Self::NotFound,
            E::ServerError { code: 401 | 403, .. } => Self::Unauthorized,
            E::ServerError { code: 404, .. } => Self::NotFound,
            E::ServerError { code, message, .. } => {
                let message: String = message.chars().take(200).collect();
                Self::Refused(format!("HTTP status {code} {message}"))
            }
            E::RegistryError { envelope, .. } => Self::from_codes(&envelope.errors),
            other => Self::Refused(chain(&other)),
        }
    }
}

impl Fault {
    fn from_codes(errors: &[oci_client::errors::OciError]) -> Self {
        use OciErrorCode as C;
        let any = |codes: &[C]| errors.iter().any(|error| codes.contains(&error.code));
        if any(&[C::Unauthorized, C::Denied]) {
            Self::Unauthorized
        } else if any(&[
            C::ManifestUnknown,
            C::NameUnknown,
            C::NotFound,
            C::BlobUnknown,
            C::ManifestBlobUnknown,
        ]) {
            Self::NotFound
        } else {
            let words: Vec<String> = errors.iter().map(|e| format!("{:?} {}", e.code, e.message)).collect();
            Self::Refused(words.join("; "))
        }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        match error.get_ref().and_then(|cause| cause.downcast_ref::<DigestError>()) {
            Some(mismatch) => Self::Corrupt(mismatch.to_string()),
            None => Self::Network(chain(&error)),
        }
    }
}

/// Whether an error comes from bytes that were no TLS at all, as a server for plain HTTP sends them.
fn is_no_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    use rustls::{Error as TlsError, InvalidMessage};
    if let Some(error) = error.downcast_ref::<TlsError>() {
        return matches!(error, TlsError::InvalidMessage(InvalidMessage::InvalidContentType));
    }
    // The source of an I/O error is the cause of the error within it, and not that error itself.
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(within) => is_no_tls(within),
        None => error.source().is_some_and(is_no_tls),
    }
}

/// An error with its causes: the outer ones of HTTP clients say little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
