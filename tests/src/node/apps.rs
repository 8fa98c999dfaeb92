//! A node's apps, as the command line tells of them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Node, containerd};
use crate::wait::eventually;

/// How often an app that others change too is tried to be replaced.
const REPLACE_LIMIT: Duration = Duration::from_secs(20);

impl Node {
    /// What a command prints with `-o json`.
    ///
    /// # Errors
    /// When the command fails, or prints no JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut words = arguments.to_vec();
        words.extend(["-o", "json"]);
        let text = self.hivemind_ok(&words)?;
        serde_json::from_str(&text)
            .with_context(|| format!("`hivemind {}` printed no JSON: {text}", words.join(" ")))
    }

    /// Makes an app of `default` whose spec is `spec`, as the API takes it. Its replicas follow.
    ///
    /// # Errors
    /// When it is refused.
    pub fn create(&self, name: &str, spec: &Value) -> Result<()> {
        let socket = self.socket().display().to_string();
        let body = json!({ "metadata": { "name": name, "namespace": "default" }, "spec": spec }).to_string();
        let curl = ["curl", "-sS", "--fail-with-body", "--unix-socket", &socket, "-X", "POST", "-d", &body];
        let to = ["-H", "Content-Type: application/json", "http://localhost/v1/namespaces/default/apps"];
        self.sandbox().check(&[&curl[..], &to].concat()).map(drop)
    }

    /// Deploys an app that only waits, of one replica unless `further` flags say otherwise.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn deploy_waiting(&self, name: &str, further: &[&str]) -> Result<()> {
        let mut words = vec!["app", "deploy", name, "--image", "busybox", "--command", "sleep 3600"];
        words.extend(further);
        self.hivemind_ok(&words).map(drop)
    }

    /// An app's replicas, each as the API's JSON. The app is a name in `default`, or `NAMESPACE/NAME`.
    ///
    /// # Errors
    /// When there is no such app.
    pub fn replicas(&self, app: &str) -> Result<Vec<Value>> {
        let (namespace, name) = app.split_once('/').unwrap_or(("default", app));
        let info = self.json(&["app", "info", name, "-n", namespace])?;
        Ok(info["replicas"].as_array().context("app info has no replicas")?.clone())
    }

    /// Gives an app of `default` other labels, and its containers another command.
    ///
    /// # Errors
    /// When it is refused.
    pub fn relabel(&self, app: &str, labels: &[(&str, &str)], command: Option<&[&str]>) -> Result<()> {
        let socket = self.socket().display().to_string();
        let place = format!("http://localhost/v1/namespaces/default/apps/{app}");
        let curl = [
            "curl",
            "-sS",
            "--fail-with-body",
            "--unix-socket",
            &socket,
            "-H",
            "Content-Type: application/json",
        ];
        eventually(REPLACE_LIMIT, "the app to be replaced", || {
            let mut found: Value =
                serde_json::from_str(&self.sandbox().check(&[&curl[..], &[&place]].concat())?)?;
            for (key, value) in labels {
                found["spec"]["template"]["labels"][key] = json!(value);
            }
            if let Some(command) = command {
                found["spec"]["template"]["containers"][0]["command"] = json!(command);
            }
            let put = ["-X", "PUT", "-d", &found.to_string(), &place];
            self.sandbox().check(&[&curl[..], &put].concat()).map(drop)
        })
    }

    /// The name and the identity of each replica of an app, wanted and as the data path has it.
    ///
    /// # Errors
    /// When there is no such app.
    pub fn identities(&self, app: &str) -> Result<Vec<(String, u64, Option<u64>)>> {
        let replicas = self.replicas(app)?;
        let one = |replica: &Value| {
            let name = replica["metadata"]["name"].as_str().context("no name")?.to_owned();
            let wanted = replica["spec"]["identity"].as_u64().context("no identity")?;
            Ok((name, wanted, replica["status"]["identity"].as_u64()))
        };
        replicas.iter().map(one).collect()
    }

    /// An app's only replica.
    ///
    /// # Errors
    /// When it has none, or several.
    pub fn replica(&self, app: &str) -> Result<Value> {
        let mut replicas = self.replicas(app)?;
        ensure!(replicas.len() == 1, "{app} has {} replicas", replicas.len());
        replicas.pop().context("no replica")
    }

    /// How many replicas of an app there are, if all of them are ready.
    ///
    /// # Errors
    /// When one is not ready.
    pub fn ready_replicas(&self, app: &str) -> Result<usize> {
        let replicas = self.replicas(app)?;
        let ready = replicas.iter().filter(|replica| replica["status"]["ready"] == true).count();
        ensure!(ready == replicas.len(), "{ready} of {} replicas of {app} are ready", replicas.len());
        Ok(ready)
    }

    /// Where a replica's network namespace is mounted, as seen inside; for `nsenter --net`.
    ///
    /// # Errors
    /// When `replica` is not a replica's JSON.
    pub fn network_of_replica(&self, replica: &Value) -> Result<PathBuf> {
        let id = replica["metadata"]["id"].as_str().context("the replica has no id")?;
        Ok(self.sandbox.directory().join("run/netns").join(id))
    }

    /// The network namespaces of replicas on this node, by the replicas' ids, sorted.
    ///
    /// # Errors
    /// When the node cannot be looked at.
    pub fn replica_networks(&self) -> Result<Vec<String>> {
        let directory = self.sandbox.outside(&self.sandbox.directory().join("run/netns"));
        let entries = std::fs::read_dir(directory).context("there are no networks of replicas")?;
        let mut ids: Vec<_> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        ids.sort();
        Ok(ids)
    }

    /// The ids of the containers that containerd has for the daemon on this node, sorted.
    ///
    /// # Errors
    /// When `ctr` fails.
    pub fn containers(&self) -> Result<Vec<String>> {
        let lines = containerd::containers(&self.sandbox)?;
        let mut ids: Vec<_> =
            lines.iter().filter_map(|line| line.strip_prefix("container ").map(str::to_owned)).collect();
        ids.sort();
        Ok(ids)
    }

    /// Runs a shell script in a replica of an app and returns what it printed.
    ///
    /// # Errors
    /// When it fails; the error holds what it said.
    pub fn in_replica(&self, app: &str, script: &str) -> Result<String> {
        let (namespace, name) = app.split_once('/').unwrap_or(("default", app));
        self.hivemind_ok(&["app", "exec", "-n", namespace, name, "--", "sh", "-c", script])
    }
}
