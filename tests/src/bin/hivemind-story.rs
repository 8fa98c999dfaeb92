//! Plays the story of a node and prints each step; exits 1 if one failed.

use std::process::ExitCode;

fn main() -> ExitCode {
    match hivemind_tests::play(|line| println!("{line}")) {
        Ok(()) => {
            println!("The story is played to its end.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
