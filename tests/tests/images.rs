//! Where images come from, and what is told and left when they do not.

use std::{
    fs,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Node, NodeOptions, check_refusal, hivemind_binary, image_archive};
use serde_json::json;

const LISTED: &str = "127.0.0.1:5000/library/nginx:latest";

/// How long a deployment may take to find out that a registry does not answer.
const UNREACHABLE_LIMIT: Duration = Duration::from_secs(30);

/// What containerd holds for the daemon: containers, images, snapshots and content.
fn held(node: &Node) -> Result<Vec<String>> {
    let socket = node.sandbox().directory().join("containerd/containerd.sock").display().to_string();
    let mut held = Vec::new();
    for kind in ["containers", "images", "snapshots", "leases"] {
        let mut words = vec!["ctr", "--address", &socket, "--namespace", "hivemind", kind, "ls"];
        words.extend((kind != "snapshots").then_some("-q"));
        let list = node.sandbox().check(&words)?;
        let header = usize::from(kind == "snapshots");
        held.extend(list.lines().skip(header).map(|line| format!("{kind} {line}")));
    }
    Ok(held)
}

/// Checks that an app that could not be deployed left nothing, here on a node on which there was nothing before.
fn nothing_is_left(node: &Node) -> Result<()> {
    for kind in ["app", "service", "image"] {
        let list = node.hivemind_ok(&[kind, "ls", "-o", "name"])?;
        ensure!(list.is_empty(), "{kind}s are left: {list}");
    }
    let held = held(node)?;
    ensure!(held.is_empty(), "containerd holds {held:#?}");
    let left = node.left()?;
    ensure!(!left.iter().any(|l| l.starts_with("link hm") || l.contains("/netns/")), "{left:?}");
    Ok(())
}

fn deploy(image: &str) -> [&str; 5] {
    ["app", "deploy", "web", "--image", image]
}

#[test]
fn an_image_comes_from_a_listed_plain_http_registry_and_through_a_mirror() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let direct = node.hivemind_ok(&["app", "deploy", "direct", "--image", LISTED])?;
    assert!(direct.starts_with("app/direct is up"), "{direct}");
    let digest = |app: &str| -> Result<String> {
        let replica = node.replica(app)?;
        Ok(replica["status"]["imageDigest"].as_str().context("no digest")?.to_owned())
    };
    // A short name means docker.io, for which the registry is a mirror; by its digest it is the same image.
    node.hivemind_ok(&["app", "deploy", "mirrored", "--image", "nginx:latest"])?;
    assert_eq!(digest("direct")?, digest("mirrored")?);
    let by_digest = format!("nginx@{}", digest("direct")?);
    node.hivemind_ok(&["app", "deploy", "exact", "--image", &by_digest])?;

    let images = node.json(&["image", "ls"])?;
    let names: Vec<_> =
        images["items"].as_array().context("no list")?.iter().map(|i| &i["reference"]).collect();
    let exact = format!("docker.io/library/nginx@{}", digest("direct")?);
    for name in [json!(LISTED), json!("docker.io/library/nginx:latest"), json!(exact)] {
        assert!(names.contains(&&name), "{name} is not among {names:?}");
    }
    let table = node.hivemind_ok(&["image", "ls"])?;
    assert!(table.contains(LISTED) && table.contains(&digest("direct")?[..19]), "{table}");
    Ok(())
}

#[test]
fn an_imported_image_needs_no_registry() -> Result<()> {
    let node = Node::start(NodeOptions::default())?;
    node.daemon_start()?;
    let archive = image_archive("nginx")?.display().to_string();
    assert_eq!(
        node.hivemind_ok(&["image", "import", &archive])?,
        "imported docker.io/library/nginx:latest\n"
    );
    node.hivemind_ok(&deploy("nginx"))?;
    assert!(node.in_replica("web", "wget -q -O - http://localhost/")?.contains("<html"));

    // From a pipe, and a second time.
    for _ in 0..2 {
        let mut command = node.sandbox().command(hivemind_binary()?);
        command.args(["image", "import", "-", "-o", "name"]).env("HIVEMIND_SOCKET", node.socket());
        let output = command.stdin(Stdio::from(fs::File::open(image_archive("busybox")?)?)).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, "image/docker.io/library/busybox:latest\n", "{output:?}");
    }
    node.hivemind_ok(&["app", "deploy", "tools", "--image", "busybox", "--", "sleep", "600"])?;
    Ok(())
}

#[test]
fn what_a_registry_does_not_have_is_told_and_leaves_nothing() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for image in ["127.0.0.1:5000/library/nosuch:latest", "127.0.0.1:5000/library/nginx:nosuch"] {
        let said = node.refused(&deploy(image), "HM0401", 5)?;
        assert!(said.contains(&format!("{image} does not exist at 127.0.0.1:5000")), "{said}");
        assert!(said.contains("check the name and the tag"), "{said}");
        nothing_is_left(&node)?;
    }
    Ok(())
}

#[test]
fn a_registry_that_cannot_be_reached_is_told_soon_and_leaves_nothing() -> Result<()> {
    // Nobody answers names, as on a machine without a network.
    let resolv_conf = Some("nameserver 127.0.0.1\n".to_owned());
    let node = Node::start(NodeOptions { resolv_conf, ..NodeOptions::default() })?;
    node.daemon_start()?;
    // The listed registry does not run, nobody listens at the second, and the third does not resolve.
    for host in ["127.0.0.1:5000", "127.0.0.1:5999", "registry.invalid"] {
        let began = Instant::now();
        let said = node.refused(&deploy(&format!("{host}/team/app:v1")), "HM0403", 5)?;
        assert!(said.contains(&format!("registry {host} cannot be reached")), "{said}");
        assert!(began.elapsed() < UNREACHABLE_LIMIT, "{host} took {:?}", began.elapsed());
        nothing_is_left(&node)?;
    }
    Ok(())
}

#[test]
fn a_registry_that_swallows_every_packet_is_given_up_on() -> Result<()> {
    let node = Node::start(NodeOptions::default())?;
    node.daemon_start()?;
    let outside = node.fabric().client();
    outside.check(&[
        "nft",
        "add table inet hole; add chain inet hole in { type filter hook input priority 0; }",
    ])?;
    outside.check(&["nft", "add rule inet hole in tcp dport 5001 drop"])?;
    let host = format!("{}:5001", node.fabric().client_addresses().ipv4);
    let began = Instant::now();
    let said = node.refused(&deploy(&format!("{host}/team/app:v1")), "HM0403", 5)?;
    assert!(said.contains(&format!("registry {host} cannot be reached")), "{said}");
    assert!(began.elapsed() < UNREACHABLE_LIMIT, "it took {:?}", began.elapsed());
    nothing_is_left(&node)
}

#[test]
fn a_plain_http_registry_that_is_not_listed_is_refused_with_the_flag_that_lists_it() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    // The same registry under a name that the daemon was not told to trust.
    let said = node.refused(&deploy("localhost:5000/library/nginx:latest"), "HM0403", 5)?;
    assert!(said.contains("does not speak HTTPS"), "{said}");
    assert!(said.contains("--insecure-registry localhost:5000"), "{said}");
    nothing_is_left(&node)
}

/// A file on the node with these bytes.
fn file(node: &Node, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let path = node.sandbox().directory().join(name);
    fs::write(node.sandbox().outside(&path), bytes)?;
    Ok(path)
}

#[test]
fn a_corrupt_archive_is_refused_and_nothing_of_it_stays() -> Result<()> {
    let node = Node::start(NodeOptions::default())?;
    node.daemon_start()?;
    let good = fs::read(image_archive("busybox")?)?;
    let mut flipped = good.clone();
    // In the middle of the only large layer.
    flipped[good.len() / 2] ^= 0xff;
    let cases: [(&str, &[u8]); 5] = [
        ("cut.tar", &good[..good.len() / 2]),
        ("flipped.tar", &flipped),
        ("text.tar", b"this is no archive\n"),
        ("zeros.tar", &[0; 10_240]),
        ("empty.tar", b""),
    ];
    for (name, bytes) in cases {
        let path = file(&node, name, bytes)?;
        let words = ["image", "import", &path.display().to_string()];
        node.refused(&words, "HM0404", 5).with_context(|| name)?;
        nothing_is_left(&node).with_context(|| name)?;
    }
    let said = node.refused(&["image", "import", "/no/such.tar"], "HM0509", 6)?;
    assert!(said.contains("/no/such.tar cannot be read"), "{said}");
    let said = node.refused(&["image", "import", "/etc"], "HM0509", 6)?;
    assert!(said.contains("/etc cannot be read"), "{said}");

    // The daemon is none the worse for it.
    let path = file(&node, "good.tar", &good)?;
    node.hivemind_ok(&["image", "import", &path.display().to_string()])?;
    node.hivemind_ok(&["app", "deploy", "web", "--image", "busybox", "--", "sleep", "600"])?;
    Ok(())
}

#[test]
fn a_client_that_dies_while_it_sends_an_archive_leaves_nothing() -> Result<()> {
    let node = Node::start(NodeOptions::default())?;
    node.daemon_start()?;
    let half = fs::read(image_archive("nginx")?)?;
    let path = file(&node, "half.tar", &half[..half.len() / 2])?;
    // The pipe stays open after half of the archive, until the client is killed.
    let script = format!(
        "(cat {}; exec sleep 600) | {} image import - & sleep_pid=$!; \
         until ls {}/data/content/ingest 2>/dev/null | grep -q . || [ $((n=n+1)) -gt 100 ]; do sleep 0.05; done; \
         kill -9 $sleep_pid",
        path.display(),
        hivemind_binary()?.display(),
        node.sandbox().directory().join("containerd").display()
    );
    let mut command = node.sandbox().command("sh");
    command.args(["-c", &script]).env("HIVEMIND_SOCKET", node.socket());
    command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    hivemind_tests::eventually(Duration::from_secs(20), "nothing to be left", || nothing_is_left(&node))
}

#[test]
fn a_refused_image_is_an_error_that_programs_can_read() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let mut words = deploy("127.0.0.1:5000/library/nosuch:latest").to_vec();
    words.extend(["-o", "json"]);
    let output = node.hivemind(&words)?;
    assert_eq!(output.status.code(), Some(5));
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).context("no JSON")?;
    assert_eq!(error["code"], "HM0401");
    assert!(error["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{error}");
    assert!(check_refusal(&output, "HM0401", 5).is_err(), "JSON and text are the same");
    Ok(())
}
