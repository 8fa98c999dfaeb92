//! The ends of connections, by name.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use crate::snapshot::AppName;

/// The reserved numbers of identities: the node's own processes, whatever is outside, the DNS server, other nodes' processes.
const HOST: u32 = 1;
const WORLD: u32 = 2;
const DNS: u32 = 3;
const NODE: u32 = 4;

/// How many apps that are gone are told for a while longer.
const GONE_MAX: usize = 1_024;

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
/// its last replica, and its counters a moment later. Apps count as there for a while after they went, so that their last
/// figures are scraped.
#[derive(Debug)]
pub(crate) struct Ends {
    names: HashMap<u32, Arc<AppName>>,
    /// With when they were seen to be gone, if they are.
    apps: HashMap<Arc<AppName>, Option<Duration>>,
    /// Numbers asked for since the last [`Ends::update`].
    asked: HashSet<u32>,
    told_when_gone: Duration,
}

impl Ends {
    pub(crate) fn new(told_when_gone: Duration) -> Self {
        Ends { names: HashMap::new(), apps: HashMap::new(), asked: HashSet::new(), told_when_gone }
    }

    /// Takes in what exists at the time `now`: these apps.
    pub(crate) fn update(
        &mut self,
        now: Duration,
        identities: HashMap<u32, Arc<AppName>>,
        existing: &HashSet<Arc<AppName>>,
    ) {
        let asked = std::mem::take(&mut self.asked);
        self.names.retain(|number, _| asked.contains(number));
        self.names.extend(identities);
        self.apps.retain(|app, gone| {
            let is_there = existing.contains(app);
            let since = if is_there { gone.take().unwrap_or(now) } else { *gone.get_or_insert(now) };
            is_there || now.saturating_sub(since) < self.told_when_gone
        });
        self.forget_oldest();
        self.apps.extend(existing.iter().map(|app| (Arc::clone(app), None)));
    }

    fn forget_oldest(&mut self) {
        let mut gone: Vec<_> = self.apps.values().copied().flatten().collect();
        if gone.len() > GONE_MAX {
            gone.sort_unstable();
            let oldest = gone[gone.len() - GONE_MAX];
            self.apps.retain(|_, gone| gone.is_none_or(|gone| gone >= oldest));
        }
    }

    /// Whether the app exists, or did a moment ago.
    pub(crate) fn is_told(&self, app: &Arc<AppName>) -> bool {
        self.apps.contains_key(app)
    }

    /// The end of this number; none if it is of an app that is gone for longer.
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

    /// Whether the end is no app, or one that exists or did a moment ago.
    pub(crate) fn exists(&self, end: &End) -> bool {
        match end {
            End::App(app) => self.is_told(app),
            _ => true,
        }
    }
}
