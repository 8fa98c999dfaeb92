//! Other nodes of the cluster, on the port that nodes have for one another.

use std::{fmt, io, net::SocketAddrV4, sync::Arc, time::Duration};

use futures::stream::BoxStream;
use hivemind_model::{
    ApiError, ErrorCode, FeedLine, JoinAnswer, JoinRequest, Measurements, NodeReport, RenewAnswer,
    RenewRequest,
};
use hyper::{Method, header::HeaderValue};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{self, CertificateError, ClientConfig, OtherError, pki_types::ServerName},
};

use crate::{
    client::Client,
    connection::json,
    fingerprint::Fingerprint,
    lines::JsonLines,
    path::ApiPath,
    remote::Trust,
    trust::{self, Unexpected},
    way::{Stream, Way},
};

/// Another node, and how both know one another.
#[derive(Clone)]
pub struct NodeLink {
    /// Where its node port is.
    pub address: SocketAddrV4,
    /// The name that its certificate has to bear.
    pub certificate_name: String,
    /// The TLS to speak, as a rule with a certificate of this node's.
    pub tls: Arc<ClientConfig>,
}

impl fmt::Debug for NodeLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeLink")
            .field("address", &self.address)
            .field("certificate_name", &self.certificate_name)
            .finish_non_exhaustive()
    }
}

/// The TLS of a machine that has no certificate yet, and knows of the cluster only its authority.
///
/// # Errors
/// `Internal`.
pub fn pinned(authority: Fingerprint) -> Result<Arc<ClientConfig>, ApiError> {
    Ok(Arc::new(trust::client_config(&Trust::Fingerprint(authority))?))
}

/// A [`NodeLink`], ready to connect.
pub(crate) struct Linked {
    pub(crate) address: SocketAddrV4,
    pub(crate) host: HeaderValue,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl fmt::Debug for Linked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Linked")
            .field("address", &self.address)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Linked {
    fn new(link: NodeLink) -> Result<Self, ApiError> {
        let NodeLink { address, certificate_name, tls } = link;
        let invalid =
            |what: &str| ApiError::new(ErrorCode::Internal, format!("{certificate_name:?} is no {what}"), "");
        Ok(Linked {
            address,
            host: HeaderValue::try_from(certificate_name.as_str()).map_err(|_| invalid("host"))?,
            name: ServerName::try_from(certificate_name.clone()).map_err(|_| invalid("name"))?,
            connector: TlsConnector::from(tls),
        })
    }

    pub(crate) async fn connect(&self) -> Result<Box<dyn Stream>, ApiError> {
        let tcp = TcpStream::connect(self.address).await.map_err(|error| {
            ApiError::new(
                ErrorCode::NodeUnreachable,
                format!("no node can be reached at {}: {error}", self.address),
                "see whether its daemon runs, and whether a firewall is in between",
            )
        })?;
        let _ = tcp.set_nodelay(true);
        match self.connector.connect(self.name.clone(), tcp).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(self.explain(&error)),
        }
    }

    fn explain(&self, error: &io::Error) -> ApiError {
        let address = self.address;
        let fault = match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(cause)))) => {
                cause.downcast_ref::<Unexpected>().map(|unexpected| &unexpected.fault)
            }
            Some(rustls::Error::InvalidCertificate(fault)) => Some(fault),
            _ => None,
        };
        match fault {
            Some(
                CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }
                | CertificateError::Expired
                | CertificateError::ExpiredContext { .. },
            ) => ApiError::new(
                ErrorCode::ClockSkew,
                format!(
                    "the certificate of the node at {address} is not valid by this machine's clock: {error}"
                ),
                "set the clocks of both machines, best by NTP",
            ),
            Some(CertificateError::UnknownIssuer | CertificateError::BadSignature) => ApiError::new(
                ErrorCode::OtherCluster,
                format!("the node at {address} belongs to another cluster"),
                "check address and token: both come from `hivemind node token create` on one server",
            ),
            Some(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
                ApiError::new(
                    ErrorCode::CertificateMismatch,
                    format!("the node at {address} is not {:?}", self.name),
                    "if a server was meant: give the address of one",
                )
            }
            _ => ApiError::new(
                ErrorCode::NodeUnreachable,
                format!("the node at {address} does not agree on TLS: {error}"),
                "see whether a Hivemind daemon answers at that port, 4484 by default",
            ),
        }
    }
}

impl Client {
    /// A client of another node. Nothing is connected yet.
    ///
    /// # Errors
    /// `Internal` for a name that cannot stand in a certificate.
    pub fn node(link: NodeLink) -> Result<Self, ApiError> {
        Ok(Client { way: Way::Node(Arc::new(Linked::new(link)?)) })
    }

    /// Asks a server to be let in, or whether one could be.
    ///
    /// # Errors
    /// Everything that is in the way, at once.
    pub async fn join(&self, request: &JoinRequest) -> Result<JoinAnswer, ApiError> {
        self.change(Method::POST, &ApiPath::of("join"), json(request)?).await
    }

    /// What concerns `node`, from after revision `since` on.
    ///
    /// # Errors
    /// `NodeRemoved`; the stream has its own.
    pub async fn feed(
        &self,
        node: &str,
        since: Option<u64>,
    ) -> Result<BoxStream<'static, Result<FeedLine, ApiError>>, ApiError> {
        let mut path = ApiPath::of("nodes").part(node).part("feed");
        if let Some(since) = since {
            path = path.query("since", &since.to_string());
        }
        let lines: JsonLines<FeedLine> = self.stream(&path).await?;
        Ok(Box::pin(lines))
    }

    /// Tells a server what `node` has to tell.
    ///
    /// # Errors
    /// `NodeRemoved`.
    pub async fn report(&self, node: &str, report: &NodeReport) -> Result<(), ApiError> {
        self.tell_json(&ApiPath::of("nodes").part(node).part("report"), json(report)?).await
    }

    /// Tells a server what `node` measured.
    ///
    /// # Errors
    /// `NodeRemoved`.
    pub async fn tell_measurements(&self, node: &str, measured: &Measurements) -> Result<(), ApiError> {
        self.tell_json(&ApiPath::of("nodes").part(node).part("measurements"), json(measured)?).await
    }

    /// Asks a server for another certificate of `node`.
    ///
    /// # Errors
    /// `NodeRemoved`.
    pub async fn renew(&self, node: &str, request: &RenewRequest) -> Result<RenewAnswer, ApiError> {
        self.change(Method::POST, &ApiPath::of("nodes").part(node).part("renew"), json(request)?).await
    }

    /// Tells a server that `node` wants to leave, its replicas first (`drain`), or does leave.
    ///
    /// # Errors
    /// `NodeRemoved`.
    pub async fn leave(&self, node: &str, drain: bool) -> Result<(), ApiError> {
        let path = ApiPath::of("nodes").part(node).part("leave");
        self.tell(Method::POST, &if drain { path.query("drain", "true") } else { path }).await
    }
}

/// How long a stream of a server may be silent until it is taken to be lost: it gives a sign of life every three seconds.
pub const FEED_SILENT_MAX: Duration = Duration::from_secs(10);
