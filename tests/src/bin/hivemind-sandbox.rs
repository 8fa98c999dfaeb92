//! Holds a sandbox of the test harness, or keeps a node for a person or a test to look at.
//!
//! `hivemind-sandbox hold NAME` is what the harness starts. `hivemind-sandbox node` makes a node on a fabric, prints its
//! name and the process id for `nsenter --target PID --mount --net --uts`, and removes it when standard input ends; its
//! link is a relayed one with the word `relayed` after `node`.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

use anyhow::{Result, bail};
use hivemind_tests::{LinkOptions, Node, NodeOptions, hold};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["hold", name] => hold(name),
        ["node", link @ ..] if matches!(link, [] | ["relayed"]) => {
            let link = if link.is_empty() { LinkOptions::default() } else { LinkOptions::relayed() };
            let node = Node::start(NodeOptions { link: Some(link), ..NodeOptions::default() })?;
            let mut output = io::stdout();
            writeln!(output, "{} {}", node.name(), node.pid())?;
            output.flush()?;
            io::copy(&mut io::stdin().take(u64::MAX), &mut io::sink())?;
            node.stop()
        }
        _ => bail!("usage: hivemind-sandbox hold NAME | node [relayed]"),
    }
}
