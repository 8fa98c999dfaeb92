//! The client against servers with certificates of several kinds.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::{net::SocketAddr, sync::Arc};

use axum::{Json, Router, http::HeaderMap, routing::get};
use hivemind_client::{Client, Fingerprint, Remote, Selection, Trust, WatchItem};
use hivemind_model::{ApiError, App, ErrorCode, Session, TokenRole};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};
use tokio_util::task::AbortOnDropHandle;

/// An authority, and certificates of it.
struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Authority { certificate: der, pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, name: &str) -> (CertificateDer<'static>, KeyPair) {
        self.issue_with(name, |_| {})
    }

    fn issue_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (CertificateDer<'static>, KeyPair) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().der().clone(), key)
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }
}

struct Server {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

/// Serves within TLS with these certificates, the first of which has the key.
async fn serve(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Server {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let service = TowerToHyperService::new(router());
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    Server { address, _task: AbortOnDropHandle::new(task) }
}

fn router() -> Router {
    Router::new()
        .route("/v1/session", get(session))
        .route("/v1/apps", get(async || "{\"type\":\"bookmark\",\"resourceVersion\":7}\n"))
}

/// Lets only one token in, and says under which name it was asked.
async fn session(headers: HeaderMap) -> Result<Json<Session>, (hyper::StatusCode, Json<ApiError>)> {
    if headers["authorization"] != "Bearer hmt_good" {
        let error = ApiError::new(ErrorCode::Unauthorized, "the token is not valid", "make another");
        return Err((hyper::StatusCode::UNAUTHORIZED, Json(error)));
    }
    let name = headers["host"].to_str().unwrap().to_owned();
    Ok(Json(Session { role: TokenRole::Admin, name, expires_at: None }))
}

impl Server {
    fn client(&self, trust: Trust, token: &str) -> Client {
        let url = format!("https://localhost:{}", self.address.port());
        Client::remote(&Remote { url, token: token.into(), trust }).unwrap()
    }

    async fn session(&self, trust: Trust) -> Result<Session, ApiError> {
        self.client(trust, "hmt_good").session().await
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[tokio::test]
async fn a_server_is_trusted_by_its_authority_whether_that_is_a_file_or_a_fingerprint() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("localhost");
    let pem = file(&authority.pem);
    let server = serve(vec![certificate.clone(), authority.certificate.clone()], &key).await;
    for trust in [
        Trust::CaFile(pem.path().into()),
        Trust::Fingerprint(authority.fingerprint()),
        Trust::Fingerprint(Fingerprint::of(&certificate)),
    ] {
        let session = server.session(trust.clone()).await.unwrap();
        assert_eq!(session.name, format!("localhost:{}", server.address.port()), "{trust:?}");
    }
    let client = server.client(Trust::Fingerprint(authority.fingerprint()), "hmt_good");
    let mut watch = client.watch::<App>(&Selection::default()).await.unwrap();
    let item = futures::StreamExt::next(&mut watch).await.unwrap().unwrap();
    assert!(matches!(item, WatchItem::Synced { resource_version: 7 }));
    let refused = server.client(Trust::CaFile(pem.path().into()), "hmt_bad").session().await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unauthorized, "the daemon's own error comes through");
}

#[tokio::test]
async fn another_certificate_is_told_with_both_fingerprints() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (certificate, key) = theirs.issue("localhost");
    let server = serve(vec![certificate.clone(), theirs.certificate.clone()], &key).await;
    let error = server.session(Trust::Fingerprint(ours.fingerprint())).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::CertificateMismatch);
    for fingerprint in [ours.fingerprint(), Fingerprint::of(&certificate)] {
        assert!(error.message.contains(&fingerprint.to_string()), "{}", error.message);
    }
    assert!(error.hint.contains("tls/ca.crt"), "{}", error.hint);
    let pem = file(&ours.pem);
    for trust in [Trust::CaFile(pem.path().into()), Trust::System] {
        let error = server.session(trust).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::CertificateMismatch);
        assert!(error.message.contains(&Fingerprint::of(&certificate).to_string()), "{}", error.message);
    }
}

#[tokio::test]
async fn the_authority_that_is_sent_along_must_have_issued_the_certificate() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (certificate, key) = theirs.issue("localhost");
    // Whoever knows our authority can send it along, but has no certificate of it.
    let server = serve(vec![certificate, ours.certificate.clone()], &key).await;
    let error = server.session(Trust::Fingerprint(ours.fingerprint())).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::CertificateMismatch, "{error}");
}

#[tokio::test]
async fn a_certificate_for_another_name_or_time_is_refused() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("node-1.example.com");
    let server = serve(vec![certificate.clone(), authority.certificate.clone()], &key).await;
    let pem = file(&authority.pem);
    for trust in [Trust::CaFile(pem.path().into()), Trust::Fingerprint(authority.fingerprint())] {
        let error = server.session(trust).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::CertificateMismatch);
        assert!(
            error.message.contains("node-1.example.com") && error.hint.contains("--web-host"),
            "{error:?}"
        );
    }
    // The certificate itself was named: whatever name it bears.
    server.session(Trust::Fingerprint(Fingerprint::of(&certificate))).await.unwrap();

    let old = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let (certificate, key) = authority.issue_with("localhost", old);
    let server = serve(vec![certificate, authority.certificate.clone()], &key).await;
    let error = server.session(Trust::Fingerprint(authority.fingerprint())).await.unwrap_err();
    assert!(error.code == ErrorCode::CertificateMismatch && error.hint.contains("clock"), "{error:?}");
}

#[tokio::test]
async fn a_server_that_has_not_the_certificates_key_is_no_server() {
    let authority = Authority::new();
    let (certificate, _) = authority.issue("localhost");
    let (_, other_key) = authority.issue("localhost");
    // A certificate is public: to show it must not be enough, not even where it is the one that was named.
    let key = PrivateKeyDer::try_from(other_key.serialize_der()).unwrap();
    let provider = ring::default_provider();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let shown = tokio_rustls::rustls::sign::CertifiedKey::new(vec![certificate.clone()], key);
    let resolver = Arc::new(tokio_rustls::rustls::sign::SingleCertAndKey::from(shown));
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        assert!(acceptor.accept(stream).await.is_err(), "the client took it");
    });
    let server = Server { address, _task: AbortOnDropHandle::new(task) };
    let trust = Trust::Fingerprint(Fingerprint::of(&certificate));
    let error = server.session(trust).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DaemonUnreachable, "{error}");
}

#[tokio::test]
async fn a_server_without_tls_and_one_that_is_not_there_are_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move { axum::serve(listener, router()).await.unwrap() });
    let server = Server { address, _task: AbortOnDropHandle::new(task) };
    let error = server.session(Trust::System).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DaemonUnreachable);
    assert!(error.message.contains("does not speak TLS") && error.hint.contains("http://"), "{error:?}");
    let url = format!("http://localhost:{}", address.port());
    let remote = Remote { url: url.clone(), token: "hmt_good".into(), trust: Trust::System };
    assert_eq!(Client::remote(&remote).unwrap().session().await.unwrap().role, TokenRole::Admin);
    drop(server);
    let gone = Remote { url: "http://127.0.0.1:1".into(), ..remote };
    let error = Client::remote(&gone).unwrap().session().await.unwrap_err();
    assert!(error.code == ErrorCode::DaemonUnreachable && error.message.contains("127.0.0.1:1"), "{error:?}");
}

#[tokio::test]
async fn a_file_that_is_no_certificate_is_told_before_anything_is_sent() {
    for text in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let pem = file(text);
        let trust = Trust::CaFile(pem.path().into());
        let remote = Remote { url: "https://localhost:1".into(), token: "hmt_good".into(), trust };
        assert_eq!(Client::remote(&remote).unwrap_err().code, ErrorCode::FileFailed, "{text:?}");
    }
}
