//! Restarts by app: replicas come and go, the app's total stays.

use std::{collections::HashSet, sync::Arc};

use crate::{
    accumulator::Accumulator,
    snapshot::{AppName, AppSample, ReplicaSample},
};

/// The restarts' totals.
#[derive(Debug)]
pub(crate) struct Restarts {
    totals: Accumulator<u128, Arc<AppName>, 1>,
}

impl Restarts {
    pub(crate) fn new() -> Self {
        Restarts { totals: Accumulator::new() }
    }

    pub(crate) fn observe(&mut self, apps: &[AppSample], replicas: &[ReplicaSample]) {
        let existing: HashSet<_> = apps.iter().map(|sample| &sample.app).collect();
        self.totals.begin(|app| existing.contains(app));
        for app in &existing {
            self.totals.add(Arc::clone(app), [0]);
        }
        for replica in replicas {
            let rise = self.totals.rise(replica.uid, [u64::from(replica.restarts)]);
            if existing.contains(&replica.app) {
                self.totals.add(Arc::clone(&replica.app), rise);
            }
        }
        self.totals.end();
    }

    /// The apps with their restarts, in order.
    pub(crate) fn sorted(&self) -> Vec<(&Arc<AppName>, u64)> {
        self.totals.sorted().into_iter().map(|(app, [restarts])| (app, *restarts)).collect()
    }
}
