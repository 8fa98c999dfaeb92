//! Policies of all kinds by the command line: faults, names, differences, warnings, ports with names, and many at once.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{
    Node,
    echo::{Echo, PORT, addresses, asks, dials},
    eventually,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// One policy of each kind, in a list and beside it.
const ALL: &str = "\
apiVersion: v1
kind: List
items:
- apiVersion: policy.networking.k8s.io/v1alpha2
  kind: ClusterNetworkPolicy
  metadata: {name: guard}
  spec:
    tier: Admin
    priority: 7
    subject: {namespaces: {}}
    ingress:
    - {name: monitoring, action: Accept, from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: default}}}]}
- apiVersion: hivemind/v1
  kind: Policy
  metadata: {name: more, namespace: shop}
  spec: {podSelector: {}, audit: true, ingress: [{action: Deny, from: [{entity: world}], icmp: [{type: 8}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: plain}
spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}
";

fn rows(table: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let cells = line.split("   ").map(str::trim).filter(|cell| !cell.is_empty());
        cells.map(str::to_owned).collect()
    };
    table.lines().skip(1).map(cells).collect()
}

#[test]
fn policies_of_all_kinds_are_applied_listed_shown_compared_and_deleted() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let file = node.write("all.yaml", ALL)?;
    let dry = node.hivemind_ok(&["policy", "apply", "-f", &file, "--dry-run"])?;
    let expected = "policy/guard would be created for the whole cluster\npolicy/more would be created in namespace shop\n\
                    policy/plain would be created\n";
    ensure!(dry == expected, "{dry}");
    ensure!(
        node.hivemind_ok(&["policy", "ls", "-A", "-o", "name"])?.is_empty(),
        "a dry run applied something"
    );

    let diff = ["policy", "diff", "-f", &file];
    let told = node.hivemind(&diff)?;
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    ensure!(told.status.code() == Some(1), "{said}");
    for part in [
        "policy/guard would be created for the whole cluster\n--- /dev/null\n",
        &format!("+++ {file}:4:3\n@@ -0,0 +1,"),
        "\n+kind: ClusterNetworkPolicy\n",
        "\n+  tier: Admin\n",
    ] {
        ensure!(said.contains(part), "no {part:?}: {said}");
    }

    let said = node.hivemind_ok(&["policy", "apply", "-f", &file])?;
    ensure!(said.starts_with("policy/guard created for the whole cluster, in force"), "{said}");
    let told = node.hivemind(&diff)?;
    ensure!(told.status.code() == Some(0), "exit {}", told.status);
    let said = String::from_utf8(told.stdout)?;
    ensure!(
        said.lines().count() == 3 && said.lines().all(|line| line.contains("would stay as it is")),
        "{said}"
    );

    // One of the whole cluster concerns every namespace, and is in none.
    let all = rows(&node.hivemind_ok(&["policy", "ls", "-A"])?);
    let places: Vec<_> = all.iter().map(|row| row[..3].join(" ")).collect();
    ensure!(places == ["default plain network", "- guard cluster", "shop more policy"], "{all:?}");
    let shop = rows(&node.hivemind_ok(&["policy", "ls", "-n", "shop"])?);
    ensure!(shop.iter().map(|row| row[0].as_str()).collect::<Vec<_>>() == ["guard", "more"], "{shop:?}");
    let empty = rows(&node.hivemind_ok(&["policy", "ls", "-n", "elsewhere"])?);
    ensure!(empty.len() == 1 && empty[0][0] == "guard", "{empty:?}");

    let told = node.hivemind_ok(&["policy", "get", "guard", "-n", "shop"])?;
    for part in [
        "Namespace:  -\n",
        "Asked:      tier Admin, priority 7\n",
        "ingress[0]: accept from all of namespaces",
    ] {
        ensure!(told.contains(part), "no {part:?}: {told}");
    }
    let told = node.hivemind_ok(&["policy", "get", "more", "-n", "shop"])?;
    ensure!(told.contains("ingress[0]: deny from world on icmp type 8\n"), "{told}");
    let yaml = node.hivemind_ok(&["policy", "get", "guard", "-o", "yaml"])?;
    ensure!(
        yaml.contains("apiVersion: policy.networking.k8s.io/v1beta1")
            && !yaml.contains("namespace: hivemind-system"),
        "{yaml}"
    );

    // What is printed is taken again, and differs from what it was by what is changed in it.
    let again = node.write("again.yaml", &yaml)?;
    let said = node.hivemind_ok(&["policy", "apply", "-f", &again])?;
    ensure!(said.starts_with("policy/guard unchanged"), "{said}");
    let changed = node.write("changed.yaml", &yaml.replace("priority: 7", "priority: 8"))?;
    let told = node.hivemind(&["policy", "diff", "-f", &changed])?;
    let said = String::from_utf8(told.stdout)?;
    let lines: Vec<_> = said.lines().filter(|line| line.starts_with(['-', '+'])).collect();
    ensure!(told.status.code() == Some(1), "{said}");
    ensure!(
        lines == ["--- in the cluster", &format!("+++ {changed}:1:1"), "-  priority: 7", "+  priority: 8"],
        "{said}"
    );
    let list = node.hivemind_ok(&["policy", "ls", "-A", "-o", "yaml"])?;
    let list = node.write("list.yaml", &list)?;
    let said = node.hivemind_ok(&["policy", "apply", "-f", &list])?;
    ensure!(said.lines().count() == 3 && said.lines().all(|line| line.contains(" unchanged")), "{said}");

    let said = node.hivemind_ok(&["policy", "delete", "guard", "more", "-n", "shop"])?;
    ensure!(said == "policy/guard deleted\npolicy/more deleted\n", "{said}");
    ensure!(node.hivemind_ok(&["policy", "ls", "-A", "-o", "name"])? == "policy/plain\n", "not deleted");
    Ok(())
}

/// Bad documents of the kinds that are no NetworkPolicy: what is told of each, without the file's name.
const BAD: &[(&str, &[&str])] = &[
    (
        "apiVersion: policy.networking.k8s.io/v1beta1\nkind: ClusterNetworkPolicy\nmetadata: {name: bad, namespace: shop}\nspec:\n  tier: Admin\n  priority: 1001\n  subject: {}\n  ingress:\n  - {action: Deny, from: [{networks: [10.0.0.0/8]}]}\n  egress:\n  - {action: Deny, to: [{domainNames: [example.org]}]}\n",
        &[
            ":3:34: error[HM0108]: a ClusterNetworkPolicy is of the whole cluster, and in no namespace",
            ":6:13: error[HM0103]: priority 1001 is not 0 to 1000",
            ":7:12: error[HM0110]: the subject says nothing",
            ":9:38: error[HM0108]: networks can be called, but not be told by who calls: it is a peer of egress only",
            ":11:39: error[HM0108]: domain names can be accepted, but not with Deny",
        ],
    ),
    (
        "apiVersion: hivemind/v1\nkind: Policy\nmetadata: {name: bad}\nspec:\n  podSelector: {}\n  until: soon\n  ingress:\n  - {action: Drop, from: [{domainName: example.org}], icmp: [{code: 3}]}\n  egress:\n  - {to: [{entity: host, ipBlock: {cidr: 10.0.0.1/8}}]}\n  - {ports: [{port: web_1}]}\n",
        &[
            ":6:10: error[HM0103]: \"soon\" is not a time",
            ":8:14: error[HM0103]: \"Drop\" is not one of \"Allow\" or \"Deny\"",
            ":8:40: error[HM0108]: a domain's name can be called, but does not call",
            ":8:69: error[HM0103]: code without type",
            ":10:11: error[HM0110]: of selectors, ipBlock, entity and domainName a peer has one",
            ":10:42: error[HM0111]: \"10.0.0.1/8\" has bits set behind its length",
            ":11:21: error[HM0101]: \"web_1\" is not the name of a port",
        ],
    ),
    (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: bad}\nspec:\n  podSelector: {}\n  ingress:\n  - action: Deny\n    ports: [{port: 80, endPort: 79}, {port: http, endPort: 90}]\n",
        &[
            ":7:5: error[HM0113]: unknown field \"action\"",
            ":8:33: error[HM0103]: the range ends at 79, before it begins at 80",
            ":8:60: error[HM0103]: endPort without a port that is a number",
        ],
    ),
];

#[test]
fn all_faults_of_a_bad_policy_of_any_kind_are_told_at_once_with_their_places() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for (text, told) in BAD {
        let file = node.write("bad.yaml", text)?;
        for verb in ["apply", "diff"] {
            let code = &told[0][told[0].find("HM").context("no code")?..][..6];
            let said = node.refused(&["policy", verb, "-f", &file], code, 2)?;
            let heads: Vec<&str> = said.lines().filter(|line| line.contains("error[")).collect();
            let expected: Vec<String> = told.iter().map(|told| format!("{file}{told}")).collect();
            ensure!(heads == expected, "{said}");
            ensure!(said.lines().filter(|line| line.starts_with("  hint: ")).count() == told.len(), "{said}");
        }
    }
    ensure!(node.hivemind_ok(&["policy", "ls", "-A", "-o", "name"])?.is_empty(), "something was applied");
    Ok(())
}

#[test]
fn names_of_other_kinds_times_that_are_past_and_contradictions_are_told() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&["app", "deploy", "web", "--image", "nginx"])?;
    node.apply(ALL)?;
    let policy = |name: &str, rest: &str| {
        format!(
            "apiVersion: hivemind/v1\nkind: Policy\nmetadata: {{name: {name}}}\nspec: {{podSelector: {{}}{rest}}}\n"
        )
    };
    let file = node.write("taken.yaml", &policy("plain", ""))?;
    let said = node.refused(&["policy", "apply", "-f", &file], "HM0312", 4)?;
    ensure!(said.contains(&format!("{file}:3:18: ")), "{said}");
    ensure!(
        said.contains("the name \"plain\" is that of a NetworkPolicy of namespace \"default\""),
        "{said}"
    );
    let file = node.write("ended.yaml", &policy("ended", ", until: 2026-01-01T00:00:00Z"))?;
    let said = node.refused(&["policy", "apply", "-f", &file], "HM0103", 2)?;
    ensure!(said.contains(&format!("{file}:4:32: ")) && said.contains("it has ended"), "{said}");

    let other = "apiVersion: policy.networking.k8s.io/v1beta1\nkind: ClusterNetworkPolicy\nmetadata: {name: other}\nspec: {tier: Admin, priority: 7, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}\n";
    let said = node.apply(other)?;
    let equal = "warning[HM0112]: ClusterNetworkPolicy guard, by its rule ingress[0], says Accept of some connections of which \
                 this says Deny, at the same tier and priority: guard counts, the first by name";
    ensure!(said.contains(equal), "{said}");
    let said = node.apply(&other.replace("priority: 7", "priority: 6"))?;
    ensure!(!said.contains("HM0112"), "{said}");
    let said = node.apply(ALL)?;
    let never = "this rule never has an effect: ClusterNetworkPolicy other, by its rule ingress[0], decides all that it matches \
                 before (Deny)";
    ensure!(said.matches(never).count() == 2, "of the rules of guard and plain: {said}");
    Ok(())
}

#[test]
fn ports_have_names_for_policies_and_for_dns() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for app in ["client", "server"] {
        node.deploy_waiting(app, &[])?;
    }
    let identity = |app: &str| -> Result<u64> {
        node.replicas(app)?[0]["spec"]["identity"].as_u64().context("no identity")
    };
    let before = identity("server")?;
    let file = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: by-name}\nspec: {podSelector: {matchLabels: {app: server}}, ingress: [{ports: [{port: echo}]}]}\n";
    let said = node.apply(file)?;
    ensure!(said.contains("no selected replica calls a port of tcp \"echo\" now"), "{said}");

    let wrong = node.refused(
        &["app", "deploy", "server", "--image", "busybox", "--service-port", "Echo=7000"],
        "HM0101",
        2,
    )?;
    ensure!(wrong.contains("--service-port"), "{wrong}");
    // Replicas of an app whose ports get other names are replaced, and have another identity.
    let socket = node.socket().display().to_string();
    let place = "http://localhost/v1/namespaces/default/apps/server";
    let api = ["curl", "-s", "--unix-socket", &socket, "-H", "content-type: application/json"];
    let mut app: Value = serde_json::from_str(&node.sandbox().check(&[&api[..], &[place]].concat())?)?;
    app["spec"]["service"] = json!({"ports": [{"name": "echo", "port": PORT}]});
    let put = node.sandbox().check(&[&api[..], &["-X", "PUT", "-d", &app.to_string(), place]].concat())?;
    ensure!(put.contains("\"echo\""), "{put}");
    eventually(LIMIT, "the replica to be replaced", || {
        let replicas = node.replicas("server")?;
        ensure!(replicas.len() == 1 && identity("server")? != before, "{replicas:?}");
        Ok(())
    })?;
    let named = format!("echo={PORT}/tcp");
    ensure!(node.hivemind_ok(&["app", "info", "server"])?.contains(&named), "not told");
    ensure!(node.hivemind_ok(&["service", "info", "server"])?.contains(&named), "not told");

    let _server = Echo::start(&node, "server")?;
    for address in addresses(&node, "server")? {
        let to = SocketAddr::new(address, PORT);
        ensure!(dials(&node, "client", to)?, "the named port of {address} is closed");
        ensure!(!asks(&node, "client", to)?, "the port is open for another protocol at {address}");
    }
    let asked = "_echo._tcp.server.default.svc.hivemind.internal";
    let output = node.exec_in_node(&["dig", "@169.254.20.10", "+short", "+time=2", asked, "SRV"])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(said.contains(&format!(" {PORT} server.default.svc.hivemind.internal.")), "{said}");
    Ok(())
}

#[test]
fn a_thousand_policies_of_one_file_are_applied_in_one_transaction_and_more_are_told() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&["app", "deploy", "web", "--image", "nginx"])?;
    let one = |i: usize| {
        format!(
            "apiVersion: hivemind/v1\nkind: Policy\nmetadata: {{name: p-{i}}}\nspec: {{podSelector: {{matchLabels: {{app: web}}}}, \
             ingress: [{{from: [{{ipBlock: {{cidr: 10.{}.{}.0/24}}}}]}}]}}\n---\n",
            i / 256,
            i % 256
        )
    };
    let many = |count: usize| (0..count).map(one).collect::<String>();
    let file = node.write("many.yaml", &many(1_000))?;
    let said = node.hivemind_ok(&["policy", "apply", "-f", &file])?;
    ensure!(
        said.lines().count() == 1_000 && said.lines().all(|line| line.ends_with("in force for 1 replica")),
        "{said}"
    );
    let all = node.json(&["policy", "ls"])?;
    // What the node tells of them changes them once more, each by itself; their ids were given in one transaction.
    let items = all["items"].as_array().context("no items")?;
    let times = |item: &Value| item["metadata"]["generation"] == 1;
    ensure!(items.len() == 1_000 && items.iter().all(times), "{} policies", items.len());

    let file = node.write("more.yaml", &many(1_001))?;
    let said = node.refused(&["policy", "apply", "-f", &file], "HM0103", 2)?;
    ensure!(said.contains("more than 1000 documents") && said.contains("one part after the other"), "{said}");
    let file = node.write("most.yaml", &many(10_000))?;
    let said = node.refused(&["policy", "apply", "-f", &file], "HM0103", 2)?;
    ensure!(said.contains("more than 1 MiB") && said.contains("one part after the other"), "{said}");
    Ok(())
}
