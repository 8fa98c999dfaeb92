//! A measured figure, and how it is told.

use std::time::Duration;

use serde_json::json;

/// What a promise limits.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    /// The value is at most this.
    Value(f64),
    /// The ratio to the baseline is at most this.
    Ratio(f64),
    /// The ratio to the baseline is at least this.
    RatioMin(f64),
}

/// One line of a bench: a time or a size, of which less is better, or a rate, of which more is.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    metric: &'static str,
    unit: &'static str,
    /// Sorted, and not empty.
    samples: Vec<f64>,
    /// So many percent of the samples are at most the value.
    percentile: usize,
    /// What it is compared with, and the ratio.
    baseline: Option<(&'static str, f64)>,
    bound: Option<Bound>,
}

impl Figure {
    /// A figure of some samples; its value is their median.
    ///
    /// # Panics
    /// When there are no samples.
    pub(super) fn new(metric: &'static str, unit: &'static str, mut samples: Vec<f64>) -> Self {
        assert!(!samples.is_empty(), "{metric} was not measured");
        samples.sort_by(f64::total_cmp);
        Self { metric, unit, samples, percentile: 50, baseline: None, bound: None }
    }

    /// As [`Self::new`], whose value is the 99th percentile: the least sample that 99 in 100 do not exceed.
    pub(super) fn p99(metric: &'static str, unit: &'static str, samples: Vec<f64>) -> Self {
        Self { percentile: 99, ..Self::new(metric, unit, samples) }
    }

    /// As [`Self::new`], of times, in milliseconds.
    pub(super) fn of_times(metric: &'static str, samples: &[Duration]) -> Self {
        Self::new(metric, "ms", samples.iter().map(|time| time.as_secs_f64() * 1e3).collect())
    }

    /// The value may be at most this.
    pub(super) fn at_most(mut self, bound: f64) -> Self {
        self.bound = Some(Bound::Value(bound));
        self
    }

    /// Compares with another figure of the same run, by their values.
    pub(super) fn against(mut self, baseline: &Figure) -> Self {
        self.baseline = Some((baseline.metric, self.value() / baseline.value()));
        self
    }

    /// As [`Self::new`], compared with what was measured beside it in the same rounds: the ratio is the median of the
    /// rounds' ratios, so that what disturbs a whole round does not count.
    ///
    /// # Panics
    /// When there are no samples, or not as many of the baseline.
    pub(super) fn paired(
        metric: &'static str,
        unit: &'static str,
        samples: &[f64],
        (baseline, its): (&'static str, &[f64]),
    ) -> Self {
        assert_eq!(samples.len(), its.len(), "{metric} and {baseline} were not measured in the same rounds");
        let ratios = samples.iter().zip(its).map(|(ours, its)| ours / its).collect();
        let ratio = Self::new(metric, unit, ratios).value();
        Self { baseline: Some((baseline, ratio)), ..Self::new(metric, unit, samples.to_vec()) }
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
    pub(super) fn value(&self) -> f64 {
        self.samples[(self.samples.len() * self.percentile).div_ceil(100) - 1]
    }

    /// Ours by the baseline's.
    fn ratio(&self) -> Option<f64> {
        self.baseline.map(|(_, ratio)| ratio)
    }

    /// Whether it keeps its bound; one without a bound does.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        match self.bound {
            None => true,
            Some(Bound::Value(bound)) => self.value() <= bound,
            Some(Bound::Ratio(bound)) => self.ratio().is_some_and(|ratio| ratio <= bound),
            Some(Bound::RatioMin(bound)) => self.ratio().is_some_and(|ratio| ratio >= bound),
        }
    }

    fn bound_number(&self) -> Option<f64> {
        match self.bound? {
            Bound::Value(bound) | Bound::Ratio(bound) | Bound::RatioMin(bound) => Some(bound),
        }
    }

    fn row(&self) -> [String; 7] {
        let (least, most) = (self.samples[0], self.samples[self.samples.len() - 1]);
        let baseline = self.baseline.map_or(String::new(), |(name, _)| name.to_owned());
        let ratio = self.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let bound = match self.bound {
            None => String::new(),
            Some(Bound::Value(bound)) => format!("{bound} {}", self.unit),
            Some(Bound::Ratio(bound)) => format!("{bound} times"),
            Some(Bound::RatioMin(bound)) => format!("at least {bound} times"),
        };
        let verdict = match (self.bound, self.is_kept()) {
            (None, _) => "",
            (Some(_), true) => "kept",
            (Some(_), false) => "BROKEN",
        };
        [
            self.metric.to_owned(),
            format!("{:.1} {}", self.value(), self.unit),
            format!("{least:.1} to {most:.1} ({})", self.samples.len()),
            baseline,
            ratio,
            bound,
            verdict.to_owned(),
        ]
    }
}

/// One JSON object a line: `{"metric","value","unit","baseline","ratio","bound","ok"}`. `ratio` is ours against the
/// baseline named; `bound` limits the ratio where there is one, and the value elsewhere.
#[must_use]
pub fn json_lines(figures: &[Figure]) -> String {
    let rounded = |number: f64| (number * 1e3).round() / 1e3;
    let line = |figure: &Figure| {
        let object = json!({
            "metric": figure.metric,
            "value": rounded(figure.value()),
            "unit": figure.unit,
            "baseline": figure.baseline.map(|(name, _)| name),
            "ratio": figure.ratio().map(rounded),
            "bound": figure.bound_number(),
            "ok": figure.is_kept(),
        });
        format!("{object}\n")
    };
    figures.iter().map(line).collect()
}

/// The figures for people: medians (or percentiles), the range of the samples with their number, bounds and verdicts.
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
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_the_median_and_the_bound_is_on_it() {
        let figure = Figure::new("start", "ms", vec![9.0, 1.0, 2.0]).at_most(2.0);
        assert!(figure.is_kept());
        assert_eq!(figure.value(), 2.0);
        assert!(!Figure::new("start", "ms", vec![2.1]).at_most(2.0).is_kept());
    }

    #[test]
    fn a_percentile_is_a_sample_that_so_many_do_not_exceed() {
        let samples = |count: u32| (1..=count).map(f64::from).collect::<Vec<_>>();
        assert_eq!(Figure::p99("apply", "ms", samples(200)).value(), 198.0);
        assert_eq!(Figure::p99("apply", "ms", samples(10)).value(), 10.0);
        assert_eq!(Figure::new("apply", "ms", samples(10)).value(), 5.0);
        assert_eq!(Figure::new("apply", "ms", samples(1)).value(), 1.0);
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
    fn a_paired_ratio_is_the_median_of_the_rounds_ratios() {
        let figure = Figure::paired("ours", "1/s", &[9.0, 80.0, 45.0], ("plain", &[10.0, 100.0, 50.0]));
        assert!(figure.clone().at_least_times(0.9).is_kept());
        assert!(!figure.at_least_times(0.91).is_kept());
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
                   "bound": 1.5, "ok": true})
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
