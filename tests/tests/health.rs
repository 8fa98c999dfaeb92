//! Replicas of several containers, and how it is found out and told whether they are well.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Node, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

fn shell(script: &str) -> Value {
    json!(["sh", "-c", script])
}

fn until_ready(node: &Node, app: &str, count: usize) -> Result<Vec<Value>> {
    eventually(LIMIT, &format!("{app} to be ready"), || {
        let ready = node.ready_replicas(app)?;
        ensure!(ready == count, "{ready} replicas");
        node.replicas(app)
    })
}

/// One of the containers of an app's only replica.
fn container(node: &Node, app: &str, name: &str) -> Result<Value> {
    let replica = node.replica(app)?;
    let containers = replica["status"]["containers"].as_array().context("no containers")?;
    let found = containers.iter().find(|container| container["name"] == name);
    found.cloned().with_context(|| format!("no container {name} in {replica}"))
}

/// The addresses of the endpoints of an app's service, as the store tells.
fn endpoints(node: &Node, app: &str) -> Result<Vec<String>> {
    let service = node.json(&["service", "info", app])?;
    let endpoints = service["status"]["endpoints"].as_array().cloned().unwrap_or_default();
    Ok(endpoints.iter().filter_map(|e| e["replica"].as_str().map(str::to_owned)).collect())
}

#[test]
fn containers_of_a_replica_share_its_network_and_what_runs_first_comes_before() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let mount = json!([{ "volume": "pages", "path": "/pages" }]);
    node.create(
        "web",
        &json!({ "template": {
            "stopGraceSeconds": 0,
            "initContainers": [
                // Not ready at the first try: it is tried again.
                { "name": "fetch", "image": "busybox", "volumeMounts": mount,
                  "command": shell("echo fetching; test -e /pages/tried || { touch /pages/tried; exit 3; }; echo one > /pages/page") },
                { "name": "render", "image": "busybox", "volumeMounts": mount,
                  "command": shell("sed s/one/two/ /pages/page > /pages/index.html") },
            ],
            "containers": [
                { "name": "server", "image": "nginx",
                  "volumeMounts": [{ "volume": "pages", "path": "/usr/share/nginx/html" }] },
                { "name": "helper", "image": "busybox", "command": shell("echo helping; exec sleep 3600") },
            ],
        }}),
    )?;
    until_ready(&node, "web", 1)?;
    let helper =
        |words: &[&str]| node.hivemind_ok(&[&["app", "exec", "web", "-c", "helper", "--"], words].concat());
    assert_eq!(helper(&["wget", "-q", "-O-", "http://127.0.0.1/"])?, "two\n");
    // Each has processes and files of its own; the first one is meant where none is named.
    assert_eq!(helper(&["sh", "-c", "cat /proc/1/comm; ls /pages 2>&1 | wc -l"])?, "sleep\n1\n");
    assert_eq!(node.hivemind_ok(&["app", "exec", "web", "--", "cat", "/proc/1/comm"])?, "nginx\n");
    let addresses = "ip -4 -o address show dev eth0 | tr -s ' ' | cut -d' ' -f4";
    assert_eq!(node.in_replica("web", addresses)?, helper(&["sh", "-c", addresses])?);

    let of = |name: &str| container(&node, "web", name);
    assert_eq!((of("fetch")?["state"].clone(), of("fetch")?["restarts"].clone()), (json!("Ended"), json!(1)));
    assert_eq!(
        (of("render")?["state"].clone(), of("render")?["restarts"].clone()),
        (json!("Ended"), json!(0))
    );
    let logs = node.hivemind_ok(&["app", "logs", "web"])?;
    for line in ["/fetch | fetching", "/helper | helping"] {
        assert!(logs.lines().any(|l| l.ends_with(line)), "no {line:?} in\n{logs}");
    }
    assert_eq!(node.hivemind_ok(&["app", "logs", "web", "-c", "helper"])?, "helping\n");
    let refused = node.hivemind(&["app", "exec", "web", "-c", "nobody", "--", "true"])?;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(3) && told.contains("HM0213"), "{told}");
    assert!(told.contains("fetch, render, server, helper"), "{told}");

    // One that ends is started again, and the others go on.
    let server = of("server")?["pid"].clone();
    helper(&["kill", "-9", "1"]).ok();
    node.hivemind_ok(&["app", "exec", "web", "-c", "helper", "--", "true"]).ok();
    let pid = of("helper")?["pid"].as_i64();
    if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    }
    eventually(LIMIT, "the helper to be back", || {
        let helper = of("helper")?;
        ensure!(helper["restarts"] == 1 && helper["state"] == "Running", "{helper}");
        node.ready_replicas("web")
    })?;
    assert_eq!(of("server")?["pid"], server);
    assert_eq!(of("fetch")?["restarts"], 1, "what runs first does not run again for a restart");
    let info = node.hivemind_ok(&["app", "info", "web"])?;
    assert!(info.contains("Runs first:") && info.contains("exit 137"), "{info}");

    node.daemon_kill9()?;
    node.daemon_start()?;
    until_ready(&node, "web", 1)?;
    assert_eq!(of("server")?["pid"], server, "a new daemon adopts what runs");
    node.hivemind_ok(&["app", "delete", "web"])?;
    node.hivemind_ok(&["volume", "delete", "pages"])?;
    Ok(())
}

#[test]
fn a_replica_that_is_not_ready_is_out_of_its_service_and_back_when_it_is() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let probe = json!({ "exec": { "command": ["test", "-e", "/tmp/well"] },
                        "periodSeconds": 0.2, "failureThreshold": 1 });
    let command = shell("mkdir -p /tmp; touch /tmp/well; exec sleep 3600");
    let container = json!({ "image": "busybox", "command": command, "readinessProbe": probe });
    node.create("box", &json!({ "replicas": 2, "template": { "containers": [container] } }))?;
    let replicas = until_ready(&node, "box", 2)?;
    let name = replicas[0]["metadata"]["name"].as_str().context("no name")?;
    let other = replicas[1]["metadata"]["name"].as_str().context("no name")?;
    let within = |words: &[&str]| {
        node.hivemind_ok(&[&["app", "exec", "box", "--replica", name, "--"], words].concat())
    };
    for _ in 0..2 {
        within(&["rm", "/tmp/well"])?;
        eventually(LIMIT, "it to be out of its service", || {
            let endpoints = endpoints(&node, "box")?;
            ensure!(endpoints == [other], "{endpoints:?}");
            Ok::<_, anyhow::Error>(())
        })?;
        let replica = node.replicas("box")?.into_iter().find(|r| r["metadata"]["name"] == name);
        let status = replica.context("it is gone")?["status"].clone();
        assert_eq!((&status["phase"], &status["problem"]["code"]), (&json!("Running"), &json!("HM0411")));
        let message = status["problem"]["message"].as_str().unwrap_or_default();
        assert_eq!(message, "its readiness probe failed: test ended with code 1");

        within(&["touch", "/tmp/well"])?;
        until_ready(&node, "box", 2)?;
        eventually(LIMIT, "it to be back in its service", || {
            let endpoints = endpoints(&node, "box")?;
            ensure!(endpoints.len() == 2, "{endpoints:?}");
            Ok::<_, anyhow::Error>(())
        })?;
    }
    let replica = node.replicas("box")?.into_iter().find(|r| r["metadata"]["name"] == name);
    let status = replica.context("it is gone")?["status"].clone();
    assert_eq!((&status["restarts"], &status["problem"]), (&json!(0), &Value::Null));
    Ok(())
}

#[test]
fn what_does_not_live_any_more_is_restarted_and_told_why() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let liveness =
        json!({ "http": { "path": "/alive", "port": 80 }, "periodSeconds": 0.2, "failureThreshold": 2 });
    let readiness = json!({ "tcp": { "port": 80 }, "periodSeconds": 0.5 });
    let command = shell("touch /usr/share/nginx/html/alive; exec /usr/sbin/nginx");
    let container = json!({ "image": "nginx", "command": command, "livenessProbe": liveness, "readinessProbe": readiness });
    node.create("web", &json!({ "template": { "containers": [container] } }))?;
    // No replica may reach it.
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed}\n\
                  spec: {podSelector: {}, policyTypes: [Ingress, Egress]}\n";
    let file = node.sandbox().directory().join("closed.yaml");
    std::fs::write(node.sandbox().outside(&file), policy)?;
    node.hivemind_ok(&["policy", "apply", "-f", &file.display().to_string()])?;
    let first = until_ready(&node, "web", 1)?[0]["status"]["pid"].clone();
    node.hivemind_ok(&["app", "exec", "web", "--", "rm", "/usr/share/nginx/html/alive"])?;
    let seen = eventually(LIMIT, "it to be restarted", || {
        let status = node.replica("web")?["status"].clone();
        ensure!(status["restarts"] == 1 && status["ready"] == true, "{status}");
        Ok::<_, anyhow::Error>(status)
    })?;
    assert_ne!(seen["pid"], first);
    assert_eq!(seen["problem"], Value::Null, "it is well again");
    let log = node.daemon_log_end();
    assert!(
        log.contains("its liveness probe failed 2 times in a row: GET /alive answered 404 Not Found"),
        "{log}"
    );
    // Of all those checks nothing was a flow; of a request of the node's own there is one.
    let flows = || {
        let output = node.hivemind(&["flows", "--to", "web"])?;
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let told = flows()?;
    assert!(!told.contains("web"), "{told}");
    let address = seen["ipv4"].as_str().context("no address")?;
    node.exec_in_node(&["curl", "-sS", "-o", "/dev/null", &format!("http://{address}/")])?;
    eventually(LIMIT, "the request to be a flow", || {
        let told = flows()?;
        ensure!(told.contains("web"), "{told:?}");
        Ok::<_, anyhow::Error>(())
    })
}

#[test]
fn a_container_that_starts_slowly_is_given_its_time_and_no_more() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let deploy = |name: &str, delay: &str, threshold: u32| {
        let startup = json!({ "tcp": { "port": 8080 }, "periodSeconds": 0.5, "failureThreshold": threshold });
        let dead = json!({ "tcp": { "port": 8080 }, "periodSeconds": 0.1, "failureThreshold": 1 });
        let command = shell(&format!("sleep {delay}; exec httpd -f -p 8080"));
        let container =
            json!({ "image": "busybox", "command": command, "startupProbe": startup, "livenessProbe": dead });
        node.create(name, &json!({ "template": { "containers": [container], "stopGraceSeconds": 0 } }))
    };
    deploy("slow", "2", 30)?;
    deploy("never", "3600", 2)?;
    let status = until_ready(&node, "slow", 1)?[0]["status"].clone();
    assert_eq!(status["restarts"], 0, "its liveness was not asked about before it had started");
    let problem = eventually(LIMIT, "the other to be restarted", || {
        let status = node.replica("never")?["status"].clone();
        ensure!(status["restarts"].as_u64() >= Some(1) && status["ready"] == false, "{status}");
        Ok::<_, anyhow::Error>(status["problem"].clone())
    })?;
    let message = problem["message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with(
            "its startup probe failed 2 times in a row: port 8080 cannot be connected to: connection refused"
        ),
        "{message}"
    );
    Ok(())
}

#[test]
fn what_has_ended_stays_ended_and_is_told_as_such() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let count = "echo ran >> /data/runs";
    let deploy = |name: &str, restart: &str, script: &str| {
        let words =
            ["app", "deploy", name, "--image", "busybox", "--restart", restart, "--volume", "data:/data"];
        node.hivemind(&[&words[..], &["--keep", "--", "sh", "-c", script]].concat())
    };
    let done = deploy("once", "never", count)?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let done = deploy("twice", "on-failure", "test -e /data/again || { touch /data/again; exit 4; }")?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let failed = deploy("bad", "never", "echo no; exit 7")?;
    let told = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(failed.status.code() == Some(5) && told.contains("the container ended with code 7"), "{told}");

    let status = |app: &str| node.replica(app).map(|replica| replica["status"].clone());
    eventually(LIMIT, "their addresses to be given back", || {
        for app in ["once", "twice", "bad"] {
            ensure!(status(app)?["ipv4"].is_null(), "{app} has one");
        }
        Ok::<_, anyhow::Error>(())
    })?;
    for (app, phase, restarts) in [("once", "Succeeded", 0), ("twice", "Succeeded", 1), ("bad", "Failed", 0)]
    {
        let status = status(app)?;
        assert_eq!((&status["phase"], &status["restarts"]), (&json!(phase), &json!(restarts)), "{status}");
        assert_eq!((&status["ipv4"], &status["pid"]), (&Value::Null, &Value::Null), "{status}");
    }
    let states = node.hivemind_ok(&["app", "ls"])?;
    for (app, state) in [("once", "Completed"), ("twice", "Completed"), ("bad", "Failed")] {
        let line = states.lines().find(|line| line.starts_with(app)).unwrap_or_default();
        assert!(line.contains(state), "{states}");
    }
    assert_eq!(node.hivemind_ok(&["app", "logs", "bad"])?, "no\n", "its log is kept");

    node.daemon_kill9()?;
    node.daemon_start()?;
    let again = deploy("see", "never", "cat /data/runs")?;
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(node.hivemind_ok(&["app", "logs", "see"])?, "ran\n", "it ran once");
    assert_eq!(status("once")?["phase"], "Succeeded");
    // To be asked for it again is another matter.
    node.hivemind_ok(&["app", "restart", "once"])?;
    node.hivemind_ok(&["app", "delete", "see"])?;
    deploy("see", "never", "cat /data/runs")?;
    assert_eq!(node.hivemind_ok(&["app", "logs", "see"])?, "ran\nran\n");
    Ok(())
}

#[test]
fn an_app_waits_for_those_that_it_depends_on() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let on = json!([{ "app": "db" }, { "app": "job", "condition": "completed" }]);
    let app = |depends_on: &Value, restart: &str, command: &Value| {
        json!({ "dependsOn": depends_on,
                "template": { "restartPolicy": restart, "stopGraceSeconds": 0,
                              "containers": [{ "image": "busybox", "command": command,
                                               "volumeMounts": [{ "volume": "data", "path": "/data" }] }] } })
    };
    let go_on = |mark: &str| shell(&format!("echo {mark} >> /data/order; exec sleep 3600"));
    node.create("web", &app(&on, "Always", &go_on("web")))?;
    let waits = eventually(LIMIT, "it to say for whom it waits", || {
        let info = node.json(&["app", "info", "web"])?;
        ensure!(info["status"]["problem"]["code"] == "HM0412", "{info}");
        Ok::<_, anyhow::Error>(info["status"]["problem"]["message"].as_str().unwrap_or_default().to_owned())
    })?;
    assert_eq!(waits, "it waits for db, which does not exist, and for job, which does not exist");
    node.create(
        "job",
        &app(&json!([{ "app": "db", "condition": "started" }]), "Never", &shell("echo job >> /data/order")),
    )?;
    assert!(node.replicas("job")?.is_empty() && node.replicas("web")?.is_empty());
    node.create("db", &app(&json!([]), "Always", &go_on("db")))?;
    until_ready(&node, "web", 1)?;
    assert_eq!(node.in_replica("web", "cat /data/order")?, "db\njob\nweb\n");
    // Only the first replica waits.
    node.hivemind_ok(&["app", "delete", "db"])?;
    node.hivemind_ok(&["app", "scale", "web", "--replicas", "2"])?;
    until_ready(&node, "web", 2)?;
    Ok(())
}
