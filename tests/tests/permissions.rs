//! What containers may only where their namespace permits it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Node, eventually};

const LIMIT: Duration = Duration::from_secs(30);

/// What a command that is refused tells.
fn refused(node: &Node, words: &[&str]) -> Result<String> {
    let output = node.hivemind(words)?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(9), "it ended with {:?}: {told}", output.status);
    Ok(told)
}

#[test]
fn a_path_of_the_node_is_mounted_where_it_is_permitted_and_nothing_beside_it() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let shop = node.sandbox().directory().join("shop");
    let outside = node.sandbox().outside(&shop);
    fs::create_dir_all(outside.join("config"))?;
    fs::write(outside.join("config/greeting"), "hello\n")?;
    fs::write(outside.with_file_name("secret"), "secret\n")?;
    std::os::unix::fs::symlink("../secret", outside.join("leak"))?;
    let shop = shop.display().to_string();
    let with = |from: &str, name: &str| {
        let volume = format!("{shop}/{from}:/etc/shop:ro");
        let words = ["app", "deploy", name, "--image", "busybox", "--stop-timeout", "0s", "--timeout", "20s"];
        let words = [&words[..], &["--volume", &volume, "--", "sleep", "600"]].concat();
        words.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = |words: &[String]| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        node.hivemind(&words)
    };
    let told = refused(&node, &with("config", "web").iter().map(String::as_str).collect::<Vec<_>>())?;
    assert!(told.contains("HM0806") && told.contains("at: --volume"), "{told}");
    let hint = format!("hivemind namespace permit default --host-path {shop}/config");
    assert!(told.contains(&hint), "{told}");
    assert!(node.hivemind_ok(&["app", "ls", "-o", "name"])?.is_empty());

    let may = node.hivemind_ok(&["namespace", "permit", "default", "--host-path", &shop])?;
    assert_eq!(may, format!("apps of namespace default may have host path {shop}\n"));
    let done = run(&with("config", "web"))?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(node.in_replica("web", "cat /etc/shop/greeting")?, "hello\n");
    fs::write(outside.join("config/greeting"), "changed\n")?;
    assert_eq!(node.in_replica("web", "cat /etc/shop/greeting")?, "changed\n", "it is the directory itself");
    let written = node.hivemind(&["app", "exec", "web", "--", "touch", "/etc/shop/x"])?;
    assert!(!written.status.success(), "it may only be read");
    let info = node.hivemind_ok(&["app", "info", "web"])?;
    assert!(info.contains(&format!(" {shop}/config:/etc/shop:ro")), "{info}");

    // A link that leads out, and a path that is not there.
    for (from, code) in [("leak", "HM0806"), ("nothing", "HM0105")] {
        let failed = run(&with(from, "bad"))?;
        let told = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert!(!failed.status.success() && told.contains(code), "{told}");
        assert!(!told.contains("secret\n"), "{told}");
    }
    // What runs goes on when the permission is gone; what is to start does not.
    node.hivemind_ok(&["namespace", "permit", "default", "--host-path", &shop, "--revoke"])?;
    let replica = node.replica("web")?;
    let name = replica["metadata"]["name"].as_str().context("no name")?.to_owned();
    assert_eq!(node.in_replica("web", "cat /etc/shop/greeting")?, "changed\n");
    let pid = i32::try_from(replica["status"]["pid"].as_i64().context("no pid")?)?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    eventually(LIMIT, "the replica to be refused", || {
        let replica = node.replica("web")?;
        ensure!(replica["status"]["problem"]["code"] == "HM0806", "{}", replica["status"]);
        Ok::<_, anyhow::Error>(())
    })?;
    node.hivemind_ok(&["namespace", "permit", "default", "--host-path", &shop])?;
    eventually(LIMIT, "the replica to be back", || node.ready_replicas("web"))?;
    assert_eq!(node.replica("web")?["metadata"]["name"], name.as_str());
    node.hivemind_ok(&["app", "delete", "web"])?;
    assert_eq!(fs::read_to_string(outside.join("config/greeting"))?, "changed\n", "it is not the app's");
    Ok(())
}

#[test]
fn capabilities_and_privileges_are_had_only_where_they_are_permitted() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let words = ["app", "deploy", "box", "--image", "busybox", "--stop-timeout", "0s"];
    let asked = ["--cap-add", "net_admin", "--cap-add", "SYS_ADMIN", "--privileged", "--", "sleep", "600"];
    let told = refused(&node, &[&words[..], &asked].concat())?;
    for flag in ["at: --cap-add net_admin", "at: --cap-add SYS_ADMIN", "at: --privileged"] {
        assert!(told.contains(flag), "no {flag:?} in\n{told}");
    }
    node.hivemind_ok(&["namespace", "permit", "vpn", "--capability", "NET_ADMIN"])?;
    let vpn = ["-n", "vpn", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--", "sleep", "600"];
    node.hivemind_ok(&[&words[..], &vpn].concat())?;
    let in_vpn = ["app", "exec", "box", "-n", "vpn", "--"];
    let bounds = node.hivemind_ok(&[&in_vpn[..], &["grep", "CapBnd", "/proc/1/status"]].concat())?;
    assert_eq!(bounds.split_whitespace().nth(1), Some(format!("{:016x}", 1 << 12).as_str()));
    node.hivemind_ok(&[&in_vpn[..], &["ip", "link", "set", "dev", "lo", "mtu", "1400"]].concat())?;

    node.hivemind_ok(&["namespace", "permit", "default", "--privileged"])?;
    let plain = ["--", "sleep", "600"];
    node.hivemind_ok(
        &[&["app", "deploy", "plain", "--image", "busybox", "--stop-timeout", "0s"][..], &plain].concat(),
    )?;
    node.hivemind_ok(&[&words[..], &["--privileged", "--", "sleep", "600"]].concat())?;
    let mounts = "mkdir -p /tmp/m && mount -t tmpfs none /tmp/m && echo mounted";
    assert_eq!(node.in_replica("box", mounts)?, "mounted\n");
    assert!(node.in_replica("plain", mounts).is_err());
    let status =
        |app: &str| node.in_replica(app, "grep -E 'Seccomp:|NoNewPrivs' /proc/1/status | tr -d '\\n\\t '");
    assert_eq!(status("box")?, "NoNewPrivs:0Seccomp:0");
    assert_eq!(status("plain")?, "NoNewPrivs:1Seccomp:2");
    assert!(
        node.in_replica("box", "ls /dev/kmsg").is_ok() && node.in_replica("plain", "ls /dev/kmsg").is_err()
    );
    let namespaces = node.hivemind_ok(&["namespace", "ls", "-o", "wide"])?;
    assert!(namespaces.contains("privileged containers") && namespaces.contains("NET_ADMIN"), "{namespaces}");
    Ok(())
}
