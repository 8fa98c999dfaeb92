//! `hivemind-bench footprint|containers|datapath|services|telemetry|dns|policy|cluster|churn|all [--json] [--check]`: measures, and
//! prints a table, or one JSON object a line. With `--check` it exits 1 if a figure breaks its bound. `cargo xtask bench`
//! builds what it measures and runs it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::{Result, bail};
use hivemind_tests::bench;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<ExitCode> {
    if let Some((first, rest)) = arguments.split_first() {
        let end = match first.as_str() {
            "node" => Some(bench::keep_node(rest)),
            "calls" => Some(bench::serve_calls(rest)),
            "echo" => Some(bench::echo(rest)),
            "ping" => Some(bench::ping(rest)),
            "ask" => Some(bench::ask(rest)),
            _ => None,
        };
        if let Some(end) = end {
            return end.map(|()| ExitCode::SUCCESS);
        }
    }
    let (mut name, mut json, mut check) = (None, false, false);
    for argument in arguments {
        match argument.as_str() {
            "--json" => json = true,
            "--check" => check = true,
            word if name.is_none() && !word.starts_with('-') => name = Some(word),
            _ => bail!(
                "usage: hivemind-bench footprint|containers|datapath|services|telemetry|dns|policy|cluster|churn|all [--json] [--check]"
            ),
        }
    }
    let figures = bench::run(name.unwrap_or("all"), &mut |line| eprintln!("{line}"))?;
    print!("{}", if json { bench::json_lines(&figures) } else { bench::table(&figures) });
    let are_kept = figures.iter().all(bench::Figure::is_kept);
    Ok(if check && !are_kept { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
