//! `app info`: all there is to know about one app.

use clap::Args;
use hivemind_client::Selection;
use hivemind_model::{
    App, Capabilities, Container, ContainerState, Dependency, HostAlias, HttpScheme, List, Probe, ProbeKind,
    Replica, Resource, RestartPolicy, Template, Tmpfs, Toleration, Ulimit,
};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::{
    NameArgs, Session,
    fault::Failure,
    labels,
    manifests::document,
    output::{self, Format, FormatArgs, Row},
    rows::{app_state, exit_text, joined, last_exit, service_port_text, yes_no},
    table::{Table, fields},
    units::age,
};

/// Flags of `app info`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hivemind app info --name web-app
  hivemind app info web-app -o json | jq -r '.replicas[].status.ipv4'")]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    pub(crate) output: FormatArgs,
    /// Go on and print every change of its replicas as it comes, until Ctrl-C
    #[arg(long, short = 'w')]
    watch: bool,
}

/// The app as the API has it, and its replicas.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info<'a> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    app: &'a App,
    replicas: &'a [Replica],
}

impl<'a> Info<'a> {
    fn of(app: &'a App, replicas: &'a [Replica]) -> Self {
        Info { api_version: document::API_VERSION, kind: App::KIND, app, replicas }
    }
}

pub(crate) async fn run(session: &Session, args: &InfoArgs) -> Result<(), Failure> {
    let format = args.output.format;
    let app = session.app(args.name.get()).await?;
    let selection = Selection::app(&app.metadata.namespace, &app.metadata.name);
    if args.watch {
        return session.print_watch::<Replica>(&selection, format, false, |_| true).await;
    }
    let replicas: List<Replica> = session.client.list(&selection).await?;
    let info = Info::of(&app, &replicas.items);
    output::print(&match format {
        Format::Json => output::json(&info)?,
        Format::Yaml => output::yaml(&info)?,
        Format::Name => output::object(&app, format, String::new)?,
        Format::Table | Format::Wide => {
            let domain = session.client.status().await?.cluster_domain;
            describe(&info, &domain, format == Format::Wide, Timestamp::now())
        }
    })
}

fn describe(info: &Info<'_>, domain: &str, wide: bool, now: Timestamp) -> String {
    let App { metadata, spec, status } = info.app;
    let mut pairs = vec![
        ("Name", metadata.name.clone()),
        ("Namespace", metadata.namespace.clone()),
        ("Id", metadata.id.clone()),
        (
            "State",
            format!(
                "{}, {} of {} replicas in service",
                app_state(info.app),
                status.ready_replicas,
                spec.replicas
            ),
        ),
        (
            "Names",
            joined([&info.app.service_name(domain)].into_iter().chain(&spec.hostnames)).replace(',', "\n"),
        ),
        ("Addresses", joined(&status.addresses).replace(',', "\n")),
    ];
    pairs.extend(container_fields(info));
    if !metadata.labels.is_empty() {
        pairs.push(("Labels", labels::text(&metadata.labels)));
    }
    if !spec.service.ports.is_empty() {
        pairs.push(("Service ports", joined(spec.service.ports.iter().map(service_port_text))));
    }
    pairs.extend(placement_fields(info.app));
    pairs.push(("Age", age(metadata.creation_timestamp, now)));
    let mut text = fields(&pairs);
    text.push('\n');
    let mut table = Table::new(Replica::header(wide));
    for replica in info.replicas {
        table.row(replica.cells(wide, now));
    }
    text.push_str(&table.render());
    text.push_str(&containers(info, now));
    text.push_str(&troubles(info, now));
    text
}

/// The containers of replicas that have several.
fn containers(info: &Info<'_>, now: Timestamp) -> String {
    let mut table = Table::new(vec!["REPLICA", "CONTAINER", "STATE", "READY", "RESTARTS", "LAST EXIT"]);
    let mut any = false;
    for replica in info.replicas {
        for container in &replica.status.containers {
            any = true;
            let state = match container.state {
                ContainerState::Waiting => "Waiting",
                ContainerState::Running => "Running",
                ContainerState::Ended => "Ended",
            };
            table.row(vec![
                replica.metadata.name.clone(),
                container.name.clone(),
                state.to_owned(),
                yes_no(container.ready),
                container.restarts.to_string(),
                exit_text(container.last_exit.as_ref(), now),
            ]);
        }
    }
    if any { format!("\n{}", table.render()) } else { String::new() }
}

fn container_fields(info: &Info<'_>) -> Vec<(&'static str, String)> {
    let template = &info.app.spec.template;
    let digests: std::collections::BTreeSet<_> =
        info.replicas.iter().filter_map(|r| r.status.image_digest.as_deref()).collect();
    let mut pairs = Vec::new();
    for container in &template.init_containers {
        pairs.push(("Runs first", container.name.clone()));
        pairs.extend(fields_of(container, String::new()));
    }
    for (i, container) in template.containers.iter().enumerate() {
        if !container.name.is_empty() {
            pairs.push(("Container", container.name.clone()));
        }
        let digests = if i == 0 { joined(&digests).replace(',', "\n") } else { String::new() };
        pairs.extend(fields_of(container, digests));
    }
    let mut add = |name, value: String| {
        if !value.is_empty() {
            pairs.push((name, value));
        }
    };
    let Template { hostname, host_aliases, sysctls, stop_grace_seconds, .. } = template;
    add("Host name", joined(hostname));
    let alias = |alias: &HostAlias| format!("{} {}", alias.ip, alias.hostnames.join(" "));
    add("Hosts", host_aliases.iter().map(alias).collect::<Vec<_>>().join("\n"));
    add("Kernel settings", labels::text(sysctls));
    add("Stop timeout", joined(stop_grace_seconds.map(|seconds| format!("{seconds} s"))));
    add(
        "Restarts",
        match template.restart_policy {
            RestartPolicy::Always => String::new(),
            RestartPolicy::OnFailure => "on failure".to_owned(),
            RestartPolicy::Never => "never".to_owned(),
        },
    );
    let waits = |on: &Dependency| format!("{} to be {}", on.app, on.condition.as_str());
    add("Waits for", joined(info.app.spec.depends_on.iter().map(waits)));
    pairs
}

/// What a container is, and of which image.
fn fields_of(container: &Container, digests: String) -> Vec<(&'static str, String)> {
    let mut pairs = vec![("Image", container.image.clone())];
    let mut add = |name, value: String| {
        if !value.is_empty() {
            pairs.push((name, value));
        }
    };
    add("Digest", digests);
    add("Command", container.command.join(" "));
    add("Arguments", container.args.join(" "));
    add("Directory", joined(&container.working_dir));
    add("User", joined(&container.user));
    add("Groups", joined(&container.groups));
    let port =
        |p: &hivemind_model::Port| format!("{}:{}/{}", p.host_port, p.container_port, p.protocol.as_str());
    add("Ports", joined(container.ports.iter().map(port)));
    let mount = |m: &hivemind_model::VolumeMount| {
        format!("{}:{}{}", m.volume, m.path, if m.read_only { ":ro" } else { "" })
    };
    add("Volumes", joined(container.volume_mounts.iter().map(mount)));
    let host = |m: &hivemind_model::HostPath| {
        format!("{}:{}{}", m.source, m.path, if m.read_only { ":ro" } else { "" })
    };
    add("Of the node", joined(container.host_paths.iter().map(host)));
    add("In memory", joined(container.tmpfs.iter().map(tmpfs_text)));
    add("Shared memory", joined(container.shm_size));
    add("Root", if container.read_only { "read-only".to_owned() } else { String::new() });
    if container.privileged {
        add("Privileged", "yes".to_owned());
    } else if container.capabilities != Capabilities::default() {
        let left = container.capabilities.left();
        add("Capabilities", if left.is_empty() { "none".to_owned() } else { joined(left) });
    }
    add("Limits", joined(container.ulimits.iter().map(ulimit_text)));
    add("Cpu", joined(container.resources.cpu));
    add("Memory", joined(container.resources.memory));
    add("Processes", joined(container.resources.pids));
    add("Stop signal", joined(&container.stop_signal));
    for (kind, probe) in container.probes() {
        let name = match kind {
            ProbeKind::Startup => "Started",
            ProbeKind::Readiness => "Ready",
            ProbeKind::Liveness => "Alive",
        };
        add(name, probe_text(probe));
    }
    pairs
}

/// `http://:80/healthz every 10 s`, as `app deploy` takes it, with its period.
fn probe_text(probe: &Probe) -> String {
    let period = probe.period().as_secs_f64();
    let how = if let Some(http) = &probe.http {
        let scheme = if http.scheme == HttpScheme::Https { "https" } else { "http" };
        format!("{scheme}://{}:{}{}", http.host.as_deref().unwrap_or_default(), http.port, http.path)
    } else if let Some(tcp) = &probe.tcp {
        format!("tcp://:{}", tcp.port)
    } else if let Some(grpc) = &probe.grpc {
        let slash = if grpc.service.is_empty() { "" } else { "/" };
        format!("grpc://:{}{slash}{}", grpc.port, grpc.service)
    } else {
        let words = probe.exec.as_ref().map(|exec| exec.command.join(" "));
        format!("exec:{}", words.unwrap_or_default())
    };
    format!("{how} every {period} s")
}

/// `/tmp:size=64Mi`, as `app deploy` takes it.
fn tmpfs_text(tmpfs: &Tmpfs) -> String {
    tmpfs.size.map_or_else(|| tmpfs.path.clone(), |size| format!("{}:size={size}", tmpfs.path))
}

/// `nofile=1024:4096`, as `app deploy` takes it.
fn ulimit_text(ulimit: &Ulimit) -> String {
    let text = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    format!("{}={}:{}", ulimit.name, text(ulimit.soft.or(ulimit.hard)), text(ulimit.hard))
}

/// What the app says of the nodes that may run it.
fn placement_fields(app: &App) -> Vec<(&'static str, String)> {
    let Template { node_selector, tolerations, .. } = &app.spec.template;
    let mut pairs = Vec::new();
    if !node_selector.is_empty() {
        pairs.push(("Node selector", labels::text(node_selector)));
    }
    if !tolerations.is_empty() {
        pairs.push(("Tolerations", joined(tolerations.iter().map(toleration_text))));
    }
    pairs
}

/// `gpu=true`, `gpu`, `*`, as `app deploy` takes it.
fn toleration_text(toleration: &Toleration) -> String {
    let key = if toleration.key.is_empty() { "*" } else { &toleration.key };
    match &toleration.value {
        Some(value) => format!("{key}={value}"),
        None => key.to_owned(),
    }
}

/// What is wrong, and how containers ended that had to be started again.
fn troubles(info: &Info<'_>, now: Timestamp) -> String {
    let mut text = String::new();
    let mut any_replica = false;
    for replica in info.replicas {
        let name = &replica.metadata.name;
        if let Some(problem) = &replica.status.problem {
            any_replica = true;
            text.push_str(&format!("\n{name}: problem[{}]: {}\n", problem.code, problem.message));
            if !problem.hint.is_empty() {
                text.push_str(&format!("  hint: {}\n", problem.hint));
            }
        }
        if replica.status.last_exit.is_some() {
            let count = replica.status.restarts;
            let times = match count {
                0 => "ended".to_owned(),
                1 => "restarted 1 time, last".to_owned(),
                _ => format!("restarted {count} times, last"),
            };
            text.push_str(&format!("\n{name}: {times} {}\n", last_exit(replica, now)));
        }
    }
    // The app's problem is in the words of a replica, if it is one's.
    if let Some(problem) = info.app.status.problem.as_ref().filter(|_| !any_replica) {
        text.push_str(&format!("\nproblem[{}]: {}\n", problem.code, problem.message));
        if !problem.hint.is_empty() {
            text.push_str(&format!("  hint: {}\n", problem.hint));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use hivemind_model::{
        AppService, AppSpec, AppStatus, ErrorCode, LastExit, Metadata, Phase, Problem, ReplicaSpec,
        ReplicaStatus,
    };

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn metadata(name: &str) -> Metadata {
        let mut metadata = Metadata::new("default", name);
        metadata.creation_timestamp = at("2026-01-01T00:00:00Z");
        metadata
    }

    #[test]
    fn an_app_is_described_with_its_replicas_last_exits_and_problems() {
        let template = Template {
            containers: vec![Container { image: "nginx:latest".into(), ..Container::default() }],
            ..Template::default()
        };
        let mut app = App {
            metadata: metadata("web"),
            spec: AppSpec {
                replicas: 2,
                hostnames: vec!["web.local".into()],
                service: AppService::default(),
                depends_on: Vec::new(),
                template: template.clone(),
            },
            status: AppStatus {
                ready_replicas: 1,
                addresses: vec!["10.204.0.1".parse().unwrap()],
                ..AppStatus::default()
            },
        };
        app.metadata.id = "app-k3f9q".into();
        let replica = |name: &str, status| Replica {
            metadata: metadata(name),
            spec: ReplicaSpec {
                app: "web".into(),
                node: "n1".into(),
                identity: 0,
                template_hash: String::new(),
                template: template.clone(),
            },
            status,
        };
        let good = ReplicaStatus {
            phase: Phase::Running,
            ready: true,
            ipv4: Some("10.200.0.5".parse().unwrap()),
            ..ReplicaStatus::default()
        };
        let bad = ReplicaStatus {
            phase: Phase::Backoff,
            restarts: 2,
            last_exit: Some(LastExit { code: 137, out_of_memory: true, at: at("2026-01-01T00:01:00Z") }),
            problem: Some(Problem {
                code: ErrorCode::OutOfMemory,
                field: String::new(),
                message: "it needs more than 8Mi".into(),
                hint: "give it more".into(),
            }),
            ..ReplicaStatus::default()
        };
        let replicas = [replica("web-11111", good), replica("web-22222", bad)];
        let info = Info::of(&app, &replicas);
        assert_eq!(
            describe(&info, "hivemind.internal", false, at("2026-01-01T00:03:00Z")),
            "Name:       web\n\
             Namespace:  default\n\
             Id:         app-k3f9q\n\
             State:      Starting, 1 of 2 replicas in service\n\
             Names:      web.default.svc.hivemind.internal\n            web.local\n\
             Addresses:  10.204.0.1\n\
             Image:      nginx:latest\n\
             Age:        3m\n\
             \n\
             REPLICA     STATE            READY   RESTARTS   ADDRESS      AGE\n\
             web-11111   Running          yes     0          10.200.0.5   3m\n\
             web-22222   Backoff HM0407   no      2          -            3m\n\
             \n\
             web-22222: problem[HM0407]: it needs more than 8Mi\n  hint: give it more\n\
             \n\
             web-22222: restarted 2 times, last exit 137, out of memory, 2m ago\n"
        );
        let json = serde_json::to_value(&info).unwrap();
        assert_eq!(json["metadata"]["name"], "web");
        assert_eq!(json["replicas"][0]["status"]["ipv4"], "10.200.0.5");
    }

    #[test]
    fn where_an_app_may_run_is_told_as_it_was_given() {
        let mut app = App {
            metadata: metadata("web"),
            spec: AppSpec {
                replicas: 1,
                hostnames: Vec::new(),
                service: AppService::default(),
                depends_on: Vec::new(),
                template: Template::default(),
            },
            status: AppStatus::default(),
        };
        assert!(placement_fields(&app).is_empty());
        let toleration =
            |key: &str, value: Option<&str>| Toleration { key: key.into(), value: value.map(str::to_owned) };
        app.spec.template.node_selector = [("zone".to_owned(), "west".to_owned())].into();
        app.spec.template.tolerations =
            vec![toleration("gpu", Some("true")), toleration("old", None), toleration("", None)];
        let told = [("Node selector", "zone=west".to_owned()), ("Tolerations", "gpu=true,old,*".to_owned())];
        assert_eq!(placement_fields(&app), told);
    }
}
