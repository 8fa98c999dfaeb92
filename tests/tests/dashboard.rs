//! The dashboard in a real browser: what it shows is what is there, and what it is told to do is done.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hivemind_tests::{
    Browser, Cluster, ClusterOptions, Node, NodeOptions, Registry, artifacts, both_addresses,
    echo::{Echo, PORT, addresses, dials},
    eventually, hivemind_binary, policy_only,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(20);
const ADDRESS: &str = "http://127.0.0.1:3000";

fn start() -> Result<(Node, Registry, Browser)> {
    let (node, registry) = Node::with_daemon_flags(&["--web-port", "3000"])?;
    let browser = Browser::start(&node)?;
    Ok((node, registry, browser))
}

/// Logs in as `hivemind ui` does, and as whoever it is run by.
fn enter(node: &Node, browser: &mut Browser) -> Result<()> {
    let url = node.hivemind_ok(&["ui", "--print"])?;
    ensure!(url.starts_with(&format!("{ADDRESS}/#code=")), "not the dashboard's address: {url}");
    browser.act("goto", &[json!(url.trim())])?;
    browser
        .see("#apps h2", "Apps")
        .context("is the dashboard built? `cargo xtask ui`, then build the program")?;
    Ok(())
}

/// Who sits at the machine in the test below.
const USER: &str = "65534";

#[test]
fn the_browser_is_let_in_and_no_other_user_sees_the_code() -> Result<()> {
    let (node, _registry, mut browser) = start()?;
    // A desk: the user's session, and a program that opens browsers, which writes down what it is given.
    let desk = node.sandbox().directory().join("desk");
    let (opener, opened) = (desk.join("xdg-open"), desk.join("opened"));
    let run = format!("/run/user/{USER}");
    let set_up = format!(
        "mkdir -p /run/user && mount -t tmpfs -o mode=755 tmpfs /run/user && mkdir -m 700 {run} {desk} && \
         printf '#!/bin/sh\\nid -u > {opened} && echo \"$@\" >> {opened}\\n' > {opener} && chmod 755 {opener} && \
         chown {USER} {run} {desk} && chmod 755 {desk}",
        desk = desk.display(),
        opened = opened.display(),
        opener = opener.display(),
    );
    node.sandbox().check(&["sh", "-c", &set_up])?;
    let program = hivemind_binary()?;
    let path = format!("PATH={}:/usr/bin:/bin", desk.display());
    let (socket, user) = (format!("HIVEMIND_SOCKET={}", node.socket().display()), format!("SUDO_UID={USER}"));
    let program = program.display().to_string();
    node.sandbox().check(&["env", &path, &socket, &user, "DISPLAY=:0", &program, "ui"])?;

    let seen = fs::read_to_string(node.sandbox().outside(&opened))?;
    let page = format!("{run}/hivemind-ui.html");
    assert_eq!(seen, format!("{USER}\n{page}\n"), "what every user can see");
    let found = node.sandbox().check(&["stat", "-c", "%a %u", &page])?;
    assert_eq!(found.trim(), format!("600 {USER}"));
    assert!(fs::read_to_string(node.sandbox().outside(page.as_ref()))?.contains("#code="));
    browser.act("goto", &[json!(format!("file://{page}"))])?;
    browser.see("#apps h2", "Apps")?;
    browser.see("header .health", "Healthy")?;
    Ok(())
}

/// Fails if a developer would see red in the browser's console, or if the API refused anything but these.
fn no_complaints(browser: &mut Browser, refused: &[&str]) -> Result<()> {
    assert_eq!(browser.act("complaints", &[])?, json!([]), "the console");
    let refusals = browser.act("refusals", &[])?;
    let others: Vec<_> = refusals
        .as_array()
        .into_iter()
        .flatten()
        .filter(|refusal| {
            !refused.iter().any(|known| refusal.as_str().is_some_and(|text| text.contains(known)))
        })
        .collect();
    assert!(others.is_empty(), "the API refused {others:?}");
    Ok(())
}

/// Looks at the page in both themes and both sizes: nothing for axe to find, no wider than the window; keeps pictures.
fn inspect(browser: &mut Browser, name: &str) -> Result<()> {
    let pictures = artifacts().join("screenshots");
    fs::create_dir_all(&pictures)?;
    for (width, height) in [(1440, 900), (390, 844)] {
        browser.act("size", &[json!(width), json!(height)])?;
        for scheme in ["light", "dark"] {
            browser.act("scheme", &[json!(scheme)])?;
            browser.act("top", &[])?;
            let faults = browser.act("axe", &[])?;
            assert_eq!(faults, json!([]), "{name}, {scheme}, {width} pixels");
            assert_eq!(browser.act("overflow", &[])?, json!(0), "{name} is wider than {width} pixels");
            let picture = pictures.join(format!("{name}-{width}-{scheme}.png"));
            browser.act("shot", &[json!(picture)])?;
        }
    }
    browser.act("size", &[json!(1440), json!(900)])?;
    browser.act("scheme", &[json!("light")])?;
    Ok(())
}

fn ready(node: &Node, app: &str, count: usize) -> Result<()> {
    eventually(LIMIT, "the replicas to be ready", || {
        let ready = node.ready_replicas(app)?;
        ensure!(ready == count, "{ready} are ready");
        Ok(())
    })
}

#[test]
fn the_page_shows_what_is_there_and_does_what_it_is_told() -> Result<()> {
    let (node, _registry, mut browser) = start()?;

    // Nobody gets in without being let in, and the way in is said.
    browser.act("goto", &[json!(ADDRESS)])?;
    browser.see("main", "sudo hivemind ui")?;
    inspect(&mut browser, "login")?;
    enter(&node, &mut browser)?;
    let url = browser.act("url", &[])?;
    assert_eq!(url, json!(format!("{ADDRESS}/")), "the code stays in the address");
    browser.see("#apps", "Nothing is deployed yet")?;
    browser.see("#policies", "every app may talk to every other")?;
    browser.see("header .health", "Healthy")?;
    let glance = browser.see("nav.summary", "Denied by policy")?;
    assert!(!glance.contains("last 0 s"), "{glance}");
    inspect(&mut browser, "empty")?;

    deploy_and_scale(&node, &mut browser)?;
    policy_and_flows(&node, &mut browser)?;

    // An opened app, in both themes and sizes.
    browser.click("[data-app='default/web'] .opener")?;
    for replica in node.replicas("web")? {
        let name = replica["metadata"]["name"].as_str().context("no name")?.to_owned();
        let row = browser.see("[data-app='default/web'] .more li", &name)?;
        assert!(row.contains(replica["status"]["ipv4"].as_str().context("no address")?), "{row}");
    }
    assert_eq!(browser.act("url", &[])?, json!(format!("{ADDRESS}/apps/default/web")));
    inspect(&mut browser, "dashboard")?;
    themes(&mut browser)?;

    // Deleting asks first.
    browser.click("[aria-label='Delete web']")?;
    browser.see("dialog", "3 replicas, its service and names and published port 8080 go")?;
    inspect(&mut browser, "delete")?;
    browser.click("dialog .danger")?;
    browser.act("gone", &[json!("[data-app='default/web']")])?;
    eventually(LIMIT, "the app to be gone", || {
        let apps = node.hivemind_ok(&["app", "ls", "-o", "name"])?;
        ensure!(!apps.contains("app/web"), "{apps}");
        Ok(())
    })?;
    no_complaints(
        &mut browser,
        &[
            "401 GET /v1/session",
            "400 POST /v1/namespaces/default/apps",
            "409 POST /v1/namespaces/default/apps",
        ],
    )?;

    // A page that lost its daemon says so, and that it has to be let in again by the next one.
    node.daemon_kill9()?;
    browser.see("[role=alert]", "The connection is lost")?;
    browser.see("header .health", "Disconnected")?;
    for control in [
        "header .primary",
        "[data-app='default/client'] .actions button",
        "[data-app='default/client'] input",
    ] {
        browser.see(&format!("{control}:disabled"), "")?;
    }
    browser.see("[aria-label='Delete client'][title^='Not connected']", "")?;
    inspect(&mut browser, "disconnected")?;
    node.daemon_start()?;
    browser.see("main", "sudo hivemind ui")?;
    Ok(())
}

/// What the command line deploys appears; what the page deploys and scales, runs.
fn deploy_and_scale(node: &Node, browser: &mut Browser) -> Result<()> {
    for app in ["client", "stranger"] {
        node.deploy_waiting(app, &[])?;
        let row = browser.see(&format!("[data-app='default/{app}']"), "Up")?;
        assert!(row.contains("busybox") && row.contains("1/1"), "{row}");
    }

    browser.click("header .primary")?;
    browser.fill("#deploy-image", "nginx:latest")?;
    browser.fill("#deploy-name", "client")?;
    browser.see("#deploy-name-fault", "HM0301")?;
    browser.fill("#deploy-name", "Web")?;
    browser.fill("#deploy-ports", "8080")?;
    browser.see("#deploy-name-fault", "HM0101")?;
    browser.fill("#deploy-ports", "8080:80:80")?;
    browser.see("#deploy-ports-fault", "is not HOST:CONTAINER")?;
    inspect(browser, "deploy")?;
    browser.fill("#deploy-ports", "8080:80")?;
    browser.fill("#deploy-name", "web")?;
    browser.fill("#deploy-service", "web.local")?;
    browser.see(
        ".command",
        "hivemind app deploy --name web --image nginx:latest --service web.local --port 8080:80",
    )?;
    browser.act("gone", &[json!(".fault")])?;
    browser.click("dialog [type=submit]:not(:disabled)")?;
    browser.act("gone", &[json!("dialog")])?;
    browser.see("[data-app='default/web']", "Up")?;
    ready(node, "web", 1)?;
    node.sandbox().check(&["curl", "-sf", "-m", "5", "http://127.0.0.1:8080/"])?;
    browser.see("[data-service='default/web']", "also web.local")?;
    browser.see("[data-service='default/web']", "1 endpoint")?;

    for _ in 0..2 {
        browser.click("[aria-label='One replica more of web']")?;
    }
    browser.see("[data-app='default/web'] .ready", "3/3")?;
    ready(node, "web", 3)?;
    browser.see("[data-service='default/web']", "3 endpoints")?;
    // What others scale is shown as well.
    node.hivemind_ok(&["app", "scale", "client", "--replicas", "2"])?;
    browser.see("[data-app='default/client'] .ready", "2/2")?;
    assert_eq!(browser.act("value", &[json!("[aria-label='Replicas wanted of client']")])?, json!("2"));
    node.hivemind_ok(&["app", "scale", "client", "--replicas", "1"])?;
    browser.see("[data-app='default/client'] .ready", "1/1")?;
    Ok(())
}

/// A policy that is applied appears and is enforced; who it lets through and who not is seen with its rule.
fn policy_and_flows(node: &Node, browser: &mut Browser) -> Result<()> {
    node.apply(&policy_only("only-client", "client", "web", "[{port: 80}]"))?;
    let policy = browser.see("[data-policy='default/only-client']", "Enforced")?;
    assert!(policy.contains("app=web") && policy.contains("3 replicas"), "{policy}");
    assert!(policy.contains("TCP 80 from app=client"), "{policy}");

    node.in_replica("client", "timeout 5 wget -q -O - http://web/ > /dev/null")?;
    let refused =
        node.in_replica("stranger", "timeout 2 wget -q -O - http://web/ > /dev/null || echo refused")?;
    assert_eq!(refused.trim(), "refused", "the policy does not hold");
    let allowed = browser.see("#flows li[data-verdict=allowed]", "only-client/ingress[0]")?;
    assert!(allowed.contains("client") && allowed.contains("web") && allowed.contains("80/tcp"), "{allowed}");
    let denied = browser.see("#flows li[data-verdict=denied]", "only-client/ingress")?;
    assert!(
        denied.contains("Denied") && denied.contains("stranger") && denied.contains("80/tcp"),
        "{denied}"
    );

    browser.act("select", &[json!("[aria-label='With which verdict']"), json!("denied")])?;
    browser.see("#flows li[data-verdict=denied]", "stranger")?;
    assert_eq!(browser.act("count", &[json!("#flows li[data-verdict=allowed]")])?, json!(0));
    browser.act("select", &[json!("[aria-label='Of which app']"), json!("default/client")])?;
    browser.see("#flows", "No such flows")?;
    let url = browser.act("url", &[])?;
    assert!(url.as_str().is_some_and(|url| url.ends_with("?app=default%2Fclient&verdict=denied")), "{url}");
    for filter in ["[aria-label='With which verdict']", "[aria-label='Of which app']"] {
        browser.act("select", &[json!(filter), json!("")])?;
    }
    browser.see("#flows li[data-verdict=denied]", "stranger")?;

    // While it is paused, what comes is counted and not shown.
    browser.click("#flows .pause")?;
    let before = browser.act("count", &[json!("#flows li")])?;
    node.in_replica("client", "timeout 5 wget -q -O - http://web/ > /dev/null")?;
    browser.see("#flows header", "new")?;
    assert_eq!(browser.act("count", &[json!("#flows li")])?, before, "it goes on");
    browser.click("#flows .pause")?;
    browser.see("#flows header", "live")?;
    Ok(())
}

/// The system's theme is followed until one is chosen, and the choice stays.
fn themes(browser: &mut Browser) -> Result<()> {
    let color = |browser: &mut Browser| browser.act("color", &[json!("html")]);
    let light = color(browser)?;
    browser.act("scheme", &[json!("dark")])?;
    let dark = color(browser)?;
    assert_ne!(light, dark, "the system's theme is not followed");
    browser.click("[aria-label='Theme: system']")?;
    assert_eq!(color(browser)?, light, "light was chosen on a dark system");
    browser.act("reload", &[])?;
    browser.see("[aria-label='Theme: light']", "")?;
    assert_eq!(color(browser)?, light, "the choice is forgotten");
    browser.click("[aria-label='Theme: light']")?;
    browser.act("scheme", &[json!("light")])?;
    assert_eq!(color(browser)?, dark, "dark was chosen on a light system");
    browser.click("[aria-label='Theme: dark']")?;
    browser
        .see("[data-app='default/web'] .more li", "web-")
        .context("the opened app stands in the address")?;
    Ok(())
}

#[test]
fn a_token_that_may_only_read_sees_everything_and_changes_nothing() -> Result<()> {
    let (node, _registry, mut browser) = start()?;
    node.hivemind_ok(&["app", "deploy", "web", "--image", "nginx:latest"])?;
    let secret = node.hivemind_ok(&["token", "create", "viewer", "--role", "read-only"])?;

    browser.act("goto", &[json!(ADDRESS)])?;
    browser.fill("#token", "hm_not-a-token")?;
    browser.act("press", &[json!("Enter")])?;
    browser.see("main", "HM0801")?;
    browser.fill("#token", secret.trim())?;
    browser.act("press", &[json!("Enter")])?;
    let row = browser.see("[data-app='default/web']", "Up")?;
    assert!(row.contains("1/1"), "{row}");
    browser.see("header", "Read-only")?;
    browser.see("main", "The token viewer may look, but not change anything")?;
    for control in ["header .primary", "[aria-label^='Delete']", "[aria-label^='Restart']", ".scale button"] {
        assert_eq!(browser.act("count", &[json!(control)])?, json!(0), "{control} is offered");
    }
    inspect(&mut browser, "read-only")?;
    choose_recorded(&mut browser)?;
    browser.see("#flows", "Nothing was recorded in the last hour")?;

    // Not only does the page not offer it.
    let scale = [json!("PUT"), json!("/v1/namespaces/default/apps/web/scale"), json!({"replicas": 2})];
    assert_eq!(browser.act("ask", &scale)?, json!(403));
    assert_eq!(node.replicas("web")?.len(), 1);
    no_complaints(&mut browser, &["401 GET /v1/session", "401 POST /v1/login", "403 PUT"])?;

    browser.click("[aria-label='Log out viewer']")?;
    browser.see("main", "Paste a token")?;
    assert_eq!(browser.act("ask", &[json!("GET"), json!("/v1/apps"), Value::Null])?, json!(401));
    Ok(())
}

const RECORDED: &str = "#flows .switch button:last-child";

/// Shows the last hour as it was recorded.
fn choose_recorded(browser: &mut Browser) -> Result<()> {
    browser.click(RECORDED)?;
    browser.see("#flows .count", "as of").map(drop)
}

fn select(browser: &mut Browser, label: &str, value: &str) -> Result<()> {
    browser.act("select", &[json!(format!("[aria-label='{label}']")), json!(value)]).map(drop)
}

/// Sends a signal to the node's daemon.
fn signal(node: &Node, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(i32::try_from(node.daemon_pid()?)?), signal)?)
}

/// A number of bytes below a million, as the page says it.
fn bytes(number: &Value) -> Result<String> {
    let number = number.as_u64().context("no number")?;
    #[expect(clippy::cast_precision_loss, reason = "it is small")]
    let thousands = number as f64 / 1_000.0;
    Ok(if number < 1_000 { format!("{number} B") } else { format!("{thousands:.1} kB") })
}

#[test]
fn what_was_recorded_is_shown_by_pair_with_what_was_refused_first() -> Result<()> {
    let (node, _registry, mut browser) = start()?;
    for app in ["server", "client", "spare", "stranger"] {
        node.deploy_waiting(app, &[])?;
    }
    node.apply(&policy_only("only-client", "client", "server", "[{port: 7000, endPort: 7001}]"))?;
    node.apply(&policy_only("only-spare", "spare", "server", "[{port: 7001}]"))?;
    enter(&node, &mut browser)?;
    choose_recorded(&mut browser)?;
    browser.see("#flows", "Nothing was recorded in the last hour: nobody spoke, or no minute")?;
    // Nothing, or a minute that has ended since the daemon started and in which nobody spoke.
    browser.see("#flows .sums", &format!("Recorded: {}", node.name()))?;

    let _server = Echo::start(&node, "server")?;
    let to = SocketAddr::new(addresses(&node, "server")?[0], PORT);
    for _ in 0..3 {
        ensure!(dials(&node, "client", to)?, "the client does not reach the server");
    }
    ensure!(!dials(&node, "stranger", to)?, "the stranger reaches the server");
    no_complaints(&mut browser, &["401 GET /v1/session"])?;
    // The end of a daemon ends the minute, too, and its sessions.
    node.daemon_term()?;
    node.daemon_start()?;
    browser.see("main", "sudo hivemind ui")?;
    enter(&node, &mut browser)?;
    browser.act("refusals", &[])?;
    browser.act("complaints", &[])?;

    choose_recorded(&mut browser)?;
    let matrix: Value = serde_json::from_str(&node.hivemind_ok(&["policy", "matrix", "-o", "json"])?)?;
    let refused = browser.see("#flows li[data-pair]", "stranger")?;
    assert!(refused.contains("refused") && refused.contains("denied now"), "{refused}");
    assert!(!refused.contains("there"), "{refused}");
    let first = browser.see("#flows li[data-pair]", "")?;
    assert_eq!(first, refused, "what was refused is not first");
    let used = browser.see("#flows li[data-pair='default/client default/server']", "allowed now")?;
    let pairs = matrix["pairs"].as_array().context("no pairs")?;
    let told = pairs.iter().find(|pair| pair["source"] == "default/client").context("no client")?;
    let [sent, received] = ["bytesSent", "bytesReceived"].map(|way| bytes(&told["used"][0][way]["most"]));
    let expected = format!("3 connections, {} there, {} back", sent?, received?);
    assert!(used.contains(&expected) && used.contains("7000/tcp"), "no {expected:?}: {used}");
    let sum = browser.see("#flows .sums", "refused, of 1 pair")?;
    assert!(sum.contains("1 pair spoke: 3 connections"), "{sum}");
    assert!(sum.contains(&format!("{} from ", node.name())) && sum.contains("once it has ended"), "{sum}");

    opened_and_filtered(&mut browser)?;
    waited_for(&node, &mut browser)
}

/// What is open and unused is below, and filters apply or say that they do not.
fn opened_and_filtered(browser: &mut Browser) -> Result<()> {
    browser.click("[aria-label='Ports of client to server']")?;
    let ports = browser.see("#flows .ports", "7000/tcp")?;
    assert!(ports.contains("3 connections") && ports.contains("allowed now"), "{ports}");
    browser.see("[data-pair='default/client default/server']", "Allowed and never used: 7001/tcp")?;
    browser.click("#flows summary")?;
    browser.see("#flows details li", "spare to server 7001/tcp")?;
    browser.see("#flows details li", "anybody to client, spare, stranger everything: no policy")?;
    inspect(browser, "recorded")?;

    select(browser, "With which verdict", "denied")?;
    browser.act("gone", &[json!("#flows details")])?;
    assert_eq!(browser.act("count", &[json!("#flows li[data-pair]")])?, json!(1));
    select(browser, "Of which app", "default/client")?;
    browser.see("#flows", "No such pairs in the last hour")?;
    select(browser, "With which verdict", "allowed")?;
    browser.see("#flows li[data-pair]", "client")?;
    select(browser, "Of which time", "1d")?;
    browser.see("#flows li[data-pair]", "client")?;
    let address = json!(format!("{ADDRESS}/?app=default%2Fclient&verdict=allowed&recorded=1d"));
    assert_eq!(browser.act("url", &[])?, address);
    browser.act("reload", &[])?;
    browser.see("#flows li[data-pair]", "client")?;
    assert_eq!(browser.act("count", &[json!("#flows li[data-pair]")])?, json!(1));
    assert_eq!(browser.act("value", &[json!("[aria-label='Of which time']")])?, json!("1d"));
    assert_eq!(browser.act("url", &[])?, address);

    // What minutes do not tell apart by pair is only told live.
    browser.click("#flows .switch button")?;
    select(browser, "Of which app", "")?;
    select(browser, "With which verdict", "audited")?;
    browser.click(RECORDED)?;
    browser.see("#flows .note", "do not tell what was audited: the filter by verdict is off here")?;
    browser.see("#flows li[data-pair]", "stranger")?;
    select(browser, "With which verdict", "")?;
    browser.act("gone", &[json!("#flows .note.warn")])?;
    no_complaints(browser, &[])
}

/// While it is read one sees that, and if the daemon is gone, what is wrong.
fn waited_for(node: &Node, browser: &mut Browser) -> Result<()> {
    signal(node, Signal::SIGSTOP)?;
    browser.click("#flows .again")?;
    browser.see("#flows .count", "reading")?;
    browser.see("#flows li[data-pair]", "stranger").context("what was read stays")?;
    select(browser, "Of which time", "7d")?;
    browser.see("#flows", "Reading what was recorded in the last week")?;
    assert_eq!(browser.act("count", &[json!("#flows li[data-pair]")])?, json!(0), "of another span");
    signal(node, Signal::SIGCONT)?;
    browser.see("#flows li[data-pair]", "stranger")?;
    browser.see("#flows .count", "as of")?;

    signal(node, Signal::SIGSTOP)?;
    select(browser, "Of which time", "15m")?;
    browser.see("#flows", "Reading what was recorded in the last 15 minutes")?;
    node.daemon_kill9()?;
    browser.see("[role=alert]", "The connection is lost")?;
    browser.see("#flows .fault", "HM0601")?;
    browser.see("#flows .again[aria-disabled=false]", "Look again")?;
    assert_eq!(browser.act("count", &[json!("#flows li[data-pair]")])?, json!(0));
    inspect(browser, "recorded-fault")
}

#[test]
fn of_what_two_nodes_recorded_bounds_are_told_and_whose_records_are_missing() -> Result<()> {
    let daemon_flags = vec!["--web-port".to_owned(), "3000".to_owned()];
    let node = NodeOptions { daemon_flags, ..NodeOptions::default() };
    let cluster = Cluster::start_with(2, &ClusterOptions { node, ..ClusterOptions::default() })?;
    cluster.start_daemons()?;
    cluster.deploy_on(1, "web", "nginx", &[])?;
    cluster.deploy_waiting_on(0, "client", &[])?;
    let (server, other) = (cluster.server(), cluster.node(1));
    let (web, client) = (server.replica("web")?, server.replica("client")?);
    let to = SocketAddr::new(both_addresses(&web["status"])?[0], 80);
    for _ in 0..3 {
        cluster.get_from(&client, to, "/")?;
    }
    other.daemon_term()?;
    server.daemon_term()?;
    server.daemon_start()?;

    let mut browser = Browser::start(server)?;
    enter(server, &mut browser)?;
    choose_recorded(&mut browser)?;
    browser.see("#flows .note", &format!("The records of node {} are missing", other.name()))?;
    browser.see("[data-pair='default/client default/web']", "3 connections, ")?;
    inspect(&mut browser, "recorded-missing")?;
    other.daemon_start()?;
    cluster.until_ready(2)?;
    // The server asks the other node once it hears it again.
    eventually(LIMIT, "the records of both nodes", || {
        browser.click("#flows .again")?;
        browser.see("#flows .count", "as of")?;
        let told = browser.see("#flows", "client")?;
        ensure!(told.contains("3 to 6 connections") && !told.contains("are missing"), "{told}");
        Ok(())
    })
}
