//! `app deploy`: make an app, wait until it is up, and take it back if it does not come up.

use std::{collections::BTreeMap, time::Duration};

use futures::StreamExt;
use hivemind_client::{Client, LogOptions};
use hivemind_model::{ApiError, App, ErrorCode, LogLine, Replica};

use super::{
    flags::{DeployArgs, Wanted},
    follow::{End, until_gone, until_up},
    paint::Painter,
    progress::{Blame, Progress, Replicas},
    wait::up_line,
};
use crate::cli::{
    Session,
    fault::{Failure, Told, fault},
    output::{self, Format, note},
    rows::joined,
    table::fields,
};

/// How many of its last lines a replica at fault is quoted with.
const LOG_LINES: u64 = 10;

/// How long the log of a replica at fault is waited for.
const LOG_TIMEOUT: Duration = Duration::from_secs(5);

/// How much longer it is waited for an app that failed to be gone than its containers are given to end.
const UNDO_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn run(session: &Session, args: &DeployArgs) -> Result<(), Failure> {
    let Wanted { app, timeout, places } = args.read(&session.namespace)?;
    let client = &session.client;
    let format = args.output.format;
    if args.dry_run {
        let app = client.try_app(&app).await.map_err(|e| places.at_flags(e))?;
        let told = || format!("app/{} could be deployed\n", app.metadata.name);
        return output::print(&output::object(&app, format, told)?);
    }
    let app = client.create_app(&app).await.map_err(|e| places.at_flags(e))?;
    if args.detach {
        let told = || format!("app/{} created\n", app.metadata.name);
        return output::print(&output::object(&app, format, told)?);
    }
    let mut painter = Painter::for_stderr(format);
    let ended = until_up(client, &app, Replicas::AllNew, timeout, &mut painter).await;
    painter.finish();
    let (end, progress) = ended?;
    match end {
        End::Up => tell_up(client, &app, &progress, format).await,
        End::Interrupted => Err(interrupted(&app)),
        End::Gone => Err(gone_meanwhile(&app)),
        End::Failed(_) | End::TimedOut(_) => {
            let told = why_not(client, &app, end, timeout).await;
            if args.keep {
                painter.say(&format!("app/{0} was left in place: hivemind app info {0}", app.metadata.name));
                return Err(told);
            }
            painter.say(&format!("app/{} did not come up; deleting it", app.metadata.name));
            // Why it did not come up is worth more than why it cannot be deleted yet, which has the same cause as a rule.
            if undo(client, &app).await.is_err() {
                let name = &app.metadata.name;
                painter.say(&format!("app/{name} is still being deleted; see hivemind app info {name}"));
            }
            Err(told)
        }
    }
}

/// Deletes an app that did not come up, and waits until it is gone.
async fn undo(client: &Client, app: &App) -> Result<(), Failure> {
    let name = &app.metadata.name;
    match client.delete_app(&app.metadata.namespace, name).await {
        Err(error) if error.code != ErrorCode::AppNotFound => return Err(error.into()),
        Err(_) | Ok(()) => {}
    }
    let left = BTreeMap::from([(app.metadata.uid, name.clone())]);
    let limit = app.spec.template.stop_grace() + UNDO_TIMEOUT;
    until_gone(client, &app.metadata.namespace, left, limit, |_| Ok(())).await
}

/// Tells that an app is up, and how to reach it.
pub(crate) async fn tell_up(
    client: &Client,
    app: &App,
    progress: &Progress,
    format: Format,
) -> Result<(), Failure> {
    let app = progress.app().unwrap_or(app);
    if format.is_for_programs() {
        return output::print(&output::object(app, format, String::new)?);
    }
    let domain = client.status().await?.cluster_domain;
    output::print(&summary(app, progress.replicas(), &domain))
}

fn summary<'a>(app: &App, replicas: impl Iterator<Item = &'a Replica>, domain: &str) -> String {
    let own = app.service_name(domain);
    let names = joined([&own].into_iter().chain(&app.spec.hostnames)).replace(',', "\n");
    let mut pairs = vec![("Addresses", joined(&app.status.addresses).replace(',', "\n")), ("Names", names)];
    if app.published().next().is_some() {
        let text = |p: &hivemind_model::Port| {
            format!("host port {} to port {} ({})", p.host_port, p.container_port, p.protocol.as_str())
        };
        pairs.push(("Published", app.published().map(text).collect::<Vec<_>>().join("\n")));
    }
    let address = |r: &Replica| r.status.ipv4.map_or_else(|| "-".to_owned(), |a| a.to_string());
    let replicas: Vec<_> = replicas
        .filter(|r| r.status.ready && !r.metadata.is_deleting())
        .map(|r| format!("{}  {}", r.metadata.name, address(r)))
        .collect();
    pairs.push(("Replicas", replicas.join("\n")));
    if pairs.last().is_some_and(|(_, replicas)| replicas.is_empty()) {
        pairs.pop();
    }
    format!("{}\n{}", up_line(app), fields(&pairs))
}

/// Why an app did not come up, with what the replica at fault wrote last.
pub(crate) async fn why_not(client: &Client, app: &App, end: End, limit: Duration) -> Failure {
    let (blame, waited) = match end {
        End::Failed(blame) => (Some(blame), false),
        End::TimedOut(blame) => (blame, true),
        End::Up | End::Gone | End::Interrupted => (None, false),
    };
    let name = &app.metadata.name;
    let Some(Blame { replica, ran, problem }) = blame else {
        return fault(
            ErrorCode::TimedOut,
            format!("{name} was not up after {} s", limit.as_secs()),
            "give it longer with --timeout, or look at it: --keep, then hivemind app info",
        );
    };
    let log = match &replica {
        Some(replica) if ran => last_lines(client, &app.metadata.namespace, replica).await,
        _ => Vec::new(),
    };
    let after = if waited { format!(" (waited {} s)", limit.as_secs()) } else { String::new() };
    let who = replica.as_deref().unwrap_or(name);
    let message = format!("{who} does not run: {}{after}", problem.message);
    let error = ApiError::new(problem.code, message, problem.hint);
    Failure::Told(Box::new(Told { log, ..Told::of(error) }))
}

/// The last lines of a replica. What cannot be read is left out: the error that they belong to is worth more.
async fn last_lines(client: &Client, namespace: &str, replica: &str) -> Vec<LogLine> {
    let read = async {
        let options = LogOptions { tail: Some(LOG_LINES), ..LogOptions::default() };
        let Ok(logs) = client.logs(namespace, replica, options).await else { return Vec::new() };
        logs.filter_map(|line| std::future::ready(line.ok())).collect().await
    };
    tokio::time::timeout(LOG_TIMEOUT, read).await.unwrap_or_default()
}

/// Tells what Ctrl-C leaves behind.
pub(crate) fn interrupted(app: &App) -> Failure {
    let name = &app.metadata.name;
    note(&format!(
        "app/{name} stays and goes on coming up.\n  look at it:  hivemind app info {name}\n  delete it:   hivemind app delete {name}"
    ));
    Failure::Interrupted
}

/// The app was deleted while it was waited for.
pub(crate) fn gone_meanwhile(app: &App) -> Failure {
    let name = &app.metadata.name;
    fault(
        ErrorCode::AppNotFound,
        format!("{name} was deleted before it was up"),
        "somebody else deleted it; deploy it again",
    )
}

#[cfg(test)]
mod tests {
    use hivemind_model::{
        AppService, AppSpec, AppStatus, Container, Metadata, Phase, Port, Protocol, ReplicaSpec,
        ReplicaStatus, Template,
    };

    use super::*;

    #[test]
    fn the_summary_tells_every_way_to_reach_the_app() {
        let ports = vec![Port { host_port: 8080, container_port: 80, protocol: Protocol::Tcp }];
        let template =
            Template { containers: vec![Container { ports, ..Container::default() }], ..Template::default() };
        let addresses = vec!["10.204.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let app = App {
            metadata: Metadata::new("default", "web-app"),
            spec: AppSpec {
                replicas: 1,
                hostnames: vec!["web.local".into()],
                service: AppService::default(),
                depends_on: Vec::new(),
                template: template.clone(),
            },
            status: AppStatus { addresses, ..AppStatus::default() },
        };
        let replica = Replica {
            metadata: Metadata::new("default", "web-app-k3f9q"),
            spec: ReplicaSpec {
                app: "web-app".into(),
                node: "n1".into(),
                identity: 0,
                template_hash: String::new(),
                template,
            },
            status: ReplicaStatus {
                phase: Phase::Running,
                ready: true,
                ipv4: Some("10.200.0.5".parse().unwrap()),
                ..ReplicaStatus::default()
            },
        };
        assert_eq!(
            summary(&app, [&replica].into_iter(), "hivemind.internal"),
            "app/web-app is up with 1 replica\n\
             Addresses:  10.204.0.1\n            fd00::1\n\
             Names:      web-app.default.svc.hivemind.internal\n            web.local\n\
             Published:  host port 8080 to port 80 (tcp)\n\
             Replicas:   web-app-k3f9q  10.200.0.5\n"
        );
    }
}
