//! The bench `datapath`: what two replicas of one node pay for the data path between them, and how soon it is there.
//!
//! Four ways are compared in turns, both ends on one processor: a bare pair of virtual interfaces, a bridge, the data path
//! with everything on and policies that govern both ends, and the data path with policy, tracking and telemetry left out of
//! its programs. There is no daemon: the data path is made by the calls that the daemon would use.

use anyhow::Result;
use hivemind_datapath::Config;

use super::figure::Figure;
use super::node::{Contents, DatapathNode};
use super::pair::{Kind, Pair, Turns};
use super::wires::{Layout, Wires};

/// How each way is measured.
const TURNS: Turns = Turns { rounds: 31, stretch_ms: 200 };

/// How often a data path is opened where there is none, and once more where it stands.
const OPENS: usize = 9;

/// How many endpoints there are to adopt.
const ADOPTED: usize = 10;

/// How often each program is measured, and how often it runs each time.
const PROGRAM_ROUNDS: usize = 15;
const REPEAT: u32 = 200_000;

/// Of a bare pair's, and of the data path's own with telemetry and all else left out.
const RR_OF_BARE_MIN: f64 = 0.94;
const THROUGHPUT_OF_BARE_MIN: f64 = 0.97;
const RR_OF_OFF_MIN: f64 = 0.98;

const OPEN_MS_MAX: f64 = 100.0;

const KINDS: [Kind; 5] = [Kind::TcpRr, Kind::UdpRr, Kind::TcpCrr, Kind::Throughput, Kind::ProcessorTime];

pub(super) fn run(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    let mut figures = ways(progress)?;
    progress("datapath: the programs by themselves");
    figures.extend(programs()?);
    figures.extend(opens(progress)?);
    Ok(figures)
}

fn ways(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    progress("datapath: two data paths, a bare pair and a bridge");
    let (veth, bridge) = (Wires::lay(Layout::Veth)?, Wires::lay(Layout::Bridge)?);
    let on = DatapathNode::start(Contents::PAIR)?;
    let off = DatapathNode::start(Contents { features: 0, ..Contents::PAIR })?;
    let pairs: [Pair; 4] = [veth.pair()?, bridge.pair()?, on.pair()?, off.pair()?];
    let mut figures = Vec::new();
    for kind in KINDS {
        figures.extend(compared(kind, TURNS.measure("datapath", &pairs, kind, progress)?));
    }
    Ok(figures)
}

fn compared(kind: Kind, [veth, bridge, on, off]: [Vec<f64>; 4]) -> Vec<Figure> {
    let name = |way: &str| format!("{way}_{}", kind.name());
    let paired = |way, ours: &[f64], (other, its): (&str, &[f64]), least: Option<f64>| {
        let figure = Figure::paired(name(way), kind.unit(), ours, (name(other), its));
        match least {
            Some(least) => figure.at_least_times(least),
            None => figure,
        }
    };
    let of_bare = match kind {
        Kind::TcpRr | Kind::UdpRr => Some(RR_OF_BARE_MIN),
        Kind::Throughput => Some(THROUGHPUT_OF_BARE_MIN),
        Kind::TcpCrr | Kind::ProcessorTime => None,
    };
    let of_off = (kind == Kind::TcpRr).then_some(RR_OF_OFF_MIN);
    vec![
        paired("same_node", &on, ("veth", &veth), of_bare),
        paired("telemetry", &on, ("off", &off), of_off),
        paired("off", &off, ("veth", &veth), None),
        paired("bridge", &bridge, ("veth", &veth), None),
        Figure::new(name("veth"), kind.unit(), veth),
    ]
}

/// What the programs take for a packet by themselves: with everything on, and with nothing but the way.
fn programs() -> Result<Vec<Figure>> {
    let mut samples: [Vec<(String, Vec<f64>)>; 2] = Default::default();
    for _ in 0..PROGRAM_ROUNDS {
        for (features, samples) in [Config::FEATURES, 0].into_iter().zip(&mut samples) {
            for (index, time) in hivemind_datapath::program_times(features, REPEAT)?.into_iter().enumerate() {
                if samples.len() == index {
                    let first = if time.is_first { "_first" } else { "" };
                    samples.push((format!("{}{first}_ns", time.program), Vec::new()));
                }
                samples[index].1.push(time.ns);
            }
        }
    }
    let [on, off] = samples;
    let sides = on.into_iter().zip(off).map(|((name, on), (_, off))| {
        let (ours, baseline) = (format!("prog_{name}"), format!("off_{name}"));
        [Figure::paired(ours, "ns", &on, (baseline.clone(), &off)), Figure::new(baseline, "ns", off)]
    });
    Ok(sides.flatten().collect())
}

/// How long it takes until everything is loaded, verified and attached: where there was nothing, and where endpoints are
/// adopted.
fn opens(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    let (mut fresh, mut adopting) = (Vec::new(), Vec::new());
    for number in 1..=OPENS {
        progress(&format!("datapath: opened for the {number}th time of {OPENS}"));
        let mut node = DatapathNode::start(Contents { endpoints: ADOPTED, ..Contents::PAIR })?;
        fresh.push(node.opened_in());
        node.start_again()?;
        adopting.push(node.opened_in());
    }
    Ok(vec![
        Figure::of_times("load_attach", &fresh).at_most(OPEN_MS_MAX),
        Figure::of_times("load_attach_10_endpoints", &adopting).at_most(OPEN_MS_MAX),
    ])
}
