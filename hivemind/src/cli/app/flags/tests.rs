use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: DeployArgs,
}

fn read(line: &[&str]) -> Result<Wanted, ApiError> {
    let line = ["deploy"].iter().chain(line);
    Line::try_parse_from(line).map_err(|e| e.to_string()).unwrap().args.read("default")
}

/// All faults of a line as (flag, code).
fn faults(line: &[&str]) -> Vec<(String, &'static str)> {
    let error = read(line).unwrap_err();
    let code = |p: &Problem| (p.field.clone(), p.code.as_str());
    if error.problems.is_empty() {
        vec![(error.field.unwrap_or_default(), error.code.as_str())]
    } else {
        error.problems.iter().map(code).collect()
    }
}

/// The only fault of an otherwise good line.
fn fault(flag: &str, value: &str) -> (String, &'static str) {
    let list = faults(&["web", "--image", "nginx", flag, value]);
    assert_eq!(list.len(), 1, "{flag} {value}: {list:?}");
    list[0].clone()
}

#[test]
fn every_flag_finds_its_place_in_the_app() {
    let wanted = read(&[
        "--image",
        "nginx:latest",
        "--name",
        "web-app",
        "--service",
        "Web.Local",
        "--replicas",
        "3",
        "--env",
        "A=1=2",
        "-e",
        "EMPTY=",
        "--cpu",
        "0.5",
        "--memory",
        "64Mi",
        "--port",
        "8080:80",
        "-p",
        "53:53/udp",
        "--volume",
        "data:/var/lib/data:ro",
        "--label",
        "tier=front",
        "--annotation",
        "why=a test",
        "--node-selector",
        "zone=west",
        "--toleration",
        "gpu=true",
        "--toleration",
        "*",
        "--command",
        "sh -c 'echo hi'",
        "--timeout",
        "90s",
    ])
    .unwrap();
    let App { metadata, spec, .. } = &wanted.app;
    let container = &spec.template.containers[0];
    assert_eq!((metadata.name.as_str(), metadata.namespace.as_str()), ("web-app", "default"));
    assert_eq!((spec.replicas, &spec.hostnames), (3, &vec!["web.local".to_owned()]));
    assert_eq!(container.env[0], EnvVar { name: "A".into(), value: "1=2".into() });
    assert_eq!(container.env[1].value, "");
    assert_eq!(container.resources.cpu.unwrap().millicores(), 500);
    assert_eq!(container.resources.memory.unwrap().bytes(), 64 << 20);
    assert_eq!(container.ports[0], Port { host_port: 8080, container_port: 80, protocol: Protocol::Tcp });
    assert_eq!(container.ports[1].protocol, Protocol::Udp);
    assert_eq!(
        container.volume_mounts,
        [VolumeMount { volume: "data".into(), path: "/var/lib/data".into(), read_only: true }]
    );
    assert_eq!((&metadata.labels["tier"], &spec.template.labels["tier"]), (&"front".into(), &"front".into()));
    assert_eq!(spec.template.labels["app"], "web-app");
    assert_eq!(metadata.annotations["why"], "a test");
    assert_eq!(container.command, ["sh", "-c", "echo hi"]);
    assert_eq!(spec.template.node_selector["zone"], "west");
    assert_eq!(
        spec.template.tolerations,
        [
            Toleration { key: "gpu".into(), value: Some("true".into()) },
            Toleration { key: String::new(), value: None }
        ]
    );
    assert_eq!(wanted.timeout, Duration::from_secs(90));
}

#[test]
fn what_a_container_is_finds_its_place_in_the_app() {
    let line = "web --image nginx --args '-c /etc/x' --user web:33 --group 7 --workdir /srv --read-only --tmpfs /tmp:size=64Mi \
        --tmpfs /run --shm-size 1Gi --cap-drop all --cap-add cap_kill --ulimit nofile=10:20 --ulimit core=0 --ulimit nproc=5:-1 \
        --pids-limit 16 --hostname box --add-host db:192.0.2.7 --add-host six:[2001:db8::1] \
        --sysctl net.core.somaxconn=512 --stop-signal int --stop-timeout 30s";
    let line = shlex::split(line).unwrap();
    let wanted = read(&line.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let template = &wanted.app.spec.template;
    let json = serde_json::to_value(template).unwrap();
    let expected = serde_json::json!({
        "labels": {"app": "web"},
        "hostname": "box",
        "hostAliases": [
            {"ip": "192.0.2.7", "hostnames": ["db"]},
            {"ip": "2001:db8::1", "hostnames": ["six"]},
        ],
        "sysctls": {"net.core.somaxconn": "512"},
        "stopGraceSeconds": 30,
        "containers": [{
            "image": "nginx",
            "args": ["-c", "/etc/x"],
            "user": "web:33",
            "groups": [7],
            "workingDir": "/srv",
            "readOnly": true,
            "tmpfs": [{"path": "/tmp", "size": "64Mi"}, {"path": "/run"}],
            "shmSize": "1Gi",
            "capabilities": {"add": ["KILL"], "drop": ["ALL"]},
            "ulimits": [
                {"name": "nofile", "soft": 10, "hard": 20},
                {"name": "core", "soft": 0, "hard": 0},
                {"name": "nproc", "soft": 5},
            ],
            "stopSignal": "SIGINT",
            "resources": {"pids": 16},
        }],
    });
    assert_eq!(json, expected);
}

#[test]
fn what_follows_the_dashes_is_the_command() {
    let wanted = read(&["web", "--image", "busybox", "--", "sleep", "--help", "x"]).unwrap();
    assert_eq!(wanted.app.container().unwrap().command, ["sleep", "--help", "x"]);
}

#[test]
fn every_bad_value_is_told_at_its_flag() {
    for (flag, value, at, code) in [
        ("--replicas", "three", "--replicas", "HM0103"),
        ("--replicas", "-1", "--replicas", "HM0103"),
        ("--replicas", "1001", "--replicas", "HM0103"),
        ("--service", "web..local", "--service web..local", "HM0101"),
        ("--env", "NOVALUE", "--env NOVALUE", "HM0104"),
        ("--env", "=x", "--env =x", "HM0104"),
        ("--cpu", "fast", "--cpu", "HM0103"),
        ("--cpu", "0", "--cpu", "HM0103"),
        ("--memory", "lots", "--memory", "HM0103"),
        ("--memory", "4096", "--memory", "HM0103"),
        ("--port", "80", "--port 80", "HM0100"),
        ("--port", "0:80", "--port 0:80", "HM0103"),
        ("--port", "8080:99999", "--port 8080:99999", "HM0103"),
        ("--port", "8080:80/sctp", "--port 8080:80/sctp", "HM0108"),
        ("--volume", "data", "--volume data", "HM0105"),
        ("--args", "", "--args", "HM0100"),
        ("--args", "'a", "--args", "HM0100"),
        ("--user", "a b", "--user", "HM0100"),
        ("--group", "staff", "--group staff", "HM0103"),
        ("--workdir", "srv", "--workdir", "HM0100"),
        ("--tmpfs", "tmp", "--tmpfs tmp", "HM0105"),
        ("--tmpfs", "/tmp:exec", "--tmpfs /tmp:exec", "HM0105"),
        ("--tmpfs", "/tmp:size=much", "--tmpfs /tmp:size=much", "HM0103"),
        ("--shm-size", "-1", "--shm-size", "HM0103"),
        ("--cap-drop", "FLY", "--cap-drop FLY", "HM0103"),
        ("--cap-add", "SYS_FLY", "--cap-add SYS_FLY", "HM0103"),
        ("--ulimit", "nofile", "--ulimit nofile", "HM0100"),
        ("--ulimit", "nofile=9:8", "--ulimit nofile=9:8", "HM0103"),
        ("--ulimit", "files=9", "--ulimit files=9", "HM0103"),
        ("--pids-limit", "-1", "--pids-limit", "HM0103"),
        ("--pids-limit", "0", "--pids-limit", "HM0103"),
        ("--hostname", "a_b", "--hostname", "HM0101"),
        ("--add-host", "db", "--add-host db", "HM0100"),
        ("--add-host", "db:host-gateway", "--add-host db:host-gateway", "HM0100"),
        ("--add-host", "d..b:192.0.2.7", "--add-host d..b:192.0.2.7", "HM0101"),
        ("--sysctl", "kernel.panic=1", "--sysctl kernel.panic", "HM0108"),
        ("--sysctl", "net.core.somaxconn", "--sysctl net.core.somaxconn", "HM0100"),
        ("--stop-signal", "SIGSTOP", "--stop-signal", "HM0103"),
        ("--stop-timeout", "2h", "--stop-timeout", "HM0103"),
        ("--stop-timeout", "soon", "--stop-timeout", "HM0103"),
        ("--volume", "data:relative", "--volume data:relative", "HM0105"),
        ("--volume", "data:/a:rx", "--volume data:/a:rx", "HM0105"),
        ("--volume", "/a/../host:/data", "--volume /a/../host:/data", "HM0105"),
        ("--volume", "./host:/data", "--volume ./host:/data", "HM0105"),
        ("--startup-probe", "http:80", "--startup-probe", "HM0100"),
        ("--liveness-probe", "tcp://:0", "--liveness-probe", "HM0103"),
        ("--restart", "sometimes", "--restart", "HM0103"),
        ("--depends-on", "Db", "--depends-on Db", "HM0101"),
        ("--depends-on", "db=gone", "--depends-on db=gone", "HM0103"),
        ("--volume", "Data:/data", "--volume Data:/data", "HM0101"),
        ("--label", "tier", "--label tier", "HM0106"),
        ("--label", "_bad=x", "--label", "HM0106"),
        ("--annotation", "note", "--annotation note", "HM0100"),
        ("--node-selector", "zone", "--node-selector zone", "HM0106"),
        ("--node-selector", "_bad=x", "--node-selector", "HM0106"),
        ("--toleration", "", "--toleration ", "HM0106"),
        ("--toleration", "=x", "--toleration =x", "HM0106"),
        ("--toleration", "_bad", "--toleration _bad", "HM0106"),
        ("--toleration", "gpu:NoSchedule", "--toleration gpu:NoSchedule", "HM0106"),
        ("--command", "sh -c 'unclosed", "--command", "HM0100"),
        ("--command", "  ", "--command", "HM0100"),
        ("--timeout", "soon", "--timeout", "HM0103"),
        ("--timeout", "-5m", "--timeout", "HM0103"),
    ] {
        assert_eq!(fault(flag, value), (at.to_owned(), code), "{flag} {value}");
    }
    assert_eq!(faults(&["Web", "--image", "nginx"]), [("--name".to_owned(), "HM0101")]);
    assert_eq!(faults(&["web", "--image", "NGINX"]), [("--image".to_owned(), "HM0102")]);
}

#[test]
fn values_given_twice_are_told() {
    let base = ["web", "--image", "nginx"];
    for (more, at) in [
        (&["--env", "A=1", "--env", "A=2"][..], "--env A=2"),
        (&["--port", "80:80", "--port", "80:81"], "--port 80:81"),
        (&["--volume", "a:/x", "--volume", "b:/x/"], "--volume b:/x/"),
        (&["--service", "a.b", "--service", "A.B"], "--service A.B"),
        (&["--label", "a=1", "--label", "a=2"], "--label a=2"),
        (&["--node-selector", "a=1", "--node-selector", "a=2"], "--node-selector a=2"),
        (&["--command", "a", "--", "b"], "--command"),
    ] {
        let line: Vec<&str> = base.iter().chain(more).copied().collect();
        assert_eq!(faults(&line), [(at.to_owned(), "HM0107")], "{more:?}");
    }
}

#[test]
fn all_faults_are_told_at_once_with_a_hint_each() {
    let line = [
        "Web",
        "--image",
        "NGINX",
        "--replicas",
        "x",
        "--env",
        "BAD",
        "--env",
        "A=1",
        "--env",
        "A=2",
        "--memory",
        "1",
        "--timeout",
        "x",
    ];
    let flags: Vec<String> = faults(&line).into_iter().map(|(flag, _)| flag).collect();
    assert_eq!(flags, ["--timeout", "--replicas", "--env BAD", "--name", "--image", "--env A=2", "--memory"]);
    assert!(read(&line).unwrap_err().problems.iter().all(|p| !p.hint.is_empty()));
}

#[test]
fn places_that_the_daemon_names_are_told_as_flags() {
    let wanted = read(&["web", "--image", "nginx", "--port", "8080:80", "--port", "9090:90"]).unwrap();
    let error =
        ApiError::new(ErrorCode::PortPublished, "taken", "").at("spec.template.containers[0].ports[1]");
    assert_eq!(wanted.places.at_flags(error).field.as_deref(), Some("--port 9090:90"));
    let error = ApiError::new(ErrorCode::AppExists, "exists", "").at("metadata.name");
    assert_eq!(wanted.places.at_flags(error).field.as_deref(), Some("--name"));
}

#[test]
fn how_a_service_treats_its_clients_is_read_from_the_flags() {
    let service = |flags: &[&str]| {
        let line: Vec<_> = ["web", "--image", "nginx"].iter().chain(flags).copied().collect();
        read(&line).unwrap().app.spec.service
    };
    let affinity = |timeout_seconds| Some(SessionAffinity { timeout_seconds });
    assert_eq!(service(&[]), AppService::default());
    assert!(service(&["--headless"]).headless);
    assert_eq!(service(&["--session-affinity"]).session_affinity, affinity(10_800));
    assert_eq!(service(&["--session-affinity=90s"]).session_affinity, affinity(90));
    let ports = service(&["--service-port", "5432", "--service-port", "dns=53/udp"]).ports;
    let told: Vec<_> = ports.iter().map(|port| (port.name.as_deref(), port.port, port.protocol)).collect();
    assert_eq!(told, [(None, 5432, Protocol::Tcp), (Some("dns"), 53, Protocol::Udp)]);
    assert_eq!(fault("--service-port", "Http=80"), ("--service-port Http=80".to_owned(), "HM0101"));
    assert_eq!(fault("--service-port", "=80"), ("--service-port =80".to_owned(), "HM0101"));
    assert_eq!(fault("--service-port", "http="), ("--service-port http=".to_owned(), "HM0103"));
    assert_eq!(fault("--service-port", "70000"), ("--service-port 70000".to_owned(), "HM0103"));
    assert_eq!(fault("--service-port", "0"), ("--service-port 0".to_owned(), "HM0103"));
    assert_eq!(fault("--service-port", "53/sctp"), ("--service-port 53/sctp".to_owned(), "HM0108"));
    for wrong in ["--session-affinity=25h", "--session-affinity=0s", "--session-affinity=long"] {
        let list = faults(&["web", "--image", "nginx", wrong]);
        assert_eq!(list, [("--session-affinity".to_owned(), "HM0103")], "{wrong}");
    }
    let both = faults(&["web", "--image", "nginx", "--headless", "--session-affinity", "-p", "80:80"]);
    let expected = [("--session-affinity".to_owned(), "HM0108"), ("--port".to_owned(), "HM0108")];
    assert_eq!(both, expected);
}
