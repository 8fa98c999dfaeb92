//! The harness itself: what it makes is apart from the machine, and goes whatever happens to the test.

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hivemind_tests::{
    Cluster, Containerd, Fabric, Inventory, Node, NodeOptions, Sandbox, eventually, get, image_archive,
    remains,
};

const LIMIT: Duration = Duration::from_secs(20);

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).trim().to_owned()
}

fn no_containerd() -> NodeOptions {
    NodeOptions { containerd: Containerd::StartedByDaemon, ..NodeOptions::default() }
}

#[test]
fn a_sandbox_has_a_network_mounts_a_name_and_a_cgroup_of_its_own() -> Result<()> {
    let sandbox = Sandbox::start()?;
    assert_eq!(sandbox.check(&["hostname"])?.trim(), sandbox.name());
    let links = sandbox.check(&["ip", "-brief", "link"])?;
    assert_eq!(links.lines().count(), 1, "only the loopback device: {links}");
    let membership = sandbox.check(&["cat", "/proc/self/cgroup"])?;
    let expected = format!("/{}/host", sandbox.name());
    assert!(
        membership.lines().any(|line| line.starts_with("0::") && line.ends_with(&expected)),
        "{membership}"
    );
    let bpffs = sandbox.directory().join("bpf").display().to_string();
    assert_eq!(sandbox.check(&["stat", "-f", "-c", "%T", &bpffs])?.trim(), "bpf_fs");

    let file = sandbox.directory().join("data/file");
    std::fs::write(sandbox.outside(&file), "written outside")?;
    assert_eq!(sandbox.check(&["cat", &file.display().to_string()])?, "written outside");
    assert!(!file.exists(), "what lies in a sandbox must not be seen on the machine");
    sandbox.stop()
}

#[test]
fn a_stopped_sandbox_leaves_nothing_even_with_stubborn_programs_in_it() -> Result<()> {
    let sandbox = Sandbox::start()?;
    let name = sandbox.name().to_owned();
    let stubborn = "trap '' TERM INT HUP; unshare --net --mount sleep 1000 & wait";
    let mut program = sandbox.spawn(&["setsid", "sh", "-c", stubborn], None)?;
    let nested = sandbox.cgroup().join("nested/deeper");
    std::fs::create_dir_all(&nested)?;
    std::fs::write(nested.join("cgroup.procs"), program.id().to_string())?;
    assert!(!remains(&name)?.is_empty(), "a sandbox that runs must be seen");
    sandbox.stop()?;
    assert_eq!(remains(&name)?, Vec::<String>::new());
    assert!(program.exit_status()?.is_some(), "the program must have been killed");
    Ok(())
}

/// A process that keeps a node, and the node's name.
fn keeper_of_a_node(words: &[&str]) -> Result<(Child, String, String)> {
    let mut keeper = Command::new(env!("CARGO_BIN_EXE_hivemind-sandbox"))
        .arg("node")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(keeper.stdout.take().context("no output")?).read_line(&mut line)?;
    let (name, pid) = line.trim().split_once(' ').with_context(|| format!("no node was made: {line}"))?;
    Ok((keeper, name.to_owned(), pid.to_owned()))
}

fn gone(name: &str) -> Result<()> {
    let remains = remains(name)?;
    if !remains.is_empty() {
        bail!("{}", remains.join(", "));
    }
    Ok(())
}

/// The sandboxes of a process: a node with a fabric is three.
fn sandboxes_of(keeper: &Child) -> Vec<String> {
    (0..3).map(|number| format!("hmt-{}-{number}", keeper.id())).collect()
}

#[test]
fn a_test_that_is_killed_leaves_nothing() -> Result<()> {
    for words in [&[][..], &["relayed"]] {
        let (mut keeper, name, _) = keeper_of_a_node(words)?;
        assert!(sandboxes_of(&keeper).contains(&name));
        let relays = relays_to(&name)?;
        assert_eq!(relays.len(), words.len(), "a relayed link has one relay, a plain one has none");
        keeper.kill()?;
        keeper.wait()?;
        for name in sandboxes_of(&keeper) {
            eventually(LIMIT, "the killed process's node to be gone", || gone(&name))?;
        }
        // One that has ended and is not waited for yet has no command line any more.
        let runs = |relay: &PathBuf| std::fs::read(relay.join("cmdline")).is_ok_and(|line| !line.is_empty());
        assert!(!relays.iter().any(runs), "the relay is still there");
    }
    Ok(())
}

/// The processes, as `/proc/PID`, that relay frames of a sandbox's link.
fn relays_to(sandbox: &str) -> Result<Vec<PathBuf>> {
    let holder = format!("\0hold\0{sandbox}\0");
    let mut relays = Vec::new();
    let mut machine = None;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        // It may be no process, or have ended meanwhile.
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.ends_with(&holder) {
            machine = entry.file_name().into_string().ok();
        } else if line.split('\0').next().is_some_and(|program| program.ends_with("/hivemind-relay")) {
            relays.push((entry.path(), line));
        }
    }
    let machine = machine.context("the sandbox has no holder")?;
    relays.retain(|(_, line)| line.split('\0').nth(1) == Some(&machine));
    Ok(relays.into_iter().map(|(path, _)| path).collect())
}

#[test]
fn what_a_killed_holder_left_is_removed_by_the_next_sandbox() -> Result<()> {
    let (mut keeper, name, holder) = keeper_of_a_node(&[])?;
    assert!(!remains(&name)?.is_empty(), "a node that runs must be seen");
    // The holder first: nobody is left that could clean up.
    let status = Command::new("kill").args(["-9", &holder]).status()?;
    assert!(status.success());
    keeper.kill()?;
    keeper.wait()?;
    // The dead holder's lock is released when the kernel is done with the process.
    eventually(LIMIT, "a later sandbox to remove what was left", || {
        Sandbox::start()?.stop()?;
        gone(&name)
    })
}

#[test]
fn a_node_that_cannot_be_made_whole_is_not_left_half_made() -> Result<()> {
    let fabric = Fabric::start()?;
    let sandbox = Sandbox::start()?;
    let name = sandbox.name().to_owned();
    fabric.join(&sandbox)?;
    assert!(fabric.join(&sandbox).is_err(), "a sandbox has one eth0");
    drop(sandbox);
    assert_eq!(remains(&name)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn nodes_and_the_client_reach_one_another_over_both_families() -> Result<()> {
    let fabric = Fabric::start()?;
    let options = || NodeOptions { fabric: Some(fabric.clone()), ..no_containerd() };
    let (first, second) = (Node::start(options())?, Node::start(options())?);
    assert_ne!(first.addresses(), second.addresses());
    let listening = second.sandbox().in_network(|| std::net::TcpListener::bind("[::]:7000"))??;
    for address in [IpAddr::V4(second.addresses().ipv4), IpAddr::V6(second.addresses().ipv6)] {
        let target = SocketAddr::new(address, 7000);
        for sandbox in [first.sandbox(), fabric.client()] {
            let connected = sandbox.in_network(|| std::net::TcpStream::connect_timeout(&target, LIMIT))?;
            connected.with_context(|| format!("{} cannot reach {target}", sandbox.name()))?;
        }
    }
    drop(listening);
    let refused = first.sandbox().in_network(|| std::net::TcpStream::connect("127.0.0.1:7000"))?;
    assert!(refused.is_err(), "loopback must be each node's own");
    Ok(())
}

#[test]
fn clusters_come_up_beside_one_another_and_leave_nothing() -> Result<()> {
    let clusters = [Cluster::start(3)?, Cluster::start(2)?];
    let mut names = Vec::new();
    for cluster in &clusters {
        let listening: Vec<_> = cluster.nodes().iter().map(listen).collect::<Result<_>>()?;
        for (from, node) in cluster.nodes().iter().enumerate() {
            names.push(node.name().to_owned());
            ctr(node, &["containers", "ls"])?;
            for (to, _) in listening.iter().enumerate() {
                let address = cluster.at(to, 7000);
                let mut stream = node
                    .sandbox()
                    .in_network(|| std::net::TcpStream::connect_timeout(&address, LIMIT))?
                    .with_context(|| format!("node {from} cannot reach node {to}"))?;
                // The clusters have the same addresses: each must have answered for itself.
                let mut said = String::new();
                stream.read_to_string(&mut said)?;
                assert_eq!(said, cluster.node(to).name());
            }
        }
    }
    for cluster in clusters {
        cluster.stop()?;
    }
    for name in names {
        gone(&name)?;
    }
    Ok(())
}

/// Tells everybody who connects to port 7000 the node's name.
fn listen(node: &Node) -> Result<std::thread::JoinHandle<()>> {
    let name = node.name().to_owned();
    let listener = node.sandbox().in_network(|| std::net::TcpListener::bind("0.0.0.0:7000"))??;
    Ok(std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            drop(std::io::Write::write_all(&mut stream, name.as_bytes()));
        }
    }))
}

#[test]
fn an_inventory_tells_what_was_left_behind() -> Result<()> {
    let node = Node::start(no_containerd())?;
    node.assert_nothing_left()?;
    for command in [
        "ip link add hm0 type veth peer name hm1",
        "nft add table inet hivemind",
        "ip rule add fwmark 1 table 100",
        "mkdir $1/run/netns && mount -t tmpfs none $1/run/netns",
        "mkdir $1/bpf/hivemind",
        "mkdir $2/hivemind",
    ] {
        let directory = node.sandbox().directory().display().to_string();
        let cgroup = node.sandbox().cgroup().display().to_string();
        node.sandbox().check(&["sh", "-c", command, "sh", &directory, &cgroup])?;
    }
    let program = node.host_process(&["sleep", "1000"], None)?;
    let left = node.left()?.join("\n");
    for expected in [
        "link hm0",
        "nftables table inet hivemind",
        "fwmark 0x1",
        "run/netns (tmpfs)",
        "pin hivemind",
        "cgroup hivemind",
        &format!("process sleep {}", program.id()),
    ] {
        assert!(left.contains(expected), "{expected} is missing from:\n{left}");
    }
    Ok(())
}

#[test]
fn the_registry_serves_the_test_images_inside_the_node_only() -> Result<()> {
    let node = Node::start(no_containerd())?;
    let registry = node.registry()?;
    for image in ["busybox", "nginx", "redis"] {
        let path = format!("/v2/library/{image}/tags/list");
        let tags = node.sandbox().in_network(|| get(registry.address(), &path, LIMIT))??;
        assert_eq!(tags.status, 200);
        assert!(tags.body.contains("\"latest\""), "{}", tags.body);
    }
    let client = node.fabric().client();
    let outside = SocketAddr::new(IpAddr::V4(node.addresses().ipv4), 5000);
    assert!(client.in_network(|| get(outside, "/v2/", LIMIT))?.is_err(), "it must listen on loopback only");
    Ok(())
}

/// Runs a container by containerd's own client, with the node's network.
fn ctr(node: &Node, words: &[&str]) -> Result<String> {
    let socket = node.sandbox().directory().join("containerd/containerd.sock").display().to_string();
    let mut all = vec!["ctr", "--address", &socket, "--namespace", "hivemind"];
    all.extend(words);
    node.sandbox().check(&all)
}

fn run_container(node: &Node, image: &str, id: &str) -> Result<()> {
    ctr(node, &["images", "import", &image_archive(image)?.display().to_string()])?;
    let reference = format!("docker.io/library/{image}:latest");
    let cgroup = format!("/{}/hivemind/{id}", node.name());
    ctr(node, &["run", "--detach", "--net-host", "--cgroup", &cgroup, &reference, id]).map(drop)
}

#[test]
fn the_nginx_image_serves_its_page_and_tells_who_answers() -> Result<()> {
    let node = Node::start(NodeOptions::default())?;
    run_container(&node, "nginx", "web")?;
    let address = node.addresses();
    for ip in [IpAddr::V4(address.ipv4), IpAddr::V6(address.ipv6)] {
        let client = node.fabric().client();
        let ask = |path: &str| client.in_network(|| get(SocketAddr::new(ip, 80), path, LIMIT))?;
        let page = eventually(LIMIT, "nginx to answer", || ask("/"))?;
        assert!(page.status == 200 && page.body.contains("Welcome to Hivemind"), "{page:?}");
        assert_eq!(ask("/hostname")?.body.trim(), node.name());
        assert_eq!(ask("/address")?.body.trim(), ip.to_string());
    }
    assert!(node.left()?.iter().any(|thing| thing == "container web"));
    node.stop()
}

#[test]
fn the_redis_image_answers_its_clients() -> Result<()> {
    let node = Node::start(NodeOptions::default())?;
    run_container(&node, "redis", "cache")?;
    let answer = eventually(LIMIT, "redis to answer", || {
        ctr(&node, &["tasks", "exec", "--exec-id", "ping", "cache", "redis-cli", "ping"])
    })?;
    assert_eq!(answer.trim(), "PONG");
    Ok(())
}

#[test]
fn the_busybox_image_runs_a_shell_with_applets() -> Result<()> {
    let node = Node::start(NodeOptions::default())?;
    ctr(&node, &["images", "import", &image_archive("busybox")?.display().to_string()])?;
    let cgroup = format!("/{}/hivemind/once", node.name());
    let image = "docker.io/library/busybox:latest";
    let words = [
        "run",
        "--rm",
        "--cgroup",
        &cgroup,
        image,
        "once",
        "sh",
        "-c",
        "seq 3 | wc -l; id -un; cat /proc/self/cgroup",
    ];
    let said = ctr(&node, &words)?;
    assert!(said.starts_with("3\nroot\n"), "{said}");
    assert!(said.contains(&format!("0::{cgroup}")), "{said}");
    Ok(())
}

#[test]
fn a_containerd_that_crashes_can_be_started_again_beside_its_containers() -> Result<()> {
    let node = Node::start(NodeOptions::default())?;
    run_container(&node, "redis", "cache")?;
    node.containerd_kill9()?;
    node.containerd_start()?;
    let tasks = ctr(&node, &["tasks", "ls"])?;
    assert!(tasks.contains("cache") && tasks.contains("RUNNING"), "{tasks}");
    let name = node.name().to_owned();
    node.stop()?;
    assert_eq!(remains(&name)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_daemon_that_was_not_started_is_an_error_that_says_so() -> Result<()> {
    let node = Node::start(no_containerd())?;
    for error in [node.daemon_kill9().unwrap_err(), node.daemon_term().unwrap_err()] {
        assert_eq!(error.to_string(), "no daemon runs");
    }
    Ok(())
}

#[test]
fn a_program_that_ends_is_not_awaited_any_longer() -> Result<()> {
    let sandbox = Sandbox::start()?;
    let mut program = sandbox.spawn(&["sh", "-c", "exit 3"], None)?;
    let started = std::time::Instant::now();
    let never = || -> Result<()> { bail!("not ready") };
    let error = program.until_ready(Duration::from_secs(60), "a miracle", never).unwrap_err().to_string();
    assert!(error.contains("a miracle") && error.contains("exit status: 3"), "{error}");
    assert!(started.elapsed() < LIMIT);
    Ok(())
}

#[test]
fn two_inventories_of_an_untouched_sandbox_are_equal() -> Result<()> {
    let sandbox = Sandbox::start()?;
    assert_eq!(Inventory::take(&sandbox)?, Inventory::take(&sandbox)?);
    Ok(())
}

#[test]
fn a_program_in_a_sandbox_gets_its_input_and_gives_its_output() -> Result<()> {
    let sandbox = Sandbox::start()?;
    let mut command = sandbox.command("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    std::io::Write::write_all(&mut child.stdin.take().context("no input")?, b"through")?;
    let mut said = String::new();
    child.stdout.take().context("no output")?.read_to_string(&mut said)?;
    child.wait()?;
    assert_eq!(said, "through");
    assert_eq!(text(&sandbox.run(&["sh", "-c", "echo no >&2; exit 7"])?.stderr), "no");
    assert!(sandbox.in_network(|| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 1)))?.is_ok());
    Ok(())
}
