//! The running server: its sockets, its tasks, and the handle on them.

mod bind;
mod handler;

use std::net::SocketAddr;
use std::sync::Arc;

use hickory_server::Server;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use handler::Handler;

pub use bind::{Protocol, StartError};

use crate::config::Config;
use crate::forwarder::Forwarder;
use crate::limits::CONNECTION_IDLE;
use crate::records::{Records, parse_name};
use crate::responder::Responder;
use crate::statistics::Statistics;

/// How many answers a TCP connection may have ready to be written. There is one at most: its queries are
/// answered one after another, and the last answer is written before the next query is read.
const ANSWERS_PER_CONNECTION_MAX: usize = 1;

/// A DNS server that runs until it is stopped or dropped.
///
/// Dropping it ends its tasks without waiting for them; [`stop`](Self::stop) waits. A socket that fails while it
/// runs is logged as an error and not opened again; the others go on.
#[derive(Debug)]
pub struct DnsServer {
    addresses: Vec<SocketAddr>,
    responder: Arc<Responder>,
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl DnsServer {
    /// Takes the addresses of `config` and answers there from `records` on.
    ///
    /// The first records come with the start, since a server that does not know its names yet would deny them.
    /// Needs a Tokio runtime, whose threads it uses.
    ///
    /// # Errors
    /// [`StartError`]; no socket is left open.
    pub async fn start(config: Config, records: Records) -> Result<Self, StartError> {
        if config.listen.is_empty() {
            return Err(StartError::NoAddress);
        }
        let domain = parse_name(&config.domain).map_err(StartError::Domain)?;
        let mut sockets = Vec::with_capacity(config.listen.len());
        for &address in &config.listen {
            sockets.push(bind::bind(address).await?);
        }
        let addresses: Vec<_> = sockets.iter().map(|sockets| sockets.address).collect();

        let upstreams = without_ourselves(&config.upstreams, &addresses);
        let forwarder = Forwarder::new(&upstreams, config.cache_entries, config.upstream_timeout);
        let responder = Arc::new(Responder::new(&domain, records, forwarder));
        let (stopping, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for sockets in sockets {
            let address = sockets.address;
            let handler = Handler::new(Arc::clone(&responder));
            let mut udp = Server::new(handler.clone());
            udp.register_socket(sockets.udp);
            tasks.spawn(serve(udp, handler, address, Protocol::Udp, stopped.clone()));
            let handler = Handler::new(Arc::clone(&responder));
            let mut tcp = Server::new(handler.clone());
            tcp.register_listener(sockets.tcp, CONNECTION_IDLE, ANSWERS_PER_CONNECTION_MAX);
            tasks.spawn(serve(tcp, handler, address, Protocol::Tcp, stopped.clone()));
        }
        info!(?addresses, ?upstreams, domain = %domain, "The DNS server answers.");
        Ok(Self { addresses, responder, stopping, tasks })
    }

    /// Where it answers, in the order of [`Config::listen`], with the ports that were taken.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Replaces the local names. A query sees the old table or the new one, whole; the change is in effect
    /// when this returns.
    pub fn publish(&self, records: Records) {
        self.responder.publish(records);
    }

    /// Replaces the upstreams, leaving out ourselves, from the next question on. What is cached stays.
    pub fn set_upstreams(&self, upstreams: &[SocketAddr]) {
        let upstreams = without_ourselves(upstreams, &self.addresses);
        info!(?upstreams, "The DNS server has other upstreams.");
        self.responder.set_upstreams(&upstreams);
    }

    /// How many queries had which outcome so far.
    pub fn statistics(&self) -> Statistics {
        self.responder.statistics()
    }

    /// Closes the sockets, abandons what waits for upstreams, and returns when both are done. Connections are
    /// closed within the same turn of the runtime, without a last word.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        while let Some(result) = self.tasks.join_next().await {
            if let Err(error) = result {
                error!(%error, "A task of the DNS server failed.");
            }
        }
        info!(addresses = ?self.addresses, "The DNS server has stopped.");
    }
}

/// Runs `server`, which has one socket, until `stopped` says so, then gives up what waits. A server has one
/// socket, since one with several tells of a failed socket only when all have ended.
async fn serve(
    mut server: Server<Handler>,
    handler: Handler,
    address: SocketAddr,
    protocol: Protocol,
    mut stopped: watch::Receiver<bool>,
) {
    let ended = tokio::select! {
        _ = stopped.changed() => server.shutdown_gracefully().await,
        ended = server.block_until_done() => ended,
    };
    if let Err(error) = ended {
        error!(%error, %address, %protocol, "A DNS socket failed and does not answer any more.");
    }
    handler.drained().await;
}

/// Upstreams that would send a question back to us are left out; one at a wildcard address would be us, if we
/// have its port.
fn without_ourselves(upstreams: &[SocketAddr], own: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_own = |upstream: &SocketAddr| {
        own.iter().any(|own| {
            let wildcard = own.ip().is_unspecified() && upstream.ip().is_loopback();
            own.port() == upstream.port()
                && (own.ip() == upstream.ip() || wildcard || upstream.ip().is_unspecified())
        })
    };
    let (ours, others): (Vec<_>, Vec<_>) = upstreams.iter().partition(|upstream| is_own(upstream));
    if !ours.is_empty() {
        warn!(?ours, "Upstreams that are this server itself are left out.");
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_that_is_ourselves_is_left_out() {
        let parse =
            |texts: &[&str]| -> Vec<SocketAddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let upstreams = parse(&["127.0.0.2:53", "127.0.0.2:54", "0.0.0.0:53", "10.0.0.1:53", "[::1]:5353"]);
        assert_eq!(
            without_ourselves(&upstreams, &parse(&["127.0.0.2:53"])),
            parse(&["127.0.0.2:54", "10.0.0.1:53", "[::1]:5353"])
        );
        assert_eq!(
            without_ourselves(&upstreams, &parse(&["0.0.0.0:53", "[::]:5353"])),
            parse(&["127.0.0.2:54", "10.0.0.1:53"])
        );
    }
}
