//! What Prometheus' own checker says of a scrape.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use hivemind_observe::{Format, Metrics};

use crate::{reference::full, sample::AT_ONCE};

/// The checker: the one that `cargo xtask setup` unpacks, or that of the search path.
pub(crate) fn tool() -> PathBuf {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/tools/bin/promtool");
    if unpacked.is_file() { unpacked } else { "promtool".into() }
}

/// Checks a text, and returns what the checker complained of.
fn complaints(text: &str) -> String {
    let mut command = Command::new(tool());
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut checker = command.spawn().expect("promtool is missing; run `cargo xtask setup`");
    checker.stdin.take().expect("its input").write_all(text.as_bytes()).expect("it reads");
    let output = checker.wait_with_output().expect("it ends");
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(output.status.success(), said.is_empty(), "{}: {said}", output.status);
    said
}

#[test]
fn promtool_has_nothing_to_say_of_a_scrape() {
    let metrics = Metrics::new(AT_ONCE);
    metrics.observe(full());
    assert_eq!(complaints(&metrics.render(Format::Text).expect("a scrape")), "");
    // The checker checks: it does find what is wrong.
    assert!(complaints("# TYPE a_total gauge\na_total 1\n").contains("a_total"));
}
