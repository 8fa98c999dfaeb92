//! A node's files and policies, and sockets in its replicas' networks.

use std::{fs, fs::File, thread};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};

use super::Node;

impl Node {
    /// Writes a file in the node's own directory, folders included; returns its path inside.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.sandbox.directory().join(name);
        let outside = self.sandbox.outside(&path);
        fs::create_dir_all(outside.parent().context("no folder")?).context("cannot make a folder")?;
        fs::write(outside, text).with_context(|| format!("cannot write {name}"))?;
        Ok(path.display().to_string())
    }

    /// Applies policies, and returns when they are in force; returns the warnings.
    ///
    /// # Errors
    /// When they are refused, or do not come into force.
    pub fn apply(&self, text: &str) -> Result<String> {
        let file = self.write("policies.yaml", text)?;
        let output = self.hivemind(&["policy", "apply", "-f", &file])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "policies were refused: {said}");
        Ok(said)
    }

    /// The network of an app's only replica, to be entered with setns(2).
    ///
    /// # Errors
    /// When it has none, or several replicas.
    pub fn open_network(&self, app: &str) -> Result<File> {
        let path = self.network_of_replica(&self.replica(app)?)?;
        File::open(self.sandbox.outside(&path)).context("the replica has no network")
    }

    /// Does something, such as opening a socket, in the network of an app's only replica, on a thread of its own.
    ///
    /// # Errors
    /// When the network cannot be entered.
    ///
    /// # Panics
    /// When the function does.
    pub fn in_network_of<T: Send>(&self, app: &str, function: impl FnOnce() -> T + Send) -> Result<T> {
        let network = self.open_network(app)?;
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&network, CloneFlags::CLONE_NEWNET).context("cannot enter the replica's network")?;
                Ok(function())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// A policy of `default`, as a document that others may follow in the same file.
#[must_use]
pub fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n"
    )
}

/// As [`policy`], one that lets the app `from` reach the app `to`, and nobody else; `ports` is a list in YAML, empty for
/// all of them.
#[must_use]
pub fn policy_only(name: &str, from: &str, to: &str, ports: &str) -> String {
    let app = |name: &str| format!("podSelector: {{matchLabels: {{app: {name}}}}}");
    let ports = if ports.is_empty() { String::new() } else { format!(", ports: {ports}") };
    policy(name, &format!("{{{}, ingress: [{{from: [{{{}}}]{ports}}}]}}", app(to), app(from)))
}

/// As [`policy`], one of the app's name that lets in whom a selector, given as YAML, selects, and nobody else.
#[must_use]
pub fn policy_letting_in(app: &str, selector: &str) -> String {
    let subject = format!("podSelector: {{matchLabels: {{app: {app}}}}}, policyTypes: [Ingress]");
    policy(app, &format!("{{{subject}, ingress: [{{from: [{{podSelector: {selector}}}]}}]}}"))
}
