//! When a container that was started takes connections.
//!
//! A process needs a moment until it listens; a replica that is in its service before refuses what it is sent. So it enters
//! when it listens on one of the ports that it is known for: those that its image exposes or its app publishes. One that
//! is known for none, or listens elsewhere, enters after a while.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use hivemind_model::Protocol;
use tracing::info;

use super::Worker;
use crate::lifecycle::{Container, Wanted};

/// How often the sockets are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long a process that is known for no port has to run.
const SETTLE: Duration = Duration::from_millis(300);

/// How long is waited for a known port.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);

/// The state of a listening socket in `/proc/net/tcp` (`TCP_LISTEN` of the kernel's `tcp_states.h`).
const LISTEN: &str = "0A";

impl Worker {
    /// Returns when the container is ready (and notes it), or something else has to be done first.
    pub(super) async fn await_ready(&mut self) {
        let Some(pid) = self.pid().await else {
            // It ended before it was looked at; the news of that may have been taken as news of the container before it.
            return self.look_again().await;
        };
        let ports = self.known_ports().await;
        let limit = if ports.is_empty() { SETTLE } else { LISTEN_LIMIT };
        let began = Instant::now();
        let mut look = tokio::time::interval(LOOK_EVERY);
        while began.elapsed() < limit {
            tokio::select! {
                () = self.news.notified() => {
                    self.look_again().await;
                    if self.seen.container != Container::Running {
                        return;
                    }
                }
                changed = self.replica.changed() => {
                    // Without a sender the agent stops, and this worker with it.
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                    if self.wanted() == Wanted::Down || self.is_misidentified() {
                        return;
                    }
                }
                _ = look.tick() => {
                    let listening = listening_ports(pid);
                    if ports.iter().any(|port| listening.contains(port)) {
                        break;
                    }
                }
            }
        }
        if !ports.is_empty() && began.elapsed() >= limit {
            info!(replica = %self.id, ?ports, "The container listens on none of its known ports; it enters its service all the same");
        }
        self.now_ready().await;
    }

    async fn pid(&self) -> Option<u32> {
        let status = self.container_status().await.ok().flatten()?;
        status.state.pid()
    }

    /// TCP ports that the image exposes or the app publishes.
    async fn known_ports(&self) -> BTreeSet<u16> {
        let container = self.container();
        let published =
            container.ports.iter().filter(|p| p.protocol == Protocol::Tcp).map(|p| p.container_port);
        let mut ports: BTreeSet<u16> = published.collect();
        if container.command.is_empty()
            && let Ok(reference) = self.reference()
            && let Ok(Some(image)) = self.shared.runtime.image(&reference).await
        {
            let tcp = |text: &str| text.strip_suffix("/tcp").unwrap_or(text).parse::<u16>().ok();
            ports.extend(image.config.exposed_ports.iter().filter_map(|text| tcp(text)));
        }
        ports
    }
}

/// The ports on which sockets of the process's network listen.
fn listening_ports(pid: u32) -> BTreeSet<u16> {
    let tables = ["tcp", "tcp6"]
        .map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(listening_port).collect()
}

/// The port of a line of `/proc/net/tcp`, if its socket listens.
fn listening_port(line: &str) -> Option<u16> {
    let mut words = line.split_whitespace();
    let local = words.nth(1)?;
    let state = words.nth(1)?;
    let (_, port) = local.rsplit_once(':')?;
    (state == LISTEN).then(|| u16::from_str_radix(port, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_is_told_from_a_connected_one() {
        let listening =
            "   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1";
        let connected =
            "   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 2 1";
        let v6 = "   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 3 1";
        assert_eq!(listening_port(listening), Some(80));
        assert_eq!(listening_port(connected), None);
        assert_eq!(listening_port(v6), Some(8080));
        assert_eq!(listening_port("nonsense"), None);
    }

    #[test]
    fn a_socket_that_this_process_opens_is_seen() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(listening_ports(std::process::id()).contains(&socket.local_addr().unwrap().port()));
    }
}
