//! Who gets in: tokens on the web port, TLS on other addresses, contexts from elsewhere, metrics on a port of their own.

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hivemind_tests::{Node, NodeOptions, check_refusal, eventually, hivemind_binary};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);
const WEB: &str = "http://127.0.0.1:4483";

/// Status and body of what curl gets on the node.
fn curl(node: &Node, words: &[&str]) -> Result<(u16, String)> {
    let mut command = vec!["curl", "-s", "-m", "10", "-w", "\n%{http_code}"];
    command.extend(words);
    let said = node.sandbox().check(&command)?;
    let (body, status) = said.rsplit_once('\n').context("no status")?;
    Ok((status.parse()?, body.to_owned()))
}

fn code(body: &str) -> Result<String> {
    let error: Value = serde_json::from_str(body).with_context(|| format!("no error: {body:?}"))?;
    Ok(error["code"].as_str().context("no code")?.to_owned())
}

/// A header with a new token of that role.
fn token(node: &Node, name: &str, role: &str) -> Result<String> {
    Ok(node.hivemind_ok(&["token", "create", name, "--role", role])?.trim().to_owned())
}

fn bearer(secret: &str) -> String {
    format!("Authorization: Bearer {secret}")
}

fn deploy(node: &Node) -> Result<()> {
    node.hivemind_ok(&["app", "deploy", "web", "--image", "busybox", "--", "sleep", "3600"]).map(drop)
}

#[test]
fn the_web_port_lets_in_who_has_a_token_and_only_for_what_that_allows() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    deploy(&node)?;
    let replica = node.replica("web")?["metadata"]["name"].as_str().context("no name")?.to_owned();
    let apps = format!("{WEB}/v1/apps");
    let (status, body) = curl(&node, &[&apps])?;
    ensure!((status, code(&body)?.as_str()) == (401, "HM0801"), "{status} {body}");
    let (admin, reader) = (bearer(&token(&node, "ci", "admin")?), bearer(&token(&node, "eye", "read-only")?));
    for header in [&admin, &reader] {
        let (status, body) = curl(&node, &["-H", header, &apps])?;
        ensure!(status == 200 && body.contains("\"web\""), "{status} {body}");
    }
    let (status, body) = curl(&node, &["-H", &admin, "-H", "Host: evil.example:4483", &apps])?;
    ensure!(status == 421, "another host: {status} {body}");

    let scale = format!("{WEB}/v1/namespaces/default/apps/web/scale");
    let put = ["-X", "PUT", "-d", "{\"replicas\": 0}"];
    let exec = format!("{WEB}/v1/namespaces/default/replicas/{replica}/exec?command=true");
    let upgrade = [
        "-H",
        "Connection: Upgrade",
        "-H",
        "Upgrade: websocket",
        "-H",
        "Sec-WebSocket-Version: 13",
        "-H",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ];
    for (who, words) in [
        (
            "a page of another site",
            [&put[..], &["-H", &admin, "-H", "Origin: https://evil.example", &scale]].concat(),
        ),
        (
            "a page of another port",
            [&put[..], &["-H", &admin, "-H", "Origin: http://127.0.0.1:8080", &scale]].concat(),
        ),
        ("a reader", [&put[..], &["-H", &reader, &scale]].concat()),
        ("a reader", [&upgrade[..], &["-H", &reader, &exec]].concat()),
        ("a reader", vec!["-H", &reader, "http://127.0.0.1:4483/v1/tokens"]),
    ] {
        let (status, body) = curl(&node, &words)?;
        ensure!((status, code(&body)?.as_str()) == (403, "HM0802"), "{who} {words:?}: {status} {body}");
    }
    ensure!(node.json(&["app", "info", "web"])?["app"]["spec"]["replicas"] != 0, "it was scaled");
    let (status, body) = curl(&node, &[&put[..], &["-H", &admin, &scale]].concat())?;
    ensure!(status == 200, "{status} {body}");

    node.daemon_term()?;
    node.daemon_start()?;
    ensure!(curl(&node, &["-H", &admin, &apps])?.0 == 200, "tokens outlive the daemon");
    Ok(())
}

#[test]
fn what_a_token_began_ends_when_it_is_revoked() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let header = bearer(&token(&node, "ci", "admin")?);
    let log = node.sandbox().directory().join("watch.log");
    let url = format!("{WEB}/v1/apps?watch=true");
    let mut watch = node.host_process(&["curl", "-sN", "-H", &header, &url], Some(&log))?;
    let told = || fs::read_to_string(node.sandbox().outside(&log)).unwrap_or_default();
    eventually(LIMIT, "the watch to begin", || {
        ensure!(told().contains("\"bookmark\""), "{}", told());
        Ok::<_, anyhow::Error>(())
    })?;
    ensure!(watch.exit_status()?.is_none(), "the watch ended by itself");
    let revoked = Instant::now();
    node.hivemind_ok(&["token", "revoke", "ci"])?;
    ensure!(watch.wait(LIMIT)?.success(), "the watch broke off");
    ensure!(revoked.elapsed() < Duration::from_secs(5), "the watch ended after {:?} only", revoked.elapsed());
    ensure!(told().contains("HM0801"), "it does not say why: {}", told());
    let (status, _) = curl(&node, &["-H", &header, &format!("{WEB}/v1/apps")])?;
    ensure!(status == 401, "{status}");
    Ok(())
}

#[test]
fn a_code_lets_a_browser_in_once() -> Result<()> {
    let (node, _registry) = Node::with_daemon()?;
    let url = node.hivemind_ok(&["ui", "--print"])?;
    let (page, code) = url.trim().split_once("#code=").context("no code")?;
    ensure!(page == format!("{WEB}/"), "{page}");
    let body = format!("{{\"code\": \"{code}\"}}");
    let login = format!("{WEB}/v1/login");
    let jar = node.sandbox().directory().join("cookies").display().to_string();
    let (status, said) = curl(&node, &["-c", &jar, "-d", &body, &login])?;
    ensure!(status == 200 && said.contains("admin"), "{status} {said}");
    ensure!(curl(&node, &["-d", &body, &login])?.0 == 401, "the code is valid twice");
    ensure!(curl(&node, &["-b", &jar, &format!("{WEB}/v1/apps")])?.0 == 200, "the session is none");
    let logout = format!("{WEB}/v1/logout");
    let own = ["-X", "POST", "-b", &jar, "-H", "Origin: http://127.0.0.1:4483", &logout];
    ensure!(curl(&node, &["-X", "POST", "-b", &jar, &logout])?.0 == 403, "nobody knows which page asks");
    ensure!(curl(&node, &own)?.0 == 204, "it does not end");
    ensure!(curl(&node, &["-b", &jar, &format!("{WEB}/v1/apps")])?.0 == 401, "it goes on");
    Ok(())
}

/// The command line on another machine, with contexts of its own.
struct Elsewhere<'a> {
    node: &'a Node,
    home: PathBuf,
}

impl Elsewhere<'_> {
    fn hivemind(&self, words: &[&str]) -> Result<Output> {
        let mut command = self.node.fabric().client().command(hivemind_binary()?);
        command.args(words).env("XDG_CONFIG_HOME", &self.home).env_remove("HIVEMIND_SOCKET");
        command.output().context("cannot run hivemind")
    }

    fn ok(&self, words: &[&str]) -> Result<String> {
        let output = self.hivemind(words)?;
        ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[test]
fn another_address_is_served_with_tls_and_a_context_works_from_elsewhere() -> Result<()> {
    let (node, _registry) = Node::with_daemon_flags(&["--web-address", "0.0.0.0"])?;
    let address = node.addresses().ipv4;
    let secret = token(&node, "laptop", "admin")?;
    let plain = curl(&node, &["-H", &bearer(&secret), &format!("http://{address}:4483/v1/apps")])?;
    ensure!(plain.0 == 400 && plain.1.contains("https://"), "{plain:?}");

    let client = node.fabric().client();
    let elsewhere = Elsewhere { node: &node, home: client.directory().join("config") };
    let url = format!("https://{address}:4483");
    let authority = node.sandbox().outside(&node.sandbox().directory().join("data/tls/ca.crt"));
    let print = ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in"];
    let shown = client.check(&[&print[..], &[&authority.display().to_string()]].concat())?;
    let fingerprint = shown.trim().rsplit_once('=').context("no fingerprint")?.1.to_owned();

    let wrong = "0".repeat(64);
    let add = ["context", "add", "prod", "--server", &url, "--token", &secret, "--fingerprint"];
    let refused = elsewhere.hivemind(&[&add[..], &[&wrong]].concat())?;
    let said = check_refusal(&refused, "HM0803", 9)?;
    ensure!(said.contains(&wrong), "{said}");
    elsewhere.ok(&[&add[..], &[&fingerprint, "--use"]].concat())?;
    elsewhere.ok(&["app", "deploy", "web", "--image", "busybox", "--", "sleep", "3600"])?;
    ensure!(node.ready_replicas("web")? == 1, "it is not there");
    let shown = elsewhere.ok(&["app", "exec", "web", "--", "sh", "-c", "echo from $(hostname)"])?;
    ensure!(shown.starts_with("from web-"), "{shown:?}");
    let (_, body) = curl(&node, &["-k", "-H", &bearer(&secret), &format!("{url}/v1/session")])?;
    ensure!(body.contains("\"laptop\""), "{body}");

    // The authority outlives the daemon, its certificates need not.
    node.daemon_term()?;
    node.daemon_start()?;
    elsewhere.ok(&["app", "ls"])?;
    node.hivemind_ok(&["token", "revoke", "laptop"])?;
    check_refusal(&elsewhere.hivemind(&["app", "ls"])?, "HM0801", 9)?;
    let local = elsewhere.hivemind(&["--context", "local", "app", "ls"])?;
    check_refusal(&local, "HM0601", 7)?;
    Ok(())
}

#[test]
fn metrics_have_a_port_of_their_own_if_that_is_wanted_and_nothing_else_is_there() -> Result<()> {
    let node = Node::start(NodeOptions {
        daemon_flags: vec!["--metrics-address".into(), "127.0.0.1:4490".into()],
        ..NodeOptions::default()
    })?;
    node.daemon_start()?;
    let metrics = "http://127.0.0.1:4490";
    ensure!(curl(&node, &[&format!("{metrics}/healthz")])? == (200, "ok".to_owned()));
    for path in ["/", "/v1/apps", "/v1/status", "/openapi.json"] {
        let (status, body) = curl(&node, &[&format!("{metrics}{path}")])?;
        ensure!(status == 404, "{path}: {status} {body}");
    }
    let secret = token(&node, "prometheus", "read-only")?;
    ensure!(curl(&node, &[&format!("{WEB}/metrics")])?.0 == 401, "the web port wants a token");
    for words in
        [vec![format!("{metrics}/metrics")], vec!["-H".into(), bearer(&secret), format!("{WEB}/metrics")]]
    {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let (status, body) = curl(&node, &words)?;
        ensure!(status == 200 && body.contains("# TYPE hivemind_"), "{words:?}: {status} {body}");
    }
    node.daemon_term()?;
    let other = node.daemon_run(&[], &["--tls-cert", "/none.pem"])?;
    check_refusal(&other, "HM0109", 2)?;
    Ok(())
}
