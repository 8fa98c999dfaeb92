//! The data path by itself under load: its process is killed, followed by others, and by those of a build whose maps have
//! another layout. Nothing may be lost.

use std::{
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use hivemind_common::{ABI_VERSION, drop_reason::DropReason};
use hivemind_tests::{
    Build, Dropped, LifeNode, Load, LoadReport,
    life::{From, Hooks},
};

/// New connections a second on each of the four ways: six hundred in all.
const RATE: u32 = 150;

/// Long-lived connections on each way, of TCP and of UDP: 52 of each in all.
const LONG: usize = 13;

/// What is promised.
const RATE_LEAST: f64 = 500.0;

/// How long traffic is watched after the last thing that could have harmed it.
const STRETCH: Duration = Duration::from_millis(1_500);

/// How often the process is killed.
const ROUNDS: u32 = 20;

/// Opening takes about this long; the process is killed within.
const OPENING_MS: u64 = 600;

const NEXT: u32 = ABI_VERSION + 1;

/// Numbers that look random, from a seed that is told.
struct Moments(u64);

impl Moments {
    fn seeded() -> Result<Self> {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64 | 1;
        println!("the seed of the moments is {seed}");
        Ok(Self(seed))
    }

    /// Waits until one of them; being at any moment is the point.
    fn wait(&mut self, ms: u64) {
        // xorshift64: Marsaglia, Xorshift RNGs, 2003.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        sleep(Duration::from_millis(self.0 % ms));
    }
}

/// Packets that were dropped, but for those to groups of addresses, which the kernel of every endpoint sends by itself.
fn dropped(node: &LifeNode, version: u32) -> Result<Dropped> {
    let mut dropped = node.maps(version).dropped()?;
    dropped.remove(DropReason::NotUnicast.name());
    Ok(dropped)
}

/// Checks what the maps tell: that no packet was dropped, and that no two connections have one tuple.
fn check_maps(node: &LifeNode, version: u32, before: &Dropped) -> Result<()> {
    let now = dropped(node, version)?;
    ensure!(now == *before, "packets were dropped: {now:?} after {before:?}");
    let translated = node.check_translations(version)?;
    println!("{translated} connections are translated");
    ensure!(translated > 100, "hardly anything was translated: {translated}");
    Ok(())
}

/// Ends all traffic a little later, and checks that none of it was harmed.
fn check(loads: Vec<(From, Load)>) -> Result<LoadReport> {
    sleep(STRETCH);
    let (mut all, mut rate) = (LoadReport::default(), 0.0);
    let mut faults = Vec::new();
    for (from, load) in loads {
        let report = load.stop()?;
        println!("{from:?}: {report:?}");
        if let Err(fault) = report.check() {
            faults.push(format!("{from:?}: {fault:#}"));
        }
        rate += report.rate();
        all = all.and(&report);
    }
    println!("all: {rate:.0} new connections a second, {all:?}");
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    ensure!(rate >= RATE_LEAST, "only {rate:.0} new connections a second");
    ensure!(all.syn_retransmissions == 0, "first packets were lost: {all:?}");
    Ok(all)
}

#[test]
fn nothing_is_lost_when_the_process_is_killed_at_any_moment_and_followed_by_another() -> Result<()> {
    let mut node = LifeNode::start(Hooks::Links)?;
    let before = dropped(&node, ABI_VERSION)?;
    let loads = node.load(RATE, LONG)?;
    let mut moments = Moments::seeded()?;
    node.kill()?;
    for _ in 0..ROUNDS {
        let mut process = node.begin_to_open(Build::Current)?;
        moments.wait(OPENING_MS);
        process.kill()?;
    }
    node.open(Build::Current)?;
    check(loads)?;
    check_maps(&node, ABI_VERSION, &before)?;
    Ok(())
}

#[test]
fn an_upgrade_to_other_maps_loses_nothing_and_the_way_back_is_refused() -> Result<()> {
    let mut node = LifeNode::start(Hooks::Links)?;
    let before = dropped(&node, ABI_VERSION)?;
    let loads = node.load(RATE, LONG)?;
    sleep(STRETCH);
    node.kill()?;
    let known = node.maps(ABI_VERSION).connections()?;
    let began = Instant::now();
    node.open(Build::NextLayout)?;
    println!("upgraded in {:?}", began.elapsed());
    // Most of them are over, and of those no packet came; some were forgotten meanwhile.
    let taken = node.maps(NEXT).connections_made_under(ABI_VERSION)?;
    println!("{taken} connections of {known} were taken over");
    ensure!(taken > known / 2 && known > 500, "of {known} connections {taken} were taken over");
    ensure!(node.versions()? == [format!("v{NEXT}")], "{:?}", node.versions()?);
    sleep(STRETCH);
    node.kill()?;
    let refused = node.open(Build::Current).err().context("the way back was not refused")?;
    let said = format!("{refused:#}");
    ensure!(said.contains(&NEXT.to_string()) && said.contains(&ABI_VERSION.to_string()), "{said}");
    ensure!(node.versions()? == [format!("v{NEXT}")], "{:?}", node.versions()?);
    node.open(Build::NextLayout)?;
    check(loads)?;
    check_maps(&node, NEXT, &before)?;
    node.kill()?;
    node.teardown()?;
    ensure!(!node.maps(NEXT).exist(), "pins are left");
    Ok(())
}

#[test]
fn an_upgrade_to_other_maps_loses_nothing_where_programs_hang_by_filters() -> Result<()> {
    let mut node = LifeNode::start(Hooks::Filters)?;
    let before = dropped(&node, ABI_VERSION)?;
    let loads = node.load(RATE, LONG)?;
    node.kill()?;
    node.open(Build::NextLayout)?;
    ensure!(node.versions()? == [format!("v{NEXT}")], "{:?}", node.versions()?);
    check(loads)?;
    check_maps(&node, NEXT, &before)
}

#[test]
fn an_upgrade_that_is_killed_at_any_moment_is_completed_by_the_next() -> Result<()> {
    let mut moments = Moments::seeded()?;
    let mut node = LifeNode::start(Hooks::Links)?;
    let before = dropped(&node, ABI_VERSION)?;
    let loads = node.load(RATE, LONG)?;
    node.kill()?;
    for _ in 0..ROUNDS {
        let mut process = node.begin_to_open(Build::NextLayout)?;
        moments.wait(2 * OPENING_MS);
        process.kill()?;
    }
    node.open(Build::NextLayout)?;
    ensure!(node.versions()? == [format!("v{NEXT}")], "{:?}", node.versions()?);
    check(loads)?;
    check_maps(&node, NEXT, &before)?;
    Ok(())
}
