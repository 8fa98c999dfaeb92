//! The bench `telemetry`: what counting and telling cost.
//!
//! A packet, by the programs alone; request and response, connections and a stream between two replicas, by two data paths
//! that differ in nothing else; the daemon and the kernel while many connections begin; and the memory of the maps.

mod flood;

use anyhow::Result;
use hivemind_common::telemetry::FEATURE_TELEMETRY;
use hivemind_datapath::Config;

use super::figure::Figure;
use super::node::{Contents, DatapathNode};
use super::pair::{Kind, Pair, Turns};

/// How each way is measured.
const TURNS: Turns = Turns { rounds: 31, stretch_ms: 200 };

/// How often each program is measured, and how often it runs each time.
const PROGRAM_ROUNDS: usize = 31;
const REPEAT: u32 = 200_000;

/// Of what the same data path does without telemetry.
const RR_MIN: f64 = 0.98;
const THROUGHPUT_MIN: f64 = 0.97;

const KINDS: [Kind; 5] = [Kind::TcpRr, Kind::UdpRr, Kind::TcpCrr, Kind::Throughput, Kind::ProcessorTime];

/// Everything but telemetry.
const UNTOLD: u32 = Config::FEATURES & !FEATURE_TELEMETRY;

pub(super) fn run(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    progress("telemetry: the programs by themselves");
    let mut figures = programs()?;
    let told = DatapathNode::start(Contents::PAIR)?;
    let untold = DatapathNode::start(Contents { features: UNTOLD, ..Contents::PAIR })?;
    let pairs: [Pair; 2] = [told.pair()?, untold.pair()?];
    for kind in KINDS {
        figures.extend(compared(kind, TURNS.measure("telemetry", &pairs, kind, progress)?));
    }
    drop((pairs, told, untold));
    figures.extend(flood::run(progress)?);
    Ok(figures)
}

fn compared(kind: Kind, [told, untold]: [Vec<f64>; 2]) -> [Figure; 2] {
    let name = |way: &str| format!("{way}_{}", kind.name());
    let figure = Figure::paired(name("told"), kind.unit(), &told, (name("untold"), &untold));
    let figure = match kind {
        Kind::TcpRr | Kind::UdpRr => figure.at_least_times(RR_MIN),
        Kind::Throughput => figure.at_least_times(THROUGHPUT_MIN),
        Kind::TcpCrr | Kind::ProcessorTime => figure,
    };
    [figure, Figure::new(name("untold"), kind.unit(), untold)]
}

/// What the programs take for a packet with telemetry and without, and the difference round by round.
fn programs() -> Result<Vec<Figure>> {
    let mut samples: Vec<(String, [Vec<f64>; 2])> = Vec::new();
    for round in 0..PROGRAM_ROUNDS {
        // The order changes with each round.
        for turn in [round % 2, (round + 1) % 2] {
            let features = [Config::FEATURES, UNTOLD][turn];
            for (index, time) in hivemind_datapath::program_times(features, REPEAT)?.into_iter().enumerate() {
                if samples.len() == index {
                    let first = if time.is_first { "_first" } else { "" };
                    samples.push((format!("{}{first}_ns", time.program), Default::default()));
                }
                samples[index].1[turn].push(time.ns);
            }
        }
    }
    let figures = |(name, [told, untold]): (String, [Vec<f64>; 2])| {
        let more = told.iter().zip(&untold).map(|(told, untold)| told - untold).collect();
        let without = format!("untold_{name}");
        [
            Figure::new(format!("telemetry_{name}"), "ns", more),
            Figure::paired(format!("told_{name}"), "ns", &told, (without.clone(), &untold)),
            Figure::new(without, "ns", untold),
        ]
    };
    Ok(samples.into_iter().flat_map(figures).collect())
}
