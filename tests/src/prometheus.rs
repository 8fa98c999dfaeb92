//! A real Prometheus that scrapes a node, and its answers.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{Background, Sandbox, eventually, http, programs::artifacts};

/// Where it answers, inside the machine.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// How long it gets to start, and to have scraped.
const LIMIT: Duration = Duration::from_secs(30);

/// A series and its value.
pub type Sample = (BTreeMap<String, String>, f64);

/// A running Prometheus; dropping it stops it.
#[derive(Debug)]
pub struct Prometheus<'a> {
    sandbox: &'a Sandbox,
    _process: Background,
}

impl<'a> Prometheus<'a> {
    /// Starts Debian's Prometheus on a machine, where it scrapes `target` every second and keeps the rules and alerts that come
    /// with the program, and waits for its first scrape.
    ///
    /// # Errors
    /// When the program is missing, or the scrape fails.
    pub fn start(sandbox: &'a Sandbox, target: &str) -> Result<Self> {
        Self::start_with(sandbox, target, "")
    }

    /// As [`Prometheus::start`], with a token that lies in a file, as one would set it up for the web port.
    ///
    /// # Errors
    /// As [`Prometheus::start`].
    pub fn start_with_token(sandbox: &'a Sandbox, target: &str, token: &str) -> Result<Self> {
        let file = sandbox.directory().join("prometheus-token");
        fs::write(sandbox.outside(&file), token).context("cannot write the token")?;
        Self::start_with(
            sandbox,
            target,
            &format!("authorization: {{ credentials_file: {} }},", file.display()),
        )
    }

    /// As [`Prometheus::start_with_token`], over TLS with a server whose certificate is by the authority in a file inside the
    /// machine.
    ///
    /// # Errors
    /// As [`Prometheus::start`].
    pub fn start_over_tls(sandbox: &'a Sandbox, target: &str, token: &str, authority: &Path) -> Result<Self> {
        let file = sandbox.directory().join("prometheus-token");
        fs::write(sandbox.outside(&file), token).context("cannot write the token")?;
        let (token, authority) = (file.display(), authority.display());
        let further = format!(
            "scheme: https, tls_config: {{ ca_file: {authority} }}, authorization: {{ credentials_file: {token} }},"
        );
        Self::start_with(sandbox, target, &further)
    }

    fn start_with(sandbox: &'a Sandbox, target: &str, further: &str) -> Result<Self> {
        let directory = sandbox.directory().join("prometheus");
        fs::create_dir(sandbox.outside(&directory)).context("cannot make Prometheus' directory")?;
        let config = directory.join("prometheus.yml");
        let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/prometheus");
        let text = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\n\
             rule_files: [ '{rules}/rules.yaml', '{rules}/alerts.yaml' ]\n\
             scrape_configs: [ {{ job_name: hivemind, {further} static_configs: [ {{ targets: ['{target}'] }} ] }} ]\n"
        );
        fs::write(sandbox.outside(&config), text).context("cannot write Prometheus' configuration")?;
        let words = [
            tool("prometheus"),
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", directory.join("data").display()),
            format!("--web.listen-address={ADDRESS}"),
        ];
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let log = directory.join("log");
        let process = sandbox.spawn(&words, Some(&log))?;
        let mut started = Self { sandbox, _process: process };
        let up = |this: &Self| ensure_one(&this.query("up")?, 1.0);
        let first = started._process.until_ready(LIMIT, "Prometheus", || Self::answers(sandbox));
        first
            .and_then(|()| eventually(LIMIT, "the first scrape", || up(&started)))
            .with_context(|| fs::read_to_string(sandbox.outside(&log)).unwrap_or_default())?;
        Ok(started)
    }

    fn answers(sandbox: &Sandbox) -> Result<()> {
        let response = sandbox.in_network(|| http::get(ADDRESS, "/-/ready", Duration::from_secs(5)))??;
        ensure!(response.status == 200, "{}", response.status);
        Ok(())
    }

    /// What a query answers now.
    ///
    /// # Errors
    /// When Prometheus does not take the query.
    pub fn query(&self, query: &str) -> Result<Vec<Sample>> {
        let answer = self.ask(&format!("/api/v1/query?query={}", percent_encoded(query)))?;
        let results = answer["result"].as_array().with_context(|| format!("{query}: {answer}"))?;
        results.iter().map(|result| sample(result).with_context(|| format!("{query}: {result}"))).collect()
    }

    /// Queries until the answer is one series with this value.
    ///
    /// # Errors
    /// When it is something else for long.
    pub fn expect(&self, query: &str, value: f64) -> Result<()> {
        eventually(LIMIT, &format!("{query} to be {value}"), || ensure_one(&self.query(query)?, value))
    }

    /// Queries until nothing is answered.
    ///
    /// # Errors
    /// When something is, for long.
    pub fn expect_nothing(&self, query: &str) -> Result<()> {
        eventually(LIMIT, &format!("{query} to be nothing"), || {
            let found = self.query(query)?;
            ensure!(found.is_empty(), "{found:?}");
            Ok(())
        })
    }

    /// What Prometheus says of its last scrape; empty if that was good.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn last_error(&self) -> Result<String> {
        let answer = self.ask("/api/v1/targets")?;
        let error = answer["activeTargets"][0]["lastError"].as_str().context("there is no target")?;
        Ok(error.to_owned())
    }

    /// What Prometheus says of the rules and alerts that it could not work out, once it has tried all of them.
    ///
    /// # Errors
    /// When it does not answer, or has no rules.
    pub fn broken_rules(&self) -> Result<Vec<Value>> {
        eventually(LIMIT, "the rules to be worked out", || {
            let answer = self.ask("/api/v1/rules")?;
            let groups = answer["groups"].as_array().context("no groups")?;
            let rules: Vec<_> =
                groups.iter().filter_map(|group| group["rules"].as_array()).flatten().collect();
            ensure!(!rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown"), "{rules:?}");
            Ok(rules.into_iter().filter(|rule| rule["health"] != "ok").cloned().collect())
        })
    }

    /// What the program says of the metadata of a family: `type` and `unit`.
    ///
    /// # Errors
    /// When it has none.
    pub fn metadata(&self, family: &str) -> Result<Value> {
        let answer = self.ask(&format!("/api/v1/metadata?metric={family}"))?;
        Ok(answer[family][0].clone())
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let response = self.sandbox.in_network(|| http::get(ADDRESS, path, Duration::from_secs(10)))??;
        let answer: Value = serde_json::from_str(&response.body)
            .with_context(|| format!("Prometheus answered {}: {}", response.status, response.body))?;
        ensure!(answer["status"] == "success", "{path}: {answer}");
        Ok(answer["data"].clone())
    }
}

fn ensure_one(found: &[Sample], value: f64) -> Result<()> {
    ensure!(found.len() == 1 && found[0].1 == value, "{found:?}");
    Ok(())
}

fn sample(result: &Value) -> Option<Sample> {
    let labels = result["metric"].as_object()?;
    let labels = labels.iter().map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    Some((labels.collect::<Option<_>>()?, result["value"][1].as_str()?.parse().ok()?))
}

/// A program of those that `cargo xtask setup` unpacks, or the one of the search path.
#[must_use]
pub fn tool(name: &str) -> String {
    let unpacked = artifacts().join("tools/bin").join(name);
    if unpacked.is_file() { unpacked.display().to_string() } else { name.to_owned() }
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(byte.into()),
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}
