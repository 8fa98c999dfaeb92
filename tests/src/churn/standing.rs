//! What stands on a node: what has to be the same after a churn as before.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hivemind_client::Selection;
use hivemind_common::name;
use hivemind_model::{App, Replica};

use super::{ChurnNode, SETTLE_LIMIT};
use crate::wait::eventually;

/// For how long nothing may change until the node counts as settled: connections that were closed are forgotten after ten seconds.
const STILL: Duration = Duration::from_secs(12);

/// Numbers of things, by what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Entries of each pinned map that they come to and go from, and cells that are taken in the table of services.
    pub entries: BTreeMap<&'static str, u64>,
    /// Open descriptors of the daemon.
    pub descriptors: u64,
    /// Identities, replicas and apps in the store.
    pub objects: [u64; 3],
}

impl Standing {
    /// What differs, each with what it was and is; empty if nothing does.
    #[must_use]
    pub fn differs(&self, before: &Self) -> Vec<String> {
        let numbers = |standing: &Self| {
            let [identities, replicas, apps] = standing.objects;
            let mut all = standing.entries.clone();
            all.extend([
                ("descriptors", standing.descriptors),
                ("identities", identities),
                ("replicas", replicas),
                ("apps", apps),
            ]);
            all
        };
        let (was, is) = (numbers(before), numbers(self));
        let differing = is.iter().filter(|(what, number)| was.get(*what) != Some(*number));
        differing
            .map(|(what, number)| format!("{what}: {number}, was {}", was.get(what).copied().unwrap_or(0)))
            .collect()
    }
}

impl ChurnNode {
    /// What stands now.
    ///
    /// # Errors
    /// When the node cannot be looked at.
    pub fn standing(&self) -> Result<Standing> {
        let mut entries = self.maps().entries()?;
        let client = self.client();
        let identities = self.simulated.look().identities as u64;
        let (status, objects) = self.executor.block_on(async {
            let all = Selection::default();
            let objects = [
                identities,
                client.list::<Replica>(&all).await?.items.len() as u64,
                client.list::<App>(&all).await?.items.len() as u64,
            ];
            anyhow::Ok((client.status().await?, objects))
        })?;
        let cells = status.maps.iter().find(|map| map.name == name::SERVICE_TABLE);
        entries.insert(name::SERVICE_TABLE, cells.context("the table of services is not told")?.entries);
        Ok(Standing { entries, descriptors: self.descriptors()?, objects })
    }

    fn descriptors(&self) -> Result<u64> {
        let directory = format!("/proc/{}/fd", self.node.daemon_pid()?);
        Ok(fs::read_dir(directory).context("the daemon is gone")?.count() as u64)
    }

    /// What stands once nothing changes any more. Connections that the daemon answers come and go meanwhile, also those of who
    /// looks: of descriptors it tells the least.
    ///
    /// # Errors
    /// When that does not come.
    pub fn settled(&self) -> Result<Standing> {
        let mut last = self.standing()?;
        let mut since = Instant::now();
        eventually(SETTLE_LIMIT, "the node to settle", || {
            let now = self.standing()?;
            let descriptors = now.descriptors.min(last.descriptors);
            let now = Standing { descriptors, ..now };
            let changes = Standing { descriptors: last.descriptors, ..now.clone() }.differs(&last);
            if !changes.is_empty() {
                since = Instant::now();
            }
            last = now;
            ensure!(since.elapsed() >= STILL, "{changes:?}");
            Ok(last.clone())
        })
    }

    /// Waits until all stands as before; returns it.
    ///
    /// # Errors
    /// What does not.
    pub fn until_as(&self, before: &Standing) -> Result<Standing> {
        eventually(SETTLE_LIMIT, "the node to be as before", || {
            let now = self.standing()?;
            let changes = now.differs(before);
            ensure!(changes.is_empty(), "{}", changes.join("; "));
            Ok(now)
        })
    }
}
