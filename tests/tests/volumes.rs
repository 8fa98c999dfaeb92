//! Volumes, as apps that mount them see them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Node, eventually};

const LIMIT: Duration = Duration::from_secs(30);
const PAGES: &str = "/usr/share/nginx/html";

fn deploy(node: &Node, replicas: &str) -> Result<String> {
    let volume = format!("pages:{PAGES}");
    node.hivemind_ok(&[
        "app",
        "deploy",
        "web",
        "--image",
        "nginx",
        "--volume",
        &volume,
        "--replicas",
        replicas,
    ])
}

#[test]
fn a_new_volume_has_what_the_image_has_there_and_keeps_what_is_written() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&["app", "deploy", "plain", "--image", "nginx"])?;
    let listing = format!("cd {PAGES} && find . -type f -exec md5sum {{}} + | sort; ls -ln | tail -n +2");
    let of_image = node.in_replica("plain", &listing)?;
    ensure!(of_image.contains("./index.html"), "the image has no page: {of_image}");

    deploy(&node, "1")?;
    assert_eq!(node.in_replica("web", &listing)?, of_image);
    node.in_replica("web", &format!("echo mine > {PAGES}/mine && rm {PAGES}/index.html"))?;
    let replica = node.replica("web")?["metadata"]["name"].clone();
    let look = format!("cat {PAGES}/mine; ls {PAGES}");
    let mine = |text: &str| text.starts_with("mine\n") && !text.contains("index.html");

    node.hivemind_ok(&["app", "restart", "web"])?;
    eventually(LIMIT, "the replica to be replaced", || {
        ensure!(node.replica("web")?["metadata"]["name"] != replica, "it is the old one");
        Ok::<_, anyhow::Error>(())
    })?;
    let after = node.in_replica("web", &look)?;
    assert!(mine(&after), "{after}");

    node.hivemind_ok(&["app", "delete", "web"])?;
    assert_eq!(node.hivemind_ok(&["volume", "ls", "-o", "name"])?, "volume/pages\n");
    deploy(&node, "1")?;
    let after = node.in_replica("web", &look)?;
    assert!(mine(&after), "{after}");
    // What the app changed is not in the image's own content.
    assert_eq!(node.in_replica("plain", &listing)?, of_image);
    Ok(())
}

#[test]
fn replicas_and_apps_share_a_volume_and_a_read_only_one_refuses_writes() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    deploy(&node, "2")?;
    let replicas = node.replicas("web")?;
    let names: Vec<_> = replicas.iter().filter_map(|r| r["metadata"]["name"].as_str()).collect();
    let [one, other] = names[..] else { anyhow::bail!("{} replicas", names.len()) };
    let within = |replica: &str, script: &str| {
        node.hivemind_ok(&["app", "exec", "web", "--replica", replica, "--", "sh", "-c", script])
    };
    within(one, &format!("hostname > {PAGES}/who"))?;
    assert_eq!(within(other, &format!("cat {PAGES}/who"))?.trim(), one);

    let reader = ["app", "deploy", "reader", "--image", "busybox", "--volume", "pages:/data:ro"];
    node.hivemind_ok(&[&reader[..], &["--", "sleep", "600"]].concat())?;
    assert_eq!(node.in_replica("reader", "cat /data/who")?.trim(), one);
    let written = node.hivemind(&["app", "exec", "reader", "--", "sh", "-c", "echo x > /data/x"])?;
    let said = String::from_utf8_lossy(&written.stderr).into_owned();
    assert!(!written.status.success() && said.contains("Read-only file system"), "{said}");
    assert!(!within(one, &format!("ls {PAGES}"))?.lines().any(|name| name == "x"));
    Ok(())
}

#[test]
fn a_volume_in_use_stays_and_one_that_is_deleted_is_gone_with_its_content() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    deploy(&node, "1")?;
    node.in_replica("web", &format!("echo mine > {PAGES}/mine"))?;
    let said = node.refused(&["volume", "delete", "pages"], "HM0306", 4)?;
    assert!(said.contains("\"pages\" is mounted by app \"web\""), "{said}");
    assert!(node.in_replica("web", &format!("cat {PAGES}/mine"))?.contains("mine"));
    // An app without replicas still names it.
    node.hivemind_ok(&["app", "scale", "web", "--replicas", "0"])?;
    node.refused(&["volume", "delete", "pages"], "HM0306", 4)?;

    node.hivemind_ok(&["app", "delete", "web"])?;
    let table = node.hivemind_ok(&["volume", "ls"])?;
    let row: Vec<_> = table.lines().nth(1).context("no row")?.split_whitespace().take(3).collect();
    assert_eq!(row, ["pages", node.name(), "yes"]);
    assert_eq!(node.hivemind_ok(&["volume", "delete", "pages"])?, "volume/pages deleted\n");
    assert_eq!(node.hivemind_ok(&["volume", "ls", "-o", "name"])?, "");
    let data = node.sandbox().directory().join("data").display().to_string();
    let found = node.sandbox().check(&["find", &data, "-name", "mine"])?;
    assert_eq!(found, "", "its content is left");
    node.refused(&["volume", "delete", "pages"], "HM0203", 3)?;

    // The next of this name begins with the image's content again.
    deploy(&node, "1")?;
    let files = node.in_replica("web", &format!("ls {PAGES}"))?;
    assert!(files.contains("index.html") && !files.contains("mine"), "{files}");
    Ok(())
}

#[test]
fn a_volume_can_be_made_beforehand_and_belongs_to_its_namespace() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let said = node.hivemind_ok(&["volume", "create", "data"])?;
    assert_eq!(said, format!("volume/data created on {}\n", node.name()));
    let again = node.hivemind(&["volume", "create", "data"])?;
    assert_eq!(again.status.code(), Some(4), "{}", String::from_utf8_lossy(&again.stderr));
    let write = "echo $HOSTNAME > /data/who; exec sleep 600";
    for namespace in ["default", "shop"] {
        let words = ["app", "deploy", "a", "-n", namespace, "--image", "busybox", "--volume", "data:/data"];
        node.hivemind_ok(&[&words[..], &["--", "sh", "-c", write]].concat())?;
    }
    for namespace in ["default", "shop"] {
        let replica = node.replica(&format!("{namespace}/a"))?;
        let who = node.in_replica(&format!("{namespace}/a"), "cat /data/who")?;
        assert_eq!(Some(who.trim()), replica["metadata"]["name"].as_str());
    }
    let all = node.hivemind_ok(&["volume", "ls", "-A"])?;
    let rows: Vec<_> =
        all.lines().skip(1).map(|l| l.split_whitespace().take(2).collect::<Vec<_>>()).collect();
    assert_eq!(rows, [["default", "data"], ["shop", "data"]]);
    Ok(())
}
