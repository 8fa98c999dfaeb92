//! What projects come to, and where what cannot be had is told.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use hivemind_compose::{FileError, Files, Plan, Planned, Request, plan, read};
use hivemind_model::{
    App, Container, Dependency, DependencyCondition, NetworkPolicySpec, PolicyPort, PolicySpec, PolicyType,
    PortRef, RestartPolicy,
};

struct One(String);

impl Files for One {
    fn read(&self, path: &Path, _bytes_max: usize) -> Result<Vec<u8>, FileError> {
        if self.exists(path) { Ok(self.0.clone().into_bytes()) } else { Err(FileError::Missing) }
    }

    fn exists(&self, path: &Path) -> bool {
        path == Path::new("/shop/compose.yaml")
    }
}

fn planned(text: &str) -> Planned {
    let files = vec![PathBuf::from("compose.yaml")];
    let request = Request { directory: "/shop".into(), files, ..Request::default() };
    let reading = read(&request, &One(text.to_owned()));
    assert_eq!(reading.faults, [], "{text}");
    plan(&reading.project.expect("a reading without faults has a project"))
}

/// `line:column path …` of what is told.
fn told(faults: &[hivemind_compose::Fault]) -> Vec<String> {
    assert!(faults.iter().all(|fault| !fault.hint.is_empty()), "no hint: {faults:?}");
    faults.iter().map(|fault| format!("{}:{} {}", fault.line, fault.column, fault.message)).collect()
}

fn good(text: &str) -> Plan {
    let planned = planned(text);
    assert_eq!(told(&planned.faults), Vec::<String>::new());
    planned.plan.expect("without faults there is a plan")
}

/// The app of a service whose fields are `fields`, which stand from line 4 on at column 5.
fn of_service(fields: &str) -> Planned {
    let fields: String = fields.lines().map(|line| format!("    {line}\n")).collect();
    planned(&format!("services:\n  web:\n    image: x\n{fields}"))
}

fn app(fields: &str) -> App {
    let planned = of_service(fields);
    assert_eq!(told(&planned.faults), Vec::<String>::new(), "{fields}");
    planned.plan.expect("without faults there is a plan").apps.remove(0)
}

fn container(fields: &str) -> Container {
    app(fields).spec.template.containers.remove(0)
}

const SHOP: &str = r#"
name: shop
services:
  web:
    image: shop/web:3
    ports: ["8080:80", "8443-8445:443-445"]
    environment: {A: "1", DB: db}
    depends_on:
      db: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
    restart: always
    networks: [front, back]
    deploy: {replicas: 3, resources: {limits: {cpus: "0.5", memory: 256m}}}
    labels: {tier: front, "traefik.rule": "Host(`x`)"}
  migrate:
    build: .
    networks: [back]
    depends_on: [db]
  db:
    image: postgres:16
    volumes: ["db_data:/var/lib/postgresql/data"]
    networks: [back]
    restart: unless-stopped
    healthcheck:
      test: pg_isready -q
      interval: 5s
      timeout: 2s
      retries: 6
      start_period: 1m
volumes: {db_data: }
networks: {front: , back: {internal: true}}
"#;

#[test]
fn services_become_apps() {
    let plan = good(SHOP);
    let names: Vec<_> = plan.apps.iter().map(|app| (&*app.metadata.namespace, &*app.metadata.name)).collect();
    assert_eq!(names, [("shop", "db"), ("shop", "migrate"), ("shop", "web")]);
    for app in &plan.apps {
        app.validate().unwrap();
    }
    let web = &plan.apps[2];
    assert_eq!((web.spec.replicas, web.spec.template.restart_policy), (3, RestartPolicy::Always));
    let dependency = |app: &str, condition| Dependency { app: app.into(), condition };
    assert_eq!(
        web.spec.depends_on,
        [dependency("db", DependencyCondition::Ready), dependency("migrate", DependencyCondition::Completed)]
    );
    let container = &web.spec.template.containers[0];
    let ports: Vec<_> = container.ports.iter().map(|port| (port.host_port, port.container_port)).collect();
    assert_eq!(ports, [(8080, 80), (8443, 443), (8444, 444), (8445, 445)]);
    assert_eq!(container.resources.cpu.unwrap().millicores(), 500);
    assert_eq!(container.resources.memory.unwrap().bytes(), 256 << 20);
    assert_eq!(web.spec.template.labels["tier"], "front");
    assert_eq!(web.metadata.annotations["traefik.rule"], "Host(`x`)");
}

#[test]
fn what_is_built_is_named_after_its_service_and_ends_with_its_command() {
    let plan = good(SHOP);
    let migrate = &plan.apps[1];
    assert_eq!(migrate.spec.template.containers[0].image, "shop-migrate");
    assert_eq!(migrate.spec.template.restart_policy, RestartPolicy::Never);
    assert_eq!(plan.builds["migrate"].image, "shop-migrate");
    assert_eq!(plan.builds.len(), 1);
}

#[test]
fn a_check_of_health_becomes_a_readiness_probe() {
    let probe = good(SHOP).apps[0].spec.template.containers[0].readiness_probe.clone().unwrap();
    assert_eq!(probe.exec.as_ref().unwrap().command, ["/bin/sh", "-c", "pg_isready -q"]);
    assert_eq!((probe.period().as_secs(), probe.timeout().as_secs(), probe.failures()), (5, 2, 6));
    let usual = container("healthcheck: {test: [CMD, a, b]}").readiness_probe.unwrap();
    assert_eq!(
        (usual.exec.as_ref().unwrap().command.len(), usual.period().as_secs(), usual.timeout().as_secs()),
        (2, 30, 30)
    );
    assert!(container("healthcheck: {test: [NONE]}").readiness_probe.is_none());
    assert!(container("healthcheck: {test: x, disable: true}").readiness_probe.is_none());
}

#[test]
fn volumes_have_names_of_the_namespace() {
    let plan = good(SHOP);
    assert_eq!((plan.volumes[0].name.as_str(), plan.volumes[0].is_external), ("db-data", false));
    assert_eq!(plan.apps[0].spec.template.containers[0].volume_mounts[0].volume, "db-data");
    let text = "services: {a: {image: x, volumes: ['one:/1:ro', 'two:/2']}}\nvolumes:\n  one: {name: Bad Name}\n  two: {external: true, name: there}\n  unused: {}\n";
    let found = planned(text);
    assert_eq!(told(&found.faults), ["3:15 \"Bad Name\" cannot be the name of a volume"]);
    let good = good(&text.replace("Bad Name", "fine"));
    let names: Vec<_> =
        good.volumes.iter().map(|volume| (volume.name.as_str(), volume.is_external)).collect();
    assert_eq!(names, [("fine", false), ("there", true)]);
    let text = "services: {a: {image: x, volumes: ['a_b:/1', 'a-b:/2']}}\nvolumes:\n  a_b:\n  a-b:\n";
    assert_eq!(told(&planned(text).faults).len(), 1);
}

/// The policies of a plan by name.
fn policies(plan: &Plan) -> BTreeMap<&str, &NetworkPolicySpec> {
    fn spec(policy: &PolicySpec) -> &NetworkPolicySpec {
        match policy {
            PolicySpec::NetworkPolicy(spec) => spec,
            other => panic!("{other:?}"),
        }
    }
    plan.policies.iter().map(|policy| (policy.metadata.name.as_str(), spec(&policy.spec))).collect()
}

/// The apps that a selector of theirs names.
fn selected(selector: &hivemind_model::LabelSelector) -> Vec<&str> {
    selector.match_expressions[0].values.iter().map(String::as_str).collect()
}

#[test]
fn networks_become_policies() {
    let plan = good(SHOP);
    let policies = policies(&plan);
    assert_eq!(
        policies.keys().copied().collect::<Vec<_>>(),
        ["internal-back", "network-back", "network-front", "published-web"]
    );
    let back = policies["network-back"];
    assert_eq!(selected(&back.pod_selector), ["db", "migrate", "web"]);
    assert_eq!(selected(back.ingress[0].from[0].pod_selector.as_ref().unwrap()), ["db", "migrate", "web"]);
    assert_eq!((back.policy_types.as_slice(), back.egress.len()), (&[PolicyType::Ingress][..], 0));
    assert_eq!(selected(&policies["network-front"].pod_selector), ["web"]);
    // The web server is in a network with a way out.
    let internal = policies["internal-back"];
    assert_eq!(selected(&internal.pod_selector), ["db", "migrate"]);
    assert_eq!((internal.policy_types.as_slice(), internal.egress.len()), (&[PolicyType::Egress][..], 2));
    assert!(internal.egress[1].to[0].namespace_selector.is_some() && internal.egress[1].ports.len() == 2);
    let published = &policies["published-web"].ingress[0];
    let port = |first: i64, last: Option<u16>| PolicyPort {
        port: Some(PortRef::Number(first)),
        end_port: last,
        ..PolicyPort::default()
    };
    assert_eq!(
        (published.from.len(), published.ports.as_slice()),
        (0, &[port(80, None), port(443, Some(445))][..])
    );
}

#[test]
fn members_of_an_external_network_are_known_to_other_projects() {
    let plan = good(
        "services:\n  a: {image: x, networks: [proxy, default]}\n  b: {image: x}\nnetworks: {proxy: {external: true, name: edge}}\n",
    );
    let policies = policies(&plan);
    assert_eq!(policies.keys().copied().collect::<Vec<_>>(), ["network-default", "network-proxy"]);
    let others = &policies["network-proxy"].ingress[0].from[1];
    assert_eq!(others.pod_selector.as_ref().unwrap().match_labels["network.compose/edge"], "member");
    assert!(others.namespace_selector.as_ref().unwrap().is_empty());
    assert!(plan.apps[0].spec.template.labels.contains_key("network.compose/edge"));
    assert!(!plan.apps[1].spec.template.labels.contains_key("network.compose/edge"));
    plan.apps[0].validate().unwrap();
}

#[test]
fn commands_replace_what_the_image_says() {
    let words = |fields: &str| {
        let container = container(fields);
        (container.command.join(" "), container.args.join(" "))
    };
    let both = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(words("command: a 'b c'"), both("", "a b c"));
    assert_eq!(words("entrypoint: [e]\ncommand: a b"), both("e", "a b"));
    assert_eq!(words("entrypoint: [e]"), both("e", ""));
    assert_eq!(words("entrypoint: []\ncommand: [a, b]"), both("a b", ""));
    assert_eq!(words("entrypoint: [e]\ncommand: []"), both("e", ""));
    for alone in ["entrypoint: []", "command: ''"] {
        assert_eq!(of_service(alone).faults.len(), 1, "{alone}");
    }
}

#[test]
fn what_a_container_is_and_may_take_is_taken_over() {
    let fields = "user: '1000:1000'\nworking_dir: /srv\ngroup_add: [5]\nread_only: true\nshm_size: 128m\ntmpfs: ['/run:size=1m']\ncap_drop: [ALL]\ncap_add: [net_raw]\nulimits: {nofile: 100, core: {soft: 1, hard: -1}}\nstop_signal: SIGINT\nstop_grace_period: 1500ms\nhostname: h\nextra_hosts: ['a=10.0.0.1']\nsysctls: {net.core.somaxconn: 9}\nmem_limit: 64m\npids_limit: -1\ncpu_quota: 25000\ncpu_period: 50ms\nannotations: {note: x}\ncontainer_name: my_db\nprivileged: false\nsecurity_opt: ['no-new-privileges:true']\nuserns_mode: host\nnetwork_mode: bridge\nexpose: ['80']\n";
    let app = app(fields);
    let (template, container) = (&app.spec.template, &app.spec.template.containers[0]);
    assert_eq!(
        (container.user.as_deref(), container.working_dir.as_deref()),
        (Some("1000:1000"), Some("/srv"))
    );
    assert_eq!((container.groups.as_slice(), container.read_only), (&[5][..], true));
    assert_eq!(container.shm_size.unwrap().bytes(), 128 << 20);
    assert_eq!(
        (container.tmpfs[0].path.as_str(), container.tmpfs[0].size.unwrap().bytes()),
        ("/run", 1 << 20)
    );
    assert_eq!(
        (container.capabilities.add.as_slice(), container.capabilities.drop.as_slice()),
        (&["NET_RAW".to_owned()][..], &["ALL".to_owned()][..])
    );
    let ulimits: Vec<_> = container.ulimits.iter().map(|u| (u.name.as_str(), u.soft, u.hard)).collect();
    assert_eq!(ulimits, [("core", Some(1), None), ("nofile", Some(100), Some(100))]);
    assert_eq!((container.stop_signal.as_deref(), template.stop_grace_seconds), (Some("SIGINT"), Some(2)));
    assert_eq!((template.hostname.as_deref(), template.host_aliases.len()), (Some("h"), 1));
    assert_eq!(template.sysctls["net.core.somaxconn"], "9");
    assert_eq!(
        (container.resources.pids, container.resources.cpu.unwrap().millicores()),
        (Some(4_194_304), 500)
    );
    assert_eq!(
        (app.metadata.annotations["note"].as_str(), app.spec.hostnames.as_slice()),
        ("x", &["my_db".to_owned()][..])
    );
    assert_eq!(of_service(fields).warnings, []);
    assert!(self::app("deploy: {endpoint_mode: dnsrr}").spec.service.headless);
}

#[test]
fn restarts_are_those_that_are_asked_for() {
    let policy = |fields: &str| app(fields).spec.template.restart_policy;
    assert_eq!(policy(""), RestartPolicy::Never);
    assert_eq!(policy("restart: 'no'"), RestartPolicy::Never);
    assert_eq!(policy("restart: on-failure:3"), RestartPolicy::OnFailure);
    assert_eq!(policy("deploy: {restart_policy: {condition: any}}"), RestartPolicy::Always);
    assert_eq!(policy("restart: always\ndeploy: {restart_policy: {condition: none}}"), RestartPolicy::Never);
}

#[test]
fn what_would_be_something_else_is_refused_where_it_stands() {
    for (field, fault) in [
        (
            "network_mode: host",
            "4:5 services.web.network_mode is not supported: every replica has a network of its own",
        ),
        (
            "ports: ['80']",
            "4:13 services.web.ports[0] is not supported: a port of the host is not chosen freely",
        ),
        (
            "ports: ['127.0.0.1:80:80']",
            "4:13 services.web.ports[0] is not supported: ports are published on all addresses, not on 127.0.0.1 alone",
        ),
        ("ports: ['80:80/sctp']", "4:13 services.web.ports[0] is not supported: SCTP cannot be published"),
        ("sysctls: {kernel.msgmax: 1}", "4:30 \"kernel.msgmax\" may reach beyond a replica"),
        ("user: 'a b'", "4:11 \"a b\" is nobody who could run a container"),
        ("stop_signal: SIGFOO", "4:18 \"SIGFOO\" is no signal that asks a process to end"),
        ("stop_grace_period: 2h", "4:24 7200 s are too long to wait for the end of a process"),
        ("mem_limit: 1m", "4:16 a memory limit of 1Mi is too small to start any container"),
        ("ulimits: {nofoo: 1}", "4:22 \"nofoo\" cannot be limited"),
        ("healthcheck: {test: x, interval: 1ms}", "4:38 0.001 s are out of range"),
        ("hostname: A.b", "4:15 \"A.b\" is not a valid name"),
        ("tty: true", "4:5 services.web.tty is not supported: containers have no terminal"),
        (
            "devices: [/dev/fuse]",
            "4:15 services.web.devices[0] is not supported: containers have no devices of the machine",
        ),
        ("gpus: all", "4:5 services.web.gpus is not supported: containers have no devices of the machine"),
        (
            "security_opt: ['seccomp:unconfined']",
            "4:20 services.web.security_opt[0] is not supported: a container has the usual filter of system calls, and no way to more privileges",
        ),
        (
            "dns: 1.1.1.1",
            "4:5 services.web.dns is not supported: replicas ask the cluster's own server, which knows their names",
        ),
        (
            "extra_hosts: ['a=host-gateway']",
            "4:19 services.web.extra_hosts[0] is not supported: which machine a replica is on is not known before",
        ),
        ("group_add: [mail]", "4:17 services.web.group_add[0] is not supported: groups are numbers"),
        (
            "networks: {default: {ipv4_address: 10.0.0.1}}",
            "4:40 services.web.networks.default.ipv4_address is not supported: addresses of replicas are given by the cluster",
        ),
        (
            "networks: {default: {aliases: [w]}}",
            "4:36 services.web.networks.default.aliases[0] is not supported: an app has no further names within its namespace",
        ),
        (
            "deploy: {mode: global}",
            "4:20 services.web.deploy.mode is not supported: an app has so many replicas as are asked for, on any nodes",
        ),
        (
            "deploy: {placement: {constraints: [node.role==manager]}}",
            "4:40 services.web.deploy.placement.constraints[0] is not supported: nodes are chosen by labels that they have",
        ),
        (
            "post_start: [{command: x}]",
            "4:18 services.web.post_start[0] is not supported: nothing is run in a container beside its own process",
        ),
        ("cpu_quota: 1\ncpu_period: x", "5:17 \"x\" is not a period"),
    ] {
        let found = of_service(field);
        assert_eq!(told(&found.faults), [fault], "{field}");
        assert!(found.plan.is_none());
    }
}

#[test]
fn what_only_runs_in_another_way_is_a_warning_where_it_stands() {
    for (field, warning) in [
        ("init: true", "4:5 services.web.init is ignored: the container's own process is its first"),
        ("logging: {driver: syslog}", "4:5 services.web.logging is ignored: logs are kept by the daemon"),
        (
            "pull_policy: always",
            "4:5 services.web.pull_policy is ignored: an image is pulled if it is not there",
        ),
        (
            "mem_reservation: 1g",
            "4:5 services.web.mem_reservation is ignored: what is kept for a replica is what it may take at most",
        ),
        (
            "restart: on-failure:3",
            "4:14 services.web.restart is ignored: it is started again as often as it ends, after ever longer pauses",
        ),
        (
            "volumes: [/cache]",
            "4:15 services.web.volumes[0] is ignored: there are no volumes without a name; the path is the container's own, and goes with it",
        ),
        (
            "healthcheck: {interval: 5s}",
            "4:18 services.web.healthcheck is ignored: the image's own check is not run",
        ),
        (
            "deploy: {update_config: {parallelism: 2}}",
            "4:14 services.web.deploy.update_config is ignored: replicas are replaced one after the other",
        ),
    ] {
        let found = of_service(field);
        assert_eq!(told(&found.warnings), [warning], "{field}");
        assert_eq!(told(&found.faults), Vec::<String>::new(), "{field}");
    }
}

#[test]
fn what_networks_and_volumes_cannot_be_is_told_of_those_that_are_used() {
    let text = "services: {a: {image: x, networks: [n], volumes: ['v:/v']}}\nnetworks:\n  n: {driver: macvlan, driver_opts: {a: b}, ipam: {}, enable_ipv4: false, labels: [l]}\n  unused: {driver: ipvlan}\nvolumes:\n  v: {driver: nfs, driver_opts: {a: b}, labels: [l]}\n  unused: {driver: nfs}\n";
    let found = planned(text);
    assert_eq!(
        told(&found.faults),
        [
            "3:15 networks.n.driver is not supported: all replicas are in one network, kept apart by policies",
            "6:15 volumes.v.driver is not supported: volumes are directories of a node",
            "6:34 volumes.v.driver_opts.a is not supported: volumes are directories of a node",
        ]
    );
    let warned: Vec<_> = found.warnings.iter().map(|warning| warning.field.as_str()).collect();
    assert_eq!(
        warned,
        [
            "networks.n.driver_opts.a",
            "networks.n.ipam",
            "networks.n.enable_ipv4",
            "networks.n.labels[0]",
            "volumes.v.labels[0]"
        ]
    );
}

#[test]
fn configs_and_secrets_are_not_supported_yet() {
    let text = "services:\n  a:\n    image: x\n    secrets: [s]\n    configs: [{source: c}]\nsecrets: {s: {file: ./s}}\nconfigs: {c: {content: x}}\n";
    assert_eq!(
        told(&planned(text).faults),
        [
            "4:15 services.a.secrets[0] is not supported: there are no secrets yet",
            "5:15 services.a.configs[0] is not supported: there are no configs yet",
        ]
    );
}

#[test]
fn names_that_a_namespace_cannot_have_are_told() {
    let text = "name: my_shop\nservices:\n  web_app: {image: x}\n";
    let found = planned(text);
    assert_eq!(
        told(&found.faults),
        ["3:3 \"web_app\" cannot be the name of an app, by which others reach it"]
    );
    assert_eq!(
        told(&found.warnings),
        ["1:7 name is ignored: a namespace has no '_', so it is called my-shop"]
    );
    let found = planned("name: hivemind-system\nservices: {a: {image: x}}\n");
    assert_eq!(told(&found.faults), ["1:7 \"hivemind-system\" cannot be the name of a namespace"]);
    let long = "x".repeat(60);
    let found = planned(&format!("services:\n  {long}: {{image: x}}\n"));
    assert_eq!(told(&found.faults)[0], format!("2:3 {long:?} is not a valid name"));
}

#[test]
fn services_of_inactive_profiles_are_no_part_of_the_plan() {
    let text = "services:\n  a: {image: x}\n  b: {image: x, privileged: true, profiles: [p]}\n  c: {image: x, depends_on: {b: {condition: service_started, required: false}}}\n";
    let plan = good(text);
    assert_eq!(plan.apps.len(), 2);
    assert_eq!(plan.apps[1].spec.depends_on, []);
    assert_eq!(plan.policies.len(), 1);
}

#[test]
fn what_the_namespace_has_to_permit_is_told_once() {
    let text = "services:\n  a:\n    image: x\n    volumes: ['./data:/a', '/srv:/b:ro']\n    cap_add: [NET_ADMIN, CHOWN]\n  \
                b:\n    image: x\n    volumes: ['/srv:/c']\n    privileged: true\n";
    let plan = good(text);
    assert_eq!(plan.permits.host_paths, ["/shop/data", "/srv"]);
    assert_eq!((plan.permits.capabilities, plan.permits.privileged), (vec!["NET_ADMIN".to_owned()], true));
    let mounts = &plan.apps[0].spec.template.containers[0].host_paths;
    let told: Vec<_> = mounts.iter().map(|m| (m.source.as_str(), m.path.as_str(), m.read_only)).collect();
    assert_eq!(told, [("/shop/data", "/a", false), ("/srv", "/b", true)]);
}
