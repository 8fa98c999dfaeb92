//! Objects of all kinds by files: made, changed, left alone, told where they are at fault, and deleted.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Node, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// A namespace, a volume on `NODE`, a policy and two apps.
const SHOP: &str = "\
apiVersion: v1
kind: List
items:
- apiVersion: hivemind/v1
  kind: App
  metadata: {name: web, namespace: shop, labels: {tier: front}}
  spec:
    replicas: 2
    hostnames: [web.local]
    template:
      stopGraceSeconds: 1
      containers:
      - image: busybox
        command: [sh, -c, 'while :; do sleep 1; done']
        env: [{name: COLOUR, value: green}]
        ports: [{hostPort: 8080, containerPort: 80}]
        resources: {memory: 48Mi, cpu: 0.25}
        capabilities: {add: [SYS_PTRACE]}
        volumeMounts: [{volume: pages, path: /pages}]
- apiVersion: hivemind/v1
  kind: Volume
  metadata: {name: pages, namespace: shop}
  spec: {node: NODE}
---
apiVersion: hivemind/v1
kind: Namespace
metadata: {name: shop, labels: {team: front}}
spec: {capabilities: [SYS_PTRACE]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-web, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}]}]}
---
apiVersion: hivemind/v1
kind: App
metadata: {name: plain}
spec:
  template:
    stopGraceSeconds: 1
    containers: [{image: busybox, command: [sleep, '3600']}]
";

fn shop(node: &Node) -> Result<String> {
    let nodes = node.json(&["node", "ls"])?;
    let name = nodes["items"][0]["metadata"]["name"].as_str().context("no node")?;
    Ok(SHOP.replace("NODE", name))
}

/// Names of the replicas of an app, sorted.
fn replicas(node: &Node, app: &str) -> Result<Vec<String>> {
    let name = |replica: &Value| replica["metadata"]["name"].as_str().map(str::to_owned);
    let mut names: Vec<String> = node.replicas(app)?.iter().filter_map(name).collect();
    names.sort();
    Ok(names)
}

#[test]
fn objects_of_all_kinds_are_applied_planned_compared_and_deleted() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let text = shop(&node)?;
    let file = node.write("shop.yaml", &text)?;
    let dry = node.hivemind_ok(&["apply", "-f", &file, "--dry-run"])?;
    let expected = "namespace/shop would be created\nvolume/pages would be created in namespace shop\n\
                    policy/only-web would be created in namespace shop\napp/web would be created in namespace shop\n\
                    app/plain would be created\n";
    ensure!(dry == expected, "{dry}");
    ensure!(node.hivemind_ok(&["app", "ls", "-A", "-o", "name"])?.is_empty(), "a dry run made something");
    let told = node.hivemind(&["plan", "-f", &file])?;
    let said = String::from_utf8(told.stdout)?;
    ensure!(
        told.status.code() == Some(1) && said.ends_with("\n5 to create, 0 to change, 0 unchanged\n"),
        "{said}"
    );

    let said = node.hivemind_ok(&["apply", "-f", &file])?;
    let lines: Vec<&str> = said.lines().collect();
    ensure!(lines[..2] == ["namespace/shop created", "volume/pages created in namespace shop"], "{said}");
    ensure!(lines[2].starts_with("policy/only-web created in namespace shop, in force"), "{said}");
    ensure!(lines[3..5] == ["app/web created in namespace shop", "app/plain created"], "{said}");
    ensure!(lines[5..] == ["app/web is up with 2 replicas", "app/plain is up with 1 replica"], "{said}");
    let before = replicas(&node, "shop/web")?;
    ensure!(before.len() == 2, "{before:?}");
    let environment = node.hivemind_ok(&["app", "exec", "-n", "shop", "web", "--", "env"])?;
    ensure!(environment.lines().any(|line| line == "COLOUR=green"), "{environment}");

    // The same again changes nothing, nor does what is printed of it.
    let printed =
        ["app", "volume", "namespace"].map(|kind| node.hivemind_ok(&[kind, "ls", "-A", "-o", "yaml"]));
    let [apps, volumes, namespaces] = printed;
    let info = node.hivemind_ok(&["app", "info", "web", "-n", "shop", "-o", "json"])?;
    for (name, text) in [
        ("a.yaml", text.clone()),
        ("b.yaml", apps?),
        ("c.yaml", volumes?),
        ("d.yaml", namespaces?),
        ("e.json", info),
    ] {
        let again = node.write(name, &text)?;
        let said = node.hivemind_ok(&["apply", "-f", &again])?;
        ensure!(!said.is_empty() && said.lines().all(|line| line.contains(" unchanged")), "{name}: {said}");
        ensure!(node.hivemind(&["diff", "-f", &again])?.status.code() == Some(0), "{name} differs");
        ensure!(node.hivemind(&["plan", "-f", &again])?.status.code() == Some(0), "{name} differs");
    }
    ensure!(replicas(&node, "shop/web")? == before, "replicas were replaced by nothing");

    // A number that the file does not say stays as commands have set it.
    node.hivemind_ok(&["app", "scale", "plain", "--replicas", "2"])?;
    node.hivemind_ok(&["app", "restart", "plain"])?;
    let said = node.hivemind_ok(&["apply", "-f", &file])?;
    ensure!(said.lines().any(|line| line == "app/plain unchanged"), "{said}");
    Ok(())
}

#[test]
fn what_changes_is_told_field_by_field_and_replaces_replicas_only_if_it_has_to() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let text = shop(&node)?;
    let file = node.write("shop.yaml", &text)?;
    node.hivemind_ok(&["apply", "-f", &file])?;
    let before = replicas(&node, "shop/web")?;

    let more = node.write(
        "more.yaml",
        &text.replace("replicas: 2", "replicas: 3").replace("tier: front", "tier: back"),
    )?;
    let said = node.hivemind_ok(&["apply", "-f", &more, "-o", "json"])?;
    let told: Value = serde_json::from_str(&said)?;
    let actions: Vec<_> = told["items"]
        .as_array()
        .context("no items")?
        .iter()
        .map(|i| (&i["object"]["kind"], &i["action"]))
        .collect();
    ensure!(actions.contains(&(&json!("App"), &json!("changed"))) && actions.len() == 5, "{said}");
    let after = replicas(&node, "shop/web")?;
    ensure!(after.len() == 3 && before.iter().all(|name| after.contains(name)), "{before:?} {after:?}");
    let app = node.json(&["app", "info", "web", "-n", "shop"])?;
    ensure!(app["metadata"]["labels"]["tier"] == "back" && app["apiVersion"] == "hivemind/v1", "{app}");

    let other = text
        .replace("replicas: 2", "replicas: 1")
        .replace("value: green", "value: red")
        .replace("team: front", "team: back");
    let other = node.write("other.yaml", &other)?;
    let told = node.hivemind(&["plan", "-f", &other])?;
    let said = String::from_utf8(told.stdout)?;
    ensure!(told.status.code() == Some(1), "{said}");
    for line in [
        "~ namespace/shop would be changed",
        "    metadata.labels.team: \"front\" -> \"back\"",
        "  volume/pages would stay as it is in namespace shop",
        "~ app/web would be changed in namespace shop",
        "    metadata.labels.tier: \"back\" -> \"front\"",
        "    spec.replicas: 3 -> 1",
        "    spec.template.containers[0].env[0].value: \"green\" -> \"red\"",
        "    its replicas would be replaced one after the other",
        "0 to create, 2 to change, 3 unchanged",
    ] {
        ensure!(said.lines().any(|l| l == line), "no line {line:?}: {said}");
    }
    let told = node.hivemind(&["diff", "-f", &other])?;
    let said = String::from_utf8(told.stdout)?;
    ensure!(told.status.code() == Some(1), "{said}");
    for line in [&format!("+++ {other}:4:3"), "-  replicas: 3", "+  replicas: 1"] {
        ensure!(said.lines().any(|l| l == line), "no line {line:?}: {said}");
    }
    node.hivemind_ok(&["apply", "-f", &other])?;
    // Those that make room are on their way out when the app is up.
    eventually(LIMIT, "the replicas to be replaced", || {
        let last = replicas(&node, "shop/web")?;
        ensure!(last.len() == 1 && !after.contains(&last[0]), "{after:?} {last:?}");
        Ok(())
    })?;
    ensure!(
        node.hivemind_ok(&["app", "exec", "-n", "shop", "web", "--", "env"])?.contains("COLOUR=red"),
        "still green"
    );

    // What one file names goes, and what is not there any more is passed over.
    let said = node.hivemind_ok(&["delete", "-f", &other])?;
    let expected = "app/plain deleted\napp/web deleted in namespace shop\npolicy/only-web deleted in namespace shop\n\
                    volume/pages deleted in namespace shop\nnamespace/shop deleted\n";
    ensure!(said == expected, "{said}");
    let said = node.hivemind_ok(&["delete", "-f", &other])?;
    ensure!(said.lines().count() == 5 && said.lines().all(|line| line.contains(" is not there")), "{said}");
    Ok(())
}

#[test]
fn all_faults_are_told_at_once_with_their_places_and_nothing_is_applied() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let bad = "\
apiVersion: hivemind/v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: hivemind/v1
kind: App
metadata: {name: Web, namespace: shop}
spec:
  replica: 2
  template:
    containers:
    - image: busybox
      memory: 64Mi
      resources: {memory: lots}
      ports: [{hostPort: 80, containerPort: 99999}]
";
    let told = [
        ":7:18: error[HM0101]: \"Web\" is not a valid name",
        ":9:3: error[HM0113]: unknown field \"replica\"",
        ":13:7: error[HM0113]: unknown field \"memory\"",
        ":14:27: error[HM0103]: \"lots\" is not an amount of memory",
        ":15:45: error[HM0103]: 99999 is out of range",
    ];
    let file = node.write("bad.yaml", bad)?;
    for verb in ["apply", "plan", "diff", "delete"] {
        let said = node.refused(&[verb, "-f", &file], "HM0101", 2)?;
        let heads: Vec<&str> = said.lines().filter(|line| line.contains("error[")).collect();
        let expected: Vec<String> = told.iter().map(|told| format!("{file}{told}")).collect();
        ensure!(heads == expected, "{said}");
    }
    let said = node.refused(&["policy", "apply", "-f", &file], "HM0108", 2)?;
    ensure!(said.contains("hivemind apply -f"), "{said}");
    ensure!(!node.hivemind_ok(&["namespace", "ls", "-o", "name"])?.contains("shop"), "a namespace was made");
    Ok(())
}

#[test]
fn what_only_the_daemon_knows_is_told_at_its_place_before_anything_is_applied() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&[
        "app",
        "deploy",
        "held",
        "--image",
        "busybox",
        "--service",
        "held.local",
        "--port",
        "8081:80",
        "--",
        "sleep",
        "3600",
    ])?;
    let app = |name: &str, spec: &str, ports: &str| {
        format!(
            "apiVersion: hivemind/v1\nkind: App\nmetadata: {{name: {name}}}\nspec:\n  hostnames: [{spec}]\n  template:\n    containers:\n    - image: busybox\n      command: [sleep, '3600']\n      ports: [{ports}]\n---\n"
        )
    };
    let text = [
        app("held", "other.local", "").replace("  template:", "  service: {headless: true}\n  template:"),
        app("new", "held.local", "{hostPort: 8081, containerPort: 80}"),
        app("one", "", "{hostPort: 8082, containerPort: 80}"),
        app("two", "", "{hostPort: 8082, containerPort: 81}"),
        "apiVersion: hivemind/v1\nkind: Volume\nmetadata: {name: data}\nspec: {node: nowhere}\n".to_owned(),
    ]
    .concat();
    let file = node.write("taken.yaml", &text)?;
    let output = node.hivemind(&["apply", "-f", &file])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "{said}");
    for told in [
        ":6:23: error[HM0108]: whether it has addresses cannot be changed",
        ":17:15: error[HM0302]: ",
        ":22:15: error[HM0303]: ",
        ":44:15: error[HM0303]: app \"one\" at",
        ":49:14: error[HM0103]: there is no node \"nowhere\"",
    ] {
        ensure!(said.contains(&format!("{file}{told}")), "no {told:?}: {said}");
    }
    ensure!(node.hivemind_ok(&["app", "ls", "-A", "-o", "name"])? == "app/held\n", "something was applied");
    Ok(())
}

#[test]
fn an_app_that_does_not_come_up_is_told_with_what_it_wrote() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let app = |command: &str| {
        format!(
            "apiVersion: hivemind/v1\nkind: App\nmetadata: {{name: web}}\nspec: {{template: {{stopGraceSeconds: 1, containers: [{{image: busybox, command: [sh, -c, '{command}']}}]}}}}\n"
        )
    };
    let file = node.write("web.yaml", &app("echo out of coal; exit 3"))?;
    let said = node.refused(&["apply", "-f", &file, "--timeout", "60s"], "HM0408", 5)?;
    ensure!(said.contains("out of coal"), "{said}");
    let file = node.write("web.yaml", &app("sleep 3600"))?;
    let said = node.hivemind_ok(&["apply", "-f", &file, "--detach"])?;
    ensure!(said == "app/web changed\n", "{said}");
    eventually(LIMIT, "the app to be up", || {
        let ready = node.ready_replicas("web")?;
        ensure!(ready == 1, "{ready} replicas are ready");
        Ok(())
    })
}

#[test]
fn files_come_from_folders_and_what_they_may_say_is_explained() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let app = |name: &str| {
        format!(
            "apiVersion: hivemind/v1\nkind: App\nmetadata: {{name: {name}}}\nspec: {{replicas: 0, template: {{containers: [{{image: busybox}}]}}}}\n"
        )
    };
    let first = node.write("apps/a.yaml", &app("a"))?;
    node.write("apps/b.yml", &app("b"))?;
    let folder = first.rsplit_once('/').context("no folder")?.0;
    let said = node.hivemind_ok(&["apply", "-f", folder, "-n", "shop"])?;
    ensure!(said.starts_with("app/a created in namespace shop\napp/b created in namespace shop\n"), "{said}");
    let said = node.hivemind_ok(&["explain", "app.template.containers.ports"])?;
    ensure!(said.lines().any(|line| line.starts_with("hostPort ") && line.contains("needed")), "{said}");
    node.refused(&["explain", "app.spec.replica"], "HM0113", 2)?;
    ensure!(node.hivemind_ok(&["explain"])?.lines().count() == 7, "not every kind is told");
    Ok(())
}
