//! The running server: its sockets, its tasks, and the handle on them.

mod bind;
mod room;
mod tcp;
mod udp;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use tcp::Connections;

pub use bind::{Protocol, Sockets, StartError};

use crate::config::Config;
use crate::forwarder::Forwarder;
use crate::observer::Observer;
use crate::records::{Records, parse_name};
use crate::responder::Responder;
use crate::statistics::Statistics;

/// What the tasks of all sockets share.
#[derive(Debug)]
struct Context {
    responder: Responder,
    connections: Arc<Connections>,
}

/// A DNS server that runs until it is stopped or dropped.
///
/// Dropping it ends its tasks without waiting for them; [`stop`](Self::stop) waits. A socket that fails while it
/// runs is logged as an error and not opened again; the others go on.
#[derive(Debug)]
pub struct DnsServer {
    addresses: Vec<SocketAddr>,
    context: Arc<Context>,
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
        let mut sockets = Vec::with_capacity(config.listen.len());
        for &address in &config.listen {
            sockets.push(Sockets::bind(address).await?);
        }
        Self::start_on(sockets, &config, records)
    }

    /// As [`DnsServer::start`], on these sockets in the place of [`Config::listen`].
    ///
    /// # Errors
    /// [`StartError`]; the sockets are closed.
    pub fn start_on(sockets: Vec<Sockets>, config: &Config, records: Records) -> Result<Self, StartError> {
        if sockets.is_empty() {
            return Err(StartError::NoAddress);
        }
        let domain = parse_name(&config.domain).map_err(StartError::Domain)?;
        let addresses: Vec<_> = sockets.iter().map(|sockets| sockets.address).collect();

        let upstreams = without_ourselves(&config.upstreams, &addresses);
        let forwarder = Forwarder::new(config, &upstreams);
        let context = Arc::new(Context {
            responder: Responder::new(&domain, records, forwarder),
            connections: Arc::default(),
        });
        let (stopping, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for Sockets { address, udp, tcp, is_adopted } in sockets {
            let served = udp::serve(udp, is_adopted, Arc::clone(&context), stopped.clone());
            tasks.spawn(told(served, address, Protocol::Udp));
            let served = tcp::serve(tcp, Arc::clone(&context), stopped.clone());
            tasks.spawn(told(served, address, Protocol::Tcp));
        }
        tasks.spawn(probe(Arc::clone(&context), stopped));
        info!(?addresses, ?upstreams, domain = %domain, "The DNS server answers.");
        Ok(Self { addresses, context, stopping, tasks })
    }

    /// Where it answers, in the order of [`Config::listen`], with the ports that were taken.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Replaces the local names. A query sees the old table or the new one, whole; the change is in effect
    /// when this returns.
    pub fn publish(&self, records: Records) {
        self.context.responder.publish(records);
    }

    /// Replaces the upstreams, leaving out ourselves, from the next question on. What is cached stays.
    pub fn set_upstreams(&self, upstreams: &[SocketAddr]) {
        let upstreams = without_ourselves(upstreams, &self.addresses);
        info!(?upstreams, "The DNS server has other upstreams.");
        self.context.responder.set_upstreams(&upstreams);
    }

    /// Tells `observer` of every answer of an upstream with addresses, before who asked. What was answered before is forgotten,
    /// so that nobody hears again what the observer did not.
    pub fn observe_by(&self, observer: Arc<dyn Observer>) {
        self.context.responder.observe_by(observer);
    }

    /// Forgets what upstreams have answered: it is asked, and told to the observer, again.
    pub fn forget_answers(&self) {
        self.context.responder.forget_answers();
    }

    /// What has happened so far.
    pub fn statistics(&self) -> Statistics {
        self.context.responder.statistics()
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

/// Looks after upstreams until `stopped` says so.
async fn probe(context: Arc<Context>, mut stopped: watch::Receiver<bool>) {
    tokio::select! {
        _ = stopped.changed() => {}
        () = context.responder.probe() => {}
    }
}

/// Tells in the log of a socket that fails.
async fn told(served: impl Future<Output = io::Result<()>>, address: SocketAddr, protocol: Protocol) {
    if let Err(error) = served.await {
        error!(%error, %address, %protocol, "A DNS socket failed and does not answer any more.");
    }
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
