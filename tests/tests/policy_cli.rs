//! Policies, namespaces, tokens and contexts by the command line, good input and bad.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Node, NodeOptions, check_refusal, hivemind_binary};
use serde_json::Value;

/// A policy that lets only the app `client` in, to port 80.
fn policy(name: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: {name}\nspec:\n  podSelector:\n    \
         matchLabels: {{app: web}}\n  ingress:\n  - from:\n    - podSelector:\n        matchLabels: {{app: client}}\n    \
         ports:\n    - port: 80\n"
    )
}

fn policies(node: &Node) -> Result<String> {
    node.hivemind_ok(&["policy", "ls", "-A", "-o", "name"])
}

/// Bad documents: the code, where they are wrong (as `line:column` of the document), and what the hint says.
const BAD: &[(&str, &str, &str, &str)] = &[
    ("a: [1, 2\nb: 3\n", "HM0100", "2:2", "not closed"),
    ("spec:\n\tpodSelector: {}\n", "HM0100", "2:2", "spaces"),
    ("kind: Deployment\n", "HM0108", "1:7", "NetworkPolicy of networking.k8s.io/v1"),
    (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: bad\nspec:\n  podselector: {}\n",
        "HM0113",
        "6:3",
        "did you mean \"podSelector\"?",
    ),
    (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: bad\nspec:\n  podSelector: {matchLabels: {v: 1.10}}\n",
        "HM0114",
        "6:34",
        "in quotes: \"1.10\"",
    ),
    (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: bad\nspec:\n  podSelector:\n    matchLabels: {app: a}\n    matchExpressions:\n    - {key: app, operator: NotIn, values: [a]}\n",
        "HM0110",
        "7:5",
        "remove one",
    ),
    (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: bad\nspec:\n  ingress:\n  - from:\n    - ipBlock:\n        cidr: 10.0.0.0/33\n",
        "HM0111",
        "9:15",
        "0 to 32",
    ),
    (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: bad\nspec:\n  egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/9]}}]}]\n",
        "HM0111",
        "6:56",
        "cidr contains",
    ),
];

#[test]
fn every_fault_is_told_with_its_place_and_nothing_is_applied() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let good = policy("good");
    let lines = good.lines().count() + 1;
    for (text, code, place, hint) in BAD {
        let file = node.write("bad.yaml", text)?;
        let said = node.refused(&["policy", "apply", "-f", &file], code, 2)?;
        ensure!(said.contains(&format!("{file}:{place}: error[{code}]: ")), "not at {place}: {said}");
        ensure!(
            said.lines().any(|l| l.starts_with("  hint: ") && l.contains(hint)),
            "no hint {hint}: {said}"
        );

        // Behind a good policy in the same file it is told at its line there, and the good one is not applied.
        let file = node.write("both.yaml", &format!("{good}---\n{text}"))?;
        let (line, column) = place.split_once(':').context("no place")?;
        let place = format!("{file}:{}:{column}: ", line.parse::<usize>()? + lines);
        let said = node.refused(&["policy", "apply", "-f", &file], code, 2)?;
        ensure!(said.contains(&place), "not at {place}: {said}");
        ensure!(policies(&node)?.is_empty(), "something was applied of {text}");
    }
    Ok(())
}

#[test]
fn all_faults_of_all_files_are_told_at_once() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    for (index, (text, ..)) in BAD.iter().enumerate() {
        let text = text.replace("name: bad", &format!("name: bad-{index}"));
        node.write(&format!("rules/{index}.yaml"), &text)?;
    }
    let good = node.write("rules/good.yml", &policy("good"))?;
    node.write("rules/notes.txt", "this is not read")?;
    let folder = node.sandbox().directory().join("rules").display().to_string();
    let said = node.refused(&["policy", "apply", "-f", &folder], BAD[0].1, 2)?;
    for (index, (_, code, place, _)) in BAD.iter().enumerate() {
        ensure!(
            said.contains(&format!("/{index}.yaml:{place}: error[{code}]: ")),
            "{index} is not told: {said}"
        );
    }
    ensure!(said.matches("error[").count() == BAD.len(), "something else is told: {said}");

    let output = node.hivemind(&["policy", "apply", "-f", &folder, "-o", "json"])?;
    let error: Value = serde_json::from_slice(&output.stderr).context("no JSON")?;
    let faults = error["faults"].as_array().context("no faults")?;
    ensure!(faults.len() == BAD.len() && faults[6]["line"] == 9 && faults[6]["column"] == 15, "{error}");
    ensure!(faults[6]["field"] == "spec.ingress[0].from[0].ipBlock.cidr", "{error}");

    let said = node.refused(&["policy", "apply", "-f", &good, "-f", "/nosuch.yaml"], "HM0100", 2)?;
    ensure!(said.contains("/nosuch.yaml"), "{said}");
    let twice = node.refused(&["policy", "apply", "-f", &good, "-f", &good], "HM0107", 2)?;
    ensure!(twice.contains(&format!("{good}:4:9: ")) && twice.contains("stands twice"), "{twice}");
    let other = node.refused(&["policy", "apply", "-f", &folder, "--timeout", "x"], "HM0103", 2)?;
    ensure!(other.contains("--timeout"), "{other}");
    ensure!(policies(&node)?.is_empty(), "something was applied");
    Ok(())
}

#[test]
fn a_policy_is_applied_shown_and_deleted() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&["app", "deploy", "web", "--image", "nginx", "--replicas", "2"])?;
    let file = node.write("rules.yaml", &policy("only-client"))?;
    let apply = ["policy", "apply", "-f", &file];

    let dry = node.hivemind_ok(&["policy", "apply", "-f", &file, "--dry-run"])?;
    ensure!(dry == "policy/only-client would be created\n", "{dry}");
    ensure!(policies(&node)?.is_empty(), "a dry run applied it");
    let said = node.hivemind_ok(&apply)?;
    ensure!(said == "policy/only-client created, in force for 2 replicas\n", "{said}");
    let said = node.hivemind_ok(&apply)?;
    ensure!(said == "policy/only-client unchanged, in force for 2 replicas\n", "{said}");

    let table = node.hivemind_ok(&["policy", "ls"])?;
    let row: Vec<&str> = table.lines().nth(1).context("no row")?.split("   ").map(str::trim).collect();
    let row: Vec<&str> = row.into_iter().filter(|cell| !cell.is_empty()).collect();
    ensure!(
        row[..7] == ["only-client", "network", "app=web", "2", "app=client on 80/tcp", "any", "In force"],
        "{table}"
    );
    let told = node.hivemind_ok(&["policy", "get", "only-client"])?;
    ensure!(told.contains("ingress[0]: from app=client on 80/tcp\n"), "{told}");
    let json = node.json(&["policy", "get", "only-client"])?;
    ensure!(json["status"]["replicas"] == 2 && json["kind"] == "NetworkPolicy", "{json}");

    // What is printed as YAML is what was applied, and can be again: from a file, and from the standard input.
    let yaml = node.hivemind_ok(&["policy", "get", "only-client", "-o", "yaml"])?;
    let changed = yaml.replace("port: 80", "port: 81");
    ensure!(changed != yaml, "{yaml}");
    let said = piped_ok(&node, &["policy", "apply", "-f", "-"], &changed)?;
    ensure!(said == "policy/only-client changed, in force for 2 replicas\n", "{said}");
    let all = node.hivemind_ok(&["policy", "ls", "-o", "yaml"])?;
    let said = node.hivemind_ok(&["policy", "delete", "policy/only-client"])?;
    ensure!(said == "policy/only-client deleted\n" && policies(&node)?.is_empty(), "{said}");
    let said = piped_ok(&node, &["policy", "apply", "-f", "-", "-o", "name"], &all)?;
    ensure!(said == "policy/only-client\n" && policies(&node)? == said, "{said}");
    ensure!(
        node.json(&["policy", "get", "only-client"])?["spec"]["ingress"][0]["ports"][0]["port"] == 81,
        "not as it was"
    );
    Ok(())
}

/// What comes of a command that is given `text` on its standard input.
fn piped(node: &Node, words: &[&str], text: &str) -> Result<Output> {
    let mut command = node.sandbox().command(hivemind_binary()?);
    command.args(words).env("HIVEMIND_SOCKET", node.socket());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no input")?.write_all(text.as_bytes())?;
    child.wait_with_output().context("cannot run hivemind")
}

/// As [`piped`], what it prints.
fn piped_ok(node: &Node, words: &[&str], text: &str) -> Result<String> {
    let output = piped(node, words, text)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn what_cannot_be_read_is_told_with_the_faults_of_what_can() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let good = node.write("rules/good.yaml", &policy("good"))?;
    let bad = node.write("bad.yaml", BAD[3].0)?;
    let broken = node.write("broken.yaml", BAD[0].0)?;
    let folder = node.sandbox().directory().join("rules").display().to_string();
    node.sandbox().check(&["ln", "-s", "/nosuch", &format!("{folder}/lost.yaml")])?;
    let files = ["-f", &good, "-f", "/nosuch.yaml", "-f", &bad, "-f", &folder, "-f", &broken];
    let words = [&["policy", "apply"], &files[..]].concat();
    let said = node.refused(&words, "HM0100", 2)?;
    for part in [
        "there is no file /nosuch.yaml\n  at: -f /nosuch.yaml\n  hint: ".to_owned(),
        format!("there is no file {folder}/lost.yaml\n"),
        format!("{bad}:{}: error[{}]: ", BAD[3].2, BAD[3].1),
        format!("{broken}:{}: error[{}]: ", BAD[0].2, BAD[0].1),
        // The folder has the first file again.
        format!("{good}:4:9: error[HM0107]: "),
    ] {
        ensure!(said.contains(&part), "no {part:?}: {said}");
    }
    ensure!(said.matches("error[").count() == 5, "something else is told: {said}");
    ensure!(policies(&node)?.is_empty(), "something was applied");

    let output = node.hivemind(&[&words[..], &["-o", "json"]].concat())?;
    let error: Value = serde_json::from_slice(&output.stderr).context("no JSON")?;
    let count = |list: &str| error[list].as_array().map(Vec::len);
    ensure!(count("problems") == Some(5) && count("faults") == Some(3), "{error}");
    ensure!(error["problems"][0]["field"] == "-f /nosuch.yaml", "{error}");
    Ok(())
}

#[test]
fn policies_come_from_the_standard_input_from_folders_and_from_between_empty_documents() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let apply = ["policy", "apply", "-f", "-", "-o", "name"];
    let text = format!("---\n# nothing\n---\n{}---\n---\n{}---\n", policy("a"), policy("b"));
    ensure!(piped_ok(&node, &apply, &text)? == "policy/a\npolicy/b\n");
    for nothing in ["", "---\n---\n", "# nothing\n", "null\n"] {
        let said = check_refusal(&piped(&node, &apply[..4], nothing)?, "HM0100", 2)?;
        ensure!(said.contains("standard input: there is no policy to apply"), "{nothing:?}: {said}");
    }
    let twice = format!("{}---\n{}", policy("c"), policy("c"));
    let said = check_refusal(&piped(&node, &apply[..4], &twice)?, "HM0107", 2)?;
    ensure!(said.contains("first at standard input:4:9"), "{said}");
    let said = check_refusal(&piped(&node, &apply[..4], BAD[3].0)?, BAD[3].1, 2)?;
    ensure!(said.contains(&format!("standard input:{}: ", BAD[3].2)), "{said}");

    node.write("rules/1.yaml", &policy("d"))?;
    node.write("rules/2.yml", "# Nothing yet.\n")?;
    let folder = node.sandbox().directory().join("rules").display().to_string();
    let said = piped_ok(&node, &[&apply[..], &["-f", &folder]].concat(), &policy("e"))?;
    ensure!(said == "policy/e\npolicy/d\n", "{said}");
    ensure!(policies(&node)?.lines().count() == 4);
    Ok(())
}

#[test]
fn what_a_policy_cuts_off_is_told_as_a_warning_and_a_wrong_name_with_its_neighbours() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&["app", "deploy", "web", "--image", "nginx"])?;
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: shut}\nspec: {podSelector: {}, policyTypes: [Egress]}\n";
    let file = node.write("shut.yaml", text)?;
    let output = node.hivemind(&["policy", "apply", "-f", &file])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{said}");
    ensure!(
        said.contains(&format!("{file}:"))
            && said.contains("warning[HM0112]: ")
            && said.contains("can no longer ask for names"),
        "{said}"
    );

    for verb in ["get", "delete"] {
        let said = node.refused(&["policy", verb, "shot"], "HM0207", 3)?;
        ensure!(said.contains("did you mean \"shut\"?") && said.contains("hivemind policy ls"), "{said}");
    }
    let said = node.refused(&["policy", "delete", "shut", "nosuch"], "HM0207", 3)?;
    ensure!(said.contains("\"nosuch\"") && policies(&node)? == "policy/shut\n", "one was deleted: {said}");
    node.refused(&["policy", "get", "shut", "-n", "shop"], "HM0207", 3)?;
    Ok(())
}

#[test]
fn namespaces_are_made_labelled_and_deleted_once_they_are_empty() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    node.hivemind_ok(&["namespace", "create", "shop", "--label", "team=front"])?;
    node.refused(&["namespace", "create", "shop"], "HM0309", 4)?;
    node.refused(&["namespace", "create", "Shop", "--label", "team"], "HM0101", 2)?;
    let said = node.hivemind_ok(&["namespace", "label", "shop", "stage=test", "team-"])?;
    ensure!(said.contains("stage=test") && !said.contains("team"), "{said}");
    let labels = node.json(&["namespace", "ls"])?;
    let shop =
        labels["items"].as_array().and_then(|all| all.iter().find(|n| n["metadata"]["name"] == "shop"));
    let shop = shop.context("no namespace shop")?;
    ensure!(shop["metadata"]["labels"]["kubernetes.io/metadata.name"] == "shop", "{shop}");
    let said = node.refused(&["namespace", "label", "shpo", "a=b"], "HM0208", 3)?;
    ensure!(said.contains("did you mean \"shop\"?"), "{said}");
    node.refused(&["namespace", "label", "shop", "a"], "HM0106", 2)?;
    node.refused(&["namespace", "label", "shop", "kubernetes.io/metadata.name=x"], "HM0106", 2)?;

    let file = node.write("rules.yaml", &policy("only-client"))?;
    node.hivemind_ok(&["policy", "apply", "-n", "shop", "-f", &file])?;
    let said = node.refused(&["namespace", "delete", "shop"], "HM0310", 4)?;
    ensure!(said.contains("only-client"), "what is in it is not told: {said}");
    node.refused(&["namespace", "delete", "default"], "HM0108", 2)?;
    node.hivemind_ok(&["policy", "delete", "-n", "shop", "only-client"])?;
    node.hivemind_ok(&["namespace", "delete", "shop"])?;
    node.refused(&["namespace", "delete", "shop"], "HM0208", 3)?;
    Ok(())
}

/// Where the daemon of a node that was told nothing else listens besides its socket.
const WEB: &str = "http://127.0.0.1:4483";

/// Runs a command as a user whose contexts are kept on the node, without a word about the socket.
fn at_home(node: &Node, words: &[&str]) -> Result<Output> {
    let home = node.sandbox().directory().join("home");
    fs::create_dir_all(node.sandbox().outside(&home))?;
    let mut command = node.sandbox().command(hivemind_binary()?);
    command.args(words).env("XDG_CONFIG_HOME", home).env_remove("HIVEMIND_SOCKET");
    command.output().context("cannot run hivemind")
}

fn at_home_ok(node: &Node, words: &[&str]) -> Result<String> {
    let output = at_home(node, words)?;
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn at_home_refused(node: &Node, words: &[&str], code: &str, exit: i32) -> Result<String> {
    check_refusal(&at_home(node, words)?, code, exit).with_context(|| format!("{words:?}"))
}

#[test]
fn tokens_let_in_what_their_role_allows_until_they_are_revoked() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let secret = node.hivemind_ok(&["token", "create", "reader", "--expires", "1h"])?;
    let secret = secret.trim();
    node.refused(&["token", "create", "reader"], "HM0311", 4)?;
    node.refused(&["token", "create", "other", "--expires", "soon"], "HM0103", 2)?;
    let all = node.hivemind_ok(&["token", "ls", "-o", "json"])?;
    ensure!(all.contains("\"reader\"") && all.contains("read-only") && !all.contains(secret), "{all}");

    let add = ["context", "add", "node", "--server", WEB, "--token", secret];
    let said = at_home_ok(&node, &add)?;
    ensure!(said == format!("context/node added: {WEB} as reader (read-only)\n"), "{said}");
    at_home_ok(&node, &["--context", "node", "policy", "ls"])?;
    let file = node.write("rules.yaml", &policy("a"))?;
    at_home_refused(&node, &["--context", "node", "policy", "apply", "-f", &file], "HM0802", 9)?;
    at_home_refused(&node, &["--context", "node", "token", "ls"], "HM0802", 9)?;
    node.hivemind_ok(&["token", "revoke", "reader"])?;
    at_home_refused(&node, &["--context", "node", "policy", "ls"], "HM0801", 9)?;
    node.refused(&["token", "revoke", "reader"], "HM0209", 3)?;
    Ok(())
}

#[test]
fn contexts_name_daemons_and_say_which_one_is_meant() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let secret = node.hivemind_ok(&["token", "create", "laptop", "--role", "admin"])?;
    let file = node.write("laptop.token", &secret)?;
    let add = ["context", "add", "prod", "--server", WEB, "--token-file", &file];
    at_home_ok(&node, &add)?;
    let kept = node.sandbox().directory().join("home/hivemind/contexts.toml");
    let mode = fs::metadata(node.sandbox().outside(&kept))?.permissions();
    ensure!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777 == 0o600, "others may read it: {mode:?}");

    // Without a context it is the socket of this machine, where nobody listens in this test.
    at_home_refused(&node, &["app", "ls"], "HM0601", 7)?;
    at_home_ok(&node, &["context", "use", "prod"])?;
    at_home_ok(&node, &["app", "ls"])?;
    let list = at_home_ok(&node, &["context", "ls"])?;
    ensure!(list.lines().any(|l| l.starts_with('*') && l.contains("prod") && l.contains(WEB)), "{list}");
    ensure!(
        !at_home_ok(&node, &["context", "ls", "-o", "json"])?.contains(secret.trim()),
        "the secret is shown"
    );
    at_home_refused(&node, &["--context", "local", "app", "ls"], "HM0601", 7)?;

    let said = at_home_refused(&node, &["--context", "prod", "--socket", "/s", "app", "ls"], "HM0107", 2)?;
    ensure!(said.contains("--socket and --context"), "{said}");
    let said = at_home_refused(&node, &["context", "use", "prd"], "HM0210", 3)?;
    ensure!(said.contains("did you mean \"prod\"?"), "{said}");
    at_home_refused(&node, &["--context", "prd", "app", "ls"], "HM0210", 3)?;
    let wrong = ["context", "add", "other", "--server", "http://192.0.2.1:4483", "--token", "x"];
    at_home_refused(&node, &wrong, "HM0109", 2)?;
    let nobody = ["context", "add", "other", "--server", "http://127.0.0.1:1", "--token-file", &file];
    at_home_refused(&node, &nobody, "HM0601", 7)?;
    ensure!(!at_home_ok(&node, &["context", "ls"])?.contains("other"), "what did not answer was kept");
    at_home_ok(&node, &["context", "rm", "prod"])?;
    at_home_refused(&node, &["app", "ls"], "HM0601", 7)?;
    Ok(())
}

#[test]
fn the_dashboard_is_opened_by_a_code_that_works_once() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let url = node.hivemind_ok(&["ui", "--print"])?;
    let code = url.trim().strip_prefix(&format!("{WEB}/#")).with_context(|| url.clone())?;
    let code = code.rsplit_once('=').map_or(code, |(_, code)| code);
    let body = format!("{{\"code\":\"{code}\"}}");
    let words = [
        "curl",
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-H",
        "content-type: application/json",
        "-d",
        &body,
    ];
    let login = format!("{WEB}/v1/login");
    let log_in = || node.sandbox().check(&words.iter().copied().chain([login.as_str()]).collect::<Vec<_>>());
    ensure!(log_in()?.trim() == "200", "the code does not work");
    ensure!(log_in()?.trim() == "401", "the code works twice");
    Ok(())
}

#[test]
fn a_file_is_judged_before_a_daemon_is_looked_for() -> Result<()> {
    let node = Node::start(NodeOptions::default())?;
    let file: PathBuf = node.write("bad.yaml", BAD[3].0)?.into();
    let said = node.refused(&["policy", "apply", "-f", &file.display().to_string()], BAD[3].1, 2)?;
    ensure!(said.contains("bad.yaml:6:3: "), "{said}");
    node.write("bad.yaml", &policy("good"))?;
    node.refused(&["policy", "apply", "-f", &file.display().to_string()], "HM0601", 7)?;
    Ok(())
}
