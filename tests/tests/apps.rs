//! Apps, from their deployment to their end, as their users see them.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Node, Traffic, eventually, get};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer} in {value}"))
}

/// The names of an app's replicas, sorted.
fn names(node: &Node, app: &str) -> Result<Vec<String>> {
    let replicas = node.replicas(app)?;
    let mut names: Vec<_> =
        replicas.iter().map(|r| text(r, "/metadata/name").map(str::to_owned)).collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// What the cgroup of a process says in `v1`, a file of the controller's own hierarchy, or in `v2` where that has none.
fn cgroup_file(pid: u64, controller: &str, v1: &str, v2: &str) -> Result<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let mut lines = table.lines().filter_map(|line| line.splitn(3, ':').collect::<Vec<_>>().try_into().ok());
    let own = lines.clone().find(|[_, names, _]: &[&str; 3]| names.split(',').any(|n| n == controller));
    let file = match own {
        Some([_, _, path]) => format!("/sys/fs/cgroup/{controller}{path}/{v1}"),
        None => {
            let [_, _, path] = lines.find(|[number, ..]| *number == "0").context("no cgroup v2")?;
            let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
            let file = mounts.map(|mount| format!("{mount}{path}/{v2}")).into_iter();
            file.clone().find(|f| fs::exists(f).is_ok_and(|there| there)).context("no file of cgroup v2")?
        }
    };
    Ok(fs::read_to_string(&file).with_context(|| file)?.trim().to_owned())
}

#[test]
fn every_flag_of_a_deployment_has_its_effect() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let words = "app deploy --image nginx:latest --name web --namespace shop --service web.local --replicas 2 \
                 --env COLOUR=green --cpu 0.25 --memory 48Mi --port 8080:80 --volume pages:/usr/share/nginx/html \
                 --label tier=front --annotation owner=ops -o json";
    let mut words: Vec<_> = words.split_whitespace().collect();
    words.extend(["--env", "GREETING=hello, world = all"]);
    node.hivemind_ok(&words)?;

    let environment = node.hivemind_ok(&["app", "exec", "-n", "shop", "web", "--", "env"])?;
    assert!(environment.lines().any(|line| line == "COLOUR=green"), "{environment}");
    assert!(environment.lines().any(|line| line == "GREETING=hello, world = all"), "{environment}");
    let replicas = node.replicas("shop/web")?;
    assert_eq!(replicas.len(), 2);
    for replica in &replicas {
        let pid = replica["status"]["pid"].as_u64().context("no pid")?;
        let memory = cgroup_file(pid, "memory", "memory.limit_in_bytes", "memory.max")?;
        assert_eq!(memory, (48 << 20).to_string());
        let share = match cgroup_file(pid, "cpu", "cpu.cfs_quota_us", "cpu.max")? {
            both if both.contains(' ') => both,
            quota => format!("{quota} {}", cgroup_file(pid, "cpu", "cpu.cfs_period_us", "cpu.max")?),
        };
        let (quota, period) = share.split_once(' ').context("no quota")?;
        assert_eq!(quota.parse::<u64>()? * 4, period.parse::<u64>()?, "{share} is not a quarter");
        assert_eq!(replica["metadata"]["labels"], serde_json::json!({ "app": "web", "tier": "front" }));
    }
    let page = SocketAddr::new(node.addresses().ipv4.into(), 8080);
    let page = node.fabric().client().in_network(|| get(page, "/", LIMIT))??;
    assert!(page.status == 200 && page.body.contains("<html"), "{page:?}");
    assert_eq!(node.hivemind_ok(&["volume", "ls", "-n", "shop", "-o", "name"])?, "volume/pages\n");

    let app = node.json(&["app", "info", "web", "-n", "shop"])?;
    assert_eq!(app["metadata"]["annotations"]["owner"], "ops");
    let info = node.hivemind_ok(&["app", "info", "web", "-n", "shop"])?;
    for line in [
        "Namespace:  shop",
        "State:      Up, 2 of 2 replicas in service",
        "Names:      web.shop.svc.hivemind.internal",
        "            web.local",
        "Ports:      8080:80/tcp",
        "Volumes:    pages:/usr/share/nginx/html",
        "Cpu:        250m",
        "Memory:     48Mi",
        "Labels:     tier=front",
    ] {
        assert!(info.lines().any(|l| l == line), "no line {line:?} in\n{info}");
    }
    Ok(())
}

#[test]
fn a_command_takes_the_place_of_the_images_own() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let running = |app: &str| node.in_replica(app, "tr '\\0' '|' < /proc/1/cmdline");
    node.hivemind_ok(&[
        "app",
        "deploy",
        "a",
        "--image",
        "busybox",
        "--command",
        "sh -c 'sleep 600; echo x'",
    ])?;
    assert_eq!(running("a")?, "sh|-c|sleep 600; echo x|");
    node.hivemind_ok(&["app", "deploy", "b", "--image", "busybox", "--", "sleep", "7 00", "--x"])
        .err()
        .context("a wrong argument of sleep was taken for good")?;
    node.hivemind_ok(&["app", "deploy", "b", "--image", "busybox", "--", "tail", "-f", "/etc/passwd"])?;
    assert_eq!(running("b")?, "tail|-f|/etc/passwd|");
    Ok(())
}

#[test]
fn a_container_runs_as_whom_and_sees_what_was_asked() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let words = "app deploy box --image busybox --user 1234:5678 --group 42 --workdir /scratch --read-only --tmpfs /scratch:size=1Mi \
                 --shm-size 2Mi --cap-drop all --cap-add net_raw --ulimit nofile=100:200 --ulimit core=0 --pids-limit 33 \
                 --hostname cube --add-host old-db:192.0.2.7 --sysctl net.core.somaxconn=321 --command tail";
    let mut words: Vec<_> = words.split_whitespace().collect();
    words.extend(["--args", "-f '/etc/passwd'"]);
    node.hivemind_ok(&words)?;
    let within = |script: &str| node.in_replica("box", script);
    assert_eq!(within("tr '\\0' '|' < /proc/1/cmdline")?, "tail|-f|/etc/passwd|");
    let status = within("cat /proc/1/status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        (field("Uid"), field("Gid")),
        ("1234 1234 1234 1234".to_owned(), "5678 5678 5678 5678".to_owned())
    );
    assert_eq!(field("Groups"), "42");
    // CAP_NET_RAW is the thirteenth bit; NoNewPrivs keeps all others away for good.
    assert_eq!((field("CapBnd"), field("NoNewPrivs")), (format!("{:016x}", 1 << 13), "1".to_owned()));
    let limits = within("cat /proc/1/limits")?;
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        (limit("Max open files"), limit("Max core file size")),
        (vec!["100".into(), "200".into()], vec!["0".into(); 2])
    );
    assert_eq!(
        within("readlink /proc/1/cwd; hostname; cat /proc/sys/net/core/somaxconn")?,
        "/scratch\ncube\n321\n"
    );
    let hosts = within("cat /etc/hosts")?;
    assert!(
        hosts.lines().any(|line| line == "192.0.2.7\told-db") && hosts.contains("\tcube box-"),
        "{hosts}"
    );
    assert_eq!(
        within("touch /etc/x 2>/dev/null || echo refused; touch /scratch/x && echo written")?,
        "refused\nwritten\n"
    );
    let sizes = within("df -k /scratch /dev/shm | awk 'NR > 1 { print $2 }'")?;
    assert_eq!(sizes, "1024\n2048\n");
    let pid = node.replicas("box")?[0]["status"]["pid"].as_u64().context("no pid")?;
    assert_eq!(cgroup_file(pid, "pids", "pids.max", "pids.max")?, "33");

    let info = node.hivemind_ok(&["app", "info", "box"])?;
    for line in [
        "Command:          tail",
        "Arguments:        -f /etc/passwd",
        "Directory:        /scratch",
        "User:             1234:5678",
        "Groups:           42",
        "In memory:        /scratch:size=1Mi",
        "Shared memory:    2Mi",
        "Root:             read-only",
        "Capabilities:     NET_RAW",
        "Limits:           nofile=100:200,core=0:0",
        "Processes:        33",
        "Host name:        cube",
        "Hosts:            192.0.2.7 old-db",
        "Kernel settings:  net.core.somaxconn=321",
    ] {
        assert!(info.lines().any(|l| l == line), "no line {line:?} in\n{info}");
    }
    Ok(())
}

#[test]
fn a_container_is_asked_to_end_by_its_own_signal_and_has_its_own_time_for_it() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let deploy = |app: &str, flags: &[&str], script: &str| {
        let mut words = vec!["app", "deploy", app, "--image", "busybox", "--volume", "said:/said"];
        words.extend_from_slice(flags);
        words.extend(["--", "sh", "-c", script]);
        node.hivemind_ok(&words)
    };
    // The first process ends by no signal that it has not asked for.
    let polite = "trap 'echo asked >> /said/polite; exit' USR1; while :; do sleep 0.1; done";
    deploy("polite", &["--stop-signal", "usr1"], polite)?;
    // It would be done in less than the usual time.
    let slow = "trap 'sleep 8; echo late >> /said/slow; exit' TERM; echo here > /said/slow; while :; do sleep 0.1; done";
    deploy("slow", &["--stop-timeout", "1s"], slow)?;
    eventually(LIMIT, "the slow one to be here", || {
        ensure!(node.in_replica("slow", "cat /said/slow")? == "here\n", "it is not");
        Ok(())
    })?;
    node.hivemind_ok(&["app", "delete", "polite", "slow"])?;
    deploy("reader", &[], "sleep 1000")?;
    assert_eq!(node.in_replica("reader", "cat /said/polite /said/slow")?, "asked\nhere\n");
    Ok(())
}

#[test]
fn what_a_container_may_not_be_is_told_all_at_once_and_nothing_is_made() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let words = "app deploy box --image busybox --cap-add SYS_FLY --sysctl kernel.panic=1 --tmpfs / --ulimit nofile=2:1";
    let answer = node.hivemind(&words.split_whitespace().collect::<Vec<_>>())?;
    assert_eq!(answer.status.code(), Some(2), "{answer:?}");
    let stderr = String::from_utf8_lossy(&answer.stderr).into_owned();
    for told in ["--cap-add SYS_FLY", "--sysctl kernel.panic", "--tmpfs /", "--ulimit nofile=2:1"] {
        assert!(stderr.contains(told), "nothing of {told} in\n{stderr}");
    }
    // The machine says how much a process may open; nobody else can know.
    let much = ["app", "deploy", "box", "--image", "busybox", "--ulimit", "nofile=-1", "--", "sleep", "1000"];
    let answer = node.hivemind(&much)?;
    let stderr = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert_eq!(answer.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("descriptors at most on this machine"), "{stderr}");
    assert_eq!(node.hivemind_ok(&["app", "ls", "-o", "name"])?, "");
    Ok(())
}

#[test]
fn apps_of_one_name_in_two_namespaces_are_apart() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for namespace in ["blue", "green"] {
        node.hivemind_ok(&["app", "deploy", "web", "--image", "nginx", "-n", namespace, "--env", "A=1"])?;
    }
    let everywhere = node.hivemind_ok(&["app", "ls", "-A"])?;
    let rows: Vec<_> = everywhere.lines().map(|l| l.split_whitespace().take(2).collect::<Vec<_>>()).collect();
    assert_eq!(rows, [["NAMESPACE", "NAME"], ["blue", "web"], ["green", "web"]]);
    assert_eq!(node.hivemind_ok(&["app", "ls", "-n", "blue", "-o", "name"])?, "app/web\n");
    assert_eq!(node.hivemind_ok(&["app", "ls", "-o", "name"])?, "");
    assert_ne!(names(&node, "blue/web")?, names(&node, "green/web")?);
    node.refused(&["app", "info", "web"], "HM0201", 3)?;
    node.hivemind_ok(&["app", "delete", "web", "-n", "blue"])?;
    node.refused(&["app", "info", "web", "-n", "blue"], "HM0201", 3)?;
    assert_eq!(node.ready_replicas("green/web")?, 1);
    Ok(())
}

#[test]
fn an_app_is_scaled_to_five_to_none_and_back_by_its_name_and_by_its_id() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&["app", "deploy", "web", "--image", "nginx"])?;
    let app = node.json(&["app", "info", "web"])?;
    let (id, uid) = (text(&app, "/metadata/id")?, text(&app, "/metadata/uid")?);
    assert!(id.starts_with("app-"), "{id}");
    let first = names(&node, "web")?;

    let said = node.hivemind_ok(&["app", "scale", "--name", id, "--replicas", "5"])?;
    assert!(said.starts_with("app/web is up with 5 replicas\n"), "{said}");
    assert_eq!(node.ready_replicas("web")?, 5);
    assert!(names(&node, "web")?.contains(&first[0]), "the first replica was replaced");

    let said = node.hivemind_ok(&["app", "scale", uid, "--replicas", "0"])?;
    assert!(said.starts_with("app/web is up with 0 replicas\n"), "{said}");
    assert_eq!(node.json(&["app", "info", id])?["status"]["readyReplicas"], 0);
    eventually(LIMIT, "all replicas to be gone", || {
        ensure!(node.replicas("web")?.is_empty(), "some are left");
        Ok::<_, anyhow::Error>(())
    })?;
    assert!(node.hivemind_ok(&["app", "ls"])?.contains("Stopped"));
    let left: Vec<_> = node.left()?.into_iter().filter(|l| l.starts_with("container ")).collect();
    assert!(left.is_empty(), "{left:?}");

    node.hivemind_ok(&["app", "scale", "web", "--replicas", "2"])?;
    assert_eq!(node.ready_replicas("web")?, 2);
    assert_eq!(node.json(&["app", "info", "web"])?["metadata"]["uid"], uid);
    node.hivemind_ok(&["app", "delete", id])?;
    node.refused(&["app", "info", "web"], "HM0201", 3)?;
    Ok(())
}

#[test]
fn an_app_is_shown_in_every_format() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    assert_eq!(node.hivemind_ok(&["app", "ls"])?, "");
    assert_eq!(node.json(&["app", "ls"])?["items"], serde_json::json!([]));
    node.hivemind_ok(&[
        "app",
        "deploy",
        "web",
        "--image",
        "nginx",
        "--port",
        "8080:80",
        "--service",
        "w.local",
    ])?;
    let app = node.json(&["app", "info", "web"])?;
    let (id, v4) = (text(&app, "/metadata/id")?, text(&app, "/status/addresses/0")?);
    let (v6, replica) = (text(&app, "/status/addresses/1")?, text(&app, "/replicas/0/metadata/name")?);
    let shown = |words: &[&str]| -> Result<Vec<Vec<String>>> {
        let all = node.hivemind_ok(words)?;
        Ok(all.lines().map(|l| l.split_whitespace().map(str::to_owned).collect()).collect())
    };

    let table = shown(&["app", "ls"])?;
    assert_eq!(table[0], ["NAME", "IMAGE", "READY", "STATE", "ADDRESS", "AGE"]);
    assert_eq!(table[1][..5], ["web", "nginx", "1/1", "Up", v4]);
    let wide = shown(&["app", "ls", "-o", "wide"])?;
    assert_eq!(wide[0][6..], ["IPV6", "HOSTNAMES", "PORTS", "ID"]);
    assert_eq!(wide[1][6..], [v6, "w.local", "8080:80/tcp", id]);
    assert_eq!(node.hivemind_ok(&["app", "ls", "-o", "name"])?, "app/web\n");
    assert_eq!(node.json(&["app", "ls"])?["items"][0]["metadata"], app["metadata"]);
    let yaml = node.hivemind_ok(&["app", "ls", "-o", "yaml"])?;
    assert!(yaml.lines().any(|l| l.trim() == format!("id: {id}")), "{yaml}");

    assert_eq!(node.hivemind_ok(&["app", "info", "web", "-o", "name"])?, "app/web\n");
    let yaml = node.hivemind_ok(&["app", "info", "web", "-o", "yaml"])?;
    let head = "apiVersion: hivemind/v1\nkind: App\nmetadata:\n";
    assert!(yaml.starts_with(head) && yaml.contains(&format!("name: {replica}\n")), "{yaml}");
    let wide = node.hivemind_ok(&["app", "info", "web", "-o", "wide"])?;
    let pid = app.pointer("/replicas/0/status/pid").context("no pid")?.to_string();
    let row = wide.lines().find(|l| l.starts_with(replica)).context("the replica has no row")?;
    assert!(row.split_whitespace().any(|word| word == pid), "{row}");

    let services = shown(&["service", "ls"])?;
    assert_eq!(services[1][..5], ["web", v4, "w.local", "8080:80/tcp", "1"]);
    let nodes = shown(&["node", "ls"])?;
    assert_eq!(nodes[1][0], node.name());
    Ok(())
}

#[test]
fn a_watch_tells_every_change() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let log = |name: &str| node.sandbox().directory().join(name);
    let read = |name: &str| fs::read_to_string(node.sandbox().outside(&log(name))).unwrap_or_default();
    let _json = node.hivemind_spawn(&["app", "ls", "--watch", "-o", "json"], &log("json"))?;
    let _table = node.hivemind_spawn(&["app", "ls", "--watch"], &log("table"))?;
    // The header tells that the watch has begun.
    eventually(LIMIT, "the watch's header", || {
        ensure!(read("table").starts_with("EVENT"), "{}", read("table"));
        Ok::<_, anyhow::Error>(())
    })?;
    node.hivemind_ok(&["app", "deploy", "web", "--image", "nginx"])?;
    let _replicas =
        node.hivemind_spawn(&["app", "info", "web", "--watch", "-o", "json"], &log("replicas"))?;
    eventually(LIMIT, "the replica in the watch", || {
        ensure!(read("replicas").contains("\"ready\":true"), "{}", read("replicas"));
        Ok::<_, anyhow::Error>(())
    })?;
    node.hivemind_ok(&["app", "scale", "web", "--replicas", "2"])?;
    node.hivemind_ok(&["app", "delete", "web"])?;
    eventually(LIMIT, "the deletion in the watches", || {
        for name in ["json", "table", "replicas"] {
            ensure!(read(name).contains("deleted"), "{name}: {}", read(name));
        }
        Ok::<_, anyhow::Error>(())
    })?;
    let events: Vec<Value> =
        read("json").lines().map(serde_json::from_str).collect::<Result<_, _>>().context("not JSON")?;
    assert!(events.iter().all(|e| e["object"]["metadata"]["name"] == "web"), "{events:?}");
    assert_eq!(events[0]["type"], "added");
    assert_eq!(events.last().context("no event")?["type"], "deleted");
    for ready in [1, 2] {
        assert!(events.iter().any(|e| e["object"]["status"]["readyReplicas"] == ready), "{events:?}");
    }
    let replicas: Vec<Value> =
        read("replicas").lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let gone: Vec<_> = replicas.iter().filter(|e| e["type"] == "deleted").collect();
    assert_eq!(gone.len(), 2, "{replicas:?}");
    Ok(())
}

#[test]
fn a_restart_replaces_every_replica_and_no_request_fails() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&["app", "deploy", "web", "--image", "nginx", "--replicas", "3"])?;
    let before = names(&node, "web")?;
    let app = node.json(&["app", "info", "web"])?;
    let service = SocketAddr::new(text(&app, "/status/addresses/0")?.parse()?, 80);
    let traffic = Traffic::start(&node, service, 0, None)?;
    let said = node.hivemind_ok(&["app", "restart", "web"])?;
    let report = traffic.stop()?;
    assert!(said.starts_with("app/web is up with 3 replicas\n"), "{said}");
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert!(report.new_connections > 20, "there was hardly any traffic: {report:?}");
    let after = eventually(LIMIT, "the old replicas to be gone", || {
        let after = names(&node, "web")?;
        ensure!(after.len() == 3, "{after:?}");
        Ok::<_, anyhow::Error>(after)
    })?;
    assert!(after.iter().all(|name| !before.contains(name)), "{before:?} {after:?}");
    Ok(())
}

#[test]
fn what_was_deleted_frees_its_name_hostname_and_port() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let web = ["app", "deploy", "web", "--image", "nginx", "--service", "web.local", "--port", "8080:80"];
    node.hivemind_ok(&web)?;
    node.hivemind_ok(&["app", "deploy", "cache", "--image", "redis", "--replicas", "2"])?;
    // One that does not exist keeps the others.
    node.refused(&["app", "delete", "web", "nosuch"], "HM0201", 3)?;
    assert_eq!(node.ready_replicas("web")?, 1);

    let said = node.hivemind_ok(&["app", "delete", "web", "app/cache"])?;
    let mut lines: Vec<_> = said.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["app/cache deleted", "app/web deleted"]);
    assert_eq!(node.hivemind_ok(&["app", "ls", "-o", "name"])?, "");
    assert_eq!(node.hivemind_ok(&["service", "ls", "-o", "name"])?, "");
    let left = node.left()?;
    let replicas_left =
        |l: &&String| l.starts_with("container ") || l.starts_with("link hm") || l.contains("/netns/");
    let left: Vec<_> = left.iter().filter(replicas_left).collect();
    assert!(left.is_empty(), "{left:?}");

    node.hivemind_ok(&web)?;
    let page = SocketAddr::new(node.addresses().ipv4.into(), 8080);
    let page = node.fabric().client().in_network(|| get(page, "/", LIMIT))??;
    assert_eq!(page.status, 200);
    let said = node.hivemind_ok(&["app", "delete", "web", "--detach"])?;
    assert_eq!(said, "app/web is being deleted\n");
    eventually(LIMIT, "the app to be gone", || {
        ensure!(node.hivemind_ok(&["app", "ls", "-o", "name"])?.is_empty(), "it is there");
        Ok::<_, anyhow::Error>(())
    })
}

#[test]
fn a_dry_run_only_tells_and_a_detached_deployment_does_not_wait() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let web = ["app", "deploy", "web", "--image", "nginx", "--service", "web.local", "--volume", "v:/data"];
    let with = |flag: &'static str| web.iter().copied().chain([flag]).collect::<Vec<_>>();
    let before = node.json(&["status"])?["storeRevision"].clone();
    assert_eq!(node.hivemind_ok(&with("--dry-run"))?, "app/web could be deployed\n");
    assert_eq!(node.json(&with("--dry-run"))?["spec"]["hostnames"][0], "web.local");
    assert_eq!(node.json(&["status"])?["storeRevision"], before);
    for kind in ["app", "service", "volume"] {
        assert_eq!(node.hivemind_ok(&[kind, "ls", "-o", "name"])?, "");
    }
    assert_eq!(node.hivemind_ok(&with("--detach"))?, "app/web created\n");
    node.refused(&with("--dry-run"), "HM0301", 4)?;
    eventually(LIMIT, "the app to be up", || {
        ensure!(node.ready_replicas("web")? == 1, "it is not");
        Ok::<_, anyhow::Error>(())
    })
}

#[test]
fn an_app_that_ends_at_once_is_told_of_and_taken_back() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let script = "echo about to fail; echo no disk >&2; exit 3";
    let words = ["app", "deploy", "ends", "--image", "busybox", "--", "sh", "-c", script];
    let said = node.refused(&words, "HM0408", 5)?;
    assert!(said.contains("the container ended with code 3"), "{said}");
    assert!(said.contains("    about to fail\n") && said.contains("    no disk\n"), "{said}");
    assert_eq!(node.json(&["app", "ls"])?["items"], serde_json::json!([]));
    let left = node.left()?;
    assert!(!left.iter().any(|l| l.starts_with("container ") || l.contains("/netns/")), "{left:?}");

    let mut keep = words.to_vec();
    keep.insert(3, "--keep");
    let said = node.refused(&keep, "HM0408", 5)?;
    assert!(said.contains("left in place: hivemind app info ends"), "{said}");
    eventually(LIMIT, "three restarts", || {
        let replica = node.replica("ends")?;
        let status = &replica["status"];
        ensure!(status["restarts"].as_u64() >= Some(3), "{status}");
        ensure!(status["phase"] == "Backoff", "{status}");
        Ok::<_, anyhow::Error>(())
    })?;
    let info = node.hivemind_ok(&["app", "info", "ends"])?;
    assert!(info.contains("Backoff HM0408"), "{info}");
    assert!(info.contains("State:      HM0408, 0 of 1 replicas in service"), "{info}");
    assert!(info.contains("last exit 3, "), "{info}");
    assert!(node.hivemind_ok(&["app", "ls"])?.contains("HM0408"));
    let said = node.refused(&["app", "exec", "ends", "--", "true"], "HM0206", 3)?;
    assert!(said.contains("no replica of ends runs"), "{said}");
    node.hivemind_ok(&["app", "delete", "ends"])?;
    Ok(())
}
