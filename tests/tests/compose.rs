//! Compose files, as people have them: brought up, looked at, changed, and taken down.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Node, NodeOptions, get, hivemind_binary, image_archive};

const LIMIT: Duration = Duration::from_secs(30);

/// A directory of the node with these files; the name of the directory is the project's.
fn project(node: &Node, name: &str, files: &[(&str, &str)]) -> Result<PathBuf> {
    let directory = node.sandbox().directory().join(name);
    for (file, text) in files {
        let path = node.sandbox().outside(&directory).join(file);
        fs::create_dir_all(path.parent().context("no parent")?)?;
        fs::write(path, text)?;
    }
    Ok(directory)
}

/// What a command on the project of a file prints; it has to end with `code`.
fn on(node: &Node, file: &str, words: &[&str], code: i32) -> Result<(String, String)> {
    let (command, rest) = words.split_first().context("no command")?;
    let output = node.hivemind(&[&[*command, "-f", file], rest].concat())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.code() == Some(code), "{words:?} ended with {:?}\n{out}\n{err}", output.status);
    Ok((out, err))
}

const SHOP: &str = r#"
services:
  web:
    image: nginx
    ports: ["8080:80"]
    volumes: ["./html:/usr/share/nginx/html:ro"]
    networks: [front]
    restart: always
    stop_grace_period: 0s
    depends_on:
      migrate: {condition: service_completed_successfully}
      cache: {condition: service_healthy}
    healthcheck:
      test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1/"]
      interval: 500ms
  cache:
    image: redis
    volumes: ["data:/data"]
    networks: [back]
    restart: always
    stop_grace_period: 0s
    healthcheck: {test: "test -d /data", interval: 500ms, retries: 5}
  migrate:
    image: busybox
    command: sh -c "echo $$GREETING ${WHO:-nobody} > /marks/migrated"
    environment: {GREETING: hello}
    volumes: ["marks:/marks"]
  client: &idle
    image: busybox
    command: sleep 3600
    networks: [front]
    restart: unless-stopped
    stop_grace_period: 0s
  worker:
    <<: *idle
    networks: [back]
    volumes: ["marks:/marks:ro"]
volumes: {data: {}, marks: {}}
networks: {front: {}, back: {}}
"#;

#[test]
fn a_project_comes_up_is_changed_and_goes_with_all_that_is_its_own() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let files = [("compose.yaml", SHOP), (".env", "WHO=world\n"), ("html/index.html", "the shop\n")];
    let directory = project(&node, "shop", &files)?;
    let file = directory.join("compose.yaml").display().to_string();

    let (plan, _) = on(&node, &file, &["plan"], 1)?;
    for line in ["+ namespace/shop", "+ app/web", "+ app/cache", "+ policy/network-front"] {
        assert!(plan.lines().any(|l| l.starts_with(line)), "no {line:?} in\n{plan}");
    }
    assert!(node.hivemind_ok(&["app", "ls", "-A", "-o", "name"])?.is_empty(), "a plan makes nothing");

    let (out, told) = on(&node, &file, &["up"], 0)?;
    assert!(told.contains("+ app/web would be created in namespace shop"), "{told}");
    assert!(out.contains("app/web created in namespace shop"), "{out}");
    let page = SocketAddr::new(node.addresses().ipv4.into(), 8080);
    let page = node.fabric().client().in_network(|| get(page, "/", LIMIT))??;
    assert_eq!((page.status, page.body.as_str()), (200, "the shop\n"));
    let run = |service: &str, script: &str| {
        on(&node, &file, &["exec", service, "sh", "-c", script], 0).map(|(out, _)| out)
    };
    assert_eq!(run("worker", "cat /marks/migrated")?, "hello world\n");

    // By their names, within their networks and not beyond.
    assert_eq!(run("client", "wget -q -O- http://web/")?, "the shop\n");
    let ping = "echo PING | timeout 3 nc cache 6379 | head -c 5; true";
    assert_eq!(run("worker", ping)?, "+PONG");
    assert_eq!(run("client", ping)?, "");

    let (table, _) = on(&node, &file, &["ps"], 0)?;
    let line = |service: &str| table.lines().find(|line| line.starts_with(service)).unwrap_or_default();
    assert!(line("web").contains("Running") && line("web").contains("8080->80/tcp"), "{table}");
    assert!(line("migrate").contains("Succeeded"), "{table}");
    assert_eq!(node.hivemind_ok(&["ps", "-n", "shop"])?.lines().count(), table.lines().count());

    // Nothing is done a second time.
    let before = node.replicas("shop/web")?[0]["metadata"]["id"].clone();
    let (plan, _) = on(&node, &file, &["plan"], 0)?;
    assert!(plan.contains("0 to create, 0 to change"), "{plan}");
    on(&node, &file, &["up"], 0)?;
    assert_eq!(node.replicas("shop/web")?[0]["metadata"]["id"], before);
    assert_eq!(run("worker", "cat /marks/migrated")?, "hello world\n");

    // What changes changes, and the rest goes on.
    let more =
        SHOP.replace("  client: &idle\n", "  client: &idle\n    scale: 2\n").replace("8080:80", "8081:80");
    fs::write(node.sandbox().outside(&directory).join("compose.yaml"), more)?;
    on(&node, &file, &["up"], 0)?;
    assert_eq!(node.replicas("shop/client")?.len(), 2);
    let page = SocketAddr::new(node.addresses().ipv4.into(), 8081);
    let page = node.fabric().client().in_network(|| get(page, "/", LIMIT))??;
    assert_eq!(page.status, 200);
    on(&node, &file, &["restart", "client"], 0)?;
    let (logs, _) = on(&node, &file, &["logs", "cache", "--tail", "5"], 0)?;
    assert!(!logs.is_empty());

    on(&node, &file, &["down", "--volumes"], 0)?;
    for kind in ["app", "volume", "policy"] {
        assert_eq!(node.hivemind_ok(&[kind, "ls", "-n", "shop", "-o", "name"])?, "", "{kind}");
    }
    assert!(!node.hivemind_ok(&["namespace", "ls", "-o", "name"])?.contains("namespace/shop"));
    assert_eq!(fs::read_to_string(node.sandbox().outside(&directory).join("html/index.html"))?, "the shop\n");
    Ok(())
}

#[test]
fn what_cannot_be_had_is_told_with_its_place_all_at_once_and_nothing_is_made() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let text = "services:\n  web:\n    image: nginx\n    network_mode: host\n    ports: [\"99999:80\"]\n    colour: green\n  \
                db:\n    image: Redis\n    depends_on: [cache]\n    environment: {PASSWORD: \"${PASSWORD:?is needed}\"}\n";
    let directory = project(&node, "bad", &[("compose.yaml", text)])?;
    let file = directory.join("compose.yaml").display().to_string();
    let (_, told) = on(&node, &file, &["up"], 2)?;
    for place in ["compose.yaml:5:", "compose.yaml:6:5", "compose.yaml:9:", "compose.yaml:10:"] {
        assert!(told.contains(place), "no {place:?} in\n{told}");
    }
    assert!(told.contains("is needed"), "{told}");
    let text = "services:\n  web:\n    image: nginx\n    network_mode: host\n    init: true\n  built:\n    build: .\n";
    fs::write(node.sandbox().outside(&directory).join("compose.yaml"), text)?;
    let (_, told) = on(&node, &file, &["up"], 2)?;
    assert!(told.contains("compose.yaml:4:5") && told.contains("warning"), "{told}");
    let text = "services: {built: {build: {context: ., ssh: [default]}}}\n";
    fs::write(node.sandbox().outside(&directory).join("compose.yaml"), text)?;
    let (_, told) = on(&node, &file, &["up"], 2)?;
    assert!(told.contains("keys of a build cannot be handed on"), "{told}");
    assert!(node.hivemind_ok(&["app", "ls", "-A", "-o", "name"])?.is_empty());
    assert!(!node.hivemind_ok(&["namespace", "ls", "-o", "name"])?.contains("namespace/bad"));
    let (_, told) = on(&node, "/nosuch/compose.yaml", &["up"], 2)?;
    assert!(told.contains("nosuch/compose.yaml:1:1") && told.contains("no such file"), "{told}");
    Ok(())
}

#[test]
fn images_are_built_by_what_the_machine_has_and_handed_to_the_daemon() -> Result<()> {
    // No registry: what is not built is not there.
    let node = Node::start(NodeOptions::default())?;
    node.daemon_start()?;
    let text = "services:\n  web:\n    image: busybox\n    command: sleep 600\n    stop_grace_period: 0s\n    restart: always\n    \
                build: {context: ./src, dockerfile: My.file, args: {VERSION: '2'}, target: small}\n";
    // In the place of docker: it notes what it is asked for, and has the image.
    let archive = image_archive("busybox")?;
    let docker = format!(
        "#!/bin/sh\necho \"$@\" >> \"$(dirname \"$0\")/asked\"\ncase \"$1\" in save) exec cat {};; esac\n",
        archive.display()
    );
    let files = [("compose.yaml", text), ("src/My.file", "FROM scratch\n"), ("bin/docker", docker.as_str())];
    let directory = project(&node, "made", &files)?;
    let outside = node.sandbox().outside(&directory);
    fs::set_permissions(outside.join("bin/docker"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let up = |path: &str, more: &[&str]| {
        let mut command = node.sandbox().command("env");
        command.arg(format!("PATH={path}")).arg(hivemind_binary()?);
        command.args(["up", "-f"]).arg(directory.join("compose.yaml")).args(more);
        Ok::<_, anyhow::Error>(command.env("HIVEMIND_SOCKET", node.socket()).output()?)
    };
    let none = up("/nosuch", &[])?;
    let told = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(none.status.code() == Some(2) && told.contains("neither docker nor buildah"), "{told}");
    assert!(told.contains("compose.yaml:7:"), "{told}");

    let path = format!("{}:/usr/bin:/bin", directory.join("bin").display());
    let done = up(&path, &[])?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let asked = || fs::read_to_string(outside.join("bin/asked"));
    let context = directory.join("src");
    let build = format!(
        "build --tag busybox --file {0}/My.file --build-arg VERSION=2 --target small {0}\nsave busybox\n",
        context.display()
    );
    assert_eq!(asked()?, build);
    assert_eq!(node.ready_replicas("made/web")?, 1);
    // It is there now, and built again only when that is asked for.
    up(&path, &[])?;
    assert_eq!(asked()?, build);
    up(&path, &["--build"])?;
    assert_eq!(asked()?, build.repeat(2));
    Ok(())
}

#[test]
fn what_is_not_the_projects_own_stays_when_it_goes_down() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&["volume", "create", "kept", "-n", "keep-it"])?;
    let service = "image: busybox, command: sleep 600, stop_grace_period: 0s, restart: always";
    let text = format!(
        "name: keep_it\nservices:\n  a: {{{service}, volumes: ['kept:/kept', 'own:/own']}}\n\
         volumes: {{kept: {{external: true}}, own: {{}}}}\n"
    );
    let other = format!("name: keep-it\nservices:\n  b: {{{service}}}\n");
    let directory = project(&node, "keep", &[("compose.yaml", &text), ("other.yaml", &other)])?;
    let file = directory.join("compose.yaml").display().to_string();
    on(&node, &file, &["up"], 0)?;
    // Another project, whose namespace would be the same, neither comes into it nor takes anything of it down.
    let other = directory.join("other.yaml").display().to_string();
    let (_, told) = on(&node, &other, &["up"], 4)?;
    assert!(told.contains("is that of project \"keep_it\""), "{told}");
    on(&node, &other, &["down", "--volumes"], 0)?;
    on(&node, &file, &["exec", "a", "touch", "/kept/precious"], 0)?;
    on(&node, &file, &["down", "--volumes"], 0)?;
    assert_eq!(node.hivemind_ok(&["volume", "ls", "-n", "keep-it", "-o", "name"])?, "volume/kept\n");
    assert_eq!(node.hivemind_ok(&["app", "ls", "-n", "keep-it", "-o", "name"])?, "");
    on(&node, &file, &["up"], 0)?;
    assert_eq!(on(&node, &file, &["exec", "a", "ls", "/kept"], 0)?.0, "precious\n");

    // Without a project it is not guessed what is to go.
    let none = node.hivemind(&["down", "-n", "keep-it"])?;
    assert_eq!(none.status.code(), Some(2), "{}", String::from_utf8_lossy(&none.stderr));
    assert_eq!(node.hivemind_ok(&["app", "ls", "-n", "keep-it", "-o", "name"])?, "app/a\n");
    Ok(())
}

#[test]
fn services_profiles_and_orphans_are_as_they_are_asked_for() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let service = |rest: &str| {
        format!("{{image: busybox, command: sleep 3600, stop_grace_period: 0s, restart: always{rest}}}")
    };
    let text = format!(
        "name: tools\nservices:\n  a: {}\n  b: {}\n  debug: {}\n",
        service(", depends_on: [b]"),
        service(""),
        service(", profiles: [debug]")
    );
    let directory = project(&node, "other", &[("compose.yaml", &text)])?;
    let file = directory.join("compose.yaml").display().to_string();
    let apps = || node.hivemind_ok(&["app", "ls", "-n", "tools", "-o", "name"]);
    on(&node, &file, &["up", "b"], 0)?;
    assert_eq!(apps()?, "app/b\n");
    on(&node, &file, &["up", "a"], 0)?;
    assert_eq!(apps()?, "app/a\napp/b\n");
    on(&node, &file, &["up", "--profile", "debug"], 0)?;
    assert_eq!(apps()?, "app/a\napp/b\napp/debug\n");
    let (services, _) = on(&node, &file, &["config", "--services", "--profile", "*"], 0)?;
    assert_eq!(services, "a\nb\ndebug\n");
    let (printed, _) = on(&node, &file, &["config"], 0)?;
    assert!(printed.contains("name: tools") && printed.contains("busybox"), "{printed}");

    let only_b = format!("name: tools\nservices:\n  b: {}\n", service(""));
    fs::write(node.sandbox().outside(&directory).join("compose.yaml"), only_b)?;
    let (_, told) = on(&node, &file, &["up"], 0)?;
    assert!(told.contains("a, debug not in the files any more"), "{told}");
    on(&node, &file, &["up", "--remove-orphans"], 0)?;
    assert_eq!(apps()?, "app/b\n");

    // What others made is not taken over, nor taken down.
    node.hivemind_ok(&[
        "app",
        "deploy",
        "c",
        "-n",
        "tools",
        "--image",
        "busybox",
        "--stop-timeout",
        "0s",
        "--",
        "sleep",
        "600",
    ])?;
    let with_c = format!("name: tools\nservices:\n  b: {}\n  c: {}\n", service(""), service(""));
    fs::write(node.sandbox().outside(&directory).join("compose.yaml"), with_c)?;
    let (_, told) = on(&node, &file, &["up"], 4)?;
    assert!(told.contains("an app c that is not of project"), "{told}");
    node.hivemind_ok(&["down", "-p", "tools"])?;
    assert_eq!(apps()?, "app/c\n");
    Ok(())
}
