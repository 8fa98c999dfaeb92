//! Stands in for the node's program in this crate's tests: it is the log collector and nothing else.

use hivemind_runtime::logs::{COLLECTOR_COMMAND, collector_main};

fn main() -> Result<(), hivemind_runtime::logs::LogError> {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(command) if command == COLLECTOR_COMMAND => collector_main(arguments),
        _ => Ok(()),
    }
}
