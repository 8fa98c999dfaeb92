//! Whose packets were dropped, and who makes the tables of connections full, by the names of replicas.

use std::{collections::HashMap, sync::Arc, time::Duration};

use hivemind_datapath::{ConnectionUse, Datapath, Statistics, Whose};
use hivemind_model::{ApiError, End, EndConnections, EndDropCount, Replica};
use hivemind_store::Objects;
use tokio::{sync::Notify, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{Agent, fault};

/// How many of the heaviest users of the tables of connections are told.
const HEAVIEST_TOLD: usize = 5;

/// How often they are logged at most.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The ends behind the names of the data path.
struct Ends(HashMap<String, End>);

impl Ends {
    async fn of(objects: &Objects) -> Result<Self, ApiError> {
        let replicas = objects.list::<Replica>(None).await?.items;
        let named = replicas.into_iter().map(|Replica { metadata, spec, .. }| {
            let end = End { namespace: metadata.namespace, app: spec.app, replica: metadata.name };
            (metadata.id, end)
        });
        Ok(Ends(named.collect()))
    }

    fn name(&self, whose: &Whose) -> End {
        let without_namespace = |app: &str| End { app: app.to_owned(), ..End::default() };
        match whose {
            Whose::Host => without_namespace("host"),
            Whose::Outside => without_namespace("outside"),
            Whose::Endpoint(id) => match self.0.get(id) {
                Some(end) => end.clone(),
                None => End { replica: id.clone(), ..without_namespace("unknown") },
            },
        }
    }
}

impl Agent {
    /// The packets that were dropped, by whose they were and why.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn end_drops(&self, statistics: &Statistics) -> Result<Vec<EndDropCount>, ApiError> {
        let ends = Ends::of(&self.shared.objects).await?;
        let told = statistics.endpoint_drops.iter().map(|drop| EndDropCount {
            end: ends.name(&drop.whose),
            reason: drop.reason.name().to_owned(),
            explanation: drop.reason.meaning().to_owned(),
            packets: drop.packets,
        });
        Ok(told.collect())
    }

    /// Who has the most connections of this node, the heaviest first.
    ///
    /// # Errors
    /// When the data path or the store cannot be read.
    pub async fn heaviest(&self) -> Result<Vec<EndConnections>, ApiError> {
        heaviest(&self.shared.datapath, &self.shared.objects).await
    }
}

async fn heaviest(datapath: &Datapath, objects: &Objects) -> Result<Vec<EndConnections>, ApiError> {
    let uses = datapath.heaviest(HEAVIEST_TOLD).await.map_err(|error| fault::explain_datapath(&error))?;
    let ends = Ends::of(objects).await?;
    let told = |ConnectionUse { whose, connections }| EndConnections { end: ends.name(&whose), connections };
    Ok(uses.into_iter().map(told).collect())
}

/// Has the heaviest users logged whenever a connection finds no room, which `full` tells, but not more than once a minute.
pub(crate) fn log_heaviest(
    datapath: Arc<Datapath>,
    objects: Objects,
    full: Arc<Notify>,
    stop: CancellationToken,
    tasks: &mut JoinSet<()>,
) {
    tasks.spawn(async move {
        let log = async {
            loop {
                full.notified().await;
                match heaviest(&datapath, &objects).await {
                    Ok(told) => warn!(
                        heaviest = in_words(&told),
                        "The table of connections is full: new ones are refused until some end"
                    ),
                    Err(error) => warn!(
                        error = error.message,
                        "The table of connections is full, and who has the most cannot be told"
                    ),
                }
                sleep(LOG_EVERY).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = log => {}
        }
    });
}

/// The heaviest users in a line: `default/web/web-a1b2c 41000, host 2000`.
pub fn in_words(heaviest: &[EndConnections]) -> String {
    let words = heaviest.iter().map(|EndConnections { end, connections }| {
        let parts = [&end.namespace, &end.app, &end.replica].into_iter().filter(|part| !part.is_empty());
        format!("{} {connections}", parts.map(String::as_str).collect::<Vec<_>>().join("/"))
    });
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_a_name() {
        let web = End { namespace: "shop".into(), app: "web".into(), replica: "web-a1b2c".into() };
        let ends = Ends(HashMap::from([("replica-k3f9q".to_owned(), web.clone())]));
        let of = |whose| ends.name(&whose);
        assert_eq!(of(Whose::Endpoint("replica-k3f9q".into())), web);
        let gone = of(Whose::Endpoint("replica-77777".into()));
        assert_eq!((gone.app.as_str(), gone.replica.as_str()), ("unknown", "replica-77777"));
        assert_eq!((of(Whose::Host).app.as_str(), of(Whose::Outside).app.as_str()), ("host", "outside"));
        let told = [
            EndConnections { end: web, connections: 41_000 },
            EndConnections { end: of(Whose::Host), connections: 2 },
        ];
        assert_eq!(in_words(&told), "shop/web/web-a1b2c 41000, host 2");
    }
}
