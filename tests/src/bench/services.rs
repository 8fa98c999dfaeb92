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
use super::pair::{self, Kind, Pair};
use proxied::{Proxied, Rules};

/// How often each way is measured.
const ROUNDS: usize = 15;

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
    nftables: Proxied,
    iptables: Proxied,
}

impl Ways {
    fn make(size: usize, progress: &mut dyn FnMut(&str)) -> Result<Self> {
        progress(&format!("services: a data path, iptables and nftables with {size} services"));
        let node = DatapathNode::start(Contents { services: size, ..Contents::PAIR })?;
        let nftables = Proxied::start(Rules::Nftables, size)?;
        let iptables = Proxied::start(Rules::Iptables, size)?;
        Ok(Self { size, node, nftables, iptables })
    }

    fn measure(&self, progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
        let endpoint = self.node.pair()?;
        let iptables = self.iptables.pair()?;
        let mut pairs = vec![
            endpoint.clone(),
            endpoint.through(self.node.service().into()),
            self.nftables.pair()?.through(proxied::service_v4(self.size).into()),
            iptables.through(proxied::service_v4(self.size).into()),
        ];
        pairs.extend(
            proxied::middle(self.size).map(|middle| iptables.through(proxied::service_v4(middle).into())),
        );
        for pair in &pairs {
            pair.check().with_context(|| format!("a service of {} cannot be reached", self.size))?;
        }
        let mut figures = Vec::new();
        for kind in KINDS {
            let samples = pair::rounds(&self.bench(), &pairs, kind, ROUNDS, progress)?;
            figures.extend(self.compared(kind, &samples));
        }
        figures.extend(self.packets(&endpoint, progress)?);
        Ok(figures)
    }

    fn bench(&self) -> String {
        format!("services: {}", self.size)
    }

    /// The samples are in the order of the pairs above.
    fn compared(&self, kind: Kind, samples: &[Vec<f64>]) -> Vec<Figure> {
        let [endpoint, service, nftables, iptables, middle @ ..] = samples else { return Vec::new() };
        let unit = kind.unit();
        let name = |way: &str| format!("{way}_{}_n{}", kind.name(), self.size);
        let against = |other: &str| {
            format!("service_vs_{other}_{}_n{}", kind.name().trim_start_matches("tcp_"), self.size)
        };
        let least = if kind == Kind::TcpCrr { CRR_MIN } else { RR_MIN };
        let by_iptables = self.iptables.rules_by();
        let of_iptables = Figure::paired(against("iptables"), unit, service, (name(by_iptables), iptables));
        let bound = OF_IPTABLES_CRR_MIN.iter().find(|(size, _)| kind == Kind::TcpCrr && *size == self.size);
        let mut figures = vec![
            Figure::paired(name("service"), unit, service, (name("endpoint"), endpoint))
                .at_least_times(least),
            match bound {
                Some((_, least)) => of_iptables.at_least_times(*least),
                None => of_iptables,
            },
            Figure::paired(against("nftables"), unit, service, (name("nftables"), nftables)),
        ];
        for middle in middle {
            let baseline = format!("{by_iptables}_middle");
            figures.push(Figure::paired(
                against("iptables_middle"),
                unit,
                service,
                (name(&baseline), middle),
            ));
            figures.push(Figure::new(name(&baseline), unit, middle.clone()));
        }
        figures.push(Figure::new(name("endpoint"), unit, endpoint.clone()));
        figures.push(Figure::new(name(by_iptables), unit, iptables.clone()));
        figures.push(Figure::new(name("nftables"), unit, nftables.clone()));
        figures
    }

    /// From a client whose sockets no program sees.
    fn packets(&self, endpoint: &Pair, progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
        let bare = endpoint.from_client(self.node.unseen_client());
        bare.check().context("an endpoint cannot be reached from outside of the cgroup")?;
        let through = bare.through(self.node.service().into());
        let reached = through.check();
        let pairs = [bare, through];
        let mut figures = Vec::new();
        for kind in KINDS {
            let name = |way: &str| format!("{way}_{}_n{}", kind.name(), self.size);
            let figure = match &reached {
                Ok(()) => {
                    let [bare, through] = pair::in_turns(
                        &format!("{}, by packets", self.bench()),
                        &pairs,
                        kind,
                        ROUNDS,
                        progress,
                    )?;
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
