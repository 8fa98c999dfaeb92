//! What a project comes to: the objects of the model that a cluster is asked for.
//!
//! The project is a namespace, each service an app, each network policies that keep apart who shares none. What a service asks for
//! and an app cannot do is a **fault** if its containers would find something else than they were promised (files, ports, rights,
//! names, terminals) or could do or take more than they may; it is a **warning** if they run all the same, and only how they are
//! started, watched or logged is another. Each is told at its field. [`plan`] is a pure function.

mod app;
mod container;
mod granted;
mod mounts;
mod name;
mod origin;
mod placement;
mod policy;
mod probe;
mod refused;
mod resource;
mod surroundings;
mod volume;

pub use name::namespace_of;

use std::collections::BTreeMap;

use hivemind_model::{App, Capabilities, ErrorCode, NamespaceSpec, NetworkPolicy};
use hivemind_yaml::{FAULTS_MAX, Fault, Faults};

use crate::{
    build::Build,
    project::Project,
    spot::{Located, Spot},
};

/// What a cluster is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The namespace that all of it is in.
    pub namespace: String,
    /// One app a service, by name.
    pub apps: Vec<App>,
    /// What the namespace has to permit for it, and no more.
    pub permits: NamespaceSpec,
    /// The volumes that apps mount, by name.
    pub volumes: Vec<PlannedVolume>,
    /// Who may reach whom, by name.
    pub policies: Vec<NetworkPolicy>,
    /// Images that have to be built before, by the names of their services.
    pub builds: BTreeMap<String, PlannedBuild>,
}

/// A volume that apps mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedVolume {
    /// Its name in the namespace.
    pub name: String,
    /// Whether it has to be there already; else it is made when it is mounted.
    pub is_external: bool,
    /// Where it stands.
    pub spot: Spot,
}

/// An image that has to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedBuild {
    /// What it is to be called.
    pub image: String,
    /// How it is built.
    pub build: Located<Build>,
}

/// What came of planning.
#[derive(Debug)]
pub struct Planned {
    /// The plan; none if there are faults.
    pub plan: Option<Plan>,
    /// All faults, in the order of the files and of their lines; at most [`crate::FAULTS_MAX`].
    pub faults: Vec<Fault>,
    /// How many faults there are besides.
    pub more_faults: usize,
    /// What is not done as it is asked for, in the same order.
    pub warnings: Vec<Fault>,
}

/// What `project` comes to. Services of inactive profiles are no part of it.
pub fn plan(project: &Project) -> Planned {
    let mut planner = Planner { project, faults: Faults::default(), warnings: Faults::default() };
    let plan = planner.plan();
    let Planner { mut faults, mut warnings, .. } = planner;
    for list in [&mut faults.list, &mut warnings.list] {
        list.sort_by_cached_key(|fault| (project.sources.order(&fault.file), fault.line, fault.column));
        list.dedup();
    }
    let is_good = faults.list.is_empty();
    Planned {
        plan: is_good.then_some(plan),
        faults: faults.list,
        more_faults: faults.more,
        warnings: warnings.list,
    }
}

/// The paths, capabilities and privileges that apps ask for beyond what all may have.
fn permits(apps: &[App]) -> NamespaceSpec {
    let mut permits = NamespaceSpec::default();
    for container in apps.iter().flat_map(|app| app.spec.template.all_containers()) {
        permits.privileged |= container.privileged;
        let usual = |name: &&String| !Capabilities::USUAL.contains(&name.as_str());
        permits.capabilities.extend(container.capabilities.add.iter().filter(usual).cloned());
        permits.host_paths.extend(container.host_paths.iter().map(|mount| mount.source.clone()));
    }
    for list in [&mut permits.capabilities, &mut permits.host_paths] {
        list.sort();
        list.dedup();
    }
    permits
}

/// What is at hand, and what was found so far.
struct Planner<'p> {
    project: &'p Project,
    faults: Faults,
    warnings: Faults,
}

impl Planner<'_> {
    fn plan(&mut self) -> Plan {
        let namespace = self.namespace();
        let volumes = self.volumes();
        self.networks();
        let services = self.project.services.iter();
        let apps: Vec<App> = services.map(|(name, service)| self.app(&namespace, name, service)).collect();
        let permits = permits(&apps);
        let builds = self.project.services.iter().filter_map(|(name, service)| {
            let build = service.build.clone()?;
            Some((name.clone(), PlannedBuild { image: self.image(name, service), build }))
        });
        let builds = builds.collect();
        let policies = self.policies(&namespace);
        Plan { namespace, apps, permits, volumes, policies, builds }
    }

    /// Tells that what stands at `spot` cannot be had.
    fn refuse(&mut self, spot: &Spot, why: &str, hint: impl Into<String>) {
        let message = format!("{} is not supported: {why}", spot.path());
        self.fault(spot, ErrorCode::Unsupported, message, hint);
    }

    fn fault(&mut self, spot: &Spot, code: ErrorCode, message: String, hint: impl Into<String>) {
        let sources = &self.project.sources;
        add_once(&mut self.faults, || sources.fault(spot, code, message, hint));
    }

    /// Tells that what stands at `spot` is not done as it is asked for.
    fn warn(&mut self, spot: &Spot, why: &str, hint: impl Into<String>) {
        let message = format!("{} is ignored: {why}", spot.path());
        let sources = &self.project.sources;
        add_once(&mut self.warnings, || sources.fault(spot, ErrorCode::Unsupported, message, hint));
    }
}

/// An entry that stands for several values, such as a range of ports, is told once.
fn add_once(faults: &mut Faults, fault: impl FnOnce() -> Fault) {
    if faults.list.len() >= FAULTS_MAX {
        faults.more += 1;
        return;
    }
    let fault = fault();
    let same = |other: &Fault| {
        (&other.file, other.line, other.column, other.code, &other.field)
            == (&fault.file, fault.line, fault.column, fault.code, &fault.field)
    };
    if !faults.list.iter().any(same) {
        faults.add(|| fault);
    }
}
