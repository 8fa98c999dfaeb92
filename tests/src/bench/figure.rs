//! A measured figure, and how it is told.

use std::time::Duration;

use serde_json::json;

use super::interval;

/// What a promise limits.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    /// The value is at most this.
    Value(f64),
    /// The value is at least this.
    ValueMin(f64),
    /// The ratio to the baseline is at most this.
    Ratio(f64),
    /// The ratio to the baseline is at least this.
    RatioMin(f64),
}

/// What a figure is compared with.
#[derive(Clone, Debug, PartialEq)]
struct Baseline {
    metric: String,
    /// Ours by its.
    ratio: f64,
    /// Where the ratio lies in at least 95 of 100 cases, if enough rounds were compared one by one.
    interval: Option<[f64; 2]>,
}

/// One line of a bench: a time or a size, of which less is better, or a rate, of which more is.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    metric: String,
    unit: &'static str,
    /// Sorted; empty only if it could not be measured.
    samples: Vec<f64>,
    /// So many percent of the samples are at most the value.
    percentile: usize,
    baseline: Option<Baseline>,
    bound: Option<Bound>,
    /// Why it could not be measured.
    error: Option<String>,
}

impl Figure {
    /// A figure of some samples; its value is their median.
    ///
    /// # Panics
    /// When there are no samples.
    pub(super) fn new(metric: impl Into<String>, unit: &'static str, mut samples: Vec<f64>) -> Self {
        let metric = metric.into();
        assert!(!samples.is_empty(), "{metric} was not measured");
        samples.sort_by(f64::total_cmp);
        Self { metric, unit, samples, percentile: 50, baseline: None, bound: None, error: None }
    }

    /// A figure that could not be measured, and why. It breaks any bound.
    pub(super) fn missing(metric: impl Into<String>, unit: &'static str, error: impl Into<String>) -> Self {
        let (metric, error) = (metric.into(), Some(error.into()));
        Self { metric, unit, samples: Vec::new(), percentile: 50, baseline: None, bound: None, error }
    }

    /// As [`Self::new`], whose value is the 99th percentile: the least sample that 99 in 100 do not exceed.
    pub(super) fn p99(metric: impl Into<String>, unit: &'static str, samples: Vec<f64>) -> Self {
        Self { percentile: 99, ..Self::new(metric, unit, samples) }
    }

    /// As [`Self::new`], of times, in milliseconds.
    pub(super) fn of_times(metric: impl Into<String>, samples: &[Duration]) -> Self {
        Self::new(metric, "ms", samples.iter().map(|time| time.as_secs_f64() * 1e3).collect())
    }

    /// The value may be at most this.
    pub(super) fn at_most(mut self, bound: f64) -> Self {
        self.bound = Some(Bound::Value(bound));
        self
    }

    /// A rate: the value has to be at least this.
    pub(super) fn at_least(mut self, bound: f64) -> Self {
        self.bound = Some(Bound::ValueMin(bound));
        self
    }

    /// Compares with another figure of the same run, by their values.
    pub(super) fn against(mut self, baseline: &Figure) -> Self {
        if let (Some(ours), Some(its)) = (self.value(), baseline.value()) {
            self.baseline =
                Some(Baseline { metric: baseline.metric.clone(), ratio: ours / its, interval: None });
        }
        self
    }

    /// As [`Self::new`], compared with what was measured beside it in the same rounds: the ratio is the median of the
    /// rounds' ratios, so that what disturbs a whole round does not count.
    ///
    /// # Panics
    /// When there are no samples, or not as many of the baseline.
    pub(super) fn paired(
        metric: impl Into<String>,
        unit: &'static str,
        samples: &[f64],
        (baseline, its): (impl Into<String>, &[f64]),
    ) -> Self {
        let figure = Self::new(metric, unit, samples.to_vec());
        let name = baseline.into();
        assert_eq!(samples.len(), its.len(), "{} and {name} are not of the same rounds", figure.metric);
        let mut ratios: Vec<f64> = samples.iter().zip(its).map(|(ours, its)| ours / its).collect();
        ratios.sort_by(f64::total_cmp);
        let ratio = percentile(&ratios, 50);
        let baseline =
            ratio.map(|ratio| Baseline { metric: name, ratio, interval: interval::of_median(&ratios) });
        Self { baseline, ..figure }
    }

    /// The value may be at most this many times the baseline's.
    pub(super) fn at_most_times(mut self, bound: f64) -> Self {
        self.bound = Some(Bound::Ratio(bound));
        self
    }

    /// A rate: it has to be at least this many times the baseline's.
    pub(super) fn at_least_times(mut self, bound: f64) -> Self {
        self.bound = Some(Bound::RatioMin(bound));
        self
    }

    /// The median of the samples, of an even number the lower one of the two in the middle; or the percentile.
    /// Nothing if it could not be measured.
    pub(super) fn value(&self) -> Option<f64> {
        percentile(&self.samples, self.percentile)
    }

    /// Ours by the baseline's.
    fn ratio(&self) -> Option<f64> {
        self.baseline.as_ref().map(|baseline| baseline.ratio)
    }

    fn interval(&self) -> Option<[f64; 2]> {
        self.baseline.as_ref()?.interval
    }

    /// Whether it keeps its bound; one without a bound does.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        match self.bound {
            None => true,
            Some(Bound::Value(bound)) => self.value().is_some_and(|value| value <= bound),
            Some(Bound::ValueMin(bound)) => self.value().is_some_and(|value| value >= bound),
            Some(Bound::Ratio(bound)) => self.ratio().is_some_and(|ratio| ratio <= bound),
            Some(Bound::RatioMin(bound)) => self.ratio().is_some_and(|ratio| ratio >= bound),
        }
    }

    fn bound_number(&self) -> Option<f64> {
        match self.bound? {
            Bound::Value(bound) | Bound::ValueMin(bound) | Bound::Ratio(bound) | Bound::RatioMin(bound) => {
                Some(bound)
            }
        }
    }

    fn row(&self) -> [String; 7] {
        let value =
            self.value().map_or("not measured".to_owned(), |value| format!("{value:.1} {}", self.unit));
        let range = match (self.samples.first(), self.samples.last()) {
            (Some(least), Some(most)) => format!("{least:.1} to {most:.1} ({})", self.samples.len()),
            _ => String::new(),
        };
        let baseline = self.baseline.as_ref().map_or(String::new(), |baseline| baseline.metric.clone());
        let ratio = match (self.ratio(), self.interval()) {
            (None, _) => String::new(),
            (Some(ratio), None) => format!("{ratio:.2}"),
            (Some(ratio), Some([low, high])) => format!("{ratio:.3} ({low:.3} to {high:.3})"),
        };
        let bound = match self.bound {
            None => String::new(),
            Some(Bound::Value(bound)) => format!("{bound} {}", self.unit),
            Some(Bound::ValueMin(bound)) => format!("at least {bound} {}", self.unit),
            Some(Bound::Ratio(bound)) => format!("{bound} times"),
            Some(Bound::RatioMin(bound)) => format!("at least {bound} times"),
        };
        let verdict = match (self.bound, self.is_kept()) {
            (None, _) => "",
            (Some(_), true) => "kept",
            (Some(_), false) => "BROKEN",
        };
        [self.metric.clone(), value, range, baseline, ratio, bound, verdict.to_owned()]
    }
}

/// The least of the sorted samples that so many percent do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    sorted.get((sorted.len() * percent).div_ceil(100).checked_sub(1)?).copied()
}

/// One JSON object a line: `{"metric","value","unit","baseline","ratio","low","high","bound","ok","error"}`. `ratio` is ours
/// against the baseline named, and lies between `low` and `high` in at least 95 of 100 cases; `bound` limits the ratio where
/// there is one, and the value elsewhere. A figure that could not be measured has no value and tells why in `error`.
#[must_use]
pub fn json_lines(figures: &[Figure]) -> String {
    let rounded = |number: f64| (number * 1e3).round() / 1e3;
    let line = |figure: &Figure| {
        let object = json!({
            "metric": figure.metric,
            "value": figure.value().map(rounded),
            "unit": figure.unit,
            "baseline": figure.baseline.as_ref().map(|baseline| &baseline.metric),
            "ratio": figure.ratio().map(rounded),
            "low": figure.interval().map(|[low, _]| rounded(low)),
            "high": figure.interval().map(|[_, high]| rounded(high)),
            "bound": figure.bound_number(),
            "ok": figure.is_kept(),
            "error": figure.error,
        });
        format!("{object}\n")
    };
    figures.iter().map(line).collect()
}

/// The figures for people: medians (or percentiles), the range of the samples with their number, ratios with where they lie
/// in at least 95 of 100 cases, bounds and verdicts; below, why some could not be measured.
#[must_use]
pub fn table(figures: &[Figure]) -> String {
    let head = ["metric", "value", "range (samples)", "baseline", "ratio", "bound", ""].map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(figures.iter().map(Figure::row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let line = |row: &[String; 7]| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    let missing = |figure: &Figure| {
        figure.error.as_ref().map(|error| format!("{} was not measured: {error}\n", figure.metric))
    };
    rows.iter().map(line).chain(figures.iter().filter_map(missing)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_the_median_and_the_bound_is_on_it() {
        let figure = Figure::new("start", "ms", vec![9.0, 1.0, 2.0]).at_most(2.0);
        assert!(figure.is_kept());
        assert_eq!(figure.value(), Some(2.0));
        assert!(!Figure::new("start", "ms", vec![2.1]).at_most(2.0).is_kept());
    }

    #[test]
    fn a_percentile_is_a_sample_that_so_many_do_not_exceed() {
        let samples = |count: u32| (1..=count).map(f64::from).collect::<Vec<_>>();
        assert_eq!(Figure::p99("apply", "ms", samples(200)).value(), Some(198.0));
        assert_eq!(Figure::p99("apply", "ms", samples(10)).value(), Some(10.0));
        assert_eq!(Figure::new("apply", "ms", samples(10)).value(), Some(5.0));
        assert_eq!(Figure::new("apply", "ms", samples(1)).value(), Some(1.0));
    }

    #[test]
    fn a_bound_on_the_ratio_is_judged_by_the_medians() {
        let baseline = Figure::new("plain", "ms", vec![10.0]);
        let figure = Figure::new("ours", "ms", vec![15.0]).against(&baseline);
        assert!(figure.clone().at_most_times(1.5).is_kept());
        assert!(!figure.at_most_times(1.4).is_kept());
        assert!(
            !Figure::new("alone", "ms", vec![1.0]).at_most_times(1.5).is_kept(),
            "nothing to compare with"
        );
    }

    #[test]
    fn a_rate_is_held_to_a_least_ratio() {
        let baseline = Figure::new("plain", "1/s", vec![100.0]);
        let figure = Figure::new("ours", "1/s", vec![95.0]).against(&baseline);
        assert!(figure.clone().at_least_times(0.94).is_kept());
        assert!(!figure.at_least_times(0.96).is_kept());
    }

    #[test]
    fn a_rate_by_itself_is_held_to_a_least_value() {
        let figure = Figure::new("churn", "1/s", vec![40.5]);
        assert!(figure.clone().at_least(40.0).is_kept());
        assert!(!figure.at_least(41.0).is_kept());
        assert!(!Figure::missing("churn", "1/s", "there is no node").at_least(40.0).is_kept());
    }

    #[test]
    fn a_paired_ratio_is_the_median_of_the_rounds_ratios() {
        let figure = Figure::paired("ours", "1/s", &[9.0, 80.0, 45.0], ("plain", &[10.0, 100.0, 50.0]));
        assert!(figure.clone().at_least_times(0.9).is_kept());
        assert!(!figure.at_least_times(0.91).is_kept());
    }

    #[test]
    fn a_paired_ratio_tells_between_which_rounds_ratios_it_lies() {
        let ours = [1.0, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97, 0.1];
        let figure = Figure::paired("ours", "1/s", &ours, ("plain", &[1.0; 9]));
        let line: serde_json::Value = serde_json::from_str(&json_lines(&[figure])).unwrap();
        assert_eq!((&line["low"], &line["ratio"], &line["high"]), (&json!(0.91), &json!(0.94), &json!(0.97)));
    }

    #[test]
    fn what_could_not_be_measured_breaks_its_bound_and_tells_why() {
        let figure = Figure::missing("ours", "1/s", "there is no way").at_least_times(0.9);
        assert!(!figure.is_kept());
        let figures = [figure];
        let line: serde_json::Value = serde_json::from_str(&json_lines(&figures)).unwrap();
        assert_eq!((&line["value"], &line["ok"]), (&serde_json::Value::Null, &json!(false)));
        assert_eq!(line["error"], "there is no way");
        assert!(table(&figures).ends_with("ours was not measured: there is no way\n"));
    }

    #[test]
    fn each_figure_is_one_line_of_json_with_all_keys() {
        let baseline = Figure::new("plain", "ms", vec![10.0]);
        let ours = Figure::new("ours", "ms", vec![12.0]).against(&baseline).at_most_times(1.5);
        let text = json_lines(&[ours, baseline]);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            lines[0],
            json!({"metric": "ours", "value": 12.0, "unit": "ms", "baseline": "plain", "ratio": 1.2,
                   "low": null, "high": null, "bound": 1.5, "ok": true, "error": null})
        );
        assert_eq!(lines[1]["baseline"], serde_json::Value::Null);
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn a_broken_bound_is_told_in_the_table() {
        let text = table(&[Figure::new("daemon_rss_idle", "MB", vec![31.0]).at_most(30.0)]);
        assert!(text.lines().nth(1).unwrap().ends_with("30 MB  BROKEN"), "{text}");
    }
}
