//! A strict reader of both formats: what it accepts, Prometheus has to. After the OpenMetrics specification 1.0.0 and
//! Prometheus' description of its text format 0.0.4.

use std::collections::{BTreeMap, BTreeSet};

use hivemind_observe::Format;

pub(crate) type Labels = BTreeMap<String, String>;

/// A family as it was written.
#[derive(Debug, Default)]
pub(crate) struct Described {
    pub(crate) help: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) unit: Option<String>,
}

/// A scrape that was read.
#[derive(Debug, Default)]
pub(crate) struct Document {
    pub(crate) families: BTreeMap<String, Described>,
    pub(crate) samples: Vec<(String, Labels, f64)>,
}

impl Document {
    /// Reads a text.
    ///
    /// # Panics
    /// At the first line that is not as it has to be.
    pub(crate) fn read(text: &str, format: Format) -> Self {
        let body = match format {
            Format::OpenMetrics => text.strip_suffix("# EOF\n").expect("no end mark"),
            Format::Text => text,
        };
        assert!(body.is_empty() || body.ends_with('\n'), "the last line has no end");
        let mut reader =
            Reader { format, document: Document::default(), current: None, series: BTreeSet::new() };
        for line in body.lines() {
            assert!(!line.is_empty() && line.trim() == line, "a blank line, or blanks around {line:?}");
            match line.strip_prefix("# ") {
                Some(metadata) => reader.metadata(metadata),
                None => reader.sample(line),
            }
        }
        let document = reader.document;
        document.check_histograms();
        document
    }

    /// The value of a series that has at least these labels; the only one.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.matching(name, labels);
        let value = found.next().map(|(_, value)| value);
        assert!(found.next().is_none(), "{name} {labels:?} is not one series");
        value
    }

    /// The sum over all series that have at least these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|(_, value)| value).sum()
    }

    pub(crate) fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = (&'a Labels, f64)> {
        self.samples.iter().filter_map(move |(of, having, value)| {
            let matches = labels.iter().all(|(key, wanted)| having.get(*key).is_some_and(|v| v == wanted));
            (of == name && matches).then_some((having, *value))
        })
    }

    fn check_histograms(&self) {
        for (name, _) in self.families.iter().filter(|(_, f)| f.kind.as_deref() == Some("histogram")) {
            let of = |ending: &str| format!("{name}_{ending}");
            let (count, sum, bucket) = (of("count"), of("sum"), of("bucket"));
            let mut last: BTreeMap<Labels, (f64, f64)> = BTreeMap::new();
            for (labels, value) in self.matching(&bucket, &[]) {
                let mut labels = labels.clone();
                let bound = number(&labels.remove("le").expect("a bucket without a bound"));
                let last = last.entry(labels).or_insert((f64::NEG_INFINITY, 0.0));
                assert!(bound > last.0 && value >= last.1, "{name}: buckets out of order at {bound}");
                *last = (bound, value);
            }
            let last: BTreeMap<_, _> = last.iter().map(|(labels, last)| (labels, *last)).collect();
            let counts: BTreeMap<_, _> =
                self.matching(&count, &[]).map(|(labels, count)| (labels, (f64::INFINITY, count))).collect();
            assert_eq!(last, counts, "{name}: the last buckets are not the counts");
            let sums: BTreeSet<_> = self.matching(&sum, &[]).map(|(labels, _)| labels).collect();
            assert!(sums.into_iter().eq(counts.into_keys()), "{name}: the sums are of others");
        }
    }
}

struct Reader {
    format: Format,
    document: Document,
    /// The family that is being described or told, and whether series of it were there.
    current: Option<(String, bool)>,
    series: BTreeSet<(String, Labels)>,
}

impl Reader {
    fn metadata(&mut self, text: &str) {
        let (word, rest) = text.split_once(' ').unwrap_or_else(|| panic!("no metadata: {text:?}"));
        let (name, said) = rest.split_once(' ').unwrap_or_else(|| panic!("no metadata: {text:?}"));
        assert!(is_name(name, true), "{name:?} is no name");
        match &self.current {
            Some((current, told)) if current == name => assert!(!told, "{word} of {name} after its series"),
            _ => {
                assert!(!self.document.families.contains_key(name), "{name} is in two places");
                self.current = Some((name.to_owned(), false));
            }
        }
        let family = self.document.families.entry(name.to_owned()).or_default();
        let place = match (word, self.format) {
            ("HELP", _) => {
                assert!(!said.trim().is_empty(), "{name} has no help");
                &mut family.help
            }
            ("TYPE", _) => {
                let info = self.format == Format::OpenMetrics;
                let known = ["counter", "gauge", "histogram"].contains(&said) || (said == "info" && info);
                assert!(known, "{name} is a {said:?}");
                &mut family.kind
            }
            ("UNIT", Format::OpenMetrics) => {
                assert!(name.ends_with(&format!("_{said}")), "{name} does not end in its unit {said}");
                &mut family.unit
            }
            _ => panic!("{word} is no metadata"),
        };
        assert!(place.replace(said.to_owned()).is_none(), "{word} of {name} is said twice");
    }

    fn sample(&mut self, line: &str) {
        let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no series: {line:?}"));
        let (name, rest) = line.split_at(end);
        assert!(is_name(name, true), "{name:?} is no name");
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => read_labels(rest),
            None => (Labels::new(), rest),
        };
        let value = value.strip_prefix(' ').unwrap_or_else(|| panic!("no blank before the value: {line:?}"));
        assert!(!value.contains(' '), "something after the value: {line:?}");
        let value = number(value);
        let (family, told) = self.current.as_mut().unwrap_or_else(|| panic!("{name} is not described"));
        *told = true;
        let kind =
            self.document.families[family].kind.as_deref().unwrap_or_else(|| panic!("{family} has no type"));
        let ending =
            name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{name} is within {family}"));
        let open_metrics = self.format == Format::OpenMetrics;
        let fits = match (kind, ending) {
            ("counter", "_total") => open_metrics,
            ("counter", "") => !open_metrics && name.ends_with("_total"),
            ("info", "_info") => value == 1.0,
            ("gauge", "") | ("histogram", "_bucket" | "_sum" | "_count") => true,
            _ => false,
        };
        assert!(fits, "{name} is no series of the {kind} {family}");
        assert!(kind == "gauge" || value >= 0.0, "{name} is negative");
        assert_eq!(ending == "_bucket", labels.contains_key("le"), "le of {line:?}");
        assert!(self.series.insert((name.to_owned(), labels.clone())), "twice the same series: {line:?}");
        self.document.samples.push((name.to_owned(), labels, value));
    }
}

/// Labels up to and with the closing brace, and what follows.
fn read_labels(text: &str) -> (Labels, &str) {
    let mut labels = Labels::new();
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {rest:?}"));
        assert!(is_name(name, false), "{name:?} is no label's name");
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().unwrap_or_else(|| panic!("a label's value has no end: {after:?}")) {
                (i, '"') => break i,
                (_, '\\') => value.push(match chars.next() {
                    Some((_, '\\')) => '\\',
                    Some((_, '"')) => '"',
                    Some((_, 'n')) => '\n',
                    other => panic!("{other:?} is escaped"),
                }),
                (_, c) => value.push(c),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "{name} is said twice");
        rest = &after[end + 1..];
        match rest.as_bytes().first() {
            Some(b'}') => return (labels, &rest[1..]),
            Some(b',') => rest = &rest[1..],
            other => panic!("{other:?} after a label"),
        }
    }
}

fn is_name(name: &str, colons: bool) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(fits)
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        _ => text.parse().unwrap_or_else(|_| panic!("{text:?} is no number")),
    }
}
