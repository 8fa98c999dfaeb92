//! Clusters of cores on a network and a clock of their own: the same seed gives the same run, and no time passes outside.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "everything here is test code, also what has no test attribute"
)]

#[path = "simulator/network.rs"]
mod network;

use std::time::Duration;

use hivemind_membership::State;
use network::{Cluster, Weather};

const CALM: Weather = Weather::new(0.0);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The value below which `part` of the sorted values lie.
fn quantile(sorted: &[Duration], part: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * part).ceil() as usize]
}

#[test]
fn clusters_of_2_to_100_nodes_find_each_other() {
    for (size, loss, within) in
        [(2, 0.0, 2), (3, 0.0, 2), (3, 0.2, 6), (20, 0.0, 4), (20, 0.2, 10), (100, 0.05, 15)]
    {
        let mut cluster = Cluster::new(size, u64::from(size), Weather::new(loss));
        let took = cluster.run_until(seconds(60), Cluster::all_alive).expect("the cluster never met");
        println!("{size} nodes at a loss of {loss}: all see all after {took:?}");
        assert!(took <= seconds(within), "{size} nodes at a loss of {loss} took {took:?}");
    }
}

#[test]
fn nodes_that_know_only_the_server_find_each_other_through_it() {
    let mut cluster = Cluster::with_seed_only(20, 5, CALM);
    cluster.run(seconds(5));
    cluster.give_everyone_the_list();
    let took = cluster.run_until(seconds(20), Cluster::all_alive).expect("the cluster never met");
    assert!(took <= seconds(4), "{took:?}");
}

/// How long after a crash each survivor sees it, over many crashes.
fn detection(size: u16, loss: f64, crashes: u64) -> Vec<Duration> {
    let mut times = Vec::new();
    for seed in 0..crashes {
        let mut cluster = Cluster::new(size, 1_000 + seed, Weather::new(loss));
        cluster.run_until(seconds(60), Cluster::all_alive).expect("the cluster never met");
        cluster.run(Duration::from_millis(1_000 + seed * 137 % 2_000));
        cluster.crash(2);
        times.extend(cluster.times_until_seen(2, State::Dead, seconds(60)));
    }
    times.sort();
    times
}

fn assert_detection(size: u16, loss: f64, crashes: u64, median_max: Duration, p99_max: Duration) {
    let times = detection(size, loss, crashes);
    assert_eq!(times.len() as u64, crashes * u64::from(size - 1), "a survivor never saw the death");
    let (median, p99) = (quantile(&times, 0.5), quantile(&times, 0.99));
    println!(
        "{size} nodes at a loss of {loss}: {crashes} deaths seen after {median:?} (median), {p99:?} (p99), {:?} (worst)",
        times[times.len() - 1]
    );
    assert!(median <= median_max && p99 <= p99_max, "median {median:?}, p99 {p99:?}");
}

#[test]
fn a_death_is_seen_within_2_to_4_seconds_by_every_survivor() {
    assert_detection(2, 0.0, 200, Duration::from_millis(2_000), Duration::from_millis(2_500));
    assert_detection(3, 0.0, 200, Duration::from_millis(2_200), Duration::from_millis(3_500));
    assert_detection(10, 0.0, 40, Duration::from_millis(2_400), seconds(4));
    assert_detection(20, 0.0, 40, Duration::from_millis(2_600), seconds(4));
}

#[test]
fn a_death_is_seen_in_time_on_a_lossy_network() {
    // Among so many some die just as the survivor has been taken for dead and has come back: they must be missed too.
    assert_detection(2, 0.2, 500, Duration::from_millis(2_200), seconds(3));
    assert_detection(3, 0.05, 200, Duration::from_millis(2_200), Duration::from_millis(3_500));
    assert_detection(3, 0.2, 500, Duration::from_millis(2_200), seconds(4));
    assert_detection(20, 0.1, 10, seconds(3), seconds(5));
}

#[test]
fn a_death_is_seen_in_a_cluster_of_a_hundred() {
    assert_detection(100, 0.0, 3, Duration::from_millis(3_500), seconds(6));
}

#[test]
fn nobody_is_taken_for_dead_on_a_quiet_network() {
    for (size, length) in [(2, 1_800), (3, 1_800), (20, 120)] {
        let mut cluster = Cluster::new(size, 7, CALM);
        cluster.run_until(seconds(10), Cluster::all_alive).expect("the cluster never met");
        cluster.run(seconds(length));
        assert_eq!((cluster.false_deaths, cluster.suspicions), (0, 0), "{size} nodes");
    }
}

#[test]
fn loss_brings_suspicion_but_hardly_ever_a_false_death_and_never_for_long() {
    for (size, loss, length, deaths_max) in
        [(3, 0.05, 1_800, 0), (3, 0.1, 1_800, 0), (3, 0.2, 1_800, 2), (20, 0.1, 120, 0)]
    {
        let mut cluster = Cluster::new(size, 11, Weather::new(loss));
        cluster.run_until(seconds(20), Cluster::all_alive).expect("the cluster never met");
        cluster.run(seconds(length));
        println!(
            "{size} nodes at a loss of {loss} for {length} s: {} suspicions, {} false deaths, counted at each other node",
            cluster.suspicions, cluster.false_deaths
        );
        assert!(cluster.false_deaths <= deaths_max, "{} false deaths", cluster.false_deaths);
        cluster.set_weather(CALM);
        let took = cluster.run_until(seconds(30), Cluster::all_alive).expect("the cluster stayed torn");
        assert!(took <= seconds(5), "{took:?}");
    }
}

#[test]
fn delays_of_a_tenth_of_a_second_are_no_death() {
    let slow =
        Weather { loss: 0.0, delay_min: Duration::from_millis(20), delay_max: Duration::from_millis(90) };
    let mut cluster = Cluster::new(5, 3, slow);
    cluster.run_until(seconds(10), Cluster::all_alive).expect("the cluster never met");
    cluster.run(seconds(300));
    assert_eq!(cluster.false_deaths, 0);
    let rtt = cluster.view(1).get(2.try_into().unwrap()).unwrap().rtt.unwrap();
    assert!((40_000.0..180_000.0).contains(&rtt.smoothed_us), "{rtt:?}");
}

#[test]
fn halves_that_were_cut_apart_see_each_other_dead_and_meet_again() {
    for (size, cut, within) in [(2, 1, 4), (3, 1, 4), (20, 10, 8), (100, 50, 20)] {
        let mut cluster = Cluster::new(size, u64::from(size) + 1, CALM);
        cluster.run_until(seconds(30), Cluster::all_alive).expect("the cluster never met");
        cluster.cut(cut);
        cluster
            .run_until(seconds(30), |cluster| {
                cluster.sees(1, size, State::Dead) && cluster.sees(size, 1, State::Dead)
            })
            .expect("the cut was never seen");
        cluster.run(seconds(30));
        cluster.heal();
        let took = cluster.run_until(seconds(60), Cluster::all_alive).expect("the halves never met");
        println!("{size} nodes cut into {cut} and {}: whole {took:?} after the cut was mended", size - cut);
        assert!(took <= seconds(within), "{size} nodes took {took:?}");
        cluster.run(seconds(20));
        assert!(cluster.all_alive(), "the cluster did not stay whole");
    }
}

#[test]
fn a_broken_link_between_two_is_no_death_while_others_reach_both() {
    for size in [3, 5] {
        let mut cluster = Cluster::new(size, 53, CALM);
        cluster.run_until(seconds(10), Cluster::all_alive).expect("the cluster never met");
        cluster.break_link(1, 2);
        cluster.run(seconds(600));
        assert_eq!(cluster.false_deaths, 0, "{size} nodes");
        assert!(cluster.all_alive());
    }
}

#[test]
fn a_node_that_is_held_up_takes_nobody_for_dead_and_is_alive_again_soon() {
    for seed in 0..50 {
        let mut cluster = Cluster::new(3, 100 + seed, CALM);
        cluster.run_until(seconds(10), Cluster::all_alive).expect("the cluster never met");
        cluster.pause(2, Duration::from_millis(500 + seed * 200));
        cluster.run(Duration::from_millis(500 + seed * 200));
        let took = cluster.run_until(seconds(20), Cluster::all_alive).expect("the cluster stayed torn");
        assert!(took <= seconds(2), "{took:?}");
        cluster.run(seconds(20));
        assert!(cluster.all_alive());
        assert_eq!(cluster.false_deaths, 0, "held up for {} ms", 500 + seed * 200);
    }
}

#[test]
fn whatever_befalls_a_cluster_it_is_whole_soon_after() {
    for seed in 1_000..1_100 {
        let size = 2 + u16::try_from(seed % 6).unwrap();
        let mut cluster = Cluster::new(size, 10_000 + seed, CALM);
        for _ in 0..30 {
            cluster.strike();
            cluster.run(Duration::from_millis(137 + seed * 7 % 1_800));
        }
        cluster.make_whole();
        let took = cluster.run_until(seconds(60), Cluster::all_alive);
        let took = took.unwrap_or_else(|| panic!("seed {seed}: {size} nodes were never whole again"));
        assert!(took <= seconds(12), "seed {seed}: {size} nodes took {took:?}");
        cluster.run(seconds(10));
        assert!(cluster.all_alive(), "seed {seed}: {size} nodes did not stay whole");
        let errors: u64 = (1..=size).map(|node| cluster.statistics(node).protocol_errors).sum();
        assert_eq!(errors, 0, "seed {seed}");
    }
}

#[test]
fn a_node_that_restarts_at_once_is_a_new_generation_and_never_dead() {
    let mut cluster = Cluster::new(3, 17, CALM);
    cluster.run_until(seconds(10), Cluster::all_alive).expect("the cluster never met");
    let before = cluster.generation(1, 3);
    cluster.restart(3, Duration::ZERO);
    cluster
        .run_until(seconds(5), |cluster| cluster.all_alive() && cluster.generation(1, 3) > before)
        .expect("the new life was never seen");
    assert_eq!(cluster.false_deaths, 0);
}

#[test]
fn a_node_that_died_is_alive_again_soon_after_it_returns() {
    let mut cluster = Cluster::new(3, 19, CALM);
    cluster.run_until(seconds(10), Cluster::all_alive).expect("the cluster never met");
    cluster.crash(3);
    cluster
        .run_until(seconds(10), |cluster| cluster.sees(1, 3, State::Dead))
        .expect("the death was never seen");
    cluster.run(seconds(60));
    cluster.restart(3, Duration::ZERO);
    let took = cluster.run_until(seconds(10), Cluster::all_alive).expect("it was never found again");
    assert!(took <= seconds(2), "{took:?}");
}

#[test]
fn a_node_whose_clock_was_set_back_comes_back_too() {
    let mut cluster = Cluster::new(3, 23, CALM);
    cluster.run_until(seconds(10), Cluster::all_alive).expect("the cluster never met");
    let before = cluster.generation(1, 3);
    cluster.restart(3, seconds(86_400));
    cluster
        .run_until(seconds(10), |cluster| cluster.all_alive() && cluster.generation(1, 3) > before)
        .expect("it was never taken in again");
    cluster.run(seconds(10));
    assert!(cluster.all_alive());
}

#[test]
fn who_says_goodbye_has_left_and_is_not_dead_even_if_much_is_lost() {
    for (size, loss) in [(2, 0.0), (3, 0.0), (3, 0.2), (20, 0.1), (100, 0.05)] {
        let mut cluster = Cluster::new(size, 29, Weather::new(loss));
        cluster.run_until(seconds(30), Cluster::all_alive).expect("the cluster never met");
        cluster.leave(2);
        let times = cluster.times_until_seen(2, State::Left, seconds(20));
        assert_eq!(times.len(), usize::from(size) - 1);
        assert!(times.iter().all(|took| *took <= seconds(3)), "{size} nodes at {loss}: {times:?}");
        cluster.run(seconds(30));
        assert!((1..=size).filter(|node| *node != 2).all(|node| cluster.sees(node, 2, State::Left)));
        cluster.restart(2, Duration::ZERO);
        cluster.run_until(seconds(20), Cluster::all_alive).expect("it was never taken in again");
    }
}

#[test]
fn a_node_taken_off_the_list_leaves_the_view_and_is_not_heard() {
    let mut cluster = Cluster::new(3, 31, CALM);
    cluster.run_until(seconds(10), Cluster::all_alive).expect("the cluster never met");
    let number = 3.try_into().unwrap();
    cluster.unlist(3);
    cluster.run(seconds(30));
    assert!(cluster.view(1).get(number).is_none());
    assert!(cluster.sees(1, 2, State::Alive) && cluster.sees(2, 1, State::Alive));
    assert!(cluster.statistics(1).refused.sender > 0);
    assert!(cluster.sees(3, 1, State::Dead), "the node that was taken off is not answered");
    cluster.give_everyone_the_list();
    cluster.run_until(seconds(20), Cluster::all_alive).expect("it was never taken in again");
}

#[test]
fn a_node_with_another_key_is_neither_heard_nor_answered() {
    let mut cluster = Cluster::new(3, 37, CALM);
    cluster.replace_key(3, 1, 99);
    cluster.run(seconds(15));
    assert!(
        cluster.sees(1, 2, State::Alive)
            && cluster.sees(1, 3, State::Dead)
            && cluster.sees(3, 1, State::Dead)
    );
    assert!(cluster.statistics(1).refused.forged > 0);
}

#[test]
fn the_key_is_changed_in_a_running_cluster_without_a_suspicion() {
    let mut cluster = Cluster::new(3, 41, CALM);
    cluster.run_until(seconds(10), Cluster::all_alive).expect("the cluster never met");
    for keys in [&[1, 2][..], &[2, 1], &[2]] {
        for node in 1..=3 {
            cluster.set_keys(node, keys);
            cluster.run(seconds(3));
        }
    }
    assert!(cluster.all_alive());
    assert_eq!((cluster.false_deaths, cluster.suspicions), (0, 0));
}

#[test]
fn round_trips_to_all_peers_are_measured_within_five_seconds() {
    let weather =
        Weather { loss: 0.0, delay_min: Duration::from_micros(500), delay_max: Duration::from_micros(700) };
    let mut cluster = Cluster::new(20, 43, weather);
    cluster.run_until(seconds(10), Cluster::all_alive).expect("the cluster never met");
    cluster.run(seconds(7));
    for member in &cluster.view(1).members {
        let rtt = member.rtt.expect("a peer was not measured");
        assert!((1_000.0..=1_400.0).contains(&rtt.last_us), "{rtt:?}");
    }
    cluster.run(seconds(60));
    let view = cluster.view(1);
    assert!(view.members.iter().all(|member| member.rtt.unwrap().samples >= 12));
}

#[test]
fn the_traffic_of_a_quiet_cluster_is_small() {
    for (size, bytes_per_second_max) in [(3, 4_000), (20, 6_000)] {
        let mut cluster = Cluster::new(size, 47, CALM);
        cluster.run_until(seconds(10), Cluster::all_alive).expect("the cluster never met");
        cluster.run(seconds(30));
        let before = cluster.statistics(1);
        cluster.run(seconds(60));
        let after = cluster.statistics(1);
        let (datagrams, bytes) = (after.sent - before.sent, after.sent_bytes - before.sent_bytes);
        println!(
            "{size} nodes: {:.1} datagrams, {} bytes sent a second by each",
            datagrams as f64 / 60.0,
            bytes / 60
        );
        assert!(bytes / 60 <= bytes_per_second_max);
        assert_eq!(after.protocol_errors, 0);
        assert_eq!(after.refused.total(), 0, "{after:?}");
    }
}
