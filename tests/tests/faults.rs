//! Faults of the machine and of its configuration: each is told with a code, a hint and an exit code, and nothing
//! half-made stays.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Containerd, Node, NodeOptions, Traffic, eventually, get, hivemind_binary};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout))
}

/// A refusal has its code, says what is wrong and what to do, and ends with the exit code of its kind.
#[track_caller]
fn assert_refused(output: &Output, code: &str, exit: i32, words: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(exit), "{said}");
    assert!(said.contains(&format!("error[{code}]")), "not {code}: {said}");
    assert!(said.contains("hint: "), "without a hint: {said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not told: {said}");
    }
}

/// A node on which no daemon runs yet.
fn node(containerd: Containerd) -> Result<Node> {
    Node::start(NodeOptions { containerd, ..NodeOptions::default() })
}

/// A daemon that could not start left nothing that a teardown does not remove.
fn assert_clean(node: &Node) -> Result<()> {
    node.daemon_teardown()?;
    node.assert_nothing_left()
}

/// Writes the daemon's configuration file.
fn configure(node: &Node, text: &str) -> Result<()> {
    let file = node.sandbox().directory().join("config.toml");
    Ok(fs::write(node.sandbox().outside(&file), text)?)
}

/// A directory inside that holds the programs `names` and no others, for a PATH.
fn only(node: &Node, names: &[&str]) -> Result<PathBuf> {
    let directory = node.sandbox().directory().join("only");
    let outside = node.sandbox().outside(&directory);
    fs::create_dir_all(&outside)?;
    for name in names {
        let found = node.sandbox().check(&["sh", "-c", "command -v \"$1\"", "sh", name])?;
        symlink(found.trim(), outside.join(name))?;
    }
    Ok(directory)
}

#[test]
fn a_second_daemon_on_the_same_data_directory_refuses_and_the_first_goes_on() -> Result<()> {
    let node = node(Containerd::Running)?;
    node.daemon_start()?;
    let directory = node.sandbox().directory().join("data").display().to_string();
    assert_refused(&node.daemon_run(&[], &[])?, "HM0308", 4, &["another daemon", &directory, "--data-dir"]);
    node.hivemind_ok(&["status"])?;
    assert_eq!(node.json(&["status"])?["pid"], node.daemon_pid()?);

    node.daemon_term()?;
    assert_clean(&node)
}

#[test]
fn a_port_of_the_daemons_that_is_taken_is_told_with_its_flag() -> Result<()> {
    let node = node(Containerd::Running)?;
    let taken = node.sandbox().in_network(|| TcpListener::bind("127.0.0.1:4483"))??;
    assert_refused(&node.daemon_run(&[], &[])?, "HM0510", 6, &["127.0.0.1:4483", "--web-port"]);
    let other = node.daemon_run(&["env", "HIVEMIND_WEB_PORT=99999"], &[])?;
    assert_eq!(other.status.code(), Some(2), "{}", said(&other));
    drop(taken);
    node.daemon_start()?;
    node.daemon_term()?;
    assert_clean(&node)
}

#[test]
fn a_configuration_file_is_judged_with_its_lines() -> Result<()> {
    let node = node(Containerd::StartedByDaemon)?;
    let file = node.sandbox().directory().join("config.toml").display().to_string();
    configure(&node, "web-port = 4483\nweb-prot = 3000\n")?;
    assert_refused(&node.daemon_run(&[], &[])?, "HM0109", 2, &[&file, "line 2", "web-prot"]);
    configure(&node, "\nweb-port = \"many\"\n")?;
    assert_refused(&node.daemon_run(&[], &[])?, "HM0109", 2, &[&file, "line 2", "web-port"]);
    configure(&node, "web-port = [\n")?;
    assert_refused(&node.daemon_run(&[], &[])?, "HM0109", 2, &[&file, "line"]);
    configure(&node, "mtu = 5\nnode-name = \"Not A Name\"\n")?;
    let unfit = node.daemon_run(&["env", "HIVEMIND_SERVICE_RANGE=10.204.0.0/30"], &[])?;
    assert_refused(&unfit, "HM0109", 2, &["--mtu", "1280", "--service-range"]);
    // `--config` of the harness comes first; a missing file that was named is a fault.
    fs::remove_file(node.sandbox().outside(Path::new(&file)))?;
    assert_refused(&node.daemon_run(&[], &[])?, "HM0109", 2, &[&file]);
    node.assert_nothing_left()
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_configuration_file() -> Result<()> {
    let node = Node::start(NodeOptions {
        daemon_flags: vec!["--cluster-domain".into(), "flag.internal".into()],
        ..NodeOptions::default()
    })?;
    configure(
        &node,
        "cluster-domain = \"file.internal\"\nservice-range = \"10.99.0.0/16\"\nweb-port = 5001\n",
    )?;
    let mut command = node.sandbox().command("env");
    command
        .args(["HIVEMIND_CLUSTER_DOMAIN=environment.internal", "HIVEMIND_WEB_PORT=5002"])
        .arg(hivemind_binary()?)
        .arg("daemon")
        .args(node.daemon_flags());
    let log = node.sandbox().directory().join("daemon.log");
    let mut daemon = node.sandbox().spawn_command(command, Some(&log))?;
    let status = daemon.until_ready(LIMIT, "the daemon", || node.json(&["status"]))?;
    assert_eq!(status["clusterDomain"], "flag.internal", "the flag must win");
    let listens = |port: u16| -> Result<bool> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        node.sandbox().in_network(|| std::net::TcpStream::connect(address).is_ok())
    };
    assert!(listens(5002)? && !listens(5001)? && !listens(4483)?, "the environment must win over the file");
    let imported = node.hivemind_ok(&[
        "image",
        "import",
        &hivemind_tests::image_archive("busybox")?.display().to_string(),
    ])?;
    assert!(imported.contains("busybox"), "{imported}");
    node.hivemind_ok(&["app", "deploy", "a", "--image", "busybox", "--command", "sleep 3600"])?;
    let service = node.json(&["service", "info", "a"])?;
    let address = service["spec"]["ipv4"].as_str().context("no address")?;
    assert!(address.starts_with("10.99."), "the file must win over the default: {address}");
    let resolver = node.in_replica("a", "cat /etc/resolv.conf")?;
    assert!(resolver.contains("search default.svc.flag.internal"), "{resolver}");
    daemon.signal(Signal::SIGTERM)?;
    daemon.wait(LIMIT)?;
    assert_clean(&node)
}

#[test]
fn a_machine_without_containerd_is_told_what_to_install() -> Result<()> {
    let node = node(Containerd::StartedByDaemon)?;
    let path = format!("PATH={}", only(&node, &["ip", "env", "sh"])?.display());
    let without = node.daemon_run(&["env", &path], &[])?;
    assert_refused(&without, "HM0501", 6, &["containerd", "install", "--containerd-socket"]);

    let doctor = |before: &[&str]| -> Result<Output> {
        let mut command = node.sandbox().command("env");
        let at = |part: &str| node.sandbox().directory().join(part).display().to_string();
        command.args(before).arg(hivemind_binary()?).arg("doctor");
        command.args(["--data-dir", &at("data"), "--containerd-socket", &at("containerd/containerd.sock")]);
        Ok(command.output()?)
    };
    let good = doctor(&[])?;
    assert_eq!(good.status.code(), Some(0), "{}", said(&good));
    assert!(said(&good).contains("This machine has all that Hivemind needs"), "{}", said(&good));
    let broken = doctor(&[&path])?;
    assert_eq!(broken.status.code(), Some(6), "{}", said(&broken));
    let text = said(&broken);
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("fail")).collect();
    assert!(lines.iter().any(|line| line.contains("containerd")), "{text}");
    assert!(text.contains("apt install"), "how to get it is not told: {text}");
    assert_clean(&node)
}

#[test]
fn a_daemon_without_privileges_says_which_it_needs() -> Result<()> {
    let node = node(Containerd::Running)?;
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    assert_refused(&node.daemon_run(&nobody, &[])?, "HM0505", 6, &["root"]);
    let text = said(&node.daemon_run(&nobody, &[])?);
    assert!(!text.contains("panicked"), "{text}");

    // Root, but as in a container that was not given the capabilities.
    let confined =
        ["setpriv", "--bounding-set=-bpf,-sys_admin,-perfmon", "--inh-caps=-bpf,-sys_admin,-perfmon"];
    assert_refused(&node.daemon_run(&confined, &[])?, "HM0505", 6, &["CAP_SYS_ADMIN"]);
    let confined = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    assert_refused(&node.daemon_run(&confined, &[])?, "HM0505", 6, &["CAP_NET_ADMIN"]);
    assert_clean(&node)
}

#[test]
fn a_machine_without_cgroup_v2_is_told_how_to_mount_it() -> Result<()> {
    let node = node(Containerd::Running)?;
    let directory = node.sandbox().directory().join("no-cgroup");
    fs::create_dir(node.sandbox().outside(&directory))?;
    // A flag may be given once: this takes the place of the harness's own.
    let flags = node.daemon_flags();
    let mut replaced = Vec::new();
    let mut words = flags.iter();
    while let Some(word) = words.next() {
        replaced.push(word.clone());
        if word == "--cgroup-root" {
            words.next();
            replaced.push(directory.display().to_string());
        }
    }
    let mut command = node.sandbox().command("timeout");
    let output = command.args(["30"]).arg(hivemind_binary()?).arg("daemon").args(replaced).output()?;
    assert_refused(&output, "HM0503", 6, &["cgroup", "mount -t cgroup2", "--cgroup-root"]);
    assert_clean(&node)
}

/// Fills the file system that `directory`, a path inside, is on; returns the file that does it.
fn fill(node: &Node, directory: &str) -> Result<PathBuf> {
    let file = node.sandbox().directory().join(directory).join("filling");
    let script =
        "dd if=/dev/zero of=$1 bs=4096 2>/dev/null; dd if=/dev/zero of=$1.more bs=1 2>/dev/null; true";
    node.sandbox().check(&["sh", "-c", script, "sh", &file.display().to_string()])?;
    Ok(file)
}

fn make_room(node: &Node, file: &Path) -> Result<()> {
    let name = file.display().to_string();
    node.sandbox().check(&["rm", "-f", &name, &format!("{name}.more")]).map(drop)
}

fn mount_small(node: &Node, directory: &str, size: &str) -> Result<()> {
    let path = node.sandbox().directory().join(directory).display().to_string();
    let size = format!("size={size}");
    node.sandbox().check(&["mount", "-t", "tmpfs", "-o", &size, "none", &path]).map(drop)
}

#[test]
fn a_full_data_directory_refuses_changes_and_nothing_else() -> Result<()> {
    let node = node(Containerd::Running)?;
    mount_small(&node, "data", "8m")?;
    let _registry = node.registry()?;
    let filling = fill(&node, "data")?;
    assert_refused(&node.daemon_run(&[], &[])?, "HM0504", 6, &["full", "--data-dir"]);
    make_room(&node, &filling)?;
    node.daemon_start()?;
    let web = ["app", "deploy", "web", "--image", "nginx:latest", "--replicas", "2", "-p", "8080:80"];
    node.hivemind_ok(&web)?;
    let published = SocketAddr::new(node.addresses().ipv4.into(), 8080);
    let traffic = Traffic::start_outside(&node, published, 1)?;

    let filling = fill(&node, "data")?;
    // What room the store's file itself still has is soon used up, by labels that are longer every time.
    let mut length = 0;
    eventually(LIMIT, "a label to be refused", || {
        length = (length + 1) % 63;
        let label = format!("filling=a{}", "b".repeat(length));
        let output = node.hivemind(&["node", "label", node.name(), &label])?;
        ensure!(!output.status.success(), "it was accepted");
        assert_refused(&output, "HM0504", 6, &["no space", "data directory"]);
        Ok::<_, anyhow::Error>(())
    })?;
    let refused = node.hivemind(&["app", "deploy", "more", "--image", "nginx:latest", "--timeout", "5s"])?;
    assert_refused(&refused, "HM0504", 6, &["no space", "data directory"]);
    let apps = node.json(&["app", "ls"])?;
    assert_eq!(names(&apps)?, ["web"], "something half-made");
    node.hivemind_ok(&["app", "info", "web"])?;
    // Neither a new daemon nor a container that has to be started again needs room.
    node.daemon_kill9()?;
    node.daemon_start()?;
    let report = traffic.stop()?;
    assert_eq!(report.failures, Vec::<String>::new(), "traffic must go on");
    assert!(report.new_connections > 20, "{report:?}");
    let killed = node.replicas("web")?.swap_remove(0);
    let pid = killed["status"]["pid"].as_i64().context("no pid")?;
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
    let killed = killed["metadata"]["name"].as_str().context("no name")?;
    eventually(LIMIT, "the killed container to answer again", || {
        let answers = node.fabric().client().in_network(|| get(published, "/hostname", LIMIT))??;
        ensure!(answers.body.trim() == killed, "another answers: {answers:?}");
        Ok::<_, anyhow::Error>(())
    })?;
    make_room(&node, &filling)?;
    eventually(LIMIT, "the restart to be written down", || {
        let restarts =
            node.replicas("web")?.iter().filter_map(|r| r["status"]["restarts"].as_u64()).sum::<u64>();
        ensure!(restarts == 1 && node.ready_replicas("web")? == 2, "{restarts} restarts");
        Ok::<_, anyhow::Error>(())
    })?;
    node.hivemind_ok(&["app", "deploy", "more", "--image", "nginx:latest"])?;
    node.hivemind_ok(&["app", "scale", "web", "--replicas", "1"])?;
    node.daemon_term()?;
    node.daemon_teardown()
}

fn names(list: &Value) -> Result<Vec<&str>> {
    let items = list["items"].as_array().context("no list")?;
    Ok(items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect())
}

#[test]
fn a_full_disk_of_containerds_fails_the_deployment_and_leaves_nothing_of_it() -> Result<()> {
    let node = node(Containerd::Running)?;
    node.containerd_kill9()?;
    node.sandbox().check(&[
        "rm",
        "-rf",
        &node.sandbox().directory().join("containerd/root").display().to_string(),
    ])?;
    fs::create_dir(node.sandbox().outside(&node.sandbox().directory().join("containerd/root")))?;
    mount_small(&node, "containerd/root", "24m")?;
    node.containerd_start()?;
    let _registry = node.registry()?;
    node.daemon_start()?;
    let filling = fill(&node, "containerd/root")?;
    let refused = node.hivemind(&["app", "deploy", "web", "--image", "nginx:latest", "--timeout", "5s"])?;
    assert_refused(&refused, "HM0504", 6, &["room"]);
    assert_eq!(names(&node.json(&["app", "ls"])?)?, Vec::<&str>::new());
    make_room(&node, &filling)?;
    node.hivemind_ok(&["app", "deploy", "small", "--image", "busybox", "--command", "sleep 3600"])?;
    node.hivemind_ok(&["app", "delete", "small"])?;
    node.daemon_term()?;
    node.daemon_teardown()
}

#[test]
fn the_status_tells_how_the_daemon_and_its_machine_are() -> Result<()> {
    let node = node(Containerd::Running)?;
    let registry = node.registry()?;
    node.daemon_start()?;
    node.hivemind_ok(&["app", "deploy", "web", "--image", "nginx:latest", "--replicas", "2"])?;
    let status = node.json(&["status"])?;
    assert_eq!(status["pid"], node.daemon_pid()?);
    assert_eq!(status["node"], node.name());
    assert_eq!(
        (&status["apps"], &status["replicas"], &status["readyReplicas"]),
        (&1.into(), &2.into(), &2.into())
    );
    assert!(
        status["containerd"].as_str().is_some_and(|version| version.starts_with(char::is_numeric)),
        "{status}"
    );
    assert!(status["storeRevision"].as_u64().is_some_and(|revision| revision > 1), "{status}");
    let maps = status["maps"].as_array().context("no maps")?;
    for map in ["conntrack_v4", "conntrack_v6", "service_v4", "backend_v4"] {
        let map =
            maps.iter().find(|m| m["name"] == map).with_context(|| format!("no map {map}: {maps:?}"))?;
        assert!(map["capacity"].as_u64() > map["entries"].as_u64(), "{map}");
    }
    let text = node.hivemind_ok(&["status"])?;
    let pid = node.daemon_pid()?.to_string();
    for expected in [node.name(), &pid, "2 ready of 2", "hivemind.internal", "conntrack_v4"] {
        assert!(text.contains(expected), "{expected} is missing from:\n{text}");
    }
    assert_eq!(node.hivemind_ok(&["status", "-o", "name"])?, format!("node/{}\n", node.name()));
    node.daemon_term()?;
    node.fd_store().clear();
    let silent = node.hivemind(&["status"])?;
    assert_refused(&silent, "HM0601", 7, &["daemon"]);
    drop(registry);
    assert_clean(&node)
}
