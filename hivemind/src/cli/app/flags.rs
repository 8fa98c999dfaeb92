//! The flags of `app deploy`, and the app that they mean.
//!
//! Every value is read here and not by the parser of the command line, so that all that is wrong is told at once, with
//! its flag, a code and a hint.

mod container;
mod health;

use std::{collections::BTreeMap, fmt::Display, str::FromStr, time::Duration};

use clap::Args;
use hivemind_model::{
    ApiError, App, AppService, AppSpec, AppStatus, Container, EnvVar, ErrorCode, HostPath, Metadata, Port,
    Problem, Problems, Protocol, Resources, ServicePort, SessionAffinity, Template, Toleration, VolumeMount,
};

use self::{container::ContainerArgs, health::HealthArgs};
use crate::cli::{NameArgs, output::FormatArgs, units};

/// Flags of `app deploy`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hivemind app deploy --image nginx:latest --name web-app --service web.local
  hivemind app deploy web --image nginx:latest --replicas 3 --port 8080:80 --memory 64Mi --cpu 0.5
  hivemind app deploy db --image redis:7 --volume redis-data:/data --env TZ=UTC
  hivemind app deploy client --image busybox -- sleep infinity
  hivemind app deploy shop --image shop:2 --replicas 3 --session-affinity=30m
  hivemind app deploy train --image train:1 --node-selector gpu=a100 --toleration gpu
  hivemind app deploy shop --image shop:2 --readiness-probe http://:8080/healthz --depends-on db
  hivemind app deploy api --image api:3 --user 1000 --read-only --tmpfs /tmp --cap-drop ALL --stop-timeout 30s

The app is reached by other apps as <name>.<namespace>.svc.hivemind.internal and by each --service.
If it does not come up it is deleted again, and the reason is told; --keep leaves it.
Exit codes: 0 up, 2 wrong values, 4 a name or port is taken, 5 image or container at fault,
7 no daemon, 8 timed out.")]
pub(crate) struct DeployArgs {
    #[command(flatten)]
    pub(crate) name: NameArgs,
    /// The image, for example nginx:latest or registry.example.com/team/app:v1
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: String,
    /// A further name under which other apps reach it, for example web.local; may be repeated
    #[arg(long = "service", value_name = "HOSTNAME")]
    pub(crate) services: Vec<String>,
    /// Give the app's names the addresses of its replicas, and no address of their own
    #[arg(long)]
    pub(crate) headless: bool,
    /// A port that the replicas serve, and a name by which policies may call it, for example http=8080; DNS tells both (SRV); all
    /// ports are reached without it; may be repeated
    #[arg(long = "service-port", value_name = "[NAME=]PORT[/udp]")]
    pub(crate) service_ports: Vec<String>,
    /// Send a client that comes back within this time to the replica that it had, for example 30m [default with the flag: 3h]
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "3h",
        allow_hyphen_values = true
    )]
    pub(crate) session_affinity: Option<String>,
    /// How many replicas, 0 to 1000
    #[arg(long, value_name = "N", default_value = "1", allow_hyphen_values = true)]
    pub(crate) replicas: String,
    /// An environment variable; may be repeated
    #[arg(long, short = 'e', value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// The CPU time that each replica may take: cores (0.5, 2) or thousandths (500m)
    #[arg(long, value_name = "CORES", allow_hyphen_values = true)]
    pub(crate) cpu: Option<String>,
    /// The memory that each replica may take: 64Mi, 512M, 1Gi
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory: Option<String>,
    /// Publish a port of the container on the host; may be repeated
    #[arg(long = "port", short = 'p', value_name = "HOST:CONTAINER[/udp]")]
    pub(crate) ports: Vec<String>,
    /// A volume, which is made if it does not exist, or a path of the node that the namespace permits, and where it appears; may be
    /// repeated
    #[arg(long = "volume", value_name = "NAME|/HOST:/PATH[:ro]")]
    pub(crate) volumes: Vec<String>,
    /// A label of the app and its replicas; may be repeated
    #[arg(long = "label", short = 'l', value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// A note on the app; may be repeated
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    pub(crate) annotations: Vec<String>,
    /// A label that a node must have to run it; may be repeated
    #[arg(long = "node-selector", value_name = "KEY=VALUE")]
    pub(crate) node_selector: Vec<String>,
    /// A taint of nodes that does not keep it away, of that value or of any; '*': every taint; may be repeated
    #[arg(long = "toleration", value_name = "KEY[=VALUE]")]
    pub(crate) tolerations: Vec<String>,
    /// What to run instead of what the image says, in words as a shell would split them
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub(crate) command: Option<String>,
    /// How long to wait until it is up, for example 90s or 5m
    #[arg(long, value_name = "TIME", default_value = "5m", allow_hyphen_values = true)]
    pub(crate) timeout: String,
    /// Do not wait until it is up
    #[arg(long, short = 'd')]
    pub(crate) detach: bool,
    /// Leave the app in place if it does not come up
    #[arg(long)]
    pub(crate) keep: bool,
    /// Only check whether it could be deployed
    #[arg(long, conflicts_with = "detach")]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) output: FormatArgs,
    /// What to run instead of what the image says
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) words: Vec<String>,
    // These last, since what comes after it would stand under its heading.
    #[command(flatten)]
    pub(crate) health: HealthArgs,
    #[command(flatten)]
    pub(crate) container: ContainerArgs,
}

/// What the flags mean.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// The app to make.
    pub(crate) app: App,
    /// How long to wait until it is up.
    pub(crate) timeout: Duration,
    /// Which values stand at which places of the app.
    pub(crate) places: Places,
}

/// The values that stand in the lists of the app, as they were typed, in the lists' order.
#[derive(Debug, Default)]
pub(crate) struct Places {
    services: Vec<String>,
    env: Vec<String>,
    ports: Vec<String>,
    service_ports: Vec<String>,
    volumes: Vec<String>,
    tolerations: Vec<String>,
    tmpfs: Vec<String>,
    cap_add: Vec<String>,
    cap_drop: Vec<String>,
    ulimits: Vec<String>,
    hosts: Vec<String>,
    depends_on: Vec<String>,
    host_paths: Vec<String>,
}

impl DeployArgs {
    /// The app that the flags mean.
    ///
    /// # Errors
    /// All faults at once, each at its flag.
    pub(crate) fn read(&self, namespace: &str) -> Result<Wanted, ApiError> {
        let mut reader = Reader::default();
        let mut places = Places { services: self.services.clone(), ..Places::default() };
        let timeout = reader.timeout(&self.timeout);
        let replicas = reader.replicas(&self.replicas);
        let labels = reader.pairs("--label", &self.labels, ErrorCode::InvalidLabel);
        let (host_paths, volumes): (Vec<_>, Vec<_>) =
            self.volumes.iter().cloned().partition(|value| value.starts_with('/'));
        let mut container = Container {
            image: self.image.clone(),
            command: reader.command(self),
            env: reader.each("--env", &self.env, &mut places.env, env_var),
            ports: reader.each("--port", &self.ports, &mut places.ports, port),
            volume_mounts: reader.each("--volume", &volumes, &mut places.volumes, mount),
            host_paths: reader.each("--volume", &host_paths, &mut places.host_paths, host_path),
            resources: Resources {
                cpu: reader.quantity("--cpu", self.cpu.as_deref()),
                memory: reader.quantity("--memory", self.memory.as_deref()),
                pids: None,
            },
            ..Container::default()
        };
        let mut metadata = Metadata::new(namespace, self.name.get());
        metadata.labels = labels.clone();
        metadata.annotations = reader.pairs("--annotation", &self.annotations, ErrorCode::Malformed);
        let mut template = Template {
            labels,
            node_selector: reader.pairs("--node-selector", &self.node_selector, ErrorCode::InvalidLabel),
            tolerations: reader.each("--toleration", &self.tolerations, &mut places.tolerations, toleration),
            ..Template::default()
        };
        self.container.read(&mut reader, &mut places, &mut container, &mut template);
        let depends_on = self.health.read(&mut reader, &mut places, &mut container, &mut template);
        template.containers = vec![container];
        let service = AppService {
            headless: self.headless,
            ports: reader.each(
                "--service-port",
                &self.service_ports,
                &mut places.service_ports,
                service_port,
            ),
            session_affinity: self.session_affinity.as_deref().and_then(|time| reader.affinity(time)),
        };
        let spec = AppSpec { replicas, hostnames: self.services.clone(), service, depends_on, template };
        let mut app = App { metadata, spec, status: AppStatus::default() };
        if let Err(error) = app.validate() {
            reader.add_all(places.at_flags(error));
        }
        reader.problems.into_result()?;
        app.normalize();
        Ok(Wanted { app, timeout, places })
    }
}

impl Places {
    /// `error` with the places of the app replaced by the flags that they came from.
    pub(crate) fn at_flags(&self, mut error: ApiError) -> ApiError {
        error.field = error.field.map(|field| self.flag(&field));
        for problem in &mut error.problems {
            problem.field = self.flag(&problem.field);
        }
        error
    }

    /// The flag of a place such as `spec.template.containers[0].env[1].name`; places without a flag stay as they are.
    fn flag(&self, field: &str) -> String {
        let container = field.strip_prefix("spec.template.containers[0].").unwrap_or_default();
        let (list, flag, values) = if field.starts_with("spec.hostnames") {
            (field, "--service", &self.services)
        } else if field.starts_with("spec.service.ports") {
            (field, "--service-port", &self.service_ports)
        } else if field.starts_with("spec.template.tolerations") {
            (field, "--toleration", &self.tolerations)
        } else if container.starts_with("env") {
            (container, "--env", &self.env)
        } else if container.starts_with("ports") {
            (container, "--port", &self.ports)
        } else if container.starts_with("volumeMounts") {
            (container, "--volume", &self.volumes)
        } else if container.starts_with("hostPaths") {
            (container, "--volume", &self.host_paths)
        } else if container.starts_with("tmpfs") {
            (container, "--tmpfs", &self.tmpfs)
        } else if container.starts_with("capabilities.add") {
            (container, "--cap-add", &self.cap_add)
        } else if container.starts_with("capabilities.drop") {
            (container, "--cap-drop", &self.cap_drop)
        } else if container.starts_with("ulimits") {
            (container, "--ulimit", &self.ulimits)
        } else if field.starts_with("spec.dependsOn") {
            (field, "--depends-on", &self.depends_on)
        } else if field.starts_with("spec.template.hostAliases") {
            (field, "--add-host", &self.hosts)
        } else if let Some(name) = field.strip_prefix("spec.template.sysctls.") {
            return format!("--sysctl {name}");
        } else {
            return match (field, container) {
                ("metadata.name", _) => "--name",
                ("metadata.namespace", _) => "--namespace",
                (field, _) if field.starts_with("metadata.labels.") => "--label",
                (field, _) if field.starts_with("spec.template.labels.") => "--label",
                (field, _) if field.starts_with("spec.template.nodeSelector.") => "--node-selector",
                ("metadata.annotations", _) => "--annotation",
                ("spec.template.hostname", _) => "--hostname",
                ("spec.template.stopGraceSeconds", _) => "--stop-timeout",
                ("spec.replicas", _) => "--replicas",
                ("spec.service.headless", _) => "--headless",
                (field, _) if field.starts_with("spec.service.sessionAffinity") => "--session-affinity",
                (_, "image") => "--image",
                (_, "command") => "--command",
                (_, "resources.cpu") => "--cpu",
                (_, "resources.memory") => "--memory",
                (_, "resources.pids") => "--pids-limit",
                (_, "workingDir") => "--workdir",
                (_, "privileged") => "--privileged",
                (_, "user") => "--user",
                (_, "groups") => "--group",
                (_, "shmSize") => "--shm-size",
                (_, "stopSignal") => "--stop-signal",
                (_, word) if word.starts_with("args") => "--args",
                (_, word) if word.starts_with("startupProbe") => "--startup-probe",
                (_, word) if word.starts_with("readinessProbe") => "--readiness-probe",
                (_, word) if word.starts_with("livenessProbe") => "--liveness-probe",
                _ => field,
            }
            .to_owned();
        };
        match index(list).and_then(|i| values.get(i)) {
            Some(value) => format!("{flag} {value}"),
            None => flag.to_owned(),
        }
    }
}

/// The number in the first brackets of `place`.
fn index(place: &str) -> Option<usize> {
    place.split_once('[')?.1.split_once(']')?.0.parse().ok()
}

/// What is wrong with one value: what, and what to do.
struct Wrong {
    code: ErrorCode,
    message: String,
    hint: &'static str,
}

fn wrong<T>(code: ErrorCode, message: impl Into<String>, hint: &'static str) -> Result<T, Wrong> {
    Err(Wrong { code, message: message.into(), hint })
}

/// Reads values and keeps what is wrong with them.
#[derive(Default)]
struct Reader {
    problems: Problems,
    told: Vec<(String, String)>,
}

impl Reader {
    fn add(&mut self, flag: impl Into<String>, wrong: Wrong) {
        let (flag, message) = (flag.into(), wrong.message);
        // A label stands both on the app and on its replicas: its fault is found twice and told once.
        if !self.told.contains(&(flag.clone(), message.clone())) {
            self.told.push((flag.clone(), message.clone()));
            self.problems.add(wrong.code, flag, message, wrong.hint);
        }
    }

    fn add_all(&mut self, error: ApiError) {
        let ApiError { code, message, field, hint, problems } = error;
        let only = Problem { code, field: field.unwrap_or_default(), message, hint };
        let all = if problems.is_empty() { vec![only] } else { problems };
        for Problem { code, field, message, hint } in all {
            if !self.told.contains(&(field.clone(), message.clone())) {
                self.told.push((field.clone(), message.clone()));
                self.problems.add(code, field, message, hint);
            }
        }
    }

    /// The values that can be read; `places` gets them as they were typed.
    fn each<T>(
        &mut self,
        flag: &str,
        values: &[String],
        places: &mut Vec<String>,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Vec<T> {
        let mut good = Vec::new();
        for value in values {
            match read(value) {
                Ok(read) => {
                    good.push(read);
                    places.push(value.clone());
                }
                Err(wrong) => self.add(format!("{flag} {value}"), wrong),
            }
        }
        good
    }

    fn pairs(&mut self, flag: &str, values: &[String], code: ErrorCode) -> BTreeMap<String, String> {
        let mut pairs = BTreeMap::new();
        for value in values {
            let fault = match value.split_once('=') {
                Some((key, text)) if !key.is_empty() => match pairs.insert(key.to_owned(), text.to_owned()) {
                    None => continue,
                    Some(_) => {
                        wrong::<()>(ErrorCode::Repeated, format!("{key} is given twice"), "give it once")
                    }
                },
                _ => wrong(
                    code,
                    format!("{value:?} is not KEY=VALUE"),
                    "write KEY=VALUE, for example tier=front",
                ),
            };
            if let Err(wrong) = fault {
                self.add(format!("{flag} {value}"), wrong);
            }
        }
        pairs
    }

    fn quantity<T: FromStr<Err: Display>>(&mut self, flag: &str, value: Option<&str>) -> Option<T> {
        match value?.parse() {
            Ok(quantity) => Some(quantity),
            Err(error) => {
                let hint = "leave the flag out for no limit";
                self.add(
                    flag,
                    Wrong { code: ErrorCode::OutOfRange, message: T::Err::to_string(&error), hint },
                );
                None
            }
        }
    }

    /// How many replicas; 1 if the value cannot be read.
    fn replicas(&mut self, value: &str) -> u32 {
        replicas(value).unwrap_or_else(|problem| {
            self.told.push((problem.field.clone(), problem.message.clone()));
            self.problems.add(problem.code, problem.field, problem.message, problem.hint);
            1
        })
    }

    fn affinity(&mut self, value: &str) -> Option<SessionAffinity> {
        let seconds = units::duration(value).and_then(|time| u32::try_from(time.as_secs()).ok());
        if seconds.is_none() {
            let message = format!("{value:?} is not a time for which a client can be remembered");
            self.add(
                "--session-affinity",
                Wrong { code: ErrorCode::OutOfRange, message, hint: "give 1s to 24h, for example 30m or 3h" },
            );
        }
        seconds.map(|timeout_seconds| SessionAffinity { timeout_seconds })
    }

    fn timeout(&mut self, value: &str) -> Duration {
        timeout(value).unwrap_or_else(|problem| {
            self.problems.add(problem.code, problem.field, problem.message, problem.hint);
            Duration::ZERO
        })
    }

    fn command(&mut self, args: &DeployArgs) -> Vec<String> {
        let Some(text) = &args.command else { return args.words.clone() };
        if args.words.is_empty() {
            return self.words("--command", text);
        }
        let (message, hint) =
            ("a command is given twice".to_owned(), "use either --command or what follows --");
        self.add("--command", Wrong { code: ErrorCode::Repeated, message, hint });
        Vec::new()
    }
}

/// The value of `--replicas`.
pub(crate) fn replicas(value: &str) -> Result<u32, Problem> {
    value.parse().map_err(|_| Problem {
        code: ErrorCode::OutOfRange,
        field: "--replicas".to_owned(),
        message: format!("{value:?} is not a number of replicas"),
        hint: format!("give a whole number from 0 to {}", hivemind_model::REPLICAS_MAX),
    })
}

/// The value of `--timeout`.
pub(crate) fn timeout(value: &str) -> Result<Duration, Problem> {
    units::duration(value).ok_or_else(|| Problem {
        code: ErrorCode::OutOfRange,
        field: "--timeout".to_owned(),
        message: format!("{value:?} is not a time to wait"),
        hint: "give 1s to 24h, for example 90s or 5m".to_owned(),
    })
}

fn env_var(value: &str) -> Result<EnvVar, Wrong> {
    match value.split_once('=') {
        Some((name, text)) => Ok(EnvVar { name: name.to_owned(), value: text.to_owned() }),
        None => wrong(
            ErrorCode::InvalidEnv,
            format!("{value:?} has no value"),
            "write NAME=VALUE; to pass your own variable on: --env \"NAME=$NAME\"",
        ),
    }
}

const PORT_HINT: &str = "write HOST:CONTAINER, for example 8080:80 or 5353:53/udp; ports are 1 to 65535";

/// What stands before the protocol, and the protocol; TCP if none is said.
fn with_protocol(value: &str) -> Result<(&str, Protocol), Wrong> {
    match value.split_once('/') {
        None => Ok((value, Protocol::Tcp)),
        Some((ports, "tcp")) => Ok((ports, Protocol::Tcp)),
        Some((ports, "udp")) => Ok((ports, Protocol::Udp)),
        Some((_, other)) => {
            wrong(ErrorCode::Unsupported, format!("{other:?} is not a protocol of ports"), "use tcp or udp")
        }
    }
}

fn service_port(value: &str) -> Result<ServicePort, Wrong> {
    let (name, ports) = match value.split_once('=') {
        Some((name, ports)) => (Some(name.to_owned()), ports),
        None => (None, value),
    };
    let (port, protocol) = with_protocol(ports)?;
    match port.parse() {
        Ok(port) => Ok(ServicePort { name, port, protocol }),
        Err(_) => wrong(
            ErrorCode::OutOfRange,
            format!("{value:?} is not a port"),
            "write PORT or NAME=PORT, with /udp or not, for example 5432 or http=8080/tcp; ports are 1 to 65535",
        ),
    }
}

fn port(value: &str) -> Result<Port, Wrong> {
    let (ports, protocol) = with_protocol(value)?;
    let Some((host, container)) = ports.split_once(':') else {
        return wrong(ErrorCode::Malformed, format!("{value:?} is not HOST:CONTAINER"), PORT_HINT);
    };
    match (host.parse(), container.parse()) {
        (Ok(host_port), Ok(container_port)) => Ok(Port { host_port, container_port, protocol }),
        _ => wrong(ErrorCode::OutOfRange, format!("{value:?} has something else than ports"), PORT_HINT),
    }
}

/// Every taint is meant by a `*` in place of the key.
fn toleration(value: &str) -> Result<Toleration, Wrong> {
    let (key, value_of_taint) = match value.split_once('=') {
        Some((key, text)) => (key, Some(text.to_owned())),
        None => (value, None),
    };
    match key {
        "" => wrong(
            ErrorCode::InvalidLabel,
            format!("{value:?} names no taint"),
            "write KEY or KEY=VALUE, for example gpu; '*' tolerates every taint",
        ),
        "*" => Ok(Toleration { key: String::new(), value: value_of_taint }),
        key => Ok(Toleration { key: key.to_owned(), value: value_of_taint }),
    }
}

fn mount(value: &str) -> Result<VolumeMount, Wrong> {
    let (volume, path, read_only) = mount_parts(value)?;
    if volume.starts_with(['.', '~']) {
        let what = format!("{volume:?} is not written from the root of the node on");
        return wrong(
            ErrorCode::InvalidMount,
            what,
            "write /HOST:/PATH, or name a volume: data:/var/lib/data",
        );
    }
    Ok(VolumeMount { volume, path, read_only })
}

fn host_path(value: &str) -> Result<HostPath, Wrong> {
    let (source, path, read_only) = mount_parts(value)?;
    Ok(HostPath { source, path, read_only })
}

/// What is mounted, where, and whether it may only be read.
fn mount_parts(value: &str) -> Result<(String, String, bool), Wrong> {
    let mut parts = value.split(':');
    let (what, path, mode) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let hint = "write NAME:/PATH or NAME:/PATH:ro, for example data:/var/lib/data";
    match (path, mode, parts.next()) {
        (Some(path), None | Some("rw"), None) => Ok((what.to_owned(), path.to_owned(), false)),
        (Some(path), Some("ro"), None) => Ok((what.to_owned(), path.to_owned(), true)),
        _ => wrong(ErrorCode::InvalidMount, format!("{value:?} is not NAME:/PATH[:ro]"), hint),
    }
}

#[cfg(test)]
mod tests;
