//! A data path by itself: a sandbox with endpoints and services, without daemon and containers.
//!
//! A process inside the sandbox (`hivemind-bench node`) makes it by the calls that the daemon would use, and stays up as the
//! daemon would. Everything goes with the sandbox.

mod inside;

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::pair::{self, End, Pair};
use crate::background::Background;
use crate::sandbox::Sandbox;

pub use inside::keep_node;

/// How long the process gets to end.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The endpoints by number, in the order in which they are made.
const SERVER: usize = 1;
const CLIENT: usize = 2;

/// The cgroups of the ends, as deep as one another, so that they differ in nothing but the programs at the first one.
const REPLICAS: &str = "replicas";
const OUTSIDE: &str = "outside";

/// What a data path shall hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contents {
    /// Parts of the programs' work (`hivemind_datapath::Config::features`).
    pub(super) features: u32,
    /// How many endpoints there are, the server's and the client's among them.
    pub(super) endpoints: usize,
    /// How many services there are. The last one leads to the server.
    pub(super) services: usize,
    /// How many rules the policies of the server have besides the one by which the client reaches it, for nobody in use; with
    /// none, no policy governs anybody.
    pub(super) rules: Option<usize>,
}

impl Contents {
    /// Everything on; a server, a client, and no service.
    pub(super) const PAIR: Self =
        Self { features: hivemind_datapath::Config::FEATURES, endpoints: 2, services: 0, rules: Some(0) };
}

/// A running data path.
pub(super) struct DatapathNode {
    sandbox: Sandbox,
    contents: Contents,
    process: Background,
    opened_in: Duration,
}

impl DatapathNode {
    pub(super) fn start(contents: Contents) -> Result<Self> {
        let sandbox = Sandbox::start()?;
        for cgroup in [REPLICAS, OUTSIDE] {
            make_cgroup(&sandbox, cgroup)?;
        }
        let (process, opened_in) = start_process(&sandbox, contents)?;
        Ok(Self { sandbox, contents, process, opened_in })
    }

    /// How long it took to open: to load the programs, to have them verified and to attach them to what was there.
    pub(super) fn opened_in(&self) -> Duration {
        self.opened_in
    }

    /// Ends the process and starts it again, which adopts what is there.
    pub(super) fn start_again(&mut self) -> Result<()> {
        drop(self.process.take_stdin());
        let status = self.process.wait(STOP_LIMIT)?;
        if !status.success() {
            bail!("the process of the data path ended with {status}");
        }
        (self.process, self.opened_in) = start_process(&self.sandbox, self.contents)?;
        Ok(())
    }

    /// From the client to the server, both where the programs at the cgroup see their sockets.
    pub(super) fn pair(&self) -> Result<Pair> {
        Pair::start(&self.end(SERVER, REPLICAS), self.end(CLIENT, REPLICAS), endpoint_v4(SERVER).into())
    }

    /// The client where no program at a cgroup sees its sockets.
    pub(super) fn unseen_client(&self) -> End {
        self.end(CLIENT, OUTSIDE)
    }

    /// The address of the service that leads to the server.
    pub(super) fn service(&self) -> Ipv4Addr {
        service_v4(self.contents.services)
    }

    fn end(&self, number: usize, cgroup: &str) -> End {
        let network = namespaces(&self.sandbox.directory()).join(endpoint_name(number));
        End::of_network(&self.sandbox, &network).in_cgroup(&self.sandbox.cgroup().join(cgroup))
    }
}

/// Makes a cgroup for ends of connections in a sandbox's, with which it goes.
pub(super) fn make_cgroup(sandbox: &Sandbox, name: &str) -> Result<PathBuf> {
    let cgroup = sandbox.cgroup().join(name);
    std::fs::create_dir(&cgroup).with_context(|| format!("cannot make the cgroup {}", cgroup.display()))?;
    Ok(cgroup)
}

/// Returns once everything is there, with the time that opening took.
fn start_process(sandbox: &Sandbox, contents: Contents) -> Result<(Background, Duration)> {
    let Contents { features, endpoints, services, rules } = contents;
    let mut command = sandbox.command(pair::bench_program()?);
    command.arg("node").arg(sandbox.directory()).arg(sandbox.cgroup().join(REPLICAS));
    let rules = rules.map_or_else(|| inside::WITHOUT_POLICIES.to_owned(), |rules| rules.to_string());
    command.args([features.to_string(), endpoints.to_string(), services.to_string(), rules]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut process = Background::new(child.context("cannot start the process of the data path")?);
    let mut line = String::new();
    BufReader::new(process.take_stdout().context("no output")?).read_line(&mut line)?;
    let Ok(micros) = line.trim().parse() else {
        bail!("the data path does not start; it said why on standard error");
    };
    Ok((process, Duration::from_micros(micros)))
}

/// Where the endpoints' networks are mounted, inside the sandbox.
fn namespaces(directory: &Path) -> PathBuf {
    directory.join("run/netns")
}

fn endpoint_name(number: usize) -> String {
    format!("endpoint-{number}")
}

/// The last two bytes of the address of the thing of that number.
fn bytes(number: usize) -> [u8; 2] {
    [(number >> 8) as u8, number as u8]
}

fn endpoint_v4(number: usize) -> Ipv4Addr {
    let [high, low] = bytes(number);
    Ipv4Addr::new(10, 200, high, low)
}

fn service_v4(number: usize) -> Ipv4Addr {
    let [high, low] = bytes(number);
    Ipv4Addr::new(10, 204, high, low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_many_services_has_an_address_within_the_range() {
        assert_eq!(service_v4(1), Ipv4Addr::new(10, 204, 0, 1));
        assert_eq!(service_v4(10_000), Ipv4Addr::new(10, 204, 39, 16));
    }
}
