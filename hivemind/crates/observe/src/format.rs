//! The two formats, and which of them a request wants (RFC 9110, section 12.5.1).

/// A format of scrapes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// The text format 0.0.4, as before OpenMetrics.
    Text,
}

/// The media types of a format without parameters, its version, and the type that stands for all like it.
struct MediaType {
    name: &'static str,
    any: &'static str,
    version: &'static str,
}

/// How exactly a range names a media type: `*/*`, `type/*`, by name, by name and version.
type Precision = u8;

impl Format {
    /// Its media type, as `Content-Type` has it.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The format that an `Accept` header prefers: OpenMetrics, unless text is wanted more or OpenMetrics is not wanted at all.
    /// Whoever accepts neither gets OpenMetrics, too: it can be told by its media type.
    pub fn negotiate(accept: Option<&str>) -> Format {
        let accept = accept.unwrap_or_default();
        let wants = |format: Format| format.media_type().quality(accept);
        match (wants(Format::OpenMetrics), wants(Format::Text)) {
            (metrics, Some(text)) if text > metrics.unwrap_or(0) => Format::Text,
            (Some(0), None) => Format::Text,
            _ => Format::OpenMetrics,
        }
    }

    fn media_type(self) -> MediaType {
        match self {
            Format::OpenMetrics => {
                MediaType { name: "application/openmetrics-text", any: "application/*", version: "1.0.0" }
            }
            Format::Text => MediaType { name: "text/plain", any: "text/*", version: "0.0.4" },
        }
    }
}

impl MediaType {
    /// How much a header wants this type, in thousandths, if it says anything about it. The most precise range decides; of
    /// several such, the one that wants it most.
    fn quality(&self, accept: &str) -> Option<u16> {
        let ranges = accept.split(',').filter_map(|range| self.matched(range));
        ranges.max_by_key(|(quality, precision)| (*precision, *quality)).map(|(quality, _)| quality)
    }

    fn matched(&self, range: &str) -> Option<(u16, Precision)> {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next()?;
        let mut precision = match name {
            "*/*" => 0,
            _ if name.eq_ignore_ascii_case(self.any) => 1,
            _ if name.eq_ignore_ascii_case(self.name) => 2,
            _ => return None,
        };
        let mut quality = 1000;
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            match key.trim().to_ascii_lowercase().as_str() {
                "q" => quality = thousandths(value.trim())?,
                "version" if value.trim().trim_matches('"') != self.version => return None,
                "version" => precision += 1,
                // `charset` and `escaping` leave nothing to choose: all names and labels are ASCII.
                _ => {}
            }
        }
        Some((quality, precision))
    }
}

/// A weight, `0` to `1` with at most three digits behind the point; nothing if it is none.
fn thousandths(weight: &str) -> Option<u16> {
    let value: f32 = weight.parse().ok()?;
    let is_weight = weight.starts_with(['0', '1']) && (0.0..=1.0).contains(&value);
    is_weight.then_some((value * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_and_whoever_does_not_say_otherwise_get_open_metrics() {
        for accept in [
            None,
            Some(""),
            Some("*/*"),
            Some("application/*"),
            Some("text/html,application/xhtml+xml,*/*;q=0.8"),
            Some("image/png"),
            Some(";;,,=,q="),
            Some("text/plain, application/openmetrics-text"),
            Some("text/plain;q=0.5, */*"),
            Some("text/plain;q=0"),
            Some("application/openmetrics-text"),
            Some("Application/OpenMetrics-Text; version=\"1.0.0\"; charset=utf-8"),
            Some(
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            ),
            Some(
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            ),
            Some(
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
                 application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            ),
        ] {
            assert_eq!(Format::negotiate(accept), Format::OpenMetrics, "{accept:?}");
        }
    }

    #[test]
    fn whoever_wants_text_more_or_open_metrics_not_at_all_gets_text() {
        for accept in [
            "text/plain;version=0.0.4",
            "text/plain",
            "text/*",
            "text/plain;version=0.0.4;q=0.5, application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0, */*",
            "application/openmetrics-text;q=0.2,text/plain;q=0.9",
            "application/openmetrics-text;q=0.2,text/*;q=0.9",
            "application/openmetrics-text;q=0.2, */*;q=0.3",
            "text/plain;q=0.001, application/openmetrics-text;q=much",
        ] {
            assert_eq!(Format::negotiate(Some(accept)), Format::Text, "{accept}");
        }
    }

    #[test]
    fn the_more_precise_range_decides() {
        let accept = "text/plain;q=0.9, text/plain;version=0.0.4;q=0.1, application/openmetrics-text;q=0.5";
        assert_eq!(Format::negotiate(Some(accept)), Format::OpenMetrics);
        let accept = "application/openmetrics-text;version=1.0.0;q=0.1, application/openmetrics-text, text/plain;q=0.5";
        assert_eq!(Format::negotiate(Some(accept)), Format::Text);
    }
}
