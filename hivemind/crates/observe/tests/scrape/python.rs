//! What another reader of OpenMetrics makes of a scrape: the strict one of Prometheus' client for Python.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use hivemind_observe::{FAMILIES, Format, Kind, Metrics};

use crate::{document::Document, reference::full, sample::AT_ONCE};

/// Reads a scrape, and prints the kind and the name of each family with its number of series, or why it does not.
const READ: &str = "\
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read
for family in read(sys.stdin.read()):
    print(family.type, family.name, family.unit, len(family.samples))
";

fn read(text: &str) -> Result<String, String> {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/tools/python");
    let mut command = Command::new("python3");
    command.args(["-c", READ]).env("PYTHONPATH", modules);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut reader = command.spawn().expect("python3 is missing");
    // It may end before it has read everything.
    let _ = reader.stdin.take().expect("its input").write_all(text.as_bytes());
    let output = reader.wait_with_output().expect("it ends");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
}

#[test]
fn the_client_for_python_reads_every_family_and_every_series_of_open_metrics() {
    let metrics = Metrics::new(AT_ONCE);
    metrics.observe(full());
    let text = metrics.render(Format::OpenMetrics).expect("a scrape");
    let told = read(&text).unwrap_or_else(|error| panic!("{error}\nIs it there? `cargo xtask setup`"));
    assert_eq!(told.lines().count(), FAMILIES.len(), "{told}");
    for family in FAMILIES {
        let name = family.name();
        let name = match family.kind {
            Kind::Counter => name.trim_end_matches("_total"),
            Kind::Info => name.trim_end_matches("_info"),
            Kind::Gauge | Kind::Histogram => &name,
        };
        let line = format!("{} {name} ", family.kind.name());
        assert!(told.lines().any(|told| told.starts_with(&line)), "{line}: {told}");
    }
    let series: usize = told.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum();
    assert_eq!(series, Document::read(&text, Format::OpenMetrics).samples.len());
    // The reader reads: it does find what is wrong.
    for wrong in [text.replace("# EOF\n", ""), text.replace("_total{", "{"), text.replace("counter", "count")]
    {
        assert!(read(&wrong).is_err());
    }
}
