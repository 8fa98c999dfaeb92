//! `service`: names and addresses in front of apps.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use hivemind_client::Selection;
use hivemind_model::{Endpoint, Resource, Service};
use jiff::Timestamp;

use super::{
    NameArgs, Session,
    fault::{Failure, Outcome},
    output::{self, Format, FormatArgs, ListArgs},
    rows::{joined, port_text},
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
            ServiceCommand::Endpoints(args) => args.output.format,
        }
    }

    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        match self {
            ServiceCommand::Ls(args) => session.print_list::<Service>(*args).await?,
            ServiceCommand::Info(args) => info(session, args).await?,
            ServiceCommand::Endpoints(args) => {
                let service = find(session, args.name.get()).await?;
                output::print(&endpoints(&service.status.endpoints, args.output.format)?)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
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
        ("Addresses", format!("{}\n{}", spec.ipv4, spec.ipv6)),
        ("Published", joined(spec.published.iter().map(port_text))),
        ("Age", age(metadata.creation_timestamp, now)),
    ]);
    text.push('\n');
    text.push_str(&endpoint_table(&status.endpoints).render());
    if let Some(problem) = &status.problem {
        text.push_str(&format!("\nproblem[{}]: {}\n", problem.code, problem.message));
        if !problem.hint.is_empty() {
            text.push_str(&format!("  hint: {}\n", problem.hint));
        }
    }
    text
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
    use hivemind_model::{Metadata, ServiceSpec, ServiceStatus};

    use super::*;

    #[test]
    fn a_service_is_described_with_its_names_addresses_and_endpoints() {
        let mut metadata = Metadata::new("default", "web-app");
        metadata.creation_timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let service = Service {
            metadata,
            spec: ServiceSpec {
                number: 1,
                ipv4: "10.204.0.1".parse().unwrap(),
                ipv6: "fd00::1".parse().unwrap(),
                hostnames: vec!["web.local".into()],
                published: Vec::new(),
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
             Age:        3m\n\
             \n\
             ENDPOINT        NODE   IPV4         IPV6\n\
             web-app-k3f9q   n1     10.200.0.5   fd00:1::5\n"
        );
    }
}
