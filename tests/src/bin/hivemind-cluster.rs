//! Makes a cluster of nodes in namespaces of their own, with a demo app, and keeps it until its input ends: something to play
//! with. The argument is how many nodes.

use std::{
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Cluster, Node, artifacts, hivemind_binary};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let count = std::env::args().nth(1).context("say how many nodes")?;
    let count: usize = count.parse().context("the number of nodes is none")?;
    ensure!((1..=16).contains(&count), "1 to 16 nodes can be made on one machine");
    let began = Instant::now();
    let cluster = Cluster::start(count)?;
    cluster.start_daemons()?;
    println!(
        "{count} nodes make a cluster after {:.1} s; the demo app comes up.",
        began.elapsed().as_secs_f64()
    );
    cluster.deploy(
        "web-app",
        "nginx",
        &["--replicas", &(2 * count).to_string(), "--service", "web.local"],
    )?;
    let directory = artifacts().join("nodes");
    fs::create_dir_all(&directory)?;
    println!("\nEach of these runs `hivemind` on its node, as root:\n");
    for (number, node) in cluster.nodes().iter().enumerate() {
        let script = write_script(&directory, number, node)?;
        let role = if number == 0 { "the server" } else { "" };
        println!("  {}   {:<16} {role}", script.display(), node.name());
    }
    let first = directory.join("node-1");
    let first = first.display();
    println!(
        "\nTry:\n\n  {first} cluster status\n  {first} app info web-app\n  {first} scheduler explain web-app\n  \
         {first} node drain {}\n\nCtrl-C stops it and removes everything.",
        cluster.nodes().last().map_or("", Node::name)
    );
    // Whoever started this closes the pipe when it is over, and so does its death.
    let _ = std::io::stdin().read(&mut [0]);
    let _ = fs::remove_dir_all(&directory);
    cluster.stop()
}

/// A script that runs the command line on a node.
fn write_script(directory: &Path, number: usize, node: &Node) -> Result<PathBuf> {
    let path = directory.join(format!("node-{}", number + 1));
    let text = format!(
        "#!/bin/sh\nexec nsenter --target {} --mount --net --uts -- env HIVEMIND_SOCKET={} {} \"$@\"\n",
        node.pid(),
        node.socket().display(),
        hivemind_binary()?.display()
    );
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
