//! What the nodes measured of the network between them. Kept in memory: nodes tell it again within seconds.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hivemind_controller::Measured;
use hivemind_model::Measurements;

/// How long what a node told counts after it ceased to tell.
const COUNTS_FOR: Duration = Duration::from_secs(120);

/// What was told last by each node.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    told: Mutex<BTreeMap<String, (Instant, Measurements)>>,
}

impl Topology {
    /// Takes what `node` measured.
    pub(crate) fn take(&self, node: &str, measured: Measurements) {
        self.told().insert(node.to_owned(), (Instant::now(), measured));
    }

    /// Forgets what `node` told.
    pub(crate) fn forget(&self, node: &str) {
        self.told().remove(node);
    }

    /// All of it together: of a round trip that both ends measured the shorter, of traffic the sum.
    pub(crate) fn measured(&self) -> Measured {
        let mut told = self.told();
        told.retain(|_, (at, _)| at.elapsed() < COUNTS_FOR);
        let mut all = Measured::default();
        for (node, (_, measured)) in &*told {
            for (peer, us) in &measured.round_trips_us {
                let pair =
                    if node < peer { (node.clone(), peer.clone()) } else { (peer.clone(), node.clone()) };
                let known = all.round_trips_us.entry(pair).or_insert(*us);
                *known = (*known).min(*us);
            }
            for pair in &measured.traffic {
                let ends = (pair.source.min(pair.destination), pair.source.max(pair.destination));
                let known = all.bytes_per_s.entry(ends).or_default();
                *known = known.saturating_add(pair.bytes_per_s);
            }
        }
        all
    }

    fn told(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (Instant, Measurements)>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use hivemind_model::PairTraffic;

    use super::*;

    #[test]
    fn what_both_ends_measured_is_put_together() {
        let topology = Topology::default();
        let told = |peer: &str, us: u32, source: u32, destination: u32| Measurements {
            round_trips_us: [(peer.to_owned(), us)].into(),
            traffic: vec![PairTraffic { source, destination, bytes_per_s: 10 }],
        };
        topology.take("b", told("a", 300, 257, 256));
        topology.take("a", told("b", 200, 256, 257));
        let measured = topology.measured();
        assert_eq!(measured.round_trips_us, [(("a".to_owned(), "b".to_owned()), 200)].into());
        assert_eq!(measured.bytes_per_s, [((256, 257), 20)].into());
        topology.forget("a");
        assert_eq!(topology.measured().bytes_per_s, [((256, 257), 10)].into());
    }
}
