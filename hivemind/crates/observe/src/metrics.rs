//! The figures between scrapes, and the text of one.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{encoding::text, registry::Registry};

use crate::{
    AppSample, Format, Snapshot, Traffic,
    end_drops::EndDrops,
    ends::Ends,
    exposition::{Exposition, State},
    flows::Flows,
    restarts::Restarts,
    round_trips::RoundTrips,
    text_format::TextFormat,
};

/// Label sets of flows that are told singly, of five series each.
pub const FLOW_LABEL_SETS_MAX: usize = 2_000;
/// Pairs of apps whose round trips are told singly, of a histogram and a counter each.
pub const ROUND_TRIP_PAIRS_MAX: usize = 400;
/// Ports that are told singly for the same source, destination, protocol and verdict.
pub const PORTS_MAX: usize = 32;

/// Room for text that is set aside before the first scrape, in bytes.
const FIRST_TEXT_BYTES: usize = 16 << 10;

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
    /// No figures yet; at most [`FLOW_LABEL_SETS_MAX`] label sets of flows and [`ROUND_TRIP_PAIRS_MAX`] pairs of apps.
    pub fn new() -> Self {
        Self::with_bounds(FLOW_LABEL_SETS_MAX, ROUND_TRIP_PAIRS_MAX)
    }

    /// The same with other bounds.
    pub fn with_bounds(flow_label_sets_max: usize, round_trip_pairs_max: usize) -> Self {
        let state = Arc::new(Mutex::new(State {
            snapshot: Snapshot::default(),
            ends: Ends::default(),
            flows: Flows::new(flow_label_sets_max),
            round_trips: RoundTrips::new(round_trip_pairs_max),
            restarts: Restarts::new(),
            end_drops: EndDrops::new(),
            flow_label_sets_max: flow_label_sets_max as u64,
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
        Self::new()
    }
}
