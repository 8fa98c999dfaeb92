//! What nodes have recorded of flows, folded as it comes.

use futures::{StreamExt, stream::BoxStream};
use hivemind_model::{ApiError, FlowLine, SimulationReach};
use hivemind_policy::Seen;

/// Who spoke to whom, with how far the records of each node reach.
pub(crate) struct Record {
    pub(crate) seen: Seen,
    pub(crate) nodes: Vec<SimulationReach>,
    /// Whose records are missing, as losses name the place.
    pub(crate) missing: Vec<String>,
}

impl Record {
    /// Reads the records of these nodes, and of others that have some, to their end.
    ///
    /// # Errors
    /// The stream's.
    pub(crate) async fn read(
        nodes: impl Iterator<Item = String>,
        mut lines: BoxStream<'static, Result<FlowLine, ApiError>>,
    ) -> Result<Self, ApiError> {
        let nodes = nodes.map(|node| SimulationReach { node, first: None, last: None }).collect();
        let mut record = Record { seen: Seen::new(), nodes, missing: Vec::new() };
        while let Some(line) = lines.next().await {
            record.take(line?);
        }
        Ok(record)
    }

    fn take(&mut self, line: FlowLine) {
        match line {
            FlowLine::Minute(minute) => {
                self.seen.add(&minute);
                let known = self.nodes.iter().position(|reach| reach.node == minute.node);
                let at = known.unwrap_or(self.nodes.len());
                if known.is_none() {
                    self.nodes.push(SimulationReach { node: minute.node.clone(), first: None, last: None });
                }
                if let Some(reach) = self.nodes.get_mut(at) {
                    reach.first = Some(reach.first.map_or(minute.minute, |first| first.min(minute.minute)));
                    reach.last = reach.last.max(Some(minute.minute));
                }
            }
            FlowLine::Lost(loss) if !self.missing.contains(&loss.place) => self.missing.push(loss.place),
            FlowLine::Lost(_) | FlowLine::Flow(_) | FlowLine::Reach(_) => {}
        }
    }
}
