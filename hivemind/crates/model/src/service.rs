//! Services: a stable name in front of an app's replicas, mostly with a virtual address; or for a name outside.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    container::Protocol,
    error::{ApiError, ErrorCode, Problem, Problems},
    identity::NamedPort,
    metadata::Metadata,
    name::{check_hostname, check_label, check_name, check_port_name, normalize_hostname},
    network_policy::PolicyProtocol,
};

/// A stable name. That of an app is made and removed with the app, whose name it bears; that for a name outside
/// (`externalName`) is made and removed by users.
///
/// A connection to a service address goes to the same port of one of its endpoints, whatever the port is. A headless
/// service has no address: its names have the addresses of its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// The app's name and namespace.
    pub metadata: Metadata,
    /// Addresses, names and ports.
    pub spec: ServiceSpec,
    /// Where connections go now.
    #[serde(default)]
    pub status: ServiceStatus,
}

/// Addresses, names and ports of a service; but for ports in DNS and the affinity they stay for its life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// The data path's number for it; 0 if it has no addresses.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub number: u32,
    /// Its IPv4 address; none if it is headless or for a name outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address; none if it is headless or for a name outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ipv6: Option<Ipv6Addr>,
    /// Names besides `<app>.<namespace>.svc.<cluster domain>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Ports published on the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<PublishedPort>,
    /// Ports that have a server in DNS (`_5432._tcp.…`), besides the published ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ServicePort>,
    /// Whether clients that come back get the endpoint that they had, and for how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<SessionAffinity>,
    /// The name outside for which its names stand. There are no endpoints then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_name: Option<String>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A port that endpoints serve. (Connections go to every port, whether it is named here or not.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePort {
    /// How policies and DNS (`_http._tcp.…`) may call it; ports of another protocol may have the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The port, 1 to 65535.
    pub port: u16,
    /// TCP unless said otherwise.
    #[serde(default)]
    pub protocol: Protocol,
}

/// The most ports that a service names.
const PORTS_MAX: usize = 100;

impl ServicePort {
    /// Checks the ports that a service names.
    pub(crate) fn check_all(field: &str, ports: &[ServicePort], problems: &mut Problems) {
        if ports.len() > PORTS_MAX {
            let what = format!("{} ports are too many", ports.len());
            let hint = format!("name at most {PORTS_MAX}: others are reached without being named");
            problems.add(ErrorCode::OutOfRange, field, what, hint);
        }
        for (i, port) in ports.iter().enumerate() {
            let field = format!("{field}[{i}]");
            if port.port == 0 {
                problems.add(
                    ErrorCode::OutOfRange,
                    field.as_str(),
                    "nobody serves port 0",
                    "use ports from 1 to 65535",
                );
            } else if ports[..i].iter().any(|p| (p.port, p.protocol) == (port.port, port.protocol)) {
                let what = format!("port {}/{} is named twice", port.port, port.protocol.as_str());
                problems.add(ErrorCode::Repeated, field.as_str(), what, "name it once");
            }
            let Some(name) = &port.name else { continue };
            check_port_name(&field, name, problems);
            if ports[..i].iter().any(|p| p.name.as_ref() == Some(name) && p.protocol == port.protocol) {
                let what = format!("two ports of {} are called {name:?}", port.protocol.as_str());
                problems.add(ErrorCode::Repeated, field.as_str(), what, "give one of them another name");
            }
        }
    }

    /// The ports among `ports` that have names, in the order of these.
    pub fn named(ports: &[ServicePort]) -> Vec<NamedPort> {
        let named = |port: &ServicePort| {
            let protocol = match port.protocol {
                Protocol::Tcp => PolicyProtocol::Tcp,
                Protocol::Udp => PolicyProtocol::Udp,
            };
            Some(NamedPort { name: port.name.clone()?, port: port.port, protocol })
        };
        let mut found: Vec<NamedPort> = ports.iter().filter_map(named).collect();
        found.sort();
        found
    }
}

/// The longest time for which a client is remembered, and the least, in seconds.
const AFFINITY_SECONDS: std::ops::RangeInclusive<u32> = 1..=86_400;

/// For how long clients that come back get the endpoint that they had.
///
/// The client of a socket is the replica that it is in, or the node; of a packet whose socket no program of ours sees, its
/// source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionAffinity {
    /// Seconds since the client last opened a connection: 1 to 86,400, three hours unless said otherwise.
    #[serde(default = "three_hours")]
    pub timeout_seconds: u32,
}

fn three_hours() -> u32 {
    3 * 3_600
}

impl Default for SessionAffinity {
    fn default() -> Self {
        SessionAffinity { timeout_seconds: three_hours() }
    }
}

impl SessionAffinity {
    pub(crate) fn check(self, field: &str, problems: &mut Problems) {
        if !AFFINITY_SECONDS.contains(&self.timeout_seconds) {
            problems.add(
                ErrorCode::OutOfRange,
                format!("{field}.timeoutSeconds"),
                format!("clients cannot be remembered for {} s", self.timeout_seconds),
                "give 1 to 86400 seconds (a day)",
            );
        }
    }
}

impl ServiceSpec {
    /// What the data path balances: the number, and the addresses. None if the service is headless, or for a name outside.
    pub fn balanced(&self) -> Option<(u32, Ipv4Addr, Ipv6Addr)> {
        Some((self.number, self.ipv4?, self.ipv6?))
    }

    /// Whether its names have the addresses of its endpoints.
    pub fn is_headless(&self) -> bool {
        self.balanced().is_none() && self.external_name.is_none()
    }
}

impl Service {
    /// Brings what a request says of a service for a name outside into the form in which it is kept: names in lower case.
    pub fn normalize(&mut self) {
        let names = self.spec.hostnames.iter_mut().chain(&mut self.spec.external_name);
        names.for_each(|name| *name = normalize_hostname(name));
    }

    /// Checks a service that a user wants to make: only one for a name outside can be made, others come with their apps.
    ///
    /// # Errors
    /// One error with all faults.
    pub fn validate(&self) -> Result<(), ApiError> {
        let mut problems = Problems::default();
        check_name("metadata.name", &self.metadata.name, 63, &mut problems);
        check_name("metadata.namespace", &self.metadata.namespace, 63, &mut problems);
        for (key, value) in &self.metadata.labels {
            check_label("metadata.labels", key, value, &mut problems);
        }
        match &self.spec.external_name {
            Some(name) => check_external("spec.externalName", name, &mut problems),
            None => problems.add(
                ErrorCode::Unsupported,
                "spec.externalName",
                "a service without an app has to say for which name outside it stands",
                "give externalName, or deploy an app: its service comes with it",
            ),
        }
        for (i, hostname) in self.spec.hostnames.iter().enumerate() {
            let field = format!("spec.hostnames[{i}]");
            check_hostname(&field, hostname, &mut problems);
            if self.spec.hostnames[..i].iter().any(|h| h.eq_ignore_ascii_case(hostname)) {
                let what = format!("{hostname:?} is named twice");
                problems.add(ErrorCode::Repeated, field, what, "name it once");
            }
        }
        let mut has_not = |field: &str, is_said: bool| {
            if is_said {
                let what = "a service for a name outside has no addresses of its own";
                problems.add(ErrorCode::Unsupported, format!("spec.{field}"), what, "leave it out");
            }
        };
        has_not("number", self.spec.number != 0);
        has_not("ipv4", self.spec.ipv4.is_some());
        has_not("ipv6", self.spec.ipv6.is_some());
        has_not("published", !self.spec.published.is_empty());
        has_not("ports", !self.spec.ports.is_empty());
        has_not("sessionAffinity", self.spec.session_affinity.is_some());
        problems.into_result()
    }
}

/// A name outside: a hostname of at least two labels, since one label alone means something else on each machine.
fn check_external(field: &str, name: &str, problems: &mut Problems) {
    let before = problems.len();
    check_hostname(field, name, problems);
    if problems.len() == before && !normalize_hostname(name).contains('.') {
        problems.add(
            ErrorCode::InvalidName,
            field,
            format!("{name:?} is no name that everybody knows"),
            "give the whole name, for example db.example.com",
        );
    }
}

/// A port of the host that leads to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishedPort {
    /// The port on the host.
    pub host_port: u16,
    /// The port in the container.
    pub container_port: u16,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Where connections go now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceStatus {
    /// Replicas that take connections.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// Why a node could not set the service up, for example because a host port is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// The same of each node that could not, by the node's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_problems: BTreeMap<String, Problem>,
}

impl ServiceStatus {
    /// Notes what is in the way on `node`, or that nothing is.
    pub fn note(&mut self, node: &str, problem: Option<Problem>) {
        match problem {
            Some(problem) => drop(self.node_problems.insert(node.to_owned(), problem)),
            None => drop(self.node_problems.remove(node)),
        }
        self.sum_up();
    }

    /// Forgets the nodes for which `stays` does not hold.
    pub fn retain_nodes(&mut self, stays: impl Fn(&str) -> bool) {
        self.node_problems.retain(|node, _| stays(node));
        self.sum_up();
    }

    fn sum_up(&mut self) {
        self.problem = self.node_problems.values().next().cloned();
    }
}

/// A replica that takes connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    /// The replica's name.
    pub replica: String,
    /// The node it is on.
    pub node: String,
    /// Its IPv4 address.
    #[schema(value_type = String)]
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    #[schema(value_type = String)]
    pub ipv6: Ipv6Addr,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn external(name: &str) -> Service {
        Service {
            metadata: Metadata::new("default", "db"),
            spec: ServiceSpec { external_name: Some(name.into()), ..ServiceSpec::default() },
            status: ServiceStatus::default(),
        }
    }

    #[test]
    fn a_service_for_a_name_outside_is_valid_and_normalized() {
        let mut service = external("DB.Example.com.");
        service.normalize();
        service.validate().unwrap();
        assert_eq!(service.spec.external_name.as_deref(), Some("db.example.com"));
        assert!(!service.spec.is_headless() && service.spec.balanced().is_none());
    }

    #[test]
    fn every_fault_of_a_service_is_told_with_its_place() {
        let mut service = external("db");
        service.metadata.name = "Db".into();
        service.spec.hostnames = vec!["db.local".into(), "DB.local".into(), "a b".into()];
        service.spec.ipv4 = Some(Ipv4Addr::LOCALHOST);
        service.spec.session_affinity = Some(SessionAffinity::default());
        let error = service.validate().unwrap_err();
        let fields: Vec<_> = error.problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "metadata.name",
                "spec.externalName",
                "spec.hostnames[1]",
                "spec.hostnames[2]",
                "spec.ipv4",
                "spec.sessionAffinity"
            ]
        );
        assert!(error.problems.iter().all(|p| !p.hint.is_empty()));
        let without = Service { spec: ServiceSpec::default(), ..external("") };
        assert_eq!(without.validate().unwrap_err().field.as_deref(), Some("spec.externalName"));
        assert!(external("10.0.0.1").validate().is_err());
    }

    #[test]
    fn a_service_reads_as_it_was_written_before_it_could_be_without_addresses() {
        let json = r#"{"number":7,"ipv4":"10.204.0.1","ipv6":"fd00::1"}"#;
        let spec: ServiceSpec = serde_json::from_str(json).unwrap();
        assert_eq!(spec.balanced(), Some((7, Ipv4Addr::new(10, 204, 0, 1), "fd00::1".parse().unwrap())));
        assert_eq!(serde_json::to_string(&spec).unwrap(), json);
        let affinity: SessionAffinity = serde_json::from_str("{}").unwrap();
        assert_eq!(affinity.timeout_seconds, 10_800);
    }
}
