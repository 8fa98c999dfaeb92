//! The node's figures as Prometheus reads them.
//!
//! A [`Snapshot`] of what the parts of the daemon count goes in, the text of a scrape comes out: OpenMetrics 1.0.0, or to
//! whoever wants it the older text format 0.0.4 ([`Format::negotiate`]). What the kernel counts by identity and port is added up by app, with a
//! bounded number of series ([`Metrics`]); a series is there as long as the apps that it speaks of and a while longer, and never goes
//! back.
//! It reads nothing by itself, save for the process's own figures ([`Process::read`]), and serves nothing: the daemon
//! gathers, the API serves.
//!
//! Start at [`Metrics`]; every family is described in `families.rs`, from which the reference page is written.
#![forbid(unsafe_code)]

mod accumulator;
mod dns;
mod end_drops;
mod ends;
mod exposition;
mod families;
mod family;
mod flows;
mod format;
mod metrics;
mod process;
mod restarts;
mod round_trips;
mod snapshot;
mod text_format;
mod verdicts;

pub use dns::{DnsQueries, DnsSample, DnsUpstream, Durations};
pub use families::FAMILIES;
pub use family::{Family, Kind};
pub use format::Format;
pub use metrics::{Bounds, FLOW_SERIES_EACH, Metrics, PORTS_MAX};
pub use process::Process;
pub use snapshot::{
    ApiSample, AppName, AppSample, COMMIT_BUCKETS, CertificateSample, CommitTimes, DiskSample, EndDropSample,
    EventSample, Figure, FlowLogSample, MapSample, NodeSample, PairSample, Policies, PolicyName, PolicyTimes,
    ReplicaSample, RoundTripSample, Snapshot, StoreSample, Traffic, Transport, VerdictSample,
};
