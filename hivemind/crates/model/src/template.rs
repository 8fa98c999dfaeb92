//! Templates: what one replica is made of.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    container::Container,
    error::{ErrorCode, Problems},
    name::{check_hostname, check_label, check_name, normalize_hostname},
    node::Taint,
};

/// What one replica is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Template {
    /// Labels of the replicas; `app=<name>` is always among them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Containers that run before the others, one after the other; each has to end well before the next one starts. They run
    /// again when the replica's network is made anew, as after a restart of the machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<Container>,
    /// The containers, 1 to 16. They share the replica's network and its addresses; what comes first is meant where none is
    /// named.
    pub containers: Vec<Container>,
    /// What happens when a container has ended.
    #[serde(default, skip_serializing_if = "RestartPolicy::is_usual")]
    pub restart_policy: RestartPolicy,
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

/// What happens when a container has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum RestartPolicy {
    /// It is started again.
    #[default]
    Always,
    /// It is started again if it did not end with code 0.
    OnFailure,
    /// It is not started again. A replica all of whose containers have ended has succeeded or failed, and stays so.
    Never,
}

impl RestartPolicy {
    fn is_usual(&self) -> bool {
        *self == RestartPolicy::Always
    }

    /// Whether a container that ended with `code` is started again.
    pub fn restarts(self, code: u32) -> bool {
        match self {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Never => false,
        }
    }
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

/// The longest time that processes may have to end by themselves.
pub const STOP_GRACE_SECONDS_MAX: u32 = 3_600;

/// How long processes have to end by themselves if a template does not say.
const STOP_GRACE_SECONDS: u32 = 10;

/// How many containers of one kind a replica has at most.
const CONTAINERS_MAX: usize = 16;

/// The name of a container is part of an id, which containerd wants to have at most 76 characters.
const CONTAINER_NAME_MAX: usize = 50;

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

    /// All containers, those that run first before the others.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().chain(&self.containers)
    }

    /// Brings names into the form in which they are kept.
    pub(crate) fn normalize(&mut self) {
        for alias in &mut self.host_aliases {
            alias.hostnames.iter_mut().for_each(|name| *name = normalize_hostname(name));
        }
        self.init_containers.iter_mut().chain(&mut self.containers).for_each(Container::normalize);
    }

    pub(crate) fn check(&self, at: &str, problems: &mut Problems) {
        for (key, value) in &self.labels {
            check_label(&format!("{at}.labels.{key}"), key, value, problems);
        }
        for (key, value) in &self.node_selector {
            check_label(&format!("{at}.nodeSelector.{key}"), key, value, problems);
        }
        for (i, toleration) in self.tolerations.iter().enumerate() {
            let value = toleration.value.as_deref().unwrap_or_default();
            // Without a key every taint is meant, of that value or of any.
            let key = if toleration.key.is_empty() { "any" } else { &toleration.key };
            check_label(&format!("{at}.tolerations[{i}]"), key, value, problems);
        }
        self.check_surroundings(at, problems);
        self.check_containers(at, problems);
    }

    fn check_containers(&self, at: &str, problems: &mut Problems) {
        let lists = [("initContainers", &self.init_containers, 0), ("containers", &self.containers, 1)];
        for (list, containers, least) in lists {
            if !(least..=CONTAINERS_MAX).contains(&containers.len()) {
                let what = format!("{} containers in a template", containers.len());
                let hint = format!("give {least} to {CONTAINERS_MAX}");
                problems.add(ErrorCode::OutOfRange, format!("{at}.{list}"), what, hint);
            }
            for (i, container) in containers.iter().enumerate() {
                container.check(&format!("{at}.{list}[{i}]"), problems);
            }
        }
        self.check_container_names(at, problems);
        for (i, container) in self.init_containers.iter().enumerate() {
            let field = format!("{at}.initContainers[{i}]");
            if !container.ports.is_empty() {
                let what = "what runs before the others serves nobody";
                problems.add(ErrorCode::Unsupported, format!("{field}.ports"), what, "leave out its ports");
            }
            for (kind, _) in container.probes() {
                let field = format!("{field}.{}Probe", kind.as_str());
                let what = "what runs before the others is done when it ends";
                problems.add(ErrorCode::Unsupported, field, what, "leave out its probes");
            }
        }
        let mut published = BTreeSet::new();
        for (i, container) in self.containers.iter().enumerate() {
            for (j, port) in container.ports.iter().enumerate() {
                let is_own = container.ports[..j]
                    .iter()
                    .any(|p| (p.host_port, p.protocol) == (port.host_port, port.protocol));
                if !published.insert((port.host_port, port.protocol)) && !is_own {
                    let field = format!("{at}.containers[{i}].ports[{j}]");
                    let what = format!("host port {} is published by another container too", port.host_port);
                    problems.add(ErrorCode::Repeated, field, what, "publish it once");
                }
            }
        }
    }

    fn check_container_names(&self, at: &str, problems: &mut Problems) {
        let init = self
            .init_containers
            .iter()
            .enumerate()
            .map(|(i, c)| (format!("{at}.initContainers[{i}].name"), c));
        let main = self.containers.iter().enumerate().map(|(i, c)| (format!("{at}.containers[{i}].name"), c));
        let is_only = self.init_containers.is_empty() && self.containers.len() == 1;
        let mut seen = BTreeSet::new();
        for (field, Container { name, .. }) in init.chain(main) {
            if name.is_empty() && is_only {
                continue;
            }
            if name.is_empty() {
                let what = "a container without a name beside others";
                problems.add(ErrorCode::InvalidName, field, what, "give each a name, for example name: web");
            } else if name.contains("--") {
                let what = format!("{name:?} is not a valid name");
                problems.add(ErrorCode::InvalidName, field, what, "write no two '-' one after the other");
            } else if !seen.insert(name) {
                let what = format!("two containers have the name {name:?}");
                problems.add(ErrorCode::Repeated, field, what, "give one of them another name");
            } else {
                check_name(&field, name, CONTAINER_NAME_MAX, problems);
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        container::{Port, Protocol},
        probe::{Probe, TcpProbe},
    };

    fn named(name: &str) -> Container {
        Container { name: name.into(), image: "nginx".into(), ..Container::default() }
    }

    fn faults(template: &Template) -> Vec<String> {
        let mut problems = Problems::default();
        template.check("t", &mut problems);
        let error = problems.into_result().err();
        let told = error.map(|error| match error.problems.is_empty() {
            true => vec![error.field.unwrap_or_default()],
            false => error.problems.into_iter().map(|problem| problem.field).collect(),
        });
        told.unwrap_or_default()
    }

    #[test]
    fn several_containers_have_names_of_their_own() {
        let template = |init: &[&str], main: &[&str]| Template {
            init_containers: init.iter().map(|name| named(name)).collect(),
            containers: main.iter().map(|name| named(name)).collect(),
            ..Template::default()
        };
        let none = Vec::<String>::new();
        assert_eq!(faults(&template(&[], &[""])), none);
        assert_eq!(faults(&template(&["migrate"], &["web", "log-shipper"])), none);
        assert_eq!(faults(&template(&[], &[])), ["t.containers"]);
        assert_eq!(faults(&template(&[""], &[""])), ["t.initContainers[0].name", "t.containers[0].name"]);
        let long = "x".repeat(51);
        assert_eq!(
            faults(&template(&["a", "b--c"], &["a", "A", &long])),
            [
                "t.initContainers[1].name",
                "t.containers[0].name",
                "t.containers[1].name",
                "t.containers[2].name"
            ]
        );
        assert_eq!(faults(&template(&[], &vec!["a"; 17]))[0], "t.containers");
    }

    #[test]
    fn what_runs_first_serves_nobody_and_a_host_port_has_one_container() {
        let port = |host_port| Port { host_port, container_port: 80, protocol: Protocol::Tcp };
        let probe = Some(Probe { tcp: Some(TcpProbe { port: 80 }), ..Probe::default() });
        let init = Container { ports: vec![port(1)], readiness_probe: probe, ..named("init") };
        let one = Container { ports: vec![port(2), port(2)], ..named("one") };
        let two = Container { ports: vec![port(3), port(2)], ..named("two") };
        let template =
            Template { init_containers: vec![init], containers: vec![one, two], ..Template::default() };
        assert_eq!(
            faults(&template),
            [
                "t.containers[0].ports[1]",
                "t.initContainers[0].ports",
                "t.initContainers[0].readinessProbe",
                "t.containers[1].ports[1]"
            ]
        );
    }

    #[test]
    fn a_policy_says_which_ends_are_final() {
        let restarts = |policy: RestartPolicy| [0, 1, 137].map(|code| policy.restarts(code));
        assert_eq!(restarts(RestartPolicy::Always), [true; 3]);
        assert_eq!(restarts(RestartPolicy::OnFailure), [false, true, true]);
        assert_eq!(restarts(RestartPolicy::Never), [false; 3]);
    }
}
