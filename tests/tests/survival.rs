//! What goes on while a part of Hivemind, or all of it, is dead, and what a new daemon makes of it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hivemind_tests::{
    Background, Containerd, Node, NodeOptions, Registry, Traffic, eventually, get, get_unix, hivemind_binary,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

/// How soon a container that was killed is back in its service.
const BACK_LIMIT: Duration = Duration::from_secs(2);

/// How long traffic is watched after the last thing that could have harmed it.
const STRETCH: Duration = Duration::from_millis(1_000);

fn node_with(containerd: Containerd) -> Result<(Node, Registry)> {
    let node = Node::start(NodeOptions { containerd, ..NodeOptions::default() })?;
    let registry = node.registry()?;
    node.daemon_start()?;
    Ok((node, registry))
}

fn deploy(node: &Node, name: &str, image: &str, further: &[&str]) -> Result<()> {
    let mut words = vec!["app", "deploy", name, "--image", image];
    words.extend(further);
    node.hivemind_ok(&words).map(drop)
}

fn service(node: &Node, name: &str) -> Result<[IpAddr; 2]> {
    let service = node.json(&["service", "info", name])?;
    let address = |family: &str| -> Result<IpAddr> {
        Ok(service["spec"][family].as_str().context("the service has no address")?.parse()?)
    };
    Ok([address("ipv4")?, address("ipv6")?])
}

fn pid_of(replica: &Value) -> Result<i32> {
    let pid = replica["status"]["pid"].as_i64().with_context(|| format!("no pid in {replica}"))?;
    Ok(i32::try_from(pid)?)
}

fn signal(pid: i32, signal: Signal) -> Result<()> {
    kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal} to {pid}"))
}

/// Waits until an app has `count` replicas, all of them ready, and its service as many endpoints.
fn until_up(node: &Node, app: &str, count: usize, limit: Duration) -> Result<()> {
    eventually(limit, &format!("{app} to be up with {count}"), || {
        let ready = node.ready_replicas(app)?;
        ensure!(ready == count, "{ready} replicas");
        let service = node.json(&["service", "info", app])?;
        let endpoints = service["status"]["endpoints"].as_array().map_or(0, Vec::len);
        ensure!(endpoints == count, "{endpoints} endpoints");
        Ok(())
    })
}

fn restarts(node: &Node, app: &str) -> Result<u64> {
    Ok(node.replicas(app)?.iter().filter_map(|replica| replica["status"]["restarts"].as_u64()).sum())
}

/// Connections of every kind to an app `web` that publishes 8080, from an app `client`.
struct AllTraffic {
    ways: Vec<(&'static str, Traffic)>,
}

impl AllTraffic {
    fn start(node: &Node) -> Result<Self> {
        let client = node.replica("client")?;
        let id = client["metadata"]["id"].as_str().context("no id")?;
        let [v4, v6] = service(node, "web")?.map(|ip| SocketAddr::new(ip, 80));
        let own = node.addresses();
        let [published4, published6] =
            [own.ipv4.into(), IpAddr::from(own.ipv6)].map(|ip| SocketAddr::new(ip, 8080));
        let ways = vec![
            ("from the node, IPv4", Traffic::start(node, v4, 1, None)?),
            ("from the node, IPv6", Traffic::start(node, v6, 1, None)?),
            ("from a replica, IPv4", Traffic::start(node, v4, 1, Some(id))?),
            ("from a replica, IPv6", Traffic::start(node, v6, 1, Some(id))?),
            ("from outside, IPv4", Traffic::start_outside(node, published4, 1)?),
            ("from outside, IPv6", Traffic::start_outside(node, published6, 1)?),
        ];
        Ok(Self { ways })
    }

    /// Ends all of it a little later; none may have failed, and there must have been some.
    fn assert_unharmed(self) -> Result<()> {
        std::thread::sleep(STRETCH);
        for (way, traffic) in self.ways {
            let report = traffic.stop()?;
            ensure!(report.failures.is_empty(), "{way}: {:#?}", report.failures);
            ensure!(
                report.long_requests > 10 && report.new_connections > 20,
                "{way}: hardly any traffic: {report:?}"
            );
        }
        Ok(())
    }
}

fn deploy_web_and_client(node: &Node, replicas: &str) -> Result<()> {
    deploy(node, "web", "nginx:latest", &["--replicas", replicas, "-p", "8080:80"])?;
    node.deploy_waiting("client", &[])
}

fn store_revision(node: &Node) -> Result<u64> {
    node.json(&["status"])?["storeRevision"].as_u64().context("no revision")
}

/// Waits until something serves the published port, however often it is asked in between.
fn published_answers(node: &Node, times: usize) -> Result<()> {
    let target = SocketAddr::new(node.addresses().ipv4.into(), 8080);
    for _ in 0..times {
        let response = node.fabric().client().in_network(|| get(target, "/", Duration::from_secs(5)))??;
        ensure!(response.status == 200, "{response:?}");
    }
    Ok(())
}

#[test]
fn nothing_fails_when_the_daemon_is_killed_and_ended_again_and_again() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    deploy_web_and_client(&node, "2")?;
    let pids: Vec<_> = node.replicas("web")?.iter().map(pid_of).collect::<Result<_>>()?;
    let traffic = AllTraffic::start(&node)?;
    let mut revision = store_revision(&node)?;
    for round in 0..3 {
        for end in [Node::daemon_kill9, Node::daemon_term] {
            end(&node)?;
            published_answers(&node, 10)?;
            node.daemon_start()?;
            until_up(&node, "web", 2, LIMIT)?;
            let now = store_revision(&node)?;
            assert!(now >= revision, "round {round}: the store went back from {revision} to {now}");
            revision = now;
        }
    }
    traffic.assert_unharmed()?;
    let after: Vec<_> = node.replicas("web")?.iter().map(pid_of).collect::<Result<_>>()?;
    assert_eq!(pids, after, "containers were started again");
    assert_eq!(restarts(&node, "web")?, 0);
    Ok(())
}

#[test]
fn a_container_that_ends_again_and_again_is_restarted_with_growing_waits() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    deploy(&node, "once", "busybox", &["--detach", "--command", "sh -c 'echo started; exit 3'"])?;
    let mut starts: Vec<(u64, Instant)> = Vec::new();
    eventually(LIMIT, "four restarts", || {
        let restarts = node.replica("once")?["status"]["restarts"].as_u64().unwrap_or(0);
        if starts.last().is_none_or(|(last, _)| *last < restarts) {
            starts.push((restarts, Instant::now()));
        }
        ensure!(restarts >= 4, "{restarts} restarts");
        Ok::<_, anyhow::Error>(())
    })?;
    let at = |restarts: u64| starts.iter().find(|(n, _)| *n >= restarts).map(|(_, at)| *at);
    let wait = |from: u64| -> Result<Duration> {
        Ok(at(from + 1).context("not seen")?.duration_since(at(from).context("not seen")?))
    };
    let (second, third) = (wait(2)?, wait(3)?);
    assert!(second >= Duration::from_millis(700), "the second wait was {second:?}");
    assert!(third > second + Duration::from_millis(500), "the waits do not grow: {second:?}, then {third:?}");
    let replica = node.replica("once")?;
    assert_eq!(replica["status"]["lastExit"]["code"], 3);
    assert_eq!(replica["status"]["problem"]["code"], "HM0408", "{replica}");
    let info = node.hivemind_ok(&["app", "info", "once"])?;
    assert!(info.contains("HM0408") && info.contains('3'), "the reason is not told:\n{info}");
    Ok(())
}

#[test]
fn a_container_or_its_shim_that_is_killed_is_back_in_its_service_at_once() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    deploy(&node, "web", "nginx:latest", &["--replicas", "2"])?;
    let parent = |pid: i32| -> Result<i32> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).context("no parent")?;
        Ok(line.trim().parse()?)
    };
    for (number, victim) in ["container", "shim"].into_iter().enumerate() {
        let replica = node.replicas("web")?.swap_remove(0);
        let pid = pid_of(&replica)?;
        let target = if victim == "shim" { parent(pid)? } else { pid };
        let began = Instant::now();
        signal(target, Signal::SIGKILL)?;
        eventually(BACK_LIMIT, &format!("the one whose {victim} was killed to be back"), || {
            let name = &replica["metadata"]["name"];
            let now = node.replicas("web")?.into_iter().find(|r| r["metadata"]["name"] == *name);
            let now = now.context("the replica is gone")?;
            ensure!(now["status"]["ready"] == true && pid_of(&now)? != pid, "{}", now["status"]);
            Ok(())
        })?;
        until_up(&node, "web", 2, BACK_LIMIT.saturating_sub(began.elapsed()))?;
        assert_eq!(restarts(&node, "web")?, number as u64 + 1, "killing a {victim}");
    }
    Ok(())
}

#[test]
fn a_container_that_ended_while_no_daemon_ran_is_back_when_one_returns() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    deploy_web_and_client(&node, "3")?;
    node.daemon_kill9()?;
    // What the daemon knew last is asked of the next one.
    node.daemon_start()?;
    let pid = pid_of(&node.replicas("web")?[0])?;
    node.daemon_term()?;
    signal(pid, Signal::SIGKILL)?;
    node.daemon_start()?;
    // Until the daemon has looked, the app is as the one before it had left it.
    eventually(LIMIT, "one container to be started again", || {
        let restarts = restarts(&node, "web")?;
        ensure!(restarts == 1, "{restarts} containers were started again");
        Ok::<_, anyhow::Error>(())
    })?;
    until_up(&node, "web", 3, LIMIT)?;
    assert_eq!(restarts(&node, "web")?, 1, "one container was started again, the others were adopted");
    assert!(node.replicas("web")?.iter().all(|replica| pid_of(replica).is_ok_and(|now| now != pid)));
    published_answers(&node, 30)
}

#[test]
fn containers_go_on_while_containerd_is_dead_and_what_is_asked_meanwhile_is_done_afterwards() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    deploy_web_and_client(&node, "2")?;
    let pids: Vec<_> = node.replicas("web")?.iter().map(pid_of).collect::<Result<_>>()?;
    let traffic = AllTraffic::start(&node)?;
    node.containerd_kill9()?;
    eventually(LIMIT, "the status to tell of containerd", || {
        let status = node.hivemind_ok(&["status"])?;
        ensure!(status.contains("HM0501") && status.contains("hint:"), "{status}");
        Ok::<_, anyhow::Error>(())
    })?;

    // A deployment with a time limit tells why nothing happens.
    let began = Instant::now();
    let refused = node.hivemind(&[
        "app",
        "deploy",
        "soon",
        "--image",
        "busybox",
        "--timeout",
        "3s",
        "--command",
        "sleep 3600",
    ])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("HM0501") && said.contains("hint:"), "{:?}: {said}", refused.status);
    assert_eq!(refused.status.code(), Some(6), "{said}");
    assert!(began.elapsed() < LIMIT, "a deployment with --timeout 3s took {:?}", began.elapsed());
    deploy(&node, "later", "busybox", &["--detach", "--command", "sleep 3600"])?;
    published_answers(&node, 20)?;

    node.containerd_start()?;
    until_up(&node, "later", 1, LIMIT)?;
    eventually(LIMIT, "the app that did not come up to be gone", || {
        let gone = node.hivemind(&["app", "info", "soon"])?;
        ensure!(gone.status.code() == Some(3), "it is still there");
        Ok::<_, anyhow::Error>(())
    })?;
    until_up(&node, "web", 2, LIMIT)?;
    traffic.assert_unharmed()?;
    let after: Vec<_> = node.replicas("web")?.iter().map(pid_of).collect::<Result<_>>()?;
    assert_eq!(pids, after, "containers were started again");
    // Afterwards all is as before: news of an end arrives, and apps come and go.
    signal(after[0], Signal::SIGKILL)?;
    eventually(BACK_LIMIT, "the killed container to be back", || {
        ensure!(restarts(&node, "web")? == 1, "not noticed");
        until_up(&node, "web", 2, Duration::ZERO)
    })?;
    node.hivemind_ok(&["app", "delete", "later"])?;
    let status = node.json(&["status"])?;
    assert!(
        status["containerd"].is_string() && status["problems"].as_array().is_none_or(Vec::is_empty),
        "{status}"
    );
    Ok(())
}

/// The process that listens at a Unix socket, by its number in the socket's peer credentials.
fn listener(node: &Node, socket: &str) -> Result<i32> {
    let path = node.sandbox().outside(&node.sandbox().directory().join(socket));
    let stream = std::os::unix::net::UnixStream::connect(path)?;
    let peer = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials)?;
    Ok(peer.pid())
}

#[test]
fn a_containerd_that_the_daemon_started_outlives_it_and_is_found_again() -> Result<()> {
    let (node, _registry) = node_with(Containerd::StartedByDaemon)?;
    deploy_web_and_client(&node, "1")?;
    let containerd = listener(&node, "run/containerd/containerd.sock")?;
    let container = pid_of(&node.replica("web")?)?;
    let traffic = AllTraffic::start(&node)?;
    for end in [Node::daemon_kill9, Node::daemon_term] {
        end(&node)?;
        published_answers(&node, 5)?;
        node.daemon_start()?;
        until_up(&node, "web", 1, LIMIT)?;
        assert_eq!(listener(&node, "run/containerd/containerd.sock")?, containerd, "another was started");
        assert_eq!(pid_of(&node.replica("web")?)?, container);
    }
    // Nobody else would start it again: when it dies, the daemon does.
    signal(containerd, Signal::SIGKILL)?;
    eventually(LIMIT, "a new containerd", || {
        let now = listener(&node, "run/containerd/containerd.sock")?;
        ensure!(now != containerd, "it is dying");
        Ok::<_, anyhow::Error>(())
    })?;
    traffic.assert_unharmed()?;
    node.hivemind_ok(&["app", "scale", "web", "--replicas", "2"])?;
    node.daemon_term()?;
    node.daemon_teardown()?;
    drop(_registry);
    node.assert_nothing_left()
}

/// How many network namespaces of replicas there are.
fn networks(node: &Node) -> usize {
    let directory = node.sandbox().outside(&node.sandbox().directory().join("run/netns"));
    fs::read_dir(directory).map_or(0, |entries| entries.count())
}

/// Starts a command that need not end, since its daemon is about to be killed.
fn begin(node: &Node, words: &[&str]) -> Result<Background> {
    let mut command = node.sandbox().command(hivemind_binary()?);
    command.args(words).env("HIVEMIND_SOCKET", node.socket());
    node.sandbox().spawn_command(command, None)
}

/// Waits closely for a moment in the daemon's work, then kills it.
fn kill_when(node: &Node, moment: &str, mut is_now: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !is_now() {
        if Instant::now() > deadline {
            bail!("the moment never came: {moment}");
        }
        std::thread::yield_now();
    }
    node.daemon_kill9()
}

#[test]
fn what_a_killed_daemon_had_begun_is_finished_by_the_next() -> Result<()> {
    let (node, registry) = Node::with_daemon()?;
    let store = node.sandbox().outside(&node.sandbox().directory().join("data/store.redb"));
    assert!(store.is_file());

    // A deployment, killed when it is acknowledged, when the first network is made, and when a container runs.
    for (number, moment) in ["acknowledged", "a network", "three networks"].into_iter().enumerate() {
        let name = format!("web{number}");
        let before = networks(&node);
        deploy(&node, &name, "nginx:latest", &["--detach", "--replicas", "3"])?;
        kill_when(&node, moment, || networks(&node) >= before + [0, 1, 3][number])?;
        node.daemon_start()?;
        until_up(&node, &name, 3, LIMIT).with_context(|| format!("killed at: {moment}"))?;
        assert_eq!(networks(&node), before + 3, "killed at: {moment}");
    }
    // Scaling, up and down.
    for (from, to) in [(3_usize, 5_usize), (5, 1)] {
        let before = networks(&node);
        let _scaling = begin(&node, &["app", "scale", "web0", "--replicas", &to.to_string()])?;
        kill_when(&node, "scaling has begun", || networks(&node) != before)?;
        node.daemon_start()?;
        until_up(&node, "web0", to, LIMIT).with_context(|| format!("killed between {from} and {to}"))?;
        eventually(LIMIT, "no network to be left over", || {
            ensure!(networks(&node) == before - from + to, "{} networks", networks(&node));
            Ok::<_, anyhow::Error>(())
        })?;
    }
    // A restart.
    let old: Vec<_> = node.replicas("web1")?.iter().map(|r| r["metadata"]["name"].clone()).collect();
    let before = networks(&node);
    let restarting = begin(&node, &["app", "restart", "web1"])?;
    kill_when(&node, "a restart has begun", || networks(&node) > before)?;
    node.daemon_start()?;
    eventually(LIMIT, "all replicas to be new", || {
        let now = node.replicas("web1")?;
        ensure!(
            now.len() == 3 && now.iter().all(|r| !old.contains(&r["metadata"]["name"])),
            "{} of them",
            now.len()
        );
        Ok::<_, anyhow::Error>(())
    })?;
    until_up(&node, "web1", 3, LIMIT)?;
    drop(restarting);
    // Deletions, killed when the first network is gone, and right after it began.
    for (name, fewer) in [("web0", 1), ("web1", 1), ("web2", 0)] {
        let before = networks(&node);
        let _deleting = begin(&node, &["app", "delete", name])?;
        kill_when(&node, "a deletion has begun", || {
            networks(&node) + fewer <= before && (fewer > 0 || is_deleting(&node, name))
        })?;
        node.daemon_start()?;
        eventually(LIMIT, &format!("{name} to be gone"), || {
            let gone = node.hivemind(&["app", "info", name])?;
            ensure!(gone.status.code() == Some(3), "it is still there");
            Ok::<_, anyhow::Error>(())
        })?;
    }
    assert_eq!(networks(&node), 0, "networks are left over");
    node.daemon_term()?;
    node.daemon_teardown()?;
    drop(registry);
    node.assert_nothing_left()
}

fn is_deleting(node: &Node, app: &str) -> bool {
    node.json(&["app", "info", app]).is_ok_and(|info| info["metadata"]["deletionTimestamp"].is_string())
        || node.hivemind(&["app", "info", app]).is_ok_and(|output| output.status.code() == Some(3))
}

/// A process of the node whose command line holds `word`.
fn process(node: &Node, word: &str) -> Result<i32> {
    let directory = node.sandbox().directory().display().to_string();
    for entry in fs::read_dir("/proc")?.flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains(word) && line.contains(&directory) {
            return Ok(entry.file_name().to_string_lossy().parse()?);
        }
    }
    bail!("no process of {directory} is a {word}")
}

#[test]
fn what_containers_write_while_the_log_process_is_dead_is_not_lost() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let script = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.05; done";
    deploy(&node, "chatty", "busybox", &["--", "sh", "-c", script])?;
    let lines = || -> Result<Vec<u64>> {
        let text = node.hivemind_ok(&["app", "logs", "chatty", "--tail", "100000"])?;
        let number = |line: &str| line.rsplit_once("line ").and_then(|(_, n)| n.trim().parse().ok());
        Ok(text.lines().filter_map(number).collect())
    };
    let until = |count: usize| {
        eventually(LIMIT, "more lines", || {
            let seen = lines()?;
            ensure!(seen.len() >= count, "{} lines", seen.len());
            Ok::<_, anyhow::Error>(seen)
        })
    };
    until(5)?;
    for _ in 0..2 {
        let collector = process(&node, "log-collector")?;
        let before = lines()?.len();
        signal(collector, Signal::SIGKILL)?;
        until(before + 20)?;
    }
    let seen = lines()?;
    let gaps: Vec<_> = seen.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
    assert!(gaps.is_empty(), "lines are missing or doubled: {gaps:?}");
    assert_eq!(restarts(&node, "chatty")?, 0);
    Ok(())
}

/// Starts the daemon from another file than the one that is tested otherwise, and waits until it answers.
fn start_from(node: &Node, program: &std::path::Path) -> Result<Background> {
    let mut daemon = node.daemon_spawn_from(program, &[])?;
    let socket = node.sandbox().outside(&node.socket());
    daemon.until_ready(LIMIT, "the daemon", || {
        let answer = get_unix(&socket, "/healthz", Duration::from_secs(5))?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })?;
    Ok(daemon)
}

#[test]
fn an_upgrade_of_the_program_disturbs_nothing() -> Result<()> {
    let node = Node::start(NodeOptions::default())?;
    let _registry = node.registry()?;
    let program: PathBuf = node.sandbox().directory().join("hivemind");
    let install = |suffix: &str| -> Result<()> {
        // As packages do it: the new file takes the old one's name, which the running daemon's file loses.
        let new = node.sandbox().outside(&program.with_extension(suffix));
        fs::copy(hivemind_binary()?, &new)?;
        Ok(fs::rename(new, node.sandbox().outside(&program))?)
    };
    install("first")?;
    let mut daemon = start_from(&node, &program)?;
    deploy_web_and_client(&node, "2")?;
    let traffic = AllTraffic::start(&node)?;
    install("second")?;
    // The old daemon works on although its file is gone, also where it starts programs.
    signal(process(&node, "log-collector")?, Signal::SIGKILL)?;
    eventually(LIMIT, "a new log process", || process(&node, "log-collector"))?;
    daemon.signal(Signal::SIGTERM)?;
    ensure!(daemon.wait(LIMIT)?.success(), "{}", node.daemon_log_end());
    let mut daemon = start_from(&node, &program)?;
    until_up(&node, "web", 2, LIMIT)?;
    traffic.assert_unharmed()?;
    assert_eq!(restarts(&node, "web")?, 0);
    daemon.signal(Signal::SIGTERM)?;
    daemon.wait(LIMIT).map(drop)
}

#[test]
fn a_teardown_removes_what_runs_and_may_be_repeated_but_not_beside_a_daemon() -> Result<()> {
    let (node, registry) = Node::with_daemon()?;
    deploy_web_and_client(&node, "2")?;
    let refused = node.daemon_run(&[], &["--teardown"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("HM0308") && said.contains("hint:"), "{said}");
    assert_eq!(node.ready_replicas("web")?, 2, "a refused teardown must not touch anything");
    published_answers(&node, 3)?;

    node.daemon_kill9()?;
    node.daemon_teardown()?;
    node.daemon_teardown()?;
    // What users asked for is kept: the next daemon brings it back.
    node.daemon_start()?;
    eventually(LIMIT, "the app to be up again", || published_answers(&node, 3))?;
    until_up(&node, "web", 2, LIMIT)?;
    node.daemon_term()?;
    node.daemon_teardown()?;
    drop(registry);
    node.assert_nothing_left()
}
