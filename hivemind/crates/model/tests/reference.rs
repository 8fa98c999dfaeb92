//! The reference of errors is written from the code; this keeps it so.

use std::fmt::Write as _;

use hivemind_model::{ErrorCode, ErrorKind};

fn kind_in_words(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Invalid => "invalid input",
        ErrorKind::NotFound => "not found",
        ErrorKind::Conflict => "conflict",
        ErrorKind::Workload => "image or container",
        ErrorKind::Environment => "machine",
        ErrorKind::Unreachable => "daemon unreachable",
        ErrorKind::Timeout => "timeout",
        ErrorKind::Denied => "denied",
        ErrorKind::Forbidden => "forbidden",
        ErrorKind::Internal => "internal",
    }
}

fn reference() -> String {
    let mut page = String::from(
        "# Errors\n\n\
         Every error has a code that stays, a message, and a hint. The command line prints them on standard error and exits\n\
         with the code of the error's kind; the API answers with the kind's HTTP status and the error as JSON:\n\
         `{\"code\": \"HM0301\", \"message\": \"…\", \"field\": \"…\", \"hint\": \"…\", \"problems\": […]}`.\n\n\
         | code | meaning | kind | exit | HTTP |\n|---|---|---|---|---|\n",
    );
    for code in ErrorCode::ALL {
        let kind = code.kind();
        let words = kind_in_words(kind);
        let row = format!(
            "| {code} | {} | {words} | {} | {} |\n",
            code.meaning(),
            kind.exit_code(),
            if kind == ErrorKind::Unreachable { "–".to_owned() } else { kind.http_status().to_string() }
        );
        let _ = write!(page, "{row}");
    }
    page
}

#[test]
fn the_reference_of_errors_is_what_the_code_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/reference/errors.md");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(path, reference()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == reference(),
        "docs/reference/errors.md is out of date: run this test with UPDATE_REFERENCE=1"
    );
}
