//! Input that cannot be met: each is refused with a code, a place, and what to do, and changes nothing.

use std::{net::TcpListener, time::Duration};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Node, NodeOptions, check_refusal, eventually, hivemind_binary};
use serde_json::Value;

/// How long a deployment that cannot succeed may take to say so.
const REFUSAL_LIMIT: Duration = Duration::from_secs(30);

fn apps(node: &Node) -> Result<String> {
    node.hivemind_ok(&["app", "ls", "-A", "-o", "name"])
}

#[test]
fn names_that_are_taken_are_refused_with_their_owner() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let owner = ["app", "deploy", "web", "--image", "nginx", "--service", "web.local", "--port", "8080:80"];
    node.hivemind_ok(&owner)?;
    let said = node.refused(&["app", "deploy", "web", "--image", "nginx"], "HM0301", 4)?;
    assert!(said.contains("\"web\"") && said.contains("at: --name\n"), "{said}");
    let other = ["app", "deploy", "other", "-n", "shop", "--image", "nginx"];
    let with = |more: &[&'static str]| other.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>();
    let said = node.refused(&with(&["--service", "Web.Local"]), "HM0302", 4)?;
    assert!(said.contains("belongs to default/web") && said.contains("at: --service Web.Local\n"), "{said}");
    let said = node.refused(&with(&["--port", "8080:81"]), "HM0303", 4)?;
    assert!(said.contains("belongs to default/web") && said.contains("at: --port 8080:81\n"), "{said}");
    let both = with(&["--port", "9090:90", "--port", "8080:81", "--service", "web.local"]);
    let said = node.refused(&both, "HM0302", 4)?;
    assert!(said.contains("error[HM0303]") && said.contains("at: --port 8080:81\n"), "{said}");
    assert_eq!(apps(&node)?, "app/web\n");
    assert_eq!(node.hivemind_ok(&["service", "ls", "-A", "-o", "name"])?, "service/web\n");

    // The same host port of the other protocol is another port; what was refused has taken nothing.
    node.hivemind_ok(&with(&["--port", "8080:80/udp", "--port", "9090:90"]))?;
    Ok(())
}

#[test]
fn a_port_of_another_program_is_refused_and_no_app_is_left() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let listen = |address: &'static str| node.sandbox().in_network(move || TcpListener::bind(address));
    let listener = listen("127.0.0.1:8080")??;
    let words = ["app", "deploy", "web", "--image", "nginx", "--port", "8081:80", "--port", "8080:80"];
    let dry: Vec<_> = words.iter().copied().chain(["--dry-run"]).collect();
    for words in [&words[..], &dry] {
        let said = node.refused(words, "HM0304", 4)?;
        assert!(said.contains("port 8080/tcp") && said.contains("at: --port 8080:80\n"), "{said}");
        assert!(said.contains("ss -ltnp"), "{said}");
        assert_eq!(apps(&node)?, "");
    }
    // Only the port itself counts, not another protocol's.
    node.hivemind_ok(&["app", "deploy", "udp", "--image", "nginx", "--port", "8080:80/udp"])?;
    drop(listener);
    node.hivemind_ok(&words)?;
    assert!(
        listen("[::]:8080")?.is_err() && listen("127.0.0.1:8081")?.is_err(),
        "the ports are not reserved"
    );
    node.hivemind_ok(&["app", "delete", "web"])?;
    eventually(REFUSAL_LIMIT, "the port to be free", || listen("[::]:8080")?.context("it is taken"))?;
    Ok(())
}

#[test]
fn all_wrong_values_are_told_at_once_each_at_its_flag() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let words = "app deploy Web_App --image NGINX:latest --replicas -1 --env =x --env A=1 --env A=2 --cpu 0 \
                 --memory 5M --port 0:80 --port 80 --port 7000:80/sctp --volume data --volume v:relative \
                 --label a --label UPPER!=x --service 10.0.0.1 --service two..dots \
                 --command 'unclosed --timeout soon";
    let words: Vec<_> = words.split_whitespace().collect();
    let said = node.refused(&words, "HM0101", 2)?;
    let expected = [
        ("HM0101", "--name"),
        ("HM0102", "--image"),
        ("HM0103", "--replicas"),
        ("HM0104", "--env =x"),
        ("HM0107", "--env A=2"),
        ("HM0103", "--cpu"),
        ("HM0103", "--memory"),
        ("HM0103", "--port 0:80"),
        ("HM0100", "--port 80"),
        ("HM0108", "--port 7000:80/sctp"),
        ("HM0105", "--volume data"),
        ("HM0105", "--volume v:relative"),
        ("HM0106", "--label a"),
        ("HM0106", "--label"),
        ("HM0101", "--service 10.0.0.1"),
        ("HM0101", "--service two..dots"),
        ("HM0100", "--command"),
        ("HM0103", "--timeout"),
    ];
    let blocks: Vec<&str> = said.split("error[").skip(1).collect();
    for (code, flag) in expected {
        let found = blocks.iter().find(|b| b.starts_with(code) && b.contains(&format!("at: {flag}\n")));
        let block = found.with_context(|| format!("no {code} at {flag}:\n{said}"))?;
        assert!(block.contains("  hint: "), "no hint: {block}");
    }
    assert_eq!(blocks.len(), expected.len(), "{said}");
    let mut json = words.clone();
    json.extend(["-o", "json"]);
    let output = node.hivemind(&json)?;
    let error: Value = serde_json::from_slice(&output.stderr).context("no JSON")?;
    assert_eq!(error["problems"].as_array().map(Vec::len), Some(expected.len()), "{error}");
    assert_eq!(apps(&node)?, "");
    Ok(())
}

#[test]
fn a_number_of_replicas_that_cannot_be_is_refused() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&["app", "deploy", "web", "--image", "nginx"])?;
    for replicas in ["1001", "-1", "2.5", "many", "4294967296", ""] {
        let said = node.refused(&["app", "scale", "web", "--replicas", replicas], "HM0103", 2)?;
        assert!(said.contains("at: --replicas\n") && said.contains("1000"), "{said}");
    }
    assert_eq!(node.replicas("web")?.len(), 1);
    Ok(())
}

#[test]
fn what_does_not_exist_is_told_by_its_name() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&["app", "deploy", "web", "--image", "nginx"])?;
    let cases: &[(&[&str], &str)] = &[
        (&["app", "info", "nosuch"], "HM0201"),
        (&["app", "scale", "nosuch", "--replicas", "2"], "HM0201"),
        (&["app", "restart", "nosuch"], "HM0201"),
        (&["app", "delete", "nosuch"], "HM0201"),
        (&["app", "logs", "nosuch"], "HM0201"),
        (&["app", "exec", "nosuch", "--", "true"], "HM0201"),
        (&["app", "logs", "web", "--replica", "nosuch"], "HM0202"),
        (&["app", "exec", "web", "--replica", "nosuch", "--", "true"], "HM0202"),
        (&["volume", "delete", "nosuch"], "HM0203"),
        (&["service", "info", "nosuch"], "HM0204"),
    ];
    for (words, code) in cases {
        let said = node.refused(words, code, 3)?;
        assert!(said.contains("\"nosuch\"") && said.contains("hint: "), "{words:?}: {said}");
    }
    Ok(())
}

#[test]
fn a_memory_limit_that_the_container_exceeds_is_told_as_such() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let began = std::time::Instant::now();
    // It fills a buffer of 64 MiB at once. Since it never listens on its port, it cannot seem to be up before.
    let words =
        "app deploy big --image busybox --memory 8Mi --port 8080:80 -- dd if=/dev/zero of=/dev/null bs=64M";
    let said = node.refused(&words.split_whitespace().collect::<Vec<_>>(), "HM0407", 5)?;
    assert!(said.contains("more memory than its limit of 8Mi"), "{said}");
    assert!(said.contains("hint: raise --memory"), "{said}");
    assert!(began.elapsed() < REFUSAL_LIMIT, "it took {:?}", began.elapsed());
    assert_eq!(apps(&node)?, "");
    let left = node.left()?;
    assert!(!left.iter().any(|l| l.starts_with("container ") || l.contains("/netns/")), "{left:?}");
    // The same app with enough of it runs.
    let words = "app deploy big --image busybox --memory 128Mi -- dd if=/dev/zero of=/dev/null bs=64M";
    node.hivemind_ok(&words.split_whitespace().collect::<Vec<_>>())?;
    Ok(())
}

#[test]
fn the_least_memory_that_is_allowed_starts_a_container() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let deploy = |memory: &'static str| {
        ["app", "deploy", "small", "--image", "busybox", "--memory", memory, "--", "sleep", "600"]
    };
    let said = node.refused(&deploy("6291455"), "HM0103", 2)?;
    assert!(said.contains("give at least 6Mi"), "{said}");
    node.hivemind_ok(&deploy("6Mi"))?;
    Ok(())
}

#[test]
fn a_command_that_the_image_does_not_have_is_told_by_its_name() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for (command, what) in [("/no/such", "was not found"), ("/etc/passwd", "cannot be executed")] {
        let said = node.refused(&["app", "deploy", "a", "--image", "busybox", "--", command], "HM0406", 5)?;
        assert!(said.contains(&format!("command {command:?} ")) && said.contains(what), "{said}");
        assert_eq!(apps(&node)?, "");
    }
    Ok(())
}

#[test]
fn without_a_daemon_every_command_says_how_to_start_one() -> Result<()> {
    let node = Node::start(NodeOptions::default())?;
    for words in [&["app", "ls"][..], &["status"], &["app", "deploy", "a", "--image", "b"], &["volume", "ls"]]
    {
        let said = node.refused(words, "HM0601", 7)?;
        assert!(said.contains("no daemon is running") && said.contains("hivemind daemon"), "{said}");
        assert!(said.contains(&node.socket().display().to_string()), "{said}");
    }
    // A daemon that was killed leaves its socket.
    node.daemon_start()?;
    node.daemon_kill9()?;
    node.fd_store().clear();
    let said = node.refused(&["app", "ls"], "HM0601", 7)?;
    assert!(said.contains("nobody listens at"), "{said}");
    Ok(())
}

#[test]
fn who_may_not_use_the_socket_is_told_how_to_be_let_in() -> Result<()> {
    let node = Node::start(NodeOptions::default())?;
    node.daemon_start()?;
    // The program itself has to be where anybody may run it.
    let program = node.sandbox().directory().join("hivemind");
    std::fs::copy(hivemind_binary()?, node.sandbox().outside(&program))?;
    let socket = node.socket().display().to_string();
    let program = program.display().to_string();
    let as_nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        &program,
        "--socket",
        &socket,
        "status",
    ];
    let said = check_refusal(&node.sandbox().run(&as_nobody)?, "HM0601", 7)?;
    assert!(said.contains("you may not use the daemon's socket"), "{said}");
    assert!(said.contains("usermod -aG hivemind"), "{said}");
    let as_root = node.sandbox().run(&[&program, "--socket", &socket, "status"])?;
    ensure!(as_root.status.success(), "root is refused as well: {as_root:?}");
    Ok(())
}
