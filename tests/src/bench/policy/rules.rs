//! What rules cost traffic: between two replicas, of which one is governed by more and more of them.

use anyhow::Result;

use crate::bench::figure::Figure;
use crate::bench::node::{Contents, DatapathNode};
use crate::bench::pair::{Kind, Pair, Turns};

const TURNS: Turns = Turns { rounds: 15, stretch_ms: 200 };

/// How many rules there are beside the one that counts.
const RULES: [usize; 3] = [10, 1_000, 10_000];

/// Of what it is where no policy governs: a connection that stands, and one for each request.
const RR_MIN: f64 = 0.98;
const CRR_MIN: f64 = 0.95;

pub(super) fn run(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    progress("policy: data paths without policies and with many rules");
    let start = |rules| DatapathNode::start(Contents { rules, ..Contents::PAIR });
    let mut nodes = vec![start(None)?];
    for rules in RULES {
        nodes.push(start(Some(rules))?);
    }
    let pairs: Vec<Pair> = nodes.iter().map(DatapathNode::pair).collect::<Result<_>>()?;
    let mut figures = Vec::new();
    for (kind, least) in [(Kind::TcpRr, RR_MIN), (Kind::TcpCrr, CRR_MIN)] {
        let samples = TURNS.measure_all("policy", &pairs, kind, progress)?;
        let Some((open, governed)) = samples.split_first() else { continue };
        let baseline = format!("open_{}", kind.name());
        for (rules, samples) in RULES.iter().zip(governed) {
            let name = format!("rules_{rules}_{}", kind.name());
            let figure = Figure::paired(name, kind.unit(), samples, (baseline.clone(), open));
            figures.push(figure.at_least_times(least));
        }
        figures.push(Figure::new(baseline, kind.unit(), open.clone()));
    }
    Ok(figures)
}
