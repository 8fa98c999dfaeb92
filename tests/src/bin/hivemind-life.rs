//! `hivemind-life DIRECTORY CGROUP links|filters|teardown`: opens a data path by itself, adopting what is there; prints `open` when it is, and stays
//! until its standard input ends. Says why when it cannot. `teardown` removes everything instead.

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match hivemind_tests::life::keep(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
