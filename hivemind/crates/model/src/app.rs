//! Apps: what a user deploys.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    container::Container,
    error::{ApiError, ErrorCode, Problem, Problems},
    metadata::Metadata,
    name::{check_hostname, check_label, check_name, normalize_hostname},
    node::Taint,
    service::{ServicePort, SessionAffinity},
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
    /// What a replica is made of.
    pub template: Template,
}

fn one() -> u32 {
    1
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

/// What one replica is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Template {
    /// Labels of the replicas; `app=<name>` is always among them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The containers; exactly one.
    pub containers: Vec<Container>,
    /// The host name that all replicas have; left out: each has its own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Further names in `/etc/hosts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_aliases: Vec<HostAlias>,
    /// Settings of the kernel for the replica alone; those that can reach nothing outside of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// How many seconds the processes have between the polite signal and SIGKILL, 0 to 3,600; left out: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_grace_seconds: Option<u32>,
    /// Labels that a node must have to run them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that do not keep them away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// When a restart was asked for last; a change replaces the replicas one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub restarted_at: Option<Timestamp>,
}

/// Names of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostAlias {
    /// The address.
    #[schema(value_type = String)]
    pub ip: IpAddr,
    /// Its names.
    pub hostnames: Vec<String>,
}

/// Taints of nodes that do not keep a replica away.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Toleration {
    /// The taint's key; empty: every taint.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// The taint's value; left out: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl Toleration {
    /// Whether it speaks of `taint`.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        (self.key.is_empty() || self.key == taint.key)
            && self.value.as_ref().is_none_or(|value| *value == taint.value)
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
    /// The service's addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Why the app is not up, in the words of the replica that is worst off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

impl AppStatus {
    /// Whether all that `app` wants is up.
    pub fn is_up(&self, app: &App) -> bool {
        self.observed_generation == app.metadata.generation
            && self.replicas == app.spec.replicas
            && self.updated_replicas == app.spec.replicas
            && self.ready_replicas == app.spec.replicas
    }
}

impl App {
    /// The only container of the template.
    pub fn container(&self) -> Option<&Container> {
        self.spec.template.containers.first()
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
        for alias in &mut self.spec.template.host_aliases {
            alias.hostnames.iter_mut().for_each(|name| *name = normalize_hostname(name));
        }
        self.spec.template.containers.iter_mut().for_each(Container::normalize);
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
            check_label("metadata.labels", key, value, &mut problems);
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
        for (key, value) in &self.template.labels {
            check_label("spec.template.labels", key, value, problems);
        }
        for (key, value) in &self.template.node_selector {
            check_label("spec.template.nodeSelector", key, value, problems);
        }
        for (i, toleration) in self.template.tolerations.iter().enumerate() {
            let value = toleration.value.as_deref().unwrap_or_default();
            // Without a key every taint is meant, of that value or of any.
            let key = if toleration.key.is_empty() { "any" } else { &toleration.key };
            check_label(&format!("spec.template.tolerations[{i}]"), key, value, problems);
        }
        self.template.check_surroundings("spec.template", problems);
        if self.template.containers.len() != 1 {
            problems.add(
                ErrorCode::Unsupported,
                "spec.template.containers",
                format!("{} containers in a template", self.template.containers.len()),
                "a template has exactly one container",
            );
        }
        for (i, container) in self.template.containers.iter().enumerate() {
            container.check(&format!("spec.template.containers[{i}]"), problems);
        }
    }
}

impl AppSpec {
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

/// The longest time that processes may have to end by themselves.
pub const STOP_GRACE_SECONDS_MAX: u32 = 3_600;

/// How long processes have to end by themselves if a template does not say.
const STOP_GRACE_SECONDS: u32 = 10;

/// How many names may be added to `/etc/hosts`.
const HOST_NAMES_MAX: usize = 256;

/// Settings of the kernel that belong to a container's own namespaces and reach nothing outside of it: Kubernetes calls them safe.
const SYSCTLS: [&str; 11] = [
    "kernel.shm_rmid_forced",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
];

/// The longest value of such a setting.
const SYSCTL_BYTES_MAX: usize = 256;

impl Template {
    /// How long processes have between the polite signal and SIGKILL.
    pub fn stop_grace(&self) -> Duration {
        Duration::from_secs(self.stop_grace_seconds.unwrap_or(STOP_GRACE_SECONDS).into())
    }

    /// Checks what all containers have in common.
    fn check_surroundings(&self, at: &str, problems: &mut Problems) {
        if let Some(hostname) = &self.hostname {
            check_name(&format!("{at}.hostname"), hostname, 63, problems);
        }
        for (i, alias) in self.host_aliases.iter().enumerate() {
            for (j, name) in alias.hostnames.iter().enumerate() {
                check_hostname(&format!("{at}.hostAliases[{i}].hostnames[{j}]"), name, problems);
            }
        }
        if self.host_aliases.iter().map(|alias| alias.hostnames.len()).sum::<usize>() > HOST_NAMES_MAX {
            let what = format!("more than {HOST_NAMES_MAX} names for /etc/hosts");
            let hint = "give them to a service, or to DNS";
            problems.add(ErrorCode::OutOfRange, format!("{at}.hostAliases"), what, hint);
        }
        for (name, value) in &self.sysctls {
            let field = format!("{at}.sysctls.{name}");
            if !SYSCTLS.contains(&name.as_str()) {
                let hint = format!("replicas may set {}", SYSCTLS.join(", "));
                let what = format!("{name:?} may reach beyond a replica");
                problems.add(ErrorCode::Unsupported, field, what, hint);
            } else if value.is_empty()
                || value.len() > SYSCTL_BYTES_MAX
                || value.contains(|c: char| c.is_control())
            {
                let what = format!("{value:?} is no value of {name}");
                problems.add(ErrorCode::OutOfRange, field, what, "write it as sysctl(8) would take it");
            }
        }
        if let Some(seconds) = self.stop_grace_seconds.filter(|seconds| *seconds > STOP_GRACE_SECONDS_MAX) {
            let what = format!("{seconds} s are too long to wait for the end of a process");
            let hint = format!("give 0 to {STOP_GRACE_SECONDS_MAX} seconds");
            problems.add(ErrorCode::OutOfRange, format!("{at}.stopGraceSeconds"), what, hint);
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
