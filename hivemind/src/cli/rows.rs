//! What each kind shows in a table.

use std::fmt::Display;

use hivemind_model::{App, LastExit, Phase, PublishedPort, Replica, Service, ServicePort, Volume};
use jiff::Timestamp;

use super::{output::Row, units::age};

/// `items` with a comma between each two.
pub(crate) fn joined<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

/// `8080:80/tcp`.
pub(crate) fn port_text(port: &PublishedPort) -> String {
    format!("{}:{}/{}", port.host_port, port.container_port, port.protocol.as_str())
}

/// `http=8080/tcp`, as `app deploy` takes it.
pub(crate) fn service_port_text(port: &ServicePort) -> String {
    let name = port.name.as_ref().map(|name| format!("{name}=")).unwrap_or_default();
    format!("{name}{}/{}", port.port, port.protocol.as_str())
}

pub(crate) fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// In one word how an app is.
pub(crate) fn app_state(app: &App) -> String {
    let status = &app.status;
    if app.metadata.is_deleting() {
        "Deleting".to_owned()
    } else if status.is_up(app) {
        let has_ended = status.succeeded_replicas == app.spec.replicas;
        let word = match app.spec.replicas {
            0 => "Stopped",
            _ if has_ended => "Completed",
            _ => "Up",
        };
        word.to_owned()
    } else if status.failed_replicas > 0 {
        "Failed".to_owned()
    } else if let Some(problem) = &status.problem {
        problem.code.to_string()
    } else {
        "Starting".to_owned()
    }
}

/// In one word how a replica is.
pub(crate) fn replica_state(replica: &Replica) -> String {
    let status = &replica.status;
    match &status.problem {
        _ if replica.metadata.is_deleting() => Phase::Stopping.as_str().to_owned(),
        Some(problem) if !status.ready => {
            format!("{} {}", status.phase.as_str(), problem.code)
        }
        _ => status.phase.as_str().to_owned(),
    }
}

/// How a replica's container ended last: `exit 1, 3m ago`.
pub(crate) fn last_exit(replica: &Replica, now: Timestamp) -> String {
    exit_text(replica.status.last_exit.as_ref(), now)
}

/// `exit 1, 3m ago`; nothing of none.
pub(crate) fn exit_text(exit: Option<&LastExit>, now: Timestamp) -> String {
    exit.map_or_else(String::new, |exit| {
        let memory = if exit.out_of_memory { ", out of memory" } else { "" };
        format!("exit {}{memory}, {} ago", exit.code, age(exit.at, now))
    })
}

impl Row for App {
    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["NAME", "IMAGE", "READY", "STATE", "ADDRESS", "AGE"];
        if wide {
            header.extend(["IPV6", "HOSTNAMES", "PORTS", "ID"]);
        }
        header
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let address = |v6: bool| joined(self.status.addresses.iter().filter(|a| a.is_ipv6() == v6));
        let container = self.container();
        let mut cells = vec![
            self.metadata.name.clone(),
            container.map(|c| c.image.clone()).unwrap_or_default(),
            format!("{}/{}", self.status.ready_replicas, self.spec.replicas),
            app_state(self),
            address(false),
            age(self.metadata.creation_timestamp, now),
        ];
        if wide {
            cells.extend([
                address(true),
                joined(&self.spec.hostnames),
                joined(
                    self.published()
                        .map(|p| format!("{}:{}/{}", p.host_port, p.container_port, p.protocol.as_str())),
                ),
                self.metadata.id.clone(),
            ]);
        }
        cells
    }
}

impl Row for Replica {
    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["REPLICA", "STATE", "READY", "RESTARTS", "ADDRESS", "AGE"];
        if wide {
            header.extend(["IPV6", "NODE", "PID", "IMAGE", "LAST EXIT"]);
        }
        header
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let status = &self.status;
        let mut cells = vec![
            self.metadata.name.clone(),
            replica_state(self),
            yes_no(status.ready),
            status.restarts.to_string(),
            joined(status.ipv4),
            age(self.metadata.creation_timestamp, now),
        ];
        if wide {
            let image = self.spec.template.containers.first();
            cells.extend([
                joined(status.ipv6),
                self.spec.node.clone(),
                joined(status.pid),
                image.map(|c| c.image.clone()).unwrap_or_default(),
                last_exit(self, now),
            ]);
        }
        cells
    }
}

impl Row for Service {
    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["NAME", "ADDRESS", "HOSTNAMES", "PORTS", "ENDPOINTS", "AGE"];
        if wide {
            header.extend(["IPV6", "NUMBER"]);
        }
        header
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let mut cells = vec![
            self.metadata.name.clone(),
            address_text(self),
            joined(&self.spec.hostnames),
            joined(self.spec.published.iter().map(port_text)),
            self.status.endpoints.len().to_string(),
            age(self.metadata.creation_timestamp, now),
        ];
        if wide {
            let (number, ipv6) = self.spec.balanced().map_or_else(
                || ("-".to_owned(), "-".to_owned()),
                |(number, _, ipv6)| (number.to_string(), ipv6.to_string()),
            );
            cells.extend([ipv6, number]);
        }
        cells
    }
}

/// A service's IPv4 address, or what it has in the place of one.
fn address_text(service: &Service) -> String {
    match (&service.spec.external_name, service.spec.balanced()) {
        (Some(outside), _) => outside.clone(),
        (None, Some((_, ipv4, _))) => ipv4.to_string(),
        (None, None) => "headless".to_owned(),
    }
}

impl Row for Volume {
    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["NAME", "NODE", "READY", "AGE"];
        header.extend(wide.then_some("ID"));
        header
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let mut cells = vec![
            self.metadata.name.clone(),
            self.spec.node.clone(),
            yes_no(self.status.ready),
            age(self.metadata.creation_timestamp, now),
        ];
        cells.extend(wide.then(|| self.metadata.id.clone()));
        cells
    }
}

#[cfg(test)]
mod tests {
    use hivemind_model::{
        AppService, AppSpec, AppStatus, Container, ErrorCode, List, Metadata, Problem, Template,
    };

    use super::{
        super::output::{Format, list},
        *,
    };

    fn app() -> App {
        let mut metadata = Metadata::new("default", "web-app");
        metadata.creation_timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        metadata.generation = 1;
        App {
            metadata,
            spec: AppSpec {
                replicas: 3,
                hostnames: vec!["web.local".into()],
                service: AppService::default(),
                depends_on: Vec::new(),
                template: Template {
                    containers: vec![Container { image: "nginx:latest".into(), ..Container::default() }],
                    ..Template::default()
                },
            },
            status: AppStatus {
                observed_generation: 1,
                replicas: 3,
                updated_replicas: 3,
                ready_replicas: 3,
                addresses: vec!["10.204.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
                ..AppStatus::default()
            },
        }
    }

    #[test]
    fn apps_are_told_in_a_line_each() {
        let apps = List { resource_version: 1, items: vec![app()] };
        let now = "2026-01-01T02:00:00Z".parse().unwrap();
        assert_eq!(
            list(&apps, Format::Table, false, now).unwrap(),
            "NAME      IMAGE          READY   STATE   ADDRESS      AGE\n\
             web-app   nginx:latest   3/3     Up      10.204.0.1   2h\n"
        );
        assert_eq!(
            list(&apps, Format::Wide, false, now).unwrap(),
            "NAME      IMAGE          READY   STATE   ADDRESS      AGE   IPV6      HOSTNAMES   PORTS   ID\n\
             web-app   nginx:latest   3/3     Up      10.204.0.1   2h    fd00::1   web.local   -       -\n"
        );
    }

    #[test]
    fn the_state_of_an_app_is_the_worst_that_holds() {
        let mut app = app();
        app.status.ready_replicas = 1;
        assert_eq!(app_state(&app), "Starting");
        app.status.problem = Some(Problem {
            code: ErrorCode::ImageNotFound,
            field: String::new(),
            message: String::new(),
            hint: String::new(),
        });
        assert_eq!(app_state(&app), "HM0401");
        app.metadata.deletion_timestamp = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(app_state(&app), "Deleting");
    }
}
