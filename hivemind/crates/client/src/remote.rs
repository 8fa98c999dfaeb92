//! Daemons that are reached over the network.

use std::{error::Error as _, fmt, io, path::PathBuf, sync::Arc};

use hivemind_model::{ApiError, ErrorCode};
use hyper::{
    Uri,
    header::HeaderValue,
    http::uri::{Authority, Scheme},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, rustls, rustls::pki_types::ServerName};

use crate::{
    fingerprint::Fingerprint,
    trust::{self, Unexpected},
    way::Stream,
};

/// A daemon elsewhere, and what lets one in there.
#[derive(Clone, PartialEq, Eq)]
pub struct Remote {
    /// Where it is, for example `https://node-1.example.com:4483`. Plain `http` is for loopback addresses only.
    pub url: String,
    /// The token's secret.
    pub token: String,
    /// Which certificates are taken for the daemon's own.
    pub trust: Trust,
}

/// Which certificates are taken for a daemon's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those that an authority of this machine issued, and that bear the name in the URL.
    #[default]
    System,
    /// Those that an authority in this file (PEM) issued, and that bear the name in the URL.
    CaFile(PathBuf),
    /// The one with this fingerprint, under whatever name; or, if the fingerprint is that of an authority which the
    /// daemon sends along, those that this authority issued and that bear the name in the URL.
    Fingerprint(Fingerprint),
}

/// The secret stays out of logs.
impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("url", &self.url).field("trust", &self.trust).finish_non_exhaustive()
    }
}

/// A [`Remote`] that was checked, ready to connect.
pub(crate) struct Secured {
    pub(crate) url: String,
    pub(crate) host: HeaderValue,
    pub(crate) authorization: HeaderValue,
    authority: Authority,
    port: u16,
    /// `None`: without TLS, on loopback.
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Secured {
    pub(crate) fn new(remote: &Remote) -> Result<Self, ApiError> {
        let url = remote.url.trim_end_matches('/').to_owned();
        let (authority, encrypted) = parse(&url)?;
        let port = authority.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let authorization = authorization(&remote.token)?;
        let host = HeaderValue::try_from(authority.as_str()).map_err(|_| no_url(&url))?;
        let tls = encrypted.then(|| {
            let name = ServerName::try_from(bare(&authority).to_owned()).map_err(|_| no_url(&url))?;
            Ok::<_, ApiError>((TlsConnector::from(Arc::new(trust::client_config(&remote.trust)?)), name))
        });
        Ok(Secured { url, host, authorization, port, tls: tls.transpose()?, authority })
    }

    /// Whether URL and token are what they should be, without a look at certificates.
    pub(crate) fn check(remote: &Remote) -> Result<(), ApiError> {
        parse(remote.url.trim_end_matches('/'))?;
        authorization(&remote.token).map(drop)
    }

    /// Connects, as long as that takes.
    pub(crate) async fn connect(&self) -> Result<Box<dyn Stream>, ApiError> {
        let tcp = TcpStream::connect((bare(&self.authority), self.port)).await.map_err(|error| {
            ApiError::new(
                ErrorCode::DaemonUnreachable,
                format!("the daemon cannot be reached at {}: {error}", self.url),
                "see whether it runs there and serves that address (--web-address), and whether a firewall is in between",
            )
        })?;
        // A keystroke of an exec session is not to wait for the answer to the one before.
        let _ = tcp.set_nodelay(true);
        match &self.tls {
            None => Ok(Box::new(tcp)),
            Some((connector, name)) => match connector.connect(name.clone(), tcp).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(self.explain(&error)),
            },
        }
    }

    /// What a handshake failed of.
    fn explain(&self, error: &io::Error) -> ApiError {
        use rustls::{CertificateError, Error, InvalidMessage, OtherError};
        let url = &self.url;
        match error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()) {
            Some(Error::InvalidCertificate(CertificateError::Other(OtherError(cause)))) => {
                if let Some(unexpected) = cause.downcast_ref::<Unexpected>() {
                    return unexpected.told(url);
                }
                ApiError::new(
                    ErrorCode::CertificateMismatch,
                    format!("the certificate of {url}: {cause}"),
                    "",
                )
            }
            Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => ApiError::new(
                ErrorCode::DaemonUnreachable,
                format!("{url} does not speak TLS"),
                "a daemon on a loopback address is reached with http://, any other with https://",
            ),
            _ => {
                let cause = error.source().map(|cause| format!(" ({cause})")).unwrap_or_default();
                ApiError::new(
                    ErrorCode::DaemonUnreachable,
                    format!("no TLS connection to {url}: {error}{cause}"),
                    "see whether it is a Hivemind daemon, and its log: journalctl -u hivemind",
                )
            }
        }
    }
}

fn authorization(token: &str) -> Result<HeaderValue, ApiError> {
    let value = HeaderValue::try_from(format!("Bearer {token}")).ok();
    let mut value = value.filter(|_| !token.is_empty() && !token.contains(' ')).ok_or_else(|| {
        let hint = "give it as it was printed when it was made: hmt_ and 64 hex digits";
        ApiError::new(ErrorCode::InvalidConfig, "this is not a token", hint).at("token")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The authority of a URL, and whether TLS is spoken there.
fn parse(url: &str) -> Result<(Authority, bool), ApiError> {
    let parts = url.parse::<Uri>().map_err(|_| no_url(url))?.into_parts();
    let path = parts.path_and_query.map(|path| path.as_str().to_owned()).unwrap_or_default();
    let authority = parts.authority.filter(|authority| !authority.as_str().contains('@'));
    let (Some(authority), true) = (authority, matches!(path.as_str(), "" | "/")) else {
        return Err(no_url(url));
    };
    match parts.scheme {
        Some(scheme) if scheme == Scheme::HTTPS => Ok((authority, true)),
        Some(scheme) if scheme == Scheme::HTTP && is_loopback(bare(&authority)) => Ok((authority, false)),
        Some(scheme) if scheme == Scheme::HTTP => {
            let what = format!("{url} is without TLS: everyone on the way could read the token");
            Err(ApiError::new(ErrorCode::InvalidConfig, what, "use https://").at("url"))
        }
        _ => Err(no_url(url)),
    }
}

fn no_url(url: &str) -> ApiError {
    let what = format!("{url:?} is not the URL of a daemon");
    ApiError::new(
        ErrorCode::InvalidConfig,
        what,
        "write https://HOST:PORT, as https://node-1.example.com:4483",
    )
    .at("url")
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// The host as the resolver takes it: without the brackets of an IPv6 address.
fn bare(authority: &Authority) -> &str {
    authority.host().trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(url: &str, token: &str) -> Result<Secured, ApiError> {
        Secured::new(&Remote { url: url.into(), token: token.into(), trust: Trust::System })
    }

    #[test]
    fn a_token_goes_over_plain_http_to_this_machine_only() {
        for url in ["http://127.0.0.1:4483", "http://localhost:4483/", "http://[::1]:4483"] {
            assert!(remote(url, "hmt_x").unwrap().tls.is_none(), "{url}");
        }
        for url in ["http://192.0.2.1:4483", "http://localhost.example.com", "http://127.0.0.1.nip.io"] {
            let error = remote(url, "hmt_x").unwrap_err();
            assert!(error.message.contains("without TLS"), "{url}: {error}");
        }
    }

    #[test]
    fn what_is_no_url_of_a_daemon_is_refused() {
        for url in [
            "",
            "node-1",
            "node-1:4483",
            "ftp://node-1",
            "https://u:p@node-1",
            "https://node-1/v1",
            "https://",
        ] {
            let error = remote(url, "hmt_x").unwrap_err();
            assert_eq!(
                (error.code, error.field.as_deref()),
                (ErrorCode::InvalidConfig, Some("url")),
                "{url}"
            );
        }
        assert_eq!(remote("https://node-1", "a\nb").unwrap_err().field.as_deref(), Some("token"));
    }

    #[test]
    fn a_secret_is_not_in_what_is_logged() {
        let secured = remote("https://127.0.0.1:1", "hmt_secret").unwrap();
        assert!(!format!("{secured:?} {:?}", secured.authorization).contains("hmt_secret"));
    }
}
