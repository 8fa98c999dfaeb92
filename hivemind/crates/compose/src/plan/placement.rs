//! Which nodes have replicas, and how replicas are replaced.

use hivemind_model::Template;

use crate::{
    deploy::DeployMode,
    plan::{Planner, origin::Origins},
    service::Service,
};

impl Planner<'_> {
    pub(super) fn placement(&mut self, service: &Service, template: &mut Template, origins: &mut Origins) {
        let Some(deploy) = &service.deploy else { return };
        if let Some(mode) = deploy.mode.as_ref().filter(|mode| mode.value != DeployMode::Replicated) {
            let hint = "write replicated and say how many; restart_policy tells what runs to its end";
            self.refuse(&mode.spot, "an app has so many replicas as are asked for, on any nodes", hint);
        }
        for config in [&deploy.update_config, &deploy.rollback_config].into_iter().flatten() {
            let why = "replicas are replaced one after the other";
            self.warn(&config.spot.of_key(), why, "leave it out");
        }
        let Some(placement) = &deploy.placement else { return };
        for constraint in &placement.constraints {
            match label_of(constraint) {
                Some((label, value)) => {
                    origins.note("spec.template.nodeSelector", &constraint.spot);
                    template.node_selector.insert(label.to_owned(), value.to_owned());
                }
                None => {
                    let hint = "write node.labels.NAME==VALUE, and label the nodes";
                    self.refuse(&constraint.spot, "nodes are chosen by labels that they have", hint);
                }
            }
        }
        for preference in &placement.preferences {
            let why = "replicas are spread over nodes by what these have left";
            self.warn(&preference.spot, why, "leave it out");
        }
        if let Some(most) = &placement.max_replicas_per_node {
            let why = "how many replicas a node may have is not limited";
            self.refuse(&most.spot.of_key(), why, "leave it out: they are spread anyway");
        }
    }
}

/// The label of nodes and its value that a constraint asks for, if it asks for one.
fn label_of(constraint: &str) -> Option<(&str, &str)> {
    let (label, value) = constraint.split_once("==")?;
    Some((label.trim().strip_prefix("node.labels.")?, value.trim()))
}
