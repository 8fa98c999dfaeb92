//! Apps: what a user deploys.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    container::{Container, Port},
    error::{ApiError, ErrorCode, Problem, Problems},
    metadata::Metadata,
    name::{check_hostname, check_label, check_name, normalize_hostname},
    service::{PublishedPort, ServicePort, ServiceSpec, SessionAffinity},
    template::Template,
};

/// The most replicas that one app may have.
pub const REPLICAS_MAX: u32 = 1_000;

/// An app's name is part of its replicas' names, which have to stay within a DNS label of 63 characters.
const APP_NAME_MAX: usize = 56;

/// What a user deploys: a number of equal replicas behind one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// Name, namespace, labels.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: AppSpec,
    /// What is.
    #[serde(default)]
    pub status: AppStatus,
}

/// What is wanted of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppSpec {
    /// How many replicas, 0 to 1,000.
    #[serde(default = "one")]
    pub replicas: u32,
    /// Further names of the app's service, besides `<app>.<namespace>.svc.<cluster domain>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// How connections to the app's service are treated.
    #[serde(default, skip_serializing_if = "AppService::is_usual")]
    pub service: AppService,
    /// Apps of its namespace that it waits for before its first replica is made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Dependency>,
    /// What a replica is made of.
    pub template: Template,
}

fn one() -> u32 {
    1
}

/// An app that another one waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dependency {
    /// Its name, in the same namespace.
    pub app: String,
    /// What it has to be; left out: `ready`.
    #[serde(default)]
    pub condition: DependencyCondition,
}

/// What an app has to be for another to start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DependencyCondition {
    /// The containers of a replica run, or have run.
    Started,
    /// All of its replicas take connections.
    #[default]
    Ready,
    /// All of its replicas have ended well.
    Completed,
}

impl DependencyCondition {
    /// As it is told after the app's name.
    pub fn as_str(self) -> &'static str {
        match self {
            DependencyCondition::Started => "started",
            DependencyCondition::Ready => "ready",
            DependencyCondition::Completed => "completed",
        }
    }
}

/// How connections to an app's service are treated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppService {
    /// Whether it has no address: its names have the addresses of the replicas that take connections. Stays for the app's
    /// life.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub headless: bool,
    /// Ports that get a server in DNS (`_5432._tcp.…`, SRV), as published ones do; all ports are reached without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ServicePort>,
    /// Whether clients that come back get the replica that they had, and for how long; left out: each connection is a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<SessionAffinity>,
}

impl AppService {
    fn is_usual(&self) -> bool {
        *self == AppService::default()
    }
}

/// What is, of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: u64,
    /// Replicas that exist and are not on their way out.
    #[serde(default)]
    pub replicas: u32,
    /// Replicas of the present template.
    #[serde(default)]
    pub updated_replicas: u32,
    /// Replicas that are in the service.
    #[serde(default)]
    pub ready_replicas: u32,
    /// Replicas whose containers have all ended well and are not restarted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub succeeded_replicas: u32,
    /// Replicas whose containers have ended, not all of them well, and are not restarted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed_replicas: u32,
    /// The service's addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Why the app is not up, in the words of the replica that is worst off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl AppStatus {
    /// Whether all that `app` wants is up, or has ended well.
    pub fn is_up(&self, app: &App) -> bool {
        self.observed_generation == app.metadata.generation
            && self.replicas == app.spec.replicas
            && self.updated_replicas == app.spec.replicas
            && self.ready_replicas + self.succeeded_replicas == app.spec.replicas
    }
}

impl App {
    /// The first container of the template, which is the one that is meant where none is named.
    pub fn container(&self) -> Option<&Container> {
        self.spec.template.containers.first()
    }

    /// All ports that its containers publish.
    pub fn published(&self) -> impl Iterator<Item = &Port> {
        self.spec.template.containers.iter().flat_map(|container| &container.ports)
    }

    /// What its service is by its spec, with the number and the addresses of `given`.
    pub fn service_spec(&self, given: ServiceSpec) -> ServiceSpec {
        let published = self.published().map(|port| PublishedPort {
            host_port: port.host_port,
            container_port: port.container_port,
            protocol: port.protocol,
        });
        ServiceSpec {
            hostnames: self.spec.hostnames.clone(),
            published: published.collect(),
            ports: self.spec.service.ports.clone(),
            session_affinity: self.spec.service.session_affinity,
            ..given
        }
    }

    /// The service's own name below `domain`.
    pub fn service_name(&self, domain: &str) -> String {
        format!("{}.{}.svc.{domain}", self.metadata.name, self.metadata.namespace)
    }

    /// Brings what a request says into the form in which it is kept: hostnames in lower case, `app=<name>` among the
    /// labels of the replicas, capabilities and signals as the kernel calls them.
    pub fn normalize(&mut self) {
        for hostname in &mut self.spec.hostnames {
            *hostname = normalize_hostname(hostname);
        }
        self.spec.template.labels.insert("app".to_owned(), self.metadata.name.clone());
        self.spec.template.normalize();
    }

    /// Checks everything that can be checked without asking anybody.
    ///
    /// # Errors
    /// One error with all faults.
    pub fn validate(&self) -> Result<(), ApiError> {
        let mut problems = Problems::default();
        check_name("metadata.name", &self.metadata.name, APP_NAME_MAX, &mut problems);
        check_name("metadata.namespace", &self.metadata.namespace, 63, &mut problems);
        for (key, value) in &self.metadata.labels {
            check_label(&format!("metadata.labels.{key}"), key, value, &mut problems);
        }
        self.spec.check(&mut problems);
        problems.into_result()
    }
}

impl AppSpec {
    fn check(&self, problems: &mut Problems) {
        check_replicas(self.replicas, problems);
        for (i, hostname) in self.hostnames.iter().enumerate() {
            let field = format!("spec.hostnames[{i}]");
            check_hostname(&field, hostname, problems);
            if self.hostnames[..i].iter().any(|h| h.eq_ignore_ascii_case(hostname)) {
                problems.add(
                    ErrorCode::Repeated,
                    field,
                    format!("{hostname:?} is named twice"),
                    "name it once",
                );
            }
        }
        self.check_service(problems);
        self.check_dependencies(problems);
        self.template.check("spec.template", problems);
    }
}

/// The most apps that one can wait for.
const DEPENDENCIES_MAX: usize = 64;

impl AppSpec {
    fn check_dependencies(&self, problems: &mut Problems) {
        if self.depends_on.len() > DEPENDENCIES_MAX {
            let what = format!("an app that waits for {} others", self.depends_on.len());
            let hint = format!("name {DEPENDENCIES_MAX} at most");
            problems.add(ErrorCode::OutOfRange, "spec.dependsOn", what, hint);
        }
        for (i, dependency) in self.depends_on.iter().enumerate() {
            let field = format!("spec.dependsOn[{i}]");
            check_name(&format!("{field}.app"), &dependency.app, APP_NAME_MAX, problems);
            if self.depends_on[..i].iter().any(|other| other.app == dependency.app) {
                let what = format!("{:?} is named twice", dependency.app);
                problems.add(ErrorCode::Repeated, field, what, "name it once");
            }
        }
    }

    fn check_service(&self, problems: &mut Problems) {
        ServicePort::check_all("spec.service.ports", &self.service.ports, problems);
        let field = "spec.service.sessionAffinity";
        if let Some(affinity) = self.service.session_affinity {
            affinity.check(field, problems);
            if self.service.headless {
                let what = "nothing is between a headless service's clients and its replicas that could remember them";
                problems.add(ErrorCode::Unsupported, field, what, "leave out one of the two");
            }
        }
        for (i, container) in self.template.containers.iter().enumerate() {
            if self.service.headless && !container.ports.is_empty() {
                problems.add(
                    ErrorCode::Unsupported,
                    format!("spec.template.containers[{i}].ports"),
                    "ports of a headless service cannot be published",
                    "leave out one of the two",
                );
            }
        }
    }
}

/// Checks a number of replicas.
pub(crate) fn check_replicas(replicas: u32, problems: &mut Problems) {
    if replicas > REPLICAS_MAX {
        problems.add(
            ErrorCode::OutOfRange,
            "spec.replicas",
            format!("{replicas} replicas are too many"),
            format!("an app may have 0 to {REPLICAS_MAX} replicas"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        container::{EnvVar, Port, Protocol, VolumeMount},
        quantity::Memory,
    };

    fn app() -> App {
        App {
            metadata: Metadata::new("default", "web"),
            spec: AppSpec {
                replicas: 1,
                hostnames: vec!["Web.Local".into()],
                service: AppService::default(),
                depends_on: Vec::new(),
                template: Template {
                    containers: vec![Container { image: "nginx:latest".into(), ..Container::default() }],
                    ..Template::default()
                },
            },
            status: AppStatus::default(),
        }
    }

    #[test]
    fn a_plain_app_is_valid_and_normalized() {
        let mut app = app();
        app.normalize();
        app.validate().unwrap();
        assert_eq!(app.spec.hostnames, ["web.local"]);
        assert_eq!(app.spec.template.labels["app"], "web");
    }

    #[test]
    fn every_fault_of_an_app_is_told_with_its_place() {
        let mut app = app();
        app.metadata.name = "Web".into();
        app.spec.replicas = 1_001;
        let container = &mut app.spec.template.containers[0];
        container.image = "NGINX".into();
        container.env = vec![EnvVar { name: "A=B".into(), value: String::new() }];
        let port = Port { host_port: 80, container_port: 80, protocol: Protocol::Tcp };
        container.ports = vec![port.clone(), port];
        container.volume_mounts =
            vec![VolumeMount { volume: "data".into(), path: "../etc".into(), read_only: false }];
        container.resources.memory = Memory::from_bytes(4096);
        let error = app.validate().unwrap_err();
        let fields: Vec<_> = error.problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "metadata.name",
                "spec.replicas",
                "spec.template.containers[0].image",
                "spec.template.containers[0].env[0]",
                "spec.template.containers[0].ports[1]",
                "spec.template.containers[0].volumeMounts[0]",
                "spec.template.containers[0].resources.memory",
            ]
        );
        assert!(error.problems.iter().all(|p| !p.hint.is_empty()));
    }

    #[test]
    fn what_a_service_cannot_be_at_once_is_told_together() {
        let mut app = app();
        app.spec.service = AppService {
            headless: true,
            ports: [5432, 0, 5432].map(|port| ServicePort { port, ..ServicePort::default() }).to_vec(),
            session_affinity: Some(SessionAffinity { timeout_seconds: 86_401 }),
        };
        let port = Port { host_port: 80, container_port: 80, protocol: Protocol::Tcp };
        app.spec.template.containers[0].ports = vec![port];
        let error = app.validate().unwrap_err();
        let fields: Vec<_> = error.problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "spec.service.ports[1]",
                "spec.service.ports[2]",
                "spec.service.sessionAffinity.timeoutSeconds",
                "spec.service.sessionAffinity",
                "spec.template.containers[0].ports"
            ]
        );
    }

    #[test]
    fn ports_of_one_protocol_have_different_names() {
        let mut app = app();
        let port = |name: &str, port, protocol| ServicePort { name: Some(name.into()), port, protocol };
        app.spec.service.ports = vec![
            port("dns", 53, Protocol::Udp),
            port("dns", 53, Protocol::Tcp),
            port("http", 80, Protocol::Tcp),
        ];
        app.validate().unwrap();
        assert_eq!(ServicePort::named(&app.spec.service.ports).len(), 3);
        app.spec.service.ports.extend([port("http", 81, Protocol::Tcp), port("8080", 82, Protocol::Tcp)]);
        let error = app.validate().unwrap_err();
        let told: Vec<_> = error.problems.iter().map(|p| (p.field.as_str(), p.message.as_str())).collect();
        assert_eq!(
            told,
            [
                ("spec.service.ports[3]", "two ports of tcp are called \"http\""),
                ("spec.service.ports[4]", "\"8080\" is not the name of a port"),
            ]
        );
    }

    #[test]
    fn unknown_fields_are_refused() {
        let json = r#"{"metadata":{"name":"web"},"spec":{"replica":3,"template":{"containers":[{"image":"nginx"}]}}}"#;
        assert!(serde_json::from_str::<App>(json).unwrap_err().to_string().contains("replica"));
    }
}
