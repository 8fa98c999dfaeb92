//! The figures between scrapes, and the text of one.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{encoding::text, registry::Registry};

use crate::{
    AppSample, Format, Snapshot, Traffic,
    end_drops::EndDrops,
    ends::Ends,
    exposition::{Exposition, State},
    flows::{Flows, NUMBERS},
    restarts::Restarts,
    round_trips::RoundTrips,
    text_format::TextFormat,
    verdicts::Verdicts,
};

/// Series of each label set of flows.
pub const FLOW_SERIES_EACH: usize = NUMBERS;
/// Ports that are told singly for the same source, destination, protocol and verdict.
pub const PORTS_MAX: usize = 32;

/// Room for text that is set aside before the first scrape, in bytes.
const FIRST_TEXT_BYTES: usize = 16 << 10;

/// How much is told singly, and how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Label sets of flows, of [`FLOW_SERIES_EACH`] series each.
    pub flow_label_sets: usize,
    /// Pairs of apps whose round trips are told, of a histogram and a counter each.
    pub round_trip_pairs: usize,
    /// Rules of policies, for each verdict.
    pub rules: usize,
    /// How long series stay whose app is gone, so that whoever scrapes seldom gets what they came to.
    pub told_when_gone: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            flow_label_sets: 2_000,
            round_trip_pairs: 400,
            rules: 4_096,
            told_when_gone: Duration::from_secs(120),
        }
    }
}

/// What is kept from scrape to scrape. [`Metrics::observe`] takes in what is now, [`Metrics::render`] tells it; both may be
/// called from several threads, and take some milliseconds for some thousand series.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    state: Arc<Mutex<State>>,
    /// The length of the last text, to set aside as much for the next.
    text_bytes: Mutex<usize>,
}

impl Metrics {
    /// No figures yet.
    pub fn new(bounds: Bounds) -> Self {
        let state = Arc::new(Mutex::new(State {
            snapshot: Snapshot::default(),
            ends: Ends::new(bounds.told_when_gone),
            flows: Flows::new(bounds.flow_label_sets),
            round_trips: RoundTrips::new(bounds.round_trip_pairs),
            verdicts: Verdicts::new(bounds.rules),
            restarts: Restarts::new(),
            end_drops: EndDrops::new(),
            bounds,
        }));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Exposition(Arc::clone(&state))));
        Metrics { registry, state, text_bytes: Mutex::new(FIRST_TEXT_BYTES) }
    }

    /// Takes in what is now. Counters are added up, so every snapshot has to be given once.
    pub fn observe(&self, snapshot: Snapshot) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).observe(snapshot);
    }

    /// Takes in what the kernel counted, and nothing else: to be called before some of it is removed. `apps` are all that
    /// exist.
    pub fn observe_traffic(&self, apps: &[AppSample], traffic: Traffic) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).observe_traffic(apps, traffic);
    }

    /// The text of a scrape: what was observed last, and the totals of all that was observed.
    ///
    /// # Errors
    /// None that a program without a fault of ours meets: a family whose numbers are not of its kind.
    pub fn render(&self, format: Format) -> Result<String, fmt::Error> {
        let expected = *self.text_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rendered = String::with_capacity(expected + expected / 8);
        match format {
            Format::OpenMetrics => text::encode(&mut rendered, &self.registry)?,
            Format::Text => text::encode_registry(&mut TextFormat::new(&mut rendered), &self.registry)?,
        }
        *self.text_bytes.lock().unwrap_or_else(PoisonError::into_inner) = rendered.len();
        Ok(rendered)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Bounds::default())
    }
}
