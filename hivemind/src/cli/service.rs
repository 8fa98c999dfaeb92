//! `service`: names and addresses in front of apps, and names that stand for others outside.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use hivemind_client::Selection;
use hivemind_model::{
    ApiError, Endpoint, Metadata, Resource, Service, ServiceSpec, ServiceStatus, SessionAffinity,
};
use jiff::Timestamp;

use super::{
    NameArgs, NamesArgs, Session,
    fault::{Failure, Outcome},
    output::{self, Format, FormatArgs, ListArgs},
    rows::{joined, port_text, service_port_text},
    table::{Table, fields},
    units::age,
};

/// Commands on services.
#[derive(Subcommand, Debug)]
pub(crate) enum ServiceCommand {
    /// List the services
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show a service's names, addresses, published ports and endpoints
    #[command(after_help = "Example:\n  hivemind service info web-app")]
    Info(ServiceInfoArgs),
    /// Make a name of the cluster's stand for a name outside
    #[command(after_help = "Example:
  hivemind service create db --external-name db.example.com
Apps then reach it as db.<namespace>.svc.hivemind.internal, or as db. The services of apps come with `hivemind app deploy`.
Exit codes: 0 made, 2 wrong values, 4 a name is taken, 7 no daemon.")]
    Create(CreateArgs),
    /// Delete services for names outside
    #[command(visible_alias = "rm")]
    Delete(NamesArgs),
    /// Show the replicas to which a service's connections go
    #[command(after_help = "Example:\n  hivemind service endpoints web-app -o json")]
    Endpoints(EndpointsArgs),
}

/// Flags of `service info`.
#[derive(Args, Debug)]
pub(crate) struct ServiceInfoArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    output: FormatArgs,
    /// Go on and print every change as it comes, until Ctrl-C
    #[arg(long, short = 'w')]
    watch: bool,
}

/// Flags of `service create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    name: NameArgs,
    /// The name outside, for example db.example.com
    #[arg(long, value_name = "HOSTNAME")]
    external_name: String,
    /// A further name that stands for it, for example db.local; may be repeated
    #[arg(long = "service", value_name = "HOSTNAME")]
    services: Vec<String>,
    #[command(flatten)]
    output: FormatArgs,
}

/// Flags of `service endpoints`.
#[derive(Args, Debug)]
pub(crate) struct EndpointsArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    output: FormatArgs,
}

impl ServiceCommand {
    pub(crate) fn format(&self) -> Format {
        match self {
            ServiceCommand::Ls(args) => args.output.format,
            ServiceCommand::Info(args) => args.output.format,
            ServiceCommand::Create(args) => args.output.format,
            ServiceCommand::Delete(_) => Format::Table,
            ServiceCommand::Endpoints(args) => args.output.format,
        }
    }

    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        match self {
            ServiceCommand::Ls(args) => session.print_list::<Service>(*args).await?,
            ServiceCommand::Info(args) => info(session, args).await?,
            ServiceCommand::Create(args) => create(session, args).await?,
            ServiceCommand::Delete(names) => {
                for name in names.get() {
                    session.client.delete_service(&session.namespace, name).await?;
                    output::print(&format!("service/{name} deleted\n"))?;
                }
            }
            ServiceCommand::Endpoints(args) => {
                let service = find(session, args.name.get()).await?;
                output::print(&endpoints(&service.status.endpoints, args.output.format)?)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn create(session: &Session, args: &CreateArgs) -> Result<(), Failure> {
    let spec = ServiceSpec {
        hostnames: args.services.clone(),
        external_name: Some(args.external_name.clone()),
        ..ServiceSpec::default()
    };
    let metadata = Metadata::new(&session.namespace, args.name.get());
    let mut wanted = Service { metadata, spec, status: ServiceStatus::default() };
    wanted.normalize();
    wanted.validate().map_err(at_flags)?;
    let service = session.client.create_service(&wanted).await.map_err(at_flags)?;
    let told =
        || format!("service/{} created: it stands for {}\n", service.metadata.name, args.external_name);
    output::print(&output::object(&service, args.output.format, told)?)
}

/// `error` with the places of the service replaced by the flags that they came from.
fn at_flags(mut error: ApiError) -> ApiError {
    let flag = |field: &str| match field {
        "metadata.name" => "--name".to_owned(),
        "metadata.namespace" => "--namespace".to_owned(),
        "spec.externalName" => "--external-name".to_owned(),
        _ if field.starts_with("spec.hostnames") => field.replacen("spec.hostnames", "--service", 1),
        _ => field.to_owned(),
    };
    error.field = error.field.map(|field| flag(&field));
    error.problems.iter_mut().for_each(|problem| problem.field = flag(&problem.field));
    error
}

/// The service that answers to `word`: by its name, its id, or one of its hostnames.
async fn find(session: &Session, word: &str) -> Result<Service, Failure> {
    let all = session.client.list::<Service>(&Selection::namespace(&session.namespace)).await?;
    let hostname = hivemind_model::normalize_hostname(word);
    let answers = |s: &Service| s.metadata().answers_to(word) || s.spec.hostnames.contains(&hostname);
    match all.items.into_iter().find(answers) {
        Some(service) => Ok(service),
        None => Ok(session.client.find(Some(&session.namespace), word).await?),
    }
}

async fn info(session: &Session, args: &ServiceInfoArgs) -> Result<(), Failure> {
    let service = find(session, args.name.get()).await?;
    let format = args.output.format;
    if args.watch {
        let selection = Selection::namespace(&session.namespace);
        let same = |other: &Service| other.metadata.uid == service.metadata.uid;
        return session.print_watch(&selection, format, false, same).await;
    }
    let domain = match format.is_for_programs() {
        true => String::new(),
        false => session.client.status().await?.cluster_domain,
    };
    output::print(&output::object(&service, format, || describe(&service, &domain, Timestamp::now()))?)
}

fn describe(service: &Service, domain: &str, now: Timestamp) -> String {
    let Service { metadata, spec, status } = service;
    let own = format!("{}.{}.svc.{domain}", metadata.name, metadata.namespace);
    let mut text = fields(&[
        ("Name", metadata.name.clone()),
        ("Namespace", metadata.namespace.clone()),
        ("Id", metadata.id.clone()),
        ("Names", joined([own].iter().chain(&spec.hostnames)).replace(',', "\n")),
        ("Addresses", addresses(spec)),
        ("Published", joined(spec.published.iter().map(port_text))),
        ("Ports", joined(spec.ports.iter().map(service_port_text))),
        ("Affinity", spec.session_affinity.map_or_else(|| "-".to_owned(), affinity_text)),
        ("Age", age(metadata.creation_timestamp, now)),
    ]);
    if spec.external_name.is_none() {
        text.push('\n');
        text.push_str(&endpoint_table(&status.endpoints).render());
    }
    if let Some(problem) = &status.problem {
        text.push_str(&format!("\nproblem[{}]: {}\n", problem.code, problem.message));
        if !problem.hint.is_empty() {
            text.push_str(&format!("  hint: {}\n", problem.hint));
        }
    }
    text
}

/// What a service is reached at, or what it has in the place of addresses.
fn addresses(spec: &ServiceSpec) -> String {
    match (&spec.external_name, spec.balanced()) {
        (Some(outside), _) => format!("those of {outside}"),
        (None, Some((_, ipv4, ipv6))) => format!("{ipv4}\n{ipv6}"),
        (None, None) => "those of its endpoints (headless)".to_owned(),
    }
}

/// For how long clients are remembered.
fn affinity_text(affinity: SessionAffinity) -> String {
    format!("clients for {} s after their last connection", affinity.timeout_seconds)
}

fn endpoint_table(endpoints: &[Endpoint]) -> Table {
    let mut table = Table::new(["ENDPOINT", "NODE", "IPV4", "IPV6"]);
    for e in endpoints {
        table.row(vec![e.replica.clone(), e.node.clone(), e.ipv4.to_string(), e.ipv6.to_string()]);
    }
    table
}

fn endpoints(endpoints: &[Endpoint], format: Format) -> Result<String, Failure> {
    match format {
        Format::Json => output::json(&endpoints),
        Format::Yaml => output::yaml(&endpoints),
        Format::Name => Ok(endpoints.iter().map(|e| format!("replica/{}\n", e.replica)).collect()),
        Format::Table | Format::Wide => Ok(endpoint_table(endpoints).render()),
    }
}

#[cfg(test)]
mod tests {
    use hivemind_model::{Protocol, ServicePort};

    use super::*;

    #[test]
    fn a_service_is_described_with_its_names_addresses_and_endpoints() {
        let mut metadata = Metadata::new("default", "web-app");
        metadata.creation_timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let service = Service {
            metadata,
            spec: ServiceSpec {
                number: 1,
                ipv4: Some("10.204.0.1".parse().unwrap()),
                ipv6: Some("fd00::1".parse().unwrap()),
                hostnames: vec!["web.local".into()],
                session_affinity: Some(SessionAffinity::default()),
                ports: vec![
                    ServicePort { name: Some("http".into()), port: 80, protocol: Protocol::Tcp },
                    ServicePort { name: None, port: 53, protocol: Protocol::Udp },
                ],
                ..ServiceSpec::default()
            },
            status: ServiceStatus {
                endpoints: vec![Endpoint {
                    replica: "web-app-k3f9q".into(),
                    node: "n1".into(),
                    ipv4: "10.200.0.5".parse().unwrap(),
                    ipv6: "fd00:1::5".parse().unwrap(),
                }],
                ..ServiceStatus::default()
            },
        };
        assert_eq!(
            describe(&service, "hivemind.internal", "2026-01-01T00:03:00Z".parse().unwrap()),
            "Name:       web-app\n\
             Namespace:  default\n\
             Id:         -\n\
             Names:      web-app.default.svc.hivemind.internal\n            web.local\n\
             Addresses:  10.204.0.1\n            fd00::1\n\
             Published:  -\n\
             Ports:      http=80/tcp,53/udp\n\
             Affinity:   clients for 10800 s after their last connection\n\
             Age:        3m\n\
             \n\
             ENDPOINT        NODE   IPV4         IPV6\n\
             web-app-k3f9q   n1     10.200.0.5   fd00:1::5\n"
        );
    }

    #[test]
    fn a_service_without_addresses_says_what_it_has_instead() {
        let described = |spec: ServiceSpec| {
            let service =
                Service { metadata: Metadata::new("default", "db"), spec, status: ServiceStatus::default() };
            describe(&service, "hivemind.internal", "2026-01-01T00:03:00Z".parse().unwrap())
        };
        let outside = ServiceSpec { external_name: Some("db.example.com".into()), ..ServiceSpec::default() };
        let text = described(outside);
        assert!(
            text.contains("Addresses:  those of db.example.com\n") && !text.contains("ENDPOINT"),
            "{text}"
        );
        let text = described(ServiceSpec::default());
        assert!(text.contains("Addresses:  those of its endpoints (headless)\n"), "{text}");
    }
}
