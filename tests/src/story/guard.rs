//! The part of the story in which the node guards and tells: a policy, what it refuses, and where that is seen.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{LIMIT, METRICS, Story};
use crate::{Browser, eventually, get, policy_only};

/// Asks for the page and gives up after two seconds: a packet that is refused gets no answer.
const ASK: &str = "timeout 2 wget -q -O - http://web.local/ >/dev/null 2>&1 && echo page || echo nothing";

impl Story {
    pub(super) fn apply_policy(&mut self) -> Result<String> {
        self.node.deploy_waiting("stranger", &[])?;
        ensure!(self.asks("stranger")? == "page", "the stranger is refused before there is a policy");
        let text = policy_only("only-client", "client", "web-app", "[{port: 80}]");
        let file = self.node.write("rules.yaml", &text)?;
        let said = self.hivemind(&["policy", "apply", "-f", &file])?;
        ensure!(said.contains("only-client"), "policy apply does not name the policy: {said}");
        ensure!(self.asks("client")? == "page", "the client does not get the page any more");
        ensure!(self.asks("stranger")? == "nothing", "the stranger still gets the page");
        Ok("the client gets the page, the stranger nothing".into())
    }

    /// `page` or `nothing`.
    fn asks(&self, app: &str) -> Result<String> {
        Ok(self.hivemind(&["app", "exec", app, "--", "sh", "-c", ASK])?.trim().to_owned())
    }

    pub(super) fn flows_tell(&mut self) -> Result<String> {
        let flow = eventually(LIMIT, "flows to show what was denied", || self.denied_flow())?;
        let rule = &flow["ingressRule"];
        ensure!(
            rule["policy"] == "only-client" && rule["direction"] == "ingress",
            "the flow does not name the rule: {flow}"
        );
        ensure!(flow["reason"] == "policy_ingress", "the flow does not say why: {flow}");
        ensure!(
            flow["destination"]["app"] == "web-app" && flow["destination"]["port"] == 80,
            "the flow does not say to whom: {flow}"
        );
        let line = self.hivemind(&["flows", "--from", "stranger", "--verdict", "denied"])?;
        let line =
            line.lines().find(|line| line.contains("only-client")).context("the line names no rule")?;
        ensure!(line.contains("stranger") && line.contains("web-app"), "the line names no ends: {line}");
        Ok("denied, with both ends and the rule".into())
    }

    fn denied_flow(&self) -> Result<Value> {
        let text = self.hivemind(&["flows", "--from", "stranger", "--verdict", "denied", "-o", "json"])?;
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            if line["type"] == "flow" {
                return Ok(line["object"].clone());
            }
        }
        anyhow::bail!("no flow was denied:\n{text}")
    }

    pub(super) fn delete_policy(&mut self) -> Result<String> {
        self.hivemind(&["policy", "delete", "only-client"])?;
        eventually(LIMIT, "the stranger to get the page", || {
            let got = self.asks("stranger")?;
            ensure!(got == "page", "the stranger gets {got}");
            Ok(())
        })?;
        Ok(String::new())
    }

    pub(super) fn scrape(&mut self) -> Result<String> {
        let address: SocketAddr = METRICS.parse()?;
        let shown = eventually(LIMIT, "the scrape to show both", || {
            let sandbox = self.node.sandbox();
            let response = sandbox.in_network(|| get(address, "/metrics", Duration::from_secs(5)))??;
            ensure!(response.status == 200, "the scrape was answered {}", response.status);
            let denied = connections(&response.body, "denied")?;
            let allowed = connections(&response.body, "allowed")?;
            ensure!(denied > 0.0 && allowed > 0.0, "{denied} denied and {allowed} allowed");
            Ok((denied, allowed))
        })?;
        Ok(format!("of the stranger's connections {} denied, {} allowed", shown.0, shown.1))
    }

    pub(super) fn page(&mut self) -> Result<String> {
        let url = self.hivemind(&["ui", "--print"])?;
        let mut browser = Browser::start(&self.node)?;
        browser.act("goto", &[json!(url.trim())])?;
        browser.see("#apps", "web-app").context("is the dashboard built? `cargo xtask ui`")?;
        browser.see("[data-app='default/web-app'] .ready", "3/3")?;
        browser.see("[data-service='default/web-app']", "3 endpoints")?;
        let denied = browser.see("#flows li[data-verdict=denied]", "stranger")?;
        ensure!(denied.contains("only-client") && denied.contains("web-app"), "the page says {denied}");
        let allowed = browser.see("#flows li[data-verdict=allowed]", "stranger")?;
        ensure!(allowed.contains("web-app"), "the page says {allowed}");
        drop(browser);
        self.hivemind(&["app", "delete", "stranger"])?;
        Ok("apps, replicas, services, what was denied by which rule, and what passed".into())
    }
}

/// The connections from the stranger to the web app with this verdict, as a scrape tells of them.
fn connections(scrape: &str, verdict: &str) -> Result<f64> {
    let labels = ["source_app=\"stranger\"", "destination_app=\"web-app\"", "port=\"80\""];
    let verdict = format!("verdict=\"{verdict}\"");
    let mut lines = scrape.lines().filter(|line| {
        line.starts_with("hivemind_flow_connections_total{")
            && labels.iter().all(|label| line.contains(label))
            && line.contains(&verdict)
    });
    let line = lines.next().with_context(|| format!("no series with {verdict}"))?;
    line.rsplit(' ').next().context("no value")?.parse().context("no number")
}
