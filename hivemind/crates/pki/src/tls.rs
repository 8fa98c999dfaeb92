//! The TLS that nodes speak with one another: both ends show certificates of the cluster's authority.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::CertificateDer,
    server::WebPkiClientVerifier,
};

use crate::{Error, NodeIdentity};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(authority: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(Error::unusable)?;
    Ok(Arc::new(roots))
}

/// The TLS of a node that takes connections. Who connects either shows a certificate of the authority or none: a machine
/// that is about to join has none yet, so what is asked has to be looked at with that in mind ([`crate::Peer::of`]).
///
/// # Errors
/// [`Error::Unusable`].
pub fn server(identity: &NodeIdentity) -> Result<Arc<ServerConfig>, Error> {
    let provider = provider();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(identity.authority())?, Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(Error::unusable)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain().to_vec(), identity.key())
        .map_err(Error::unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The TLS of a node that connects to another, which has to show a certificate of the same authority that bears the name
/// that is asked for.
///
/// # Errors
/// [`Error::Unusable`].
pub fn client(identity: &NodeIdentity) -> Result<Arc<ClientConfig>, Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(Error::unusable)?
        .with_root_certificates(roots(identity.authority())?)
        .with_client_auth_cert(identity.chain().to_vec(), identity.key())
        .map_err(Error::unusable)?;
    Ok(Arc::new(config))
}
