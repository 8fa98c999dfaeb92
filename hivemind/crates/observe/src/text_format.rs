//! The text format 0.0.4, out of OpenMetrics as it is written, line by line.
//!
//! What differs: metadata of counters and infos bear the name of their series, with its ending; an info is a gauge; there
//! are no units and no end mark. In help texts quotes are not escaped; ours have none, nor exemplars (`families.rs`,
//! `family.rs`).

use std::fmt::{self, Write};

/// A writer that takes OpenMetrics and hands text 0.0.4 on.
pub(crate) struct TextFormat<'a> {
    text: &'a mut String,
    /// What of the present line was written so far.
    line: String,
    /// The name and help of the family whose type comes next.
    help: Option<(String, String)>,
}

impl<'a> TextFormat<'a> {
    pub(crate) fn new(text: &'a mut String) -> Self {
        TextFormat { text, line: String::new(), help: None }
    }

    fn end_line(&mut self) -> fmt::Result {
        let line = std::mem::take(&mut self.line);
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or(fmt::Error)?;
            self.help = Some((name.to_owned(), help.to_owned()));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            self.describe(rest)?;
        } else if !line.starts_with('#') {
            self.text.push_str(&line);
            self.text.push('\n');
        }
        // The room is for the next line.
        self.line = line;
        self.line.clear();
        Ok(())
    }

    fn describe(&mut self, rest: &str) -> fmt::Result {
        let (name, kind) = rest.split_once(' ').ok_or(fmt::Error)?;
        let (ending, kind) = match kind {
            "counter" => ("_total", kind),
            "info" => ("_info", "gauge"),
            _ => ("", kind),
        };
        if let Some((_, help)) = self.help.take().filter(|(of, _)| of == name) {
            writeln!(self.text, "# HELP {name}{ending} {help}")?;
        }
        writeln!(self.text, "# TYPE {name}{ending} {kind}")
    }
}

impl Write for TextFormat<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let mut rest = piece;
        while let Some((line, after)) = rest.split_once('\n') {
            self.line.push_str(line);
            self.end_line()?;
            rest = after;
        }
        self.line.push_str(rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_METRICS: &str = "\
# HELP a_bytes Bytes # of a.
# TYPE a_bytes counter
# UNIT a_bytes bytes
a_bytes_total{app=\"# TYPE x counter\"} 1
# HELP b Info.
# TYPE b info
b_info{version=\"1\"} 1
# TYPE c gauge
c 2.5
# HELP d_seconds Times.
# TYPE d_seconds histogram
# UNIT d_seconds seconds
d_seconds_sum 1.0
d_seconds_count 1
d_seconds_bucket{le=\"+Inf\"} 1
# EOF
";
    const TEXT: &str = "\
# HELP a_bytes_total Bytes # of a.
# TYPE a_bytes_total counter
a_bytes_total{app=\"# TYPE x counter\"} 1
# HELP b_info Info.
# TYPE b_info gauge
b_info{version=\"1\"} 1
# TYPE c gauge
c 2.5
# HELP d_seconds Times.
# TYPE d_seconds histogram
d_seconds_sum 1.0
d_seconds_count 1
d_seconds_bucket{le=\"+Inf\"} 1
";

    #[test]
    fn open_metrics_becomes_the_older_text_however_it_is_cut() {
        for size in [1, 2, 3, 7, 1000] {
            let mut text = String::new();
            let mut writer = TextFormat::new(&mut text);
            for piece in OPEN_METRICS.as_bytes().chunks(size) {
                writer.write_str(std::str::from_utf8(piece).unwrap()).unwrap();
            }
            assert_eq!(text, TEXT, "in pieces of {size}");
        }
    }
}
