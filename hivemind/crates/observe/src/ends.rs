//! The ends of connections, by name.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::snapshot::{AppName, AppSample};

/// The reserved numbers of identities: the node's own processes, whatever is outside, the DNS server, other nodes' processes.
const HOST: u32 = 1;
const WORLD: u32 = 2;
const DNS: u32 = 3;
const NODE: u32 = 4;

/// One end of connections. All but apps are without a namespace, which no app is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum End {
    App(Arc<AppName>),
    Host,
    World,
    Dns,
    Node,
    /// An identity that never had a name.
    Unknown,
    /// Any end: what found no series of its own.
    Other,
}

impl End {
    pub(crate) fn namespace(&self) -> &str {
        match self {
            End::App(app) => &app.namespace,
            _ => "",
        }
    }

    pub(crate) fn app(&self) -> &str {
        match self {
            End::App(app) => &app.name,
            End::Host => "host",
            End::World => "world",
            End::Dns => "dns",
            End::Node => "node",
            End::Unknown => "unknown",
            End::Other => "other",
        }
    }
}

/// Who is behind the numbers. Names are remembered while the kernel still counts for their number: an identity goes with
/// its last replica, and its counters a moment later.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    names: HashMap<u32, Arc<AppName>>,
    apps: HashSet<Arc<AppName>>,
    /// Numbers asked for since the last [`Ends::update`].
    asked: HashSet<u32>,
}

impl Ends {
    /// Takes in what exists now.
    pub(crate) fn update(&mut self, identities: HashMap<u32, Arc<AppName>>, apps: &[AppSample]) {
        let asked = std::mem::take(&mut self.asked);
        self.names.retain(|number, _| asked.contains(number));
        self.names.extend(identities);
        self.apps = apps.iter().map(|sample| Arc::clone(&sample.app)).collect();
    }

    /// The end of this number; none if it is of an app that is gone.
    pub(crate) fn of(&mut self, number: u32) -> Option<End> {
        let end = match number {
            HOST => End::Host,
            WORLD => End::World,
            DNS => End::Dns,
            NODE => End::Node,
            _ => match self.names.get(&number) {
                Some(app) => {
                    self.asked.insert(number);
                    End::App(Arc::clone(app))
                }
                None => End::Unknown,
            },
        };
        self.exists(&end).then_some(end)
    }

    /// Whether the end is no app, or one that exists.
    pub(crate) fn exists(&self, end: &End) -> bool {
        match end {
            End::App(app) => self.apps.contains(app),
            _ => true,
        }
    }
}
