//! Volumes and networks of the project.

use std::collections::{BTreeMap, BTreeSet};

use hivemind_model::ErrorCode;

use crate::{
    grant::External,
    mount::Mounted,
    network::Volume,
    plan::{
        PlannedVolume, Planner,
        name::{is_label, label_of},
        policy::networks,
    },
    spot::Located,
};

/// What a volume is called in the namespace: what it says, or its key in the form that names have there.
pub(super) fn volume_name(key: &str, volume: Option<&Volume>) -> String {
    let external = volume.and_then(|volume| volume.external.as_ref()).map(|external| &external.value);
    match (volume.and_then(|volume| volume.name.as_ref()), external) {
        (Some(name), _) => name.value.clone(),
        (None, Some(External::Named(name))) => name.clone(),
        (None, _) => label_of(key),
    }
}

impl Planner<'_> {
    /// The volumes that services mount, each once.
    pub(super) fn volumes(&mut self) -> Vec<PlannedVolume> {
        let mut planned: BTreeMap<String, (String, PlannedVolume)> = BTreeMap::new();
        let mounts = self.project.services.values().flat_map(|service| service.volumes.iter());
        let used: BTreeSet<&str> = mounts
            .filter_map(|mount| match &mount.what {
                Mounted::Volume(Some(name), _) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        for (key, volume) in &self.project.volumes {
            if !used.contains(key.as_str()) {
                continue;
            }
            self.check_volume(volume);
            let name = volume_name(key, Some(volume));
            let spot = volume.name.as_ref().map_or_else(|| volume.spot.of_key(), |name| name.spot.clone());
            if !is_label(&name) {
                let message = format!("{name:?} cannot be the name of a volume");
                let hint = format!("call it {}", label_of(&name));
                self.fault(&spot, ErrorCode::InvalidName, message, hint);
            }
            if let Some((other, _)) = planned.get(&name) {
                let message = format!("{key} would be the same volume as {other}: both are called {name}");
                self.fault(&spot, ErrorCode::Repeated, message, "give one of them another name");
                continue;
            }
            let is_external = volume.external.as_ref().is_some_and(|external| external.is_external());
            planned.insert(name.clone(), (key.clone(), PlannedVolume { name, is_external, spot }));
        }
        planned.into_values().map(|(_, volume)| volume).collect()
    }

    fn check_volume(&mut self, volume: &Located<Volume>) {
        if let Some(driver) =
            volume.driver.as_ref().filter(|driver| !matches!(driver.as_str(), "local" | "default"))
        {
            self.refuse(&driver.spot, "volumes are directories of a node", "leave it out, or write local");
        }
        for option in volume.driver_opts.values() {
            let hint = "leave it out; for a file system of another machine, mount it in the container";
            self.refuse(&option.spot.of_key(), "volumes are directories of a node", hint);
        }
        if let Some(label) = volume.labels.values().next() {
            self.warn(&label.spot.of_key(), "volumes have no labels", "leave them out");
        }
    }

    /// Tells what networks cannot be: they are policies, and all replicas have one interface.
    pub(super) fn networks(&mut self) {
        let used: BTreeSet<&str> =
            self.project.services.values().flat_map(|service| networks(service)).collect();
        for (_, network) in self.project.networks.iter().filter(|(name, _)| used.contains(name.as_str())) {
            let usual = ["bridge", "overlay", "default"];
            if let Some(driver) = network.driver.as_ref().filter(|driver| !usual.contains(&driver.as_str())) {
                let why = "all replicas are in one network, kept apart by policies";
                self.refuse(&driver.spot, why, "leave it out, or write bridge");
            }
            let why = "addresses come from the cluster's own ranges";
            if let Some(ipam) = &network.ipam {
                self.warn(&ipam.spot.of_key(), why, "leave it out");
            }
            if let Some(enable) = network.enable_ipv4.as_ref().filter(|enable| !enable.value) {
                self.warn(&enable.spot.of_key(), "replicas have IPv4 and IPv6 addresses", "leave it out");
            }
            if let Some(option) = network.driver_opts.values().next() {
                self.warn(&option.spot.of_key(), "there is no driver that would know it", "leave them out");
            }
            if let Some(label) = network.labels.values().next() {
                self.warn(
                    &label.spot.of_key(),
                    "networks are policies, and have no labels",
                    "leave them out",
                );
            }
        }
    }
}
