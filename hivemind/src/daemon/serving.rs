//! Where the daemon answers: names, the API, the web port, metrics. Sockets of an earlier daemon are gone on with.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use hivemind_api::Api;
use hivemind_dns::{DnsServer, Records, Sockets as DnsSockets, StartError};
use hivemind_model::{ApiError, ErrorCode};
use tokio::{
    net::{TcpListener, UnixListener, UnixSocket},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    certificates::{self, Certificates},
    config::Config,
    fault,
    sockets::{self, DNS_PORT, Name, Sockets},
};

/// Answers questions for names from `names` on.
///
/// # Errors
/// What keeps an address from being taken.
pub(crate) async fn start_dns(
    config: &Config,
    names: Records,
    kept: &mut Sockets,
) -> Result<DnsServer, ApiError> {
    let own = [config.dns.0.into(), config.dns.1.into()];
    let upstreams = match &config.dns_upstreams {
        Some(upstreams) => upstreams.clone(),
        None => hivemind_dns::upstreams_from_resolv_conf(Path::new("/etc/resolv.conf"), &own).unwrap_or_else(
            |error| {
                warn!(%error, "/etc/resolv.conf names no servers; only our own names resolve");
                Vec::new()
            },
        ),
    };
    let dns = hivemind_dns::Config {
        domain: config.cluster_domain.clone(),
        upstreams,
        // Policies may name what they stand for.
        is_observed: true,
        ..hivemind_dns::Config::default()
    };
    let started = match dns_sockets(own, kept).await {
        Ok(sockets) => DnsServer::start_on(sockets, &dns, names),
        Err(error) => Err(error),
    };
    started.map_err(|error| {
        ApiError::new(
            ErrorCode::AddressInUse,
            format!("the DNS server does not start: {error}"),
            "another program answers there; give others with --dns-address and --dns-address-v6",
        )
    })
}

async fn dns_sockets(own: [IpAddr; 2], kept: &mut Sockets) -> Result<Vec<DnsSockets>, StartError> {
    let names = [(Name::DnsUdpV4, Name::DnsTcpV4), (Name::DnsUdpV6, Name::DnsTcpV6)];
    let mut all = Vec::with_capacity(own.len());
    for (address, (udp, tcp)) in own.into_iter().zip(names) {
        let address = SocketAddr::new(address, DNS_PORT);
        let bound = DnsSockets::adopt(address, kept.take(udp), kept.take(tcp)).await?;
        sockets::keep(udp, bound.udp());
        sockets::keep(tcp, bound.tcp());
        all.push(bound);
    }
    Ok(all)
}

/// The API on its socket and on the web port, with TLS if there are certificates, and metrics on a port of their own if that is wanted.
pub(crate) async fn serve(
    config: &Config,
    api: Api,
    certificates: Option<Certificates>,
    kept: &mut Sockets,
    stop: &CancellationToken,
) -> Result<Vec<JoinHandle<()>>, ApiError> {
    let unix = listen_unix(&config.socket, kept.take(Name::Api))?;
    let tcp = listen_tcp(config.web, Name::Web, kept).await.map_err(|error| {
        let mut fault = fault::file(&format!("the web port {}", config.web), &error);
        if fault.code == ErrorCode::AddressInUse {
            fault.hint = "choose another with --web-port, or stop what uses it".into();
        }
        fault
    })?;
    let mut tasks = vec![tokio::spawn(hivemind_api::serve_unix(unix, api.clone(), stop.clone()))];
    if let Some(address) = config.metrics {
        let listener = listen_tcp(address, Name::Metrics, kept).await.map_err(|error| {
            let mut fault = fault::file(&format!("the address of metrics {address}"), &error);
            fault.hint = "choose another with --metrics-address".into();
            fault
        })?;
        info!(%address, "Metrics are served without a token");
        tasks.push(tokio::spawn(hivemind_api::serve_metrics(listener, api.clone(), stop.clone())));
    }
    let hosts = certificates::names(config);
    let mut tls = None;
    if let Some(certificates) = certificates {
        tls = Some(certificates.server_config()?);
        tasks.push(tokio::spawn(certificates.keep(stop.clone())));
    }
    let (web, stop) = (hivemind_api::Web { hosts, tls }, stop.clone());
    tasks.push(tokio::spawn(async move {
        if let Err(error) = hivemind_api::serve_web(tcp, web, api, stop).await {
            warn!(%error, "The web port is not served");
        }
    }));
    Ok(tasks)
}

/// Goes on with the listener of an earlier daemon, or binds one.
async fn listen_tcp(address: SocketAddr, name: Name, kept: &mut Sockets) -> io::Result<TcpListener> {
    let listener = match kept.take::<std::net::TcpListener>(name) {
        Some(listener) => {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)?
        }
        None => TcpListener::bind(address).await?,
    };
    sockets::keep(name, &listener);
    Ok(listener)
}

/// The API's socket, for root and the group `hivemind`: the earlier daemon's, or one that is bound.
fn listen_unix(
    path: &Path,
    kept: Option<std::os::unix::net::UnixListener>,
) -> Result<UnixListener, ApiError> {
    let what = format!("the socket {}", path.display());
    let failed = |error: io::Error| fault::file(&what, &error);
    let listener = match kept {
        Some(listener) => {
            listener.set_nonblocking(true).map_err(failed)?;
            UnixListener::from_std(listener).map_err(failed)?
        }
        None => bind_unix(path).map_err(failed)?,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    if let Ok(Some(group)) = nix::unistd::Group::from_name("hivemind") {
        nix::unistd::chown(path, None, Some(group.gid)).map_err(|e| failed(e.into()))?;
    }
    sockets::keep(Name::Api, &listener);
    Ok(listener)
}

/// How many connections wait at the API's socket to be accepted, as at its ports.
const UNIX_BACKLOG: u32 = 1024;

/// Binds a socket in the place of one that nobody listens at. The store's lock shows that no other daemon of this data
/// directory lives; a socket that answers belongs to one with another data directory.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    socket.listen(UNIX_BACKLOG)
}
