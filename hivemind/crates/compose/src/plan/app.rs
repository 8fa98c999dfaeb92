//! From a service to an app.

use hivemind_model::{
    App, AppSpec, AppStatus, Dependency, DependencyCondition, ErrorCode, Metadata, Template,
};

use hivemind_yaml::FAULTS_MAX;

use crate::{
    plan::{Planner, origin::Origins},
    service::Service,
    sharing::Condition,
    spot::Located,
};

/// What is before the fields of the only container.
pub(super) const CONTAINER: &str = "spec.template.containers[0]";

impl Planner<'_> {
    /// The app of a service. What is wrong with it is told where it was said.
    pub(super) fn app(&mut self, namespace: &str, name: &str, service: &Located<Service>) -> App {
        self.check_service_name(name, &service.spot);
        self.refused(name, service);
        self.grants(service);
        let mut origins = Origins::default();
        let container = self.container(name, service, &mut origins);
        let mut metadata = Metadata::new(namespace, name);
        let mut template = Template { containers: vec![container], ..Template::default() };
        self.labels(service, &mut metadata, &mut template);
        self.surroundings(service, &mut template, &mut origins);
        self.restart(service, &mut template);
        self.placement(service, &mut template, &mut origins);
        let mut app = App {
            metadata,
            spec: AppSpec {
                replicas: self.replicas(service),
                hostnames: self.hostnames(name, service, &mut origins),
                service: self.app_service(service, &mut origins),
                depends_on: self.dependencies(name, service),
                template,
            },
            status: AppStatus::default(),
        };
        app.normalize();
        self.validate(&app, service, &origins);
        app
    }

    fn replicas(&self, service: &Service) -> u32 {
        let replicas = service.replicas().map(|replicas| *replicas.value);
        replicas.and_then(|replicas| u32::try_from(replicas).ok()).unwrap_or(1)
    }

    /// What the app waits for; only what is part of the project.
    fn dependencies(&mut self, name: &str, service: &Service) -> Vec<Dependency> {
        let mut dependencies: Vec<Dependency> = Vec::new();
        for (other, spot) in service.named_services() {
            if other == name || dependencies.iter().any(|known| known.app == other) {
                continue;
            }
            let said = service.depends_on.get(other);
            if said.is_some_and(|dependency| dependency.restart) {
                let why = "an app is not restarted with the one that it depends on";
                self.warn(spot, why, "let it connect again by itself");
            }
            let condition = match said.map(|dependency| dependency.condition) {
                Some(Condition::Healthy) => DependencyCondition::Ready,
                Some(Condition::Completed) => DependencyCondition::Completed,
                Some(Condition::Started) | None => DependencyCondition::Started,
            };
            if self.project.services.contains_key(other) {
                dependencies.push(Dependency { app: other.to_owned(), condition });
            }
        }
        dependencies
    }

    /// Tells what the model finds wrong with the app, save for what its own names make of it.
    fn validate(&mut self, app: &App, service: &Located<Service>, origins: &Origins) {
        let Err(error) = app.validate() else { return };
        let field = error.field.clone().unwrap_or_default();
        let single = (error.code, field, error.message.clone(), error.hint.clone());
        let problems: Vec<(ErrorCode, String, String, String)> = match error.problems.is_empty() {
            true => vec![single],
            false => error.problems.into_iter().map(|p| (p.code, p.field, p.message, p.hint)).collect(),
        };
        for (code, field, message, hint) in problems {
            // The names of app and namespace are told once, by what they come from.
            let is_told = field == "metadata.namespace"
                || (field == "metadata.name" && !super::name::is_label(&app.metadata.name))
                || (field.starts_with("spec.dependsOn") && code == ErrorCode::InvalidName)
                || (field.ends_with(".volume") && code == ErrorCode::InvalidName);
            // Where it comes from has to be looked for, which is not worth it for what is only counted.
            if !is_told && self.faults.list.len() >= FAULTS_MAX {
                self.faults.more += 1;
            } else if !is_told {
                let spot = origins.of(&field).cloned().unwrap_or_else(|| service.spot.of_key());
                self.fault(&spot, code, message, hint);
            }
        }
    }
}
