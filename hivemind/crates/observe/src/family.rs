//! A family of series: its name, what it means, its labels, and how its series are written.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
    registry,
};

/// What the numbers of a family are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A total that only rises, until it begins again at zero.
    Counter,
    /// What is at the moment.
    Gauge,
    /// How many observations were below each of some bounds.
    Histogram,
    /// Always 1; the labels tell.
    Info,
}

/// The unit of a family, as its name ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    Bytes,
    Seconds,
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Unit::Bytes => "bytes",
            Unit::Seconds => "seconds",
        }
    }
}

/// A family of series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Family {
    /// The name without unit and ending.
    pub(crate) stem: &'static str,
    pub(crate) unit: Option<Unit>,
    /// What its numbers are.
    pub kind: Kind,
    /// The names of its labels, in the order in which they are written.
    pub labels: &'static [&'static str],
    /// What it is, and what a rise means.
    pub help: &'static str,
}

/// A number of a series.
pub(crate) enum Value<'a> {
    Whole(u64),
    Real(f64),
    /// How many observations fell into each bucket, with the bucket's upper bound, and their sum.
    Observations {
        buckets: &'a [(f64, u64)],
        sum: f64,
    },
}

impl Family {
    /// The name by which it is queried; a histogram's ends in `_bucket`, `_sum` and `_count` besides.
    pub fn name(&self) -> String {
        let unit = self.unit.map_or_else(String::new, |unit| format!("_{}", unit.name()));
        let ending = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{}{unit}{ending}", self.stem)
    }

    /// Writes the family with those of its series that `write` adds.
    pub(crate) fn encode(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        write: impl FnOnce(&mut Series<'_, '_>) -> fmt::Result,
    ) -> fmt::Result {
        let (kind, unit) = (self.kind.metric_type(), self.unit.map(registry::Unit::from));
        let encoder = encoder.encode_descriptor(self.stem, self.help, unit.as_ref(), kind)?;
        write(&mut Series { family: self, encoder })
    }
}

/// The series of a family that is being written.
pub(crate) struct Series<'a, 'b> {
    family: &'a Family,
    encoder: MetricEncoder<'b>,
}

impl Series<'_, '_> {
    /// Writes a series; `labels` are the values, in the order of the family's labels.
    pub(crate) fn add<const N: usize>(&mut self, labels: [&str; N], value: Value<'_>) -> fmt::Result {
        debug_assert_eq!(self.family.labels.len(), N, "{}", self.family.stem);
        let mut set = [("", ""); N];
        for ((pair, name), value) in set.iter_mut().zip(self.family.labels).zip(labels) {
            *pair = (name, value);
        }
        if self.family.kind == Kind::Info {
            self.encoder.encode_info(&set)
        } else if N == 0 {
            write(&mut self.encoder, self.family.kind, value)
        } else {
            write(&mut self.encoder.encode_family(&set)?, self.family.kind, value)
        }
    }
}

fn write(encoder: &mut MetricEncoder<'_>, kind: Kind, value: Value<'_>) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Whole(value)) => encoder.encode_counter::<NoLabelSet, _, u64>(&value, None),
        (Kind::Counter, Value::Real(value)) => encoder.encode_counter::<NoLabelSet, _, u64>(&value, None),
        (Kind::Gauge, Value::Whole(value)) => encoder.encode_gauge(&value),
        (Kind::Gauge, Value::Real(value)) => encoder.encode_gauge(&value),
        (Kind::Histogram, Value::Observations { buckets, sum }) => {
            let count = buckets.iter().map(|(_, count)| count).sum();
            encoder.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
        }
        (Kind::Info, _) | (Kind::Histogram, _) | (_, Value::Observations { .. }) => Err(fmt::Error),
    }
}

impl Kind {
    /// As the formats name it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        }
    }

    fn metric_type(self) -> MetricType {
        match self {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
            Kind::Info => MetricType::Info,
        }
    }
}

impl From<Unit> for registry::Unit {
    fn from(unit: Unit) -> Self {
        match unit {
            Unit::Bytes => registry::Unit::Bytes,
            Unit::Seconds => registry::Unit::Seconds,
        }
    }
}
