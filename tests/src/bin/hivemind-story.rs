//! Plays the stories of a node and of a cluster and prints each step; exits 1 if one failed.

use std::process::ExitCode;

fn main() -> ExitCode {
    let tell = |line: &str| println!("{line}");
    let played = hivemind_tests::play(tell).and_then(|()| {
        println!("\nA cluster's story:\n");
        hivemind_tests::play_cluster(tell)
    });
    match played {
        Ok(()) => {
            println!("The stories are played to their end.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
