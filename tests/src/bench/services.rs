//! The bench `services`: what it costs to reach an endpoint through a service, by how many services there are, and what
//! the same costs through rules of iptables and of nftables as kube-proxy writes them.
//!
//! All ways are measured in turns, both ends on one processor. The measured service is the last one everywhere: the rules of
//! iptables are gone through one by one, so that is their worst case. kube-proxy writes them in no particular order; what is
//! to be expected is in the middle, where another service leads to the same server. There, the nodes' packets are routed by
//! the kernel, as with the usual plug-ins. Clients of the data path's services are measured where the programs at the cgroup
//! see their sockets, and where those do not, so that each packet has to be translated.

mod iptables;
mod nftables;
mod proxied;

use anyhow::{Context, Result};

use super::figure::Figure;
use super::node::{Contents, DatapathNode};
use super::pair::{Kind, Pair, Turns};
use proxied::Proxied;

/// How each way is measured.
const TURNS: Turns = Turns { rounds: 31, stretch_ms: 200 };

/// How many services there are.
const SIZES: [usize; 3] = [1, 100, 10_000];

const KINDS: [Kind; 2] = [Kind::TcpRr, Kind::TcpCrr];

/// Through a service, of what there is without: requests on one connection, and connections.
const RR_MIN: f64 = 0.99;
const CRR_MIN: f64 = 0.95;
const PACKETS_RR_MIN: f64 = 0.95;

/// Connections a second through a service, of those through iptables.
const OF_IPTABLES_CRR_MIN: [(usize, f64); 2] = [(1, 1.1), (10_000, 3.0)];

pub(super) fn run(progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for size in SIZES {
        figures.extend(Ways::make(size, progress)?.measure(progress)?);
    }
    Ok(figures)
}

/// Everything that is measured at one number of services.
struct Ways {
    size: usize,
    node: DatapathNode,
    others: Vec<Proxied>,
}

/// What a service of the data path is compared with.
struct Other {
    /// Its part in the names of ratios.
    name: String,
    /// Its part in the name of its own figure.
    baseline: String,
    pair: Pair,
}

impl Ways {
    fn make(size: usize, progress: &mut dyn FnMut(&str)) -> Result<Self> {
        progress(&format!("services: a data path, nftables and iptables with {size} services"));
        let node = DatapathNode::start(Contents { services: size, ..Contents::PAIR })?;
        Ok(Self { size, node, others: Proxied::start_all(size)? })
    }

    fn measure(&self, progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
        let endpoint = self.node.pair()?;
        let others = self.others()?;
        let mut pairs = vec![endpoint.clone(), endpoint.through(self.node.service().into())];
        pairs.extend(others.iter().map(|other| other.pair.clone()));
        for pair in &pairs {
            pair.check().with_context(|| format!("a service of {} cannot be reached", self.size))?;
        }
        let mut figures = Vec::new();
        for kind in KINDS {
            let samples = TURNS.measure_all(&self.bench(), &pairs, kind, progress)?;
            figures.extend(self.compared(kind, &samples, &others));
        }
        figures.extend(self.packets(&endpoint, progress)?);
        Ok(figures)
    }

    fn bench(&self) -> String {
        format!("services: {}", self.size)
    }

    /// The last service of each, and the one in the middle where that may make a difference.
    fn others(&self) -> Result<Vec<Other>> {
        let mut others = Vec::new();
        for proxied in &self.others {
            let pair = proxied.pair()?;
            let (name, rules) = (proxied.name(), proxied.rules().name());
            let through = |number| pair.through(proxied::service_v4(number).into());
            let (name, baseline) = (name.to_owned(), rules.to_owned());
            others.push(Other { name, baseline, pair: through(self.size) });
            if let (Some(middle), true) = (proxied::middle(self.size), proxied.rules().are_linear()) {
                let (name, baseline) = (format!("{}_middle", proxied.name()), format!("{rules}_middle"));
                others.push(Other { name, baseline, pair: through(middle) });
            }
        }
        Ok(others)
    }

    /// The samples are those of the endpoint, of the service, and of the others.
    fn compared(&self, kind: Kind, samples: &[Vec<f64>], others: &[Other]) -> Vec<Figure> {
        let [endpoint, service, theirs @ ..] = samples else { return Vec::new() };
        let unit = kind.unit();
        let name = |way: &str| format!("{way}_{}_n{}", kind.name(), self.size);
        let least = if kind == Kind::TcpCrr { CRR_MIN } else { RR_MIN };
        let ours = Figure::paired(name("service"), unit, service, (name("endpoint"), endpoint));
        let mut figures =
            vec![ours.at_least_times(least), Figure::new(name("endpoint"), unit, endpoint.clone())];
        for (other, its) in others.iter().zip(theirs) {
            let kind_of_all = kind.name().trim_start_matches("tcp_");
            let against = format!("service_vs_{}_{kind_of_all}_n{}", other.name, self.size);
            let baseline = name(&other.baseline);
            let figure = Figure::paired(against, unit, service, (baseline.clone(), its));
            let promised = OF_IPTABLES_CRR_MIN.iter().find(|(size, _)| {
                *size == self.size && kind == Kind::TcpCrr && other.name == proxied::IPTABLES
            });
            figures.push(match promised {
                Some((_, least)) => figure.at_least_times(*least),
                None => figure,
            });
            figures.push(Figure::new(baseline, unit, its.clone()));
        }
        figures
    }

    /// From a client whose sockets no program sees.
    fn packets(&self, endpoint: &Pair, progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
        let bare = endpoint.with_client(self.node.unseen_client());
        bare.check().context("an endpoint cannot be reached from outside of the cgroup")?;
        let through = bare.through(self.node.service().into());
        let reached = through.check();
        let pairs = [bare, through];
        let mut figures = Vec::new();
        for kind in KINDS {
            let name = |way: &str| format!("{way}_{}_n{}", kind.name(), self.size);
            let figure = match &reached {
                Ok(()) => {
                    let bench = format!("{}, by packets", self.bench());
                    let [bare, through] = TURNS.measure(&bench, &pairs, kind, progress)?;
                    let baseline = name("unseen_endpoint");
                    let figure = Figure::paired(
                        name("service_packets"),
                        kind.unit(),
                        &through,
                        (baseline.clone(), &bare),
                    );
                    figures.push(Figure::new(baseline, kind.unit(), bare));
                    figure
                }
                Err(error) => {
                    let why = format!(
                        "a client whose sockets no program sees does not reach the service: {error:#}"
                    );
                    Figure::missing(name("service_packets"), kind.unit(), why)
                }
            };
            figures.push(if kind == Kind::TcpRr { figure.at_least_times(PACKETS_RR_MIN) } else { figure });
        }
        Ok(figures)
    }
}
