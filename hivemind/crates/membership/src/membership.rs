//! The node on the network: one task that owns the socket and the core.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{Config, ConfigError, Key, Peer, check_keys, check_peers};
use crate::core::{Core, Start};
use crate::limits::{DATAGRAM_SIZE_BYTES_MAX, DATAGRAMS_PER_TURN_MAX};
use crate::statistics::Statistics;
use crate::view::View;

/// Membership could not be started. Nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error("the configuration of membership is not usable")]
    Config(#[from] ConfigError),
    /// The system gave no random bits.
    #[error("the system gives no random bits")]
    Random(#[source] rand::rngs::SysError),
    /// The socket is not bound to an IPv4 address.
    #[error("gossip needs an IPv4 socket, not {0}")]
    NotIpv4(SocketAddr),
    /// The socket cannot be used.
    #[error("the gossip socket cannot be used")]
    Socket(#[source] io::Error),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    Run,
    Leave,
    Stop,
}

struct Wanted {
    peers: Arc<[Peer]>,
    keys: Arc<[Key]>,
    goal: Goal,
}

/// This node's part in the cluster's membership, while it is kept. Dropped, it ends without goodbye.
pub struct Membership {
    own: Peer,
    wanted: watch::Sender<Wanted>,
    view: watch::Receiver<Arc<View>>,
    statistics: watch::Receiver<Statistics>,
    task: JoinHandle<()>,
}

impl Membership {
    /// Takes part from now on, on `socket`, which the others reach at `config.own.address`. Within a runtime only.
    ///
    /// # Errors
    /// If the configuration contradicts itself or the socket is not IPv4.
    pub fn start(config: Config, socket: UdpSocket) -> Result<Self, StartError> {
        let bound = socket.local_addr().map_err(StartError::Socket)?;
        if !bound.is_ipv4() {
            return Err(StartError::NotIpv4(bound));
        }
        let mut seed = [0; 32];
        SysRng.try_fill_bytes(&mut seed).map_err(StartError::Random)?;
        let mut core = Core::new(&config, Start { now: Instant::now(), wall: Timestamp::now(), seed })?;
        let first = core.take_view().expect("a new core has a view to give");
        let (view_sender, view) = watch::channel(first);
        let (statistics_sender, statistics) = watch::channel(Statistics::default());
        let (wanted, wanted_receiver) =
            watch::channel(Wanted { peers: config.peers.into(), keys: config.keys.into(), goal: Goal::Run });
        let running = Running {
            core,
            socket,
            wanted: wanted_receiver,
            view: view_sender,
            statistics: statistics_sender,
            unreadable: false,
        };
        let task = tokio::spawn(running.run());
        Ok(Self { own: config.own, wanted, view, statistics, task })
    }

    /// Replaces the list of the cluster's nodes; this node may be in it. New ones are announced to. Those that are not in
    /// it any more leave the view, and are neither heard nor told anything.
    ///
    /// # Errors
    /// If the list contradicts itself; then the old one stays.
    pub fn set_peers(&self, peers: Vec<Peer>) -> Result<(), ConfigError> {
        check_peers(&self.own, &peers)?;
        self.wanted.send_modify(|wanted| wanted.peers = peers.into());
        Ok(())
    }

    /// Replaces the keys: the first seals from now on, each opens. To change the cluster's key, give every node the new one
    /// as the second first, then as the first, then alone.
    ///
    /// # Errors
    /// If the keys contradict each other; then the old ones stay.
    pub fn set_keys(&self, keys: Vec<Key>) -> Result<(), ConfigError> {
        check_keys(&keys)?;
        self.wanted.send_modify(|wanted| wanted.keys = keys.into());
        Ok(())
    }

    /// What is known of the members, now and whenever it changes. Round-trip times alone make a new view once a second.
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// The counts since the start, half a second old at most.
    pub fn statistics(&self) -> Statistics {
        *self.statistics.borrow()
    }

    /// Says goodbye, which takes some 150 ms, and ends: the others see this node as [`State::Left`](crate::State::Left).
    pub async fn leave(self) {
        self.end(Goal::Leave).await;
    }

    /// Ends without goodbye, as for a restart: the others will miss this node if it does not come back at once.
    pub async fn stop(self) {
        self.end(Goal::Stop).await;
    }

    async fn end(self, goal: Goal) {
        self.wanted.send_modify(|wanted| wanted.goal = goal);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "The membership task failed");
        }
    }
}

struct Running {
    core: Core,
    socket: UdpSocket,
    wanted: watch::Receiver<Wanted>,
    view: watch::Sender<Arc<View>>,
    statistics: watch::Sender<Statistics>,
    /// Reading failed; it is tried again at the next deadline, not at once.
    unreadable: bool,
}

enum Woken {
    Wanted,
    Gone,
    Readable,
    Due,
}

impl Running {
    async fn run(mut self) {
        // Until the reactor has seen the socket it takes nothing, and the first announcements would be lost. That it cannot
        // be written shows when it is.
        let _ = self.socket.writable().await;
        loop {
            // What waits in the socket goes before what is due: a node that was held up finds the answers to its probes.
            self.core.advance(Instant::now());
            self.send();
            self.publish();
            if self.core.has_left() {
                return;
            }
            match self.wait().await {
                Woken::Gone => return,
                Woken::Wanted if self.follow() => return,
                Woken::Wanted => {}
                Woken::Readable => self.read(),
                Woken::Due => {
                    self.unreadable = false;
                    self.read();
                }
            }
        }
    }

    async fn wait(&mut self) -> Woken {
        let deadline = self.core.next_deadline().into();
        tokio::select! {
            biased;
            changed = self.wanted.changed() => if changed.is_ok() { Woken::Wanted } else { Woken::Gone },
            _ = self.socket.readable(), if !self.unreadable => Woken::Readable,
            () = tokio::time::sleep_until(deadline) => Woken::Due,
        }
    }

    /// Does what is wanted; says whether that is to end.
    fn follow(&mut self) -> bool {
        let (peers, keys, goal) = {
            let wanted = self.wanted.borrow_and_update();
            (wanted.peers.clone(), wanted.keys.clone(), wanted.goal)
        };
        let now = Instant::now();
        if let Err(error) = self.core.set_peers(now, &peers).and_then(|()| self.core.set_keys(&keys)) {
            tracing::error!(%error, "A list of nodes or keys that was checked is refused");
        }
        if goal == Goal::Leave {
            self.core.leave(now);
        }
        goal == Goal::Stop
    }

    fn read(&mut self) {
        let mut buffer = [0; DATAGRAM_SIZE_BYTES_MAX + 1];
        for _ in 0..DATAGRAMS_PER_TURN_MAX {
            match self.socket.try_recv_from(&mut buffer) {
                Ok((length, SocketAddr::V4(from))) => {
                    self.core.receive(Instant::now(), from, &mut buffer[..length]);
                }
                Ok((_, SocketAddr::V6(_))) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::debug!(%error, "Gossip cannot be read");
                    self.unreadable = true;
                    return;
                }
            }
        }
    }

    fn send(&mut self) {
        while let Some(transmit) = self.core.poll_transmit() {
            let to = SocketAddrV4::new(*transmit.to.ip(), transmit.to.port());
            // One that is not taken is lost, as any datagram may be; an unreachable network is not news to this protocol.
            if self.socket.try_send_to(&transmit.datagram, to.into()).is_err() {
                self.core.count_unsent();
            }
        }
    }

    fn publish(&mut self) {
        if let Some(view) = self.core.take_view() {
            self.view.send_replace(view);
        }
        self.statistics.send_replace(self.core.statistics());
    }
}
