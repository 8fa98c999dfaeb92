//! A daemon under load that is killed, started again, upgraded to a build with other maps, and not downgraded. Nothing may be
//! lost but what `--teardown` takes away.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hivemind_common::{ABI_VERSION, drop_reason::DropReason};
use hivemind_tests::{
    Background, Build, Dropped, Load, LoadReport, Node, PinnedMaps, Plan, Question, eventually,
    hivemind_binary, serve,
};

/// New connections a second on each of the four ways, and long-lived ones of each of TCP and UDP.
const RATE: u32 = 150;
const LONG: usize = 13;
const RATE_LEAST: f64 = 500.0;

/// The port at which a replica of `web` and the machine outside answer, and that by which it is published.
const PORT: u16 = 7_000;
const PUBLISHED: u16 = 8_000;

/// How long traffic is watched between one thing that could harm it and the next.
const STRETCH: Duration = Duration::from_millis(1_000);

const LIMIT: Duration = Duration::from_secs(30);
const NEXT: u32 = ABI_VERSION + 1;
const NAME: &str = "web.default.svc.hivemind.internal";

struct World {
    node: Node,
    /// Answer, as long as they live.
    servers: Vec<Background>,
    /// The networks of the replica that asks where the programs at the cgroup see it, and of the one where they do not.
    seen: PathBuf,
    unseen: PathBuf,
    service: [IpAddr; 2],
}

impl World {
    fn start() -> Result<Self> {
        let (node, registry) = Node::with_daemon()?;
        let sleeping = ["--command", "sleep 3600"];
        let published = ["-p", "8000:7000", "-p", "8000:7000/udp"];
        for (name, further) in [("web", &published[..]), ("client", &[]), ("unseen", &[])] {
            let words = ["app", "deploy", name, "--image", "busybox"];
            node.hivemind_ok(&[&words[..], &sleeping, further].concat())?;
        }
        let web = node.network_of_replica(&node.replica("web")?)?;
        let seen = node.network_of_replica(&node.replica("client")?)?;
        let unseen = node.network_of_replica(&node.replica("unseen")?)?;
        let service = node.json(&["service", "info", "web"])?;
        let address = |family: &str| -> Result<IpAddr> {
            Ok(service["spec"][family].as_str().context("the service has no address")?.parse()?)
        };
        let service = [address("ipv4")?, address("ipv6")?];
        let servers = vec![
            serve(|program| inside(&node, &web, program), PORT)?,
            serve(|program| node.fabric().client().command(program), PORT)?,
        ];
        registry.stop()?;
        let world = Self { node, servers, seen, unseen, service };
        world.until_served()?;
        Ok(world)
    }

    /// Until the service has its endpoint.
    fn until_served(&self) -> Result<()> {
        eventually(LIMIT, "the service to have its endpoint", || {
            let service = self.node.json(&["service", "info", "web"])?;
            let endpoints = service["status"]["endpoints"].as_array().map_or(0, Vec::len);
            ensure!(endpoints == 1, "{endpoints} endpoints");
            Ok(())
        })
    }

    fn load(&self) -> Result<Vec<(&'static str, Load)>> {
        let own = self.node.addresses();
        let beyond = self.node.fabric().client_addresses();
        let at = |addresses: [IpAddr; 2], port| addresses.map(|address| SocketAddr::new(address, port));
        let service = at(self.service, PORT).to_vec();
        let outside = at([beyond.ipv4.into(), beyond.ipv6.into()], PORT).to_vec();
        let published = at([own.ipv4.into(), own.ipv6.into()], PUBLISHED).to_vec();
        let plan = |targets| Plan { rate: RATE, long: LONG, targets };
        let node = &self.node;
        Ok(vec![
            (
                "a replica",
                Load::start(
                    |program| inside(node, &self.seen, program),
                    &plan([service.clone(), outside.clone()].concat()),
                )?,
            ),
            (
                "a replica that no hook sees",
                Load::start(
                    |program| unseen(node, &self.unseen, program),
                    &plan([service.clone(), outside].concat()),
                )?,
            ),
            ("the node", Load::start(|program| node.sandbox().command(program), &plan(service))?),
            ("outside", Load::start(|program| node.fabric().client().command(program), &plan(published))?),
        ])
    }

    fn maps(&self, version: u32) -> PinnedMaps {
        let bpffs = self.node.sandbox().directory().join("bpf/hivemind");
        PinnedMaps::of_version(&self.node.sandbox().outside(&bpffs), version)
    }

    /// Packets that were dropped, but for those to groups of addresses, which the kernel of every replica sends by itself.
    fn dropped(&self, version: u32) -> Result<Dropped> {
        let mut dropped = self.maps(version).dropped()?;
        dropped.remove(DropReason::NotUnicast.name());
        Ok(dropped)
    }

    /// Asks for a name and for apps while the daemon is away.
    fn ask(&self) -> Result<[Question; 2]> {
        let socket = self.node.socket().display().to_string();
        let hivemind = hivemind_binary()?.display().to_string();
        let dig = ["dig", "+time=30", "+tries=1", "@169.254.20.10", NAME, "A"];
        Ok([
            Question::ask(&self.node, ("u", "169.254.20.10:53"), &dig, "ANSWER: 1,")?,
            Question::ask(&self.node, ("x", &socket), &[&hivemind, "app", "ls", "-o", "name"], "app/web")?,
        ])
    }
}

/// In a replica's network, in the node's cgroup.
fn inside(node: &Node, network: &Path, program: &Path) -> Command {
    let mut command = node.sandbox().command("nsenter");
    command.arg(format!("--net={}", network.display())).arg(program);
    command
}

/// In a replica's network, in the cgroup of the test, which is not below the node's.
fn unseen(node: &Node, network: &Path, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &node.pid().to_string(), "--mount", "--", "nsenter"]);
    command.arg(format!("--net={}", network.display())).arg(program);
    command
}

fn check(loads: Vec<(&'static str, Load)>) -> Result<()> {
    let (mut all, mut rate) = (LoadReport::default(), 0.0);
    let mut faults = Vec::new();
    for (from, load) in loads {
        let report = load.stop()?;
        println!("{from}: {report:?}");
        if let Err(fault) = report.check() {
            faults.push(format!("from {from}: {fault:#}"));
        }
        rate += report.rate();
        all = all.and(&report);
    }
    println!("all: {rate:.0} new connections a second, {all:?}");
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    ensure!(rate >= RATE_LEAST, "only {rate:.0} new connections a second");
    ensure!(all.syn_retransmissions == 0, "first packets were lost: {all:?}");
    Ok(())
}

#[test]
fn nothing_is_lost_by_kill_restart_upgrade_and_a_refused_downgrade() -> Result<()> {
    let world = World::start()?;
    let node = &world.node;
    let loads = world.load()?;
    let before = world.dropped(ABI_VERSION)?;

    node.daemon_kill9()?;
    let questions = world.ask()?;
    node.daemon_start()?;
    questions.into_iter().try_for_each(|question| question.assert_answered(node))?;
    sleep(STRETCH);

    node.daemon_term()?;
    let questions = world.ask()?;
    node.daemon_start()?;
    questions.into_iter().try_for_each(|question| question.assert_answered(node))?;
    sleep(STRETCH);

    node.daemon_kill9()?;
    let questions = world.ask()?;
    node.daemon_start_from(Build::NextLayout, &[])?;
    questions.into_iter().try_for_each(|question| question.assert_answered(node))?;
    ensure!(world.maps(NEXT).exist() && !world.maps(ABI_VERSION).exist(), "the maps are not the next ones");
    world.until_served()?;
    sleep(STRETCH);

    node.daemon_term()?;
    let refused = node.daemon_run(&[], &[])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(6), "{:?}: {said}", refused.status);
    for word in ["HM0518", &format!("version {NEXT}"), &format!("version {ABI_VERSION}"), "--teardown"] {
        ensure!(said.contains(word), "no {word:?} in {said:?}");
    }
    sleep(STRETCH);
    node.daemon_start_from(Build::NextLayout, &[])?;
    sleep(STRETCH);

    check(loads)?;
    let now = world.dropped(NEXT)?;
    ensure!(now == before, "packets were dropped: {now:?} after {before:?}");
    let translated = eventually(LIMIT, "no two connections to have one tuple", || {
        let [v4, v6] = world.maps(NEXT).translations()?;
        anyhow::Ok(v4.whole + v6.whole)
    })?;
    ensure!(translated > 100, "hardly anything was translated: {translated}");

    let World { node, servers, .. } = world;
    drop(servers);
    node.daemon_term()?;
    node.daemon_teardown()?;
    node.assert_nothing_left()
}

/// As far as maps are the same in it: here they are those of this version, under the other one's name.
#[test]
fn the_version_before_is_taken_over_and_nothing_is_lost() -> Result<()> {
    let world = World::start()?;
    let node = &world.node;
    let loads = world.load()?;
    let before = world.dropped(ABI_VERSION)?;
    sleep(STRETCH);

    node.daemon_kill9()?;
    let bpffs = node.sandbox().outside(&node.sandbox().directory().join("bpf/hivemind"));
    let of = |version: u32| bpffs.join(format!("v{version}"));
    fs::rename(of(ABI_VERSION), of(ABI_VERSION - 1)).context("the pins cannot be moved")?;
    let questions = world.ask()?;
    node.daemon_start()?;
    questions.into_iter().try_for_each(|question| question.assert_answered(node))?;
    ensure!(world.maps(ABI_VERSION).exist() && !world.maps(ABI_VERSION - 1).exist(), "it was not taken over");
    world.until_served()?;
    sleep(STRETCH);

    check(loads)?;
    let now = world.dropped(ABI_VERSION)?;
    ensure!(now == before, "packets were dropped: {now:?} after {before:?}");
    let World { node, servers, .. } = world;
    drop(servers);
    node.daemon_term()?;
    node.daemon_teardown()?;
    node.assert_nothing_left()
}
