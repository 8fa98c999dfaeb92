//! What was decided, and why.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::filter::Refusal;
use crate::snapshot::ObjectName;

/// What was decided for one replica, with every node's part in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// The replica.
    pub replica: String,
    /// Its app.
    pub app: ObjectName,
    /// Where it goes, if anywhere.
    pub outcome: Outcome,
    /// Every node, by name.
    pub nodes: Vec<NodeVerdict>,
    /// Round-trip times that the network cost stands on and nobody measured: pairs of a candidate and a
    /// node of a peer app, counted for each peer app, each taken for `rtt_default_us`.
    pub rtt_not_measured: u64,
    /// What is taken for a pair that was not measured, in microseconds: the (lower) median of those that were.
    pub rtt_default_us: u32,
}

impl Decision {
    /// The node that was chosen.
    pub fn node(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Bound { node } => Some(node),
            Outcome::Unschedulable { .. } => None,
        }
    }
}

/// Where a replica goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Outcome {
    /// To this node.
    Bound {
        /// Its name.
        node: String,
    },
    /// Nowhere for now.
    Unschedulable {
        /// In words, all nodes summed up.
        reason: String,
    },
}

/// A node's part in a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeVerdict {
    /// The node's name.
    pub node: String,
    /// Whether it could be, and how good it would be.
    pub verdict: Verdict,
}

/// Whether a node could be, and how good it would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Verdict {
    /// It could.
    Feasible {
        /// By criterion; one that says nothing about this replica is left out.
        scores: Vec<Score>,
        /// The sum of weight × normalised.
        total: u32,
    },
    /// It could not.
    Refused {
        /// Why, at least one; the most fundamental first.
        reasons: Vec<Refusal>,
    },
}

/// What one criterion says of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Score {
    /// The criterion.
    pub criterion: Criterion,
    /// What was measured, in the criterion's unit; saturates.
    pub raw: u64,
    /// 0 (worst) ..= 100 (best).
    pub normalised: u32,
    /// What it counts for.
    pub weight: u32,
}

/// What makes a node better than another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Criterion {
    /// Raw: replicas of the same app on the node that are not on their way out; the most among the candidates is 0, none is
    /// 100. A node that fails should take few of an app with it.
    Spread,
    /// Raw: percent of the scarcer of CPU and memory that stays free, which is the score. Least allocated, so that load has
    /// room to grow; the scarcer one, so that neither runs out while the other lies idle.
    Balance,
    /// Raw: how many of the images are there already; all is 100. Saves the pull. Left out if no candidate has any.
    Image,
    /// Raw: untolerated taints that are a mere preference; none is 100. Left out if no candidate has any.
    PreferredTaints,
    /// Raw: bytes/s × µs, summed over the apps that this one talks to; the least among the candidates is 100, the most is 0.
    /// A pair's bytes are spread evenly over the peer's ready replicas, or, if none is ready, over those not on their way out.
    /// Left out if no traffic worth it is known, see [`crate::TRAFFIC_MIN_BYTES_PER_SECOND`].
    Network,
}

impl Criterion {
    /// What it counts for. The network outweighs spread, balance and image together, and a preferred taint alone; a preferred
    /// taint outweighs spread.
    pub fn weight(self) -> u32 {
        match self {
            Criterion::Network => 6,
            Criterion::PreferredTaints => 3,
            Criterion::Spread => 2,
            Criterion::Balance | Criterion::Image => 1,
        }
    }
}
