//! Sockets that outlive the daemon.
//!
//! Each socket that programs ask is given to the service manager as soon as it is bound (systemd's file descriptor store,
//! `FDSTORE=1` in sd_notify(3)), and handed to the next daemon (sd_listen_fds(3)). So it is open while no daemon runs: what is
//! asked then waits in the kernel, as much as its queues hold, and is answered when one is back. A service manager lets go of
//! them when the service is stopped and nobody is to start it; then programs are refused at once.
//!
//! Without a service manager, or with one that keeps none, nothing is different but that.

mod fit;
mod inherited;
mod manager;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
};

use tracing::{info, warn};

use super::config::Config;
use fit::{Place, Unfit, check};
pub(crate) use inherited::Inherited;

/// The port at which names are asked for.
pub(crate) const DNS_PORT: u16 = 53;

/// A socket's name in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    DnsUdpV4,
    DnsTcpV4,
    DnsUdpV6,
    DnsTcpV6,
    /// The API's Unix socket.
    Api,
    Web,
    Metrics,
}

impl Name {
    const ALL: [Name; 7] =
        [Name::DnsUdpV4, Name::DnsTcpV4, Name::DnsUdpV6, Name::DnsTcpV6, Name::Api, Name::Web, Name::Metrics];

    fn as_str(self) -> &'static str {
        match self {
            Name::DnsUdpV4 => "dns-udp-v4",
            Name::DnsTcpV4 => "dns-tcp-v4",
            Name::DnsUdpV6 => "dns-udp-v6",
            Name::DnsTcpV6 => "dns-tcp-v6",
            Name::Api => "api",
            Name::Web => "web",
            Name::Metrics => "metrics",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.as_str() == text)
    }

    /// Where such a socket has to be bound; `None` if there is to be none.
    fn place(self, config: &Config) -> Option<Place> {
        let (v4, v6) = config.dns;
        let (v4, v6) = (SocketAddr::new(v4.into(), DNS_PORT), SocketAddr::new(v6.into(), DNS_PORT));
        Some(match self {
            Name::DnsUdpV4 => Place::Udp(v4),
            Name::DnsTcpV4 => Place::Tcp(v4),
            Name::DnsUdpV6 => Place::Udp(v6),
            Name::DnsTcpV6 => Place::Tcp(v6),
            Name::Api => Place::Unix(config.socket.clone()),
            Name::Web => Place::Tcp(config.web),
            Name::Metrics => Place::Tcp(config.metrics?),
        })
    }
}

/// The sockets of an earlier daemon that fit the configuration, until each is taken.
pub(crate) struct Sockets(BTreeMap<Name, OwnedFd>);

impl Sockets {
    /// Those of `inherited` that fit. The others are closed, here and by the service manager, so that what they held is free
    /// when this returns. Blocks, for some seconds at most.
    pub(crate) fn sort_out(inherited: Inherited, config: &Config) -> Self {
        let (fitting, unfit) = sort(inherited, |name| name.place(config));
        for (name, reason) in &unfit {
            info!(name, %reason, "A socket of an earlier daemon is let go");
        }
        let names: BTreeSet<_> = unfit.into_iter().map(|(name, _)| name).collect();
        remove(names.iter().map(String::as_str));
        // With those that do not fit went the one that does.
        for (name, socket) in &fitting {
            if names.contains(name.as_str()) {
                keep(*name, socket);
            }
        }
        Self(fitting)
    }

    /// The socket of this name, if there is one. It blocks or not as the earlier daemon had set it.
    pub(crate) fn take<T: From<OwnedFd>>(&mut self, name: Name) -> Option<T> {
        self.0.remove(&name).map(T::from)
    }
}

type Sorted = (BTreeMap<Name, OwnedFd>, Vec<(String, Unfit)>);

/// The first socket of each name that fits its place, and why the others do not.
fn sort(inherited: Inherited, place: impl Fn(Name) -> Option<Place>) -> Sorted {
    let mut fitting = BTreeMap::new();
    let mut unfit = Vec::new();
    for (text, socket) in inherited.0 {
        let wanted = Name::parse(&text).and_then(|name| Some((name, place(name)?)));
        let checked = match wanted {
            None => Err(Unfit::NotWanted),
            Some((name, _)) if fitting.contains_key(&name) => Err(Unfit::Doubled),
            Some((name, place)) => check(socket.as_fd(), &place).map(|()| name),
        };
        match checked {
            Ok(name) => drop(fitting.insert(name, socket)),
            Err(reason) => unfit.push((text, reason)),
        }
    }
    (fitting, unfit)
}

/// Gives a socket to the service manager, which keeps it if it does so at all; one that it has already is not kept twice.
pub(crate) fn keep(name: Name, socket: impl AsFd) {
    if let Err(error) = manager::store(name.as_str(), socket.as_fd()) {
        warn!(%error, name = name.as_str(), "A socket will not outlive this daemon");
    }
}

/// Closes all sockets of earlier daemons, here and by the service manager: nobody will be there to answer. Blocks, for some
/// seconds at most.
pub(crate) fn let_go(inherited: Inherited) {
    let names: BTreeSet<String> = inherited.0.into_iter().map(|(name, _)| name).collect();
    remove(names.iter().map(String::as_str).chain(Name::ALL.map(Name::as_str)));
}

fn remove<'a>(names: impl Iterator<Item = &'a str>) {
    let mut names = names.peekable();
    if names.peek().is_none() {
        return;
    }
    let removed = names.try_for_each(manager::remove).and_then(|()| manager::barrier());
    if let Err(error) = removed {
        warn!(%error, "The service manager may still hold sockets of an earlier daemon");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    const ANY: &str = "127.0.0.1:0";

    fn inherited<const N: usize>(sockets: [(&str, OwnedFd); N]) -> Inherited {
        Inherited(sockets.map(|(name, socket)| (name.to_owned(), socket)).into())
    }

    #[test]
    fn every_name_is_read_as_it_is_written() {
        for name in Name::ALL {
            assert_eq!(Name::parse(name.as_str()), Some(name));
        }
        assert_eq!(Name::parse("stored"), None);
    }

    #[test]
    fn the_unit_has_room_for_all_of_them() {
        let unit = include_str!("../../../packaging/hivemind.service");
        let room = unit.lines().find_map(|line| line.strip_prefix("FileDescriptorStoreMax="));
        assert!(room.unwrap().parse::<usize>().unwrap() >= Name::ALL.len());
    }

    #[test]
    fn one_socket_of_a_name_is_taken_and_what_does_not_fit_is_told() {
        let (web, other) = (TcpListener::bind(ANY).unwrap(), TcpListener::bind(ANY).unwrap());
        let address = web.local_addr().unwrap();
        let again = web.try_clone().unwrap();
        let place = |name| (name == Name::Web).then_some(Place::Tcp(address));
        let all = [
            ("web", other.into()),
            ("web", web.into()),
            ("web", again.into()),
            ("metrics", TcpListener::bind(ANY).unwrap().into()),
            ("of-another-version", UdpSocket::bind(ANY).unwrap().into()),
        ];
        let (fitting, unfit) = sort(inherited(all), place);
        assert_eq!(fitting.keys().collect::<Vec<_>>(), [&Name::Web]);
        let names: Vec<_> = unfit.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["web", "web", "metrics", "of-another-version"]);
        assert!(matches!(unfit[1].1, Unfit::Doubled), "{unfit:?}");
        let mut sockets = Sockets(fitting);
        assert_eq!(sockets.take::<TcpListener>(Name::Web).unwrap().local_addr().unwrap(), address);
        assert!(sockets.take::<TcpListener>(Name::Web).is_none());
    }
}
