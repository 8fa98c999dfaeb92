//! The story of a node, played as a user would: deploy, resolve, scale, balance, guard, tell, survive, delete.
//!
//! Each step does one thing through the command line and looks at what came of it from where a user would see it. The first
//! that fails ends the story. `cargo xtask up --check` prints it; a test plays it too.

mod cluster;
mod guard;

pub use cluster::play_cluster;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{Node, Registry, Traffic, eventually, get};

/// How long anything that is not bounded otherwise may take.
const LIMIT: Duration = Duration::from_secs(30);

/// How soon a killed container has to be back in its service.
const BACK_LIMIT: Duration = Duration::from_secs(2);

/// How long traffic is watched before, without, and after the daemon.
const STRETCH: Duration = Duration::from_millis(1_500);

/// The port that the story publishes on the node.
const PUBLISHED: &str = "8080";

/// Where the node is scraped.
const METRICS: &str = "127.0.0.1:9464";

struct Story {
    node: Node,
    registry: Option<Registry>,
    traffic: Vec<Traffic>,
}

type Step = (&'static str, fn(&mut Story) -> Result<String>);

/// The steps, in order.
const STEPS: &[Step] = &[
    ("deploy nginx, pulled from the registry", Story::deploy),
    ("app info shows it running with its addresses", Story::info),
    ("a client app resolves web.local and gets the page", Story::resolve),
    ("scale to 3", |s| s.scale(3)),
    ("300 requests are spread over all three", Story::spread),
    ("a policy lets only the client in", Story::apply_policy),
    ("flows show why, and by which rule", Story::flows_tell),
    ("the policy is deleted, and the stranger gets through", Story::delete_policy),
    ("a scrape shows both", Story::scrape),
    ("the page shows it all", Story::page),
    ("long connections and a stream of new ones begin", Story::begin_traffic),
    ("kill -9 of the daemon; traffic goes on without it", Story::kill_daemon),
    ("a new daemon adopts everything", Story::adopt),
    ("no connection failed, before, during or after", Story::end_traffic),
    ("a killed container is back in its service", Story::kill_container),
    ("the published port answers, from outside and on the node", Story::published),
    ("scale to 1", |s| s.scale(1)),
    ("scale to 5", |s| s.scale(5)),
    ("delete", Story::delete),
    ("nothing of ours is left", Story::nothing_left),
];

/// Plays the story on a node of its own and hands each step's line to `tell`.
///
/// # Errors
/// The first step that failed, with what was expected; the node is removed all the same.
pub fn play(mut tell: impl FnMut(&str)) -> Result<()> {
    let began = Instant::now();
    let (node, registry) = Node::with_daemon_flags(&["--metrics-address", METRICS])?;
    tell(&format!(
        "ok    {:<60} {:>6} ms",
        "a machine with containerd, a registry and the daemon",
        began.elapsed().as_millis()
    ));
    let mut story = Story { node, registry: Some(registry), traffic: Vec::new() };
    for (name, step) in STEPS {
        let began = Instant::now();
        match step(&mut story) {
            Ok(detail) => tell(&format!("ok    {name:<60} {:>6} ms  {detail}", began.elapsed().as_millis())),
            Err(error) => {
                tell(&format!("FAIL  {name:<60} {:>6} ms", began.elapsed().as_millis()));
                let log = story.node.daemon_log_end();
                return Err(
                    error.context(format!("step `{name}` failed; the end of the daemon's log:\n{log}\n"))
                );
            }
        }
    }
    Ok(())
}

impl Story {
    fn hivemind(&self, words: &[&str]) -> Result<String> {
        self.node.hivemind_ok(words)
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        let mut all = words.to_vec();
        all.extend(["-o", "json"]);
        let text = self.hivemind(&all)?;
        serde_json::from_str(&text)
            .with_context(|| format!("hivemind {} gave no JSON: {text}", all.join(" ")))
    }

    fn deploy(&mut self) -> Result<String> {
        self.hivemind(&[
            "app",
            "deploy",
            "--image",
            "nginx:latest",
            "--name",
            "web-app",
            "--service",
            "web.local",
            "--port",
            &format!("{PUBLISHED}:80"),
        ])?;
        self.hivemind(&[
            "app",
            "deploy",
            "--image",
            "busybox",
            "--name",
            "client",
            "--command",
            "sleep 3600",
        ])?;
        Ok(String::new())
    }

    fn info(&mut self) -> Result<String> {
        let info = self.hivemind(&["app", "info", "--name", "web-app"])?;
        let replica = self.replicas("web-app")?.pop().context("no replica")?;
        let address =
            replica["status"]["ipv4"].as_str().context("the replica has no IPv4 address")?.to_owned();
        ensure!(replica["status"]["phase"] == "Running", "the replica is not running: {replica}");
        ensure!(replica["status"]["ipv6"].is_string(), "the replica has no IPv6 address");
        ensure!(
            info.contains(&address) && info.contains("Running"),
            "app info does not show the replica:\n{info}"
        );
        Ok(address)
    }

    fn replicas(&self, app: &str) -> Result<Vec<Value>> {
        let info = self.json(&["app", "info", "--name", app])?;
        let replicas = info["replicas"].as_array().context("app info -o json has no replicas")?;
        Ok(replicas.clone())
    }

    fn in_client(&self, script: &str) -> Result<String> {
        self.hivemind(&["app", "exec", "client", "--", "sh", "-c", script])
    }

    fn resolve(&mut self) -> Result<String> {
        let page = self.in_client("wget -q -O - http://web.local/")?;
        ensure!(page.contains("<html"), "this is not the page: {page}");
        let service = self.service_address()?;
        let answer = self.in_client("nslookup -type=a web.local; nslookup -type=aaaa web.local")?;
        ensure!(answer.contains(&service.ip().to_string()), "web.local is not {service}:\n{answer}");
        let own = self.in_client("wget -q -O - http://web-app.default.svc.hivemind.internal/")?;
        ensure!(own == page, "the app's own name leads elsewhere");
        Ok(format!("web.local is {}", service.ip()))
    }

    fn service_address(&self) -> Result<SocketAddr> {
        let app = self.json(&["app", "info", "--name", "web-app"])?;
        let addresses = app["status"]["addresses"].as_array().context("the app has no addresses")?;
        let first = addresses.first().and_then(Value::as_str).context("the app has no addresses")?;
        Ok(SocketAddr::new(first.parse()?, 80))
    }

    fn scale(&mut self, replicas: usize) -> Result<String> {
        self.hivemind(&["app", "scale", "--name", "web-app", "--replicas", &replicas.to_string()])?;
        let ready = eventually(LIMIT, "as many ready replicas as were asked for, and no other", || {
            let found = self.replicas("web-app")?;
            let ready = found.iter().filter(|r| r["status"]["ready"] == true).count();
            ensure!(
                ready == replicas && found.len() == replicas,
                "{ready} of {} replicas are ready",
                found.len()
            );
            Ok::<_, anyhow::Error>(ready)
        })?;
        let hosts = self.hosts_of(20 * replicas)?;
        ensure!(hosts.len() == replicas, "{} of {replicas} replicas answer: {hosts:?}", hosts.len());
        Ok(format!("{ready} ready"))
    }

    /// Who answers how many of `requests` requests to the service.
    fn hosts_of(&self, requests: usize) -> Result<BTreeMap<String, usize>> {
        let script = format!(
            "i=0; while [ $i -lt {requests} ]; do wget -q -O - http://web.local/hostname || echo failed; i=$((i+1)); done"
        );
        let mut hosts = BTreeMap::new();
        for host in self.in_client(&script)?.lines().map(str::trim).filter(|line| !line.is_empty()) {
            *hosts.entry(host.to_owned()).or_insert(0) += 1;
        }
        Ok(hosts)
    }

    fn spread(&mut self) -> Result<String> {
        let hosts = self.hosts_of(300)?;
        let total: usize = hosts.values().sum();
        ensure!(total == 300 && !hosts.contains_key("failed"), "{total} answers: {hosts:?}");
        ensure!(hosts.len() == 3, "{} replicas answered: {hosts:?}", hosts.len());
        // With fair shares, fewer than 60 of 300 for one of three has a probability below one in a million.
        ensure!(hosts.values().all(|n| *n >= 60), "the shares are not fair: {hosts:?}");
        let shares: Vec<_> = hosts.values().map(ToString::to_string).collect();
        Ok(shares.join(", "))
    }

    fn begin_traffic(&mut self) -> Result<String> {
        let service = self.service_address()?;
        let client = self.replicas("client")?.pop().context("no client")?;
        let id = client["metadata"]["id"].as_str().context("the client has no id")?.to_owned();
        self.traffic.push(Traffic::start(&self.node, service, 2, None)?);
        self.traffic.push(Traffic::start(&self.node, service, 2, Some(&id))?);
        Ok("4 long connections, half from the node, half from a replica".into())
    }

    fn kill_daemon(&mut self) -> Result<String> {
        std::thread::sleep(STRETCH);
        self.node.daemon_kill9()?;
        std::thread::sleep(STRETCH);
        let published = SocketAddr::new(self.node.addresses().ipv4.into(), PUBLISHED.parse()?);
        for _ in 0..20 {
            let response =
                self.node.fabric().client().in_network(|| get(published, "/", Duration::from_secs(5)))??;
            ensure!(response.status == 200, "the published port answered {}", response.status);
        }
        Ok("the published port too".into())
    }

    fn adopt(&mut self) -> Result<String> {
        let pids = |story: &Story| -> Result<Vec<u64>> {
            let replicas = story.replicas("web-app")?;
            Ok(replicas.iter().filter_map(|r| r["status"]["pid"].as_u64()).collect())
        };
        self.node.daemon_start()?;
        let after = pids(self)?;
        ensure!(after.len() == 3, "{} of 3 replicas are adopted", after.len());
        for pid in &after {
            ensure!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is gone");
        }
        let restarts: u64 =
            self.replicas("web-app")?.iter().filter_map(|r| r["status"]["restarts"].as_u64()).sum();
        ensure!(restarts == 0, "{restarts} containers were started again");
        Ok("3 replicas, none started again".into())
    }

    fn end_traffic(&mut self) -> Result<String> {
        let (mut requests, mut connections, mut longest) = (0, 0, Duration::ZERO);
        std::thread::sleep(STRETCH);
        for traffic in std::mem::take(&mut self.traffic) {
            let report = traffic.stop()?;
            ensure!(report.failures.is_empty(), "traffic failed: {:#?}", report.failures);
            ensure!(
                report.long_requests > 20 && report.new_connections > 50,
                "there was hardly any traffic: {report:?}"
            );
            requests += report.long_requests;
            connections += report.new_connections;
            longest = longest.max(report.longest_wait);
        }
        Ok(format!("{requests} requests, {connections} connections, the slowest {} ms", longest.as_millis()))
    }

    fn kill_container(&mut self) -> Result<String> {
        let replica = self.replicas("web-app")?.pop().context("no replica")?;
        let name = replica["metadata"]["name"].as_str().context("no name")?.to_owned();
        let pid = i32::try_from(replica["status"]["pid"].as_i64().context("no pid")?)?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
        let began = Instant::now();
        eventually(BACK_LIMIT, "the killed container to be back in its service", || {
            let service = self.json(&["service", "info", "web-app"])?;
            let endpoints = service["status"]["endpoints"].as_array().cloned().unwrap_or_default();
            let now = self.replicas("web-app")?.into_iter().find(|r| r["metadata"]["name"] == name.as_str());
            let now = now.context("the replica is gone")?;
            ensure!(now["status"]["pid"].as_i64() != Some(i64::from(pid)), "it is not noticed yet");
            ensure!(now["status"]["ready"] == true, "it is {}", now["status"]["phase"]);
            ensure!(endpoints.iter().any(|e| e["replica"] == name.as_str()), "it is not in its service");
            Ok(())
        })?;
        let after = began.elapsed();
        let hosts = self.hosts_of(60)?;
        ensure!(hosts.contains_key(&name) && !hosts.contains_key("failed"), "it does not answer: {hosts:?}");
        Ok(format!("after {} ms", after.as_millis()))
    }

    fn published(&mut self) -> Result<String> {
        let addresses = self.node.addresses();
        let port = PUBLISHED.parse()?;
        for address in [addresses.ipv4.into(), std::net::IpAddr::from(addresses.ipv6)] {
            let target = SocketAddr::new(address, port);
            let response =
                self.node.fabric().client().in_network(|| get(target, "/", Duration::from_secs(5)))??;
            ensure!(
                response.status == 200 && response.body.contains("<html"),
                "{target} answered {response:?}"
            );
        }
        let local =
            self.node.exec_in_node(&["curl", "-s", "-m", "5", &format!("http://127.0.0.1:{port}/")])?;
        let page = String::from_utf8_lossy(&local.stdout);
        ensure!(
            page.contains("<html"),
            "localhost gave no page: {page} {}",
            String::from_utf8_lossy(&local.stderr)
        );
        Ok("IPv4, IPv6, localhost".into())
    }

    fn delete(&mut self) -> Result<String> {
        self.hivemind(&["app", "delete", "web-app"])?;
        self.hivemind(&["app", "delete", "client"])?;
        let apps = self.json(&["app", "ls"])?;
        let left = apps["items"].as_array().or(apps.as_array()).context("app ls -o json is no list")?;
        ensure!(left.is_empty(), "apps are left: {left:?}");
        let found =
            self.node.exec_in_node(&["sh", "-c", "ip -o link show type veth | grep -c ' hm' || true"])?;
        let count = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        ensure!(count == "0", "{count} interfaces of replicas are left");
        Ok(String::new())
    }

    fn nothing_left(&mut self) -> Result<String> {
        self.node.daemon_term()?;
        self.node.daemon_teardown()?;
        let run = self.node.sandbox().outside(&self.node.sandbox().directory().join("run"));
        ensure!(!run.exists(), "the run directory is left: {}", run.display());
        if let Some(registry) = self.registry.take() {
            registry.stop()?;
        }
        self.node.assert_nothing_left()?;
        Ok("no container, namespace, veth, map, link, mount, cgroup, table".into())
    }
}
