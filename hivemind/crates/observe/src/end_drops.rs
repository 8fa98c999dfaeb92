//! Dropped packets by app and reason: replicas come and go, the app's totals stay.

use std::sync::Arc;

use crate::{
    accumulator::Accumulator,
    ends::Ends,
    snapshot::{AppName, EndDropSample},
};

/// The series' labels: an app, or what is none under an empty namespace; and the reason.
type Labels = (Arc<AppName>, &'static str);

/// The totals.
#[derive(Debug)]
pub(crate) struct EndDrops {
    totals: Accumulator<(String, &'static str), Labels, 1>,
}

impl EndDrops {
    pub(crate) fn new() -> Self {
        EndDrops { totals: Accumulator::new() }
    }

    pub(crate) fn observe(&mut self, ends: &Ends, drops: Vec<EndDropSample>) {
        let exists = |app: &Arc<AppName>| app.namespace.is_empty() || ends.is_told(app);
        self.totals.begin(|(app, _)| exists(app));
        for EndDropSample { end, app, reason, packets } in drops {
            let rise = self.totals.rise((end, reason), [packets]);
            if exists(&app) {
                self.totals.add((app, reason), rise);
            }
        }
        self.totals.end();
    }

    /// The labels with their packets, in order.
    pub(crate) fn sorted(&self) -> Vec<(&Labels, u64)> {
        self.totals.sorted().into_iter().map(|(labels, [packets])| (labels, *packets)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{HashMap, HashSet},
        time::Duration,
    };

    use super::*;

    fn app(namespace: &str, name: &str) -> Arc<AppName> {
        Arc::new(AppName { namespace: namespace.into(), name: name.into() })
    }

    fn sample(end: &str, app: &Arc<AppName>, packets: u64) -> EndDropSample {
        EndDropSample { end: end.into(), app: Arc::clone(app), reason: "policy_ingress", packets }
    }

    #[test]
    fn an_app_s_total_is_of_all_its_replicas_also_of_those_that_are_gone() {
        let (web, host, gone) = (app("default", "web"), app("", "host"), app("default", "gone"));
        let apps = [Arc::clone(&web)].into();
        let (mut drops, mut ends) = (EndDrops::new(), Ends::new(Duration::ZERO));
        ends.update(Duration::ZERO, HashMap::new(), &apps);
        drops.observe(
            &ends,
            vec![sample("a", &web, 3), sample("b", &web, 4), sample("", &host, 2), sample("c", &gone, 9)],
        );
        drops.observe(&ends, vec![sample("b", &web, 5), sample("", &host, 2)]);
        let told: Vec<_> = drops.sorted().into_iter().map(|((app, _), n)| (app.name.as_str(), n)).collect();
        assert_eq!(told, [("host", 2), ("web", 8)]);
        ends.update(Duration::ZERO, HashMap::new(), &HashSet::new());
        drops.observe(&ends, vec![]);
        assert_eq!(drops.sorted().len(), 1, "an app's series goes with it");
    }
}
