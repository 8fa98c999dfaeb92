//! Apps of all sorts.

use std::collections::{BTreeMap, BTreeSet};

use hivemind_model::{
    App, AppService, AppSpec, AppStatus, Capabilities, Container, Cpu, Dependency, DependencyCondition,
    EnvVar, ExecProbe, HostAlias, HttpProbe, HttpScheme, Memory, Metadata, Port, Probe, Protocol, Resources,
    RestartPolicy, Seconds, ServicePort, SessionAffinity, Template, Tmpfs, Toleration, Ulimit, VolumeMount,
};
use jiff::Timestamp;
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
};

fn name() -> impl Strategy<Value = String> {
    "[a-z]([a-z0-9-]{0,8}[a-z0-9])?"
}

/// What YAML might take for something else, among other texts; of control characters only those that YAML can have in quotes.
fn words() -> impl Strategy<Value = String> {
    const ODD: &[&str] = &[
        "", "1", "0.5", "1e3", "true", "no", "null", "~", "- a", "a: b", "# x", "'", "\"", "0x10", ".inf",
        "\n\n a\n", "*a", "!!str", "---", "é\t",
    ];
    prop_oneof![select(ODD).prop_map(str::to_owned), "\\PC{0,12}"]
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("([a-z]{1,4}[.][a-z]{1,3}/)?[a-z0-9]{1,6}", "([A-Za-z0-9]{1,6})?", 0..3)
}

fn port() -> impl Strategy<Value = Port> {
    let protocol = select(vec![Protocol::Tcp, Protocol::Udp]);
    let parts = (1_u16.., 1_u16.., protocol);
    parts.prop_map(|(host_port, container_port, protocol)| Port { host_port, container_port, protocol })
}

/// Each of `list` only once, by `key`.
fn unique<T, K: Ord>(list: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut seen = BTreeSet::new();
    list.into_iter().filter(|item| seen.insert(key(item))).collect()
}

fn container() -> impl Strategy<Value = Container> {
    let memory = || {
        option::of(
            (6_u64 << 20..1 << 50).prop_map(|bytes| Memory::from_bytes(bytes).expect("it is not zero")),
        )
    };
    let cpu = option::of(
        (1_u32..4_096_000).prop_map(|millis| Cpu::from_millicores(millis).expect("it is not zero")),
    );
    let env = vec(("[^=\\pC]{1,5}", words()), 0..4);
    let process = (
        vec(words(), 0..3),
        vec(words(), 0..2),
        option::of("/[a-z]{0,5}"),
        option::of("[a-z0-9]{1,4}(:[0-9]{1,3})?"),
    );
    let limits = (memory(), cpu, option::of(1_u32..4_194_304), option::of(any::<u64>()));
    let parts = (process, env, vec(port(), 0..3), limits, memory(), any::<bool>(), option::of(probe()));
    parts.prop_map(|(process, env, ports, limits, size, flag, probe)| {
        let (command, args, working_dir, user) = process;
        let (memory, cpu, pids, hard) = limits;
        Container {
            image: "registry.example:5000/team/app:1.10".into(),
            command,
            args,
            working_dir,
            user,
            env: unique(env, |(name, _)| name.clone())
                .into_iter()
                .map(|(name, value)| EnvVar { name, value })
                .collect(),
            ports: unique(ports, |port| (port.host_port, port.protocol)),
            volume_mounts: vec![VolumeMount { volume: "data".into(), path: "/data".into(), read_only: flag }],
            tmpfs: vec![Tmpfs { path: "/tmp".into(), size }],
            shm_size: size,
            read_only: flag,
            capabilities: Capabilities { add: vec![], drop: vec!["ALL".into()] },
            ulimits: vec![Ulimit { name: "nofile".into(), soft: None, hard }],
            liveness_probe: probe,
            stop_signal: flag.then(|| "SIGQUIT".into()),
            resources: Resources { cpu, memory, pids },
            ..Container::default()
        }
    })
}

/// A probe, by HTTP or by a command.
fn probe() -> impl Strategy<Value = Probe> {
    let times = (option::of(0_u32..3_600_000), option::of(100_u32..3_600_000), option::of(1_u32..1_000));
    (any::<bool>(), 1_u16.., words(), times).prop_map(|(by_http, port, word, (delay, period, failures))| {
        let http = HttpProbe {
            path: "/healthz?a=%20".into(),
            port,
            scheme: HttpScheme::Https,
            host: None,
            headers: vec![],
        };
        Probe {
            http: by_http.then_some(http),
            exec: (!by_http).then(|| ExecProbe { command: vec!["sh".into(), word] }),
            initial_delay_seconds: delay.map(Seconds::from_millis),
            period_seconds: period.map(Seconds::from_millis),
            failure_threshold: failures,
            ..Probe::default()
        }
    })
}

fn template() -> impl Strategy<Value = Template> {
    let parts =
        (labels(), container(), labels(), option::of(name()), option::of(-1_000_000_i64..4_000_000_000));
    parts.prop_map(|(labels, container, node_selector, hostname, restarted)| Template {
        labels,
        init_containers: vec![Container { name: "first".into(), image: "a".into(), ..Container::default() }],
        containers: vec![
            Container { name: "main".into(), ..container },
            Container { name: "side".into(), image: "b".into(), ..Container::default() },
        ],
        restart_policy: RestartPolicy::OnFailure,
        host_aliases: vec![HostAlias {
            ip: "2001:db8::1".parse().expect("it is an address"),
            hostnames: vec!["here.local".into()],
        }],
        tolerations: vec![Toleration { key: String::new(), value: hostname.clone() }],
        sysctls: BTreeMap::from([("net.ipv4.tcp_syncookies".into(), "1".into())]),
        node_selector,
        hostname,
        restarted_at: restarted.map(|seconds| Timestamp::from_second(seconds).expect("it is in range")),
        ..Template::default()
    })
}

/// An app that is valid and normalized.
pub(super) fn app() -> impl Strategy<Value = App> {
    let annotations = btree_map(words(), words(), 0..3);
    let parts = (name(), name(), labels(), annotations, 0_u32..1_000, template(), option::of(1_u32..86_400));
    parts.prop_map(|(name, namespace, labels, annotations, replicas, template, affinity)| {
        let service = AppService {
            ports: vec![ServicePort { name: Some("http".into()), port: 80, ..ServicePort::default() }],
            session_affinity: affinity.map(|timeout_seconds| SessionAffinity { timeout_seconds }),
            ..AppService::default()
        };
        let depends_on = vec![Dependency { app: "db".into(), condition: DependencyCondition::Started }];
        let spec = AppSpec { replicas, hostnames: vec!["web.local".into()], service, depends_on, template };
        let metadata = Metadata { labels, annotations, ..Metadata::new(namespace, name) };
        let mut app = App { metadata, spec, status: AppStatus::default() };
        app.normalize();
        app
    })
}
