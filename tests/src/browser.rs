//! A real Chromium on a node, driven through `ui/test/browser.mjs`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{Background, Node};

/// A browser with one page; dropping it closes it.
#[derive(Debug)]
pub struct Browser {
    // Dropped first: without input, the program closes the browser and ends.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    program: Background,
}

impl Browser {
    /// Starts Chromium in the node's namespaces, with a fresh profile.
    ///
    /// # Errors
    /// When Chromium, Node.js or the packages of `ui/` are not there, or it does not start.
    pub fn start(node: &Node) -> Result<Self> {
        let ui = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("ui");
        ensure!(ui.join("node_modules/playwright-core").is_dir(), "no packages in ui/: run `cargo xtask ui`");
        ensure!(Path::new("/usr/bin/chromium").exists(), "no Chromium: run `cargo xtask setup`");
        let mut command = node.sandbox().command("node");
        command.arg(ui.join("test/browser.mjs")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut program = Background::new(command.spawn().context("cannot start node")?);
        let input = program.take_stdin();
        let output = BufReader::new(program.take_stdout().context("no standard output")?);
        let mut browser = Self { input, output, program };
        browser.answer().context("Chromium did not start")?;
        Ok(browser)
    }

    /// Does something, and gives what came of it; the script says what can be done. Whatever has to appear is awaited.
    ///
    /// # Errors
    /// When it cannot be done, or does not appear in time: with what the page shows.
    pub fn act(&mut self, action: &str, arguments: &[Value]) -> Result<Value> {
        let mut words = vec![json!(action)];
        words.extend_from_slice(arguments);
        let input = self.input.as_mut().context("the browser is closed")?;
        writeln!(input, "{}", Value::Array(words)).context("the browser has ended")?;
        self.answer().with_context(|| format!("{action} {}", json!(arguments)))
    }

    /// Waits until an element that `selector` finds shows `text`, and gives all that it shows.
    ///
    /// # Errors
    /// When it does not appear in time.
    pub fn see(&mut self, selector: &str, text: &str) -> Result<String> {
        let seen = self.act("see", &[json!(selector), json!(text)])?;
        Ok(seen.as_str().unwrap_or_default().to_owned())
    }

    /// Clicks on the first element that `selector` finds.
    ///
    /// # Errors
    /// When there is none, or it cannot be clicked on.
    pub fn click(&mut self, selector: &str) -> Result<()> {
        self.act("click", &[json!(selector)]).map(drop)
    }

    /// Writes into a field.
    ///
    /// # Errors
    /// When there is none.
    pub fn fill(&mut self, selector: &str, text: &str) -> Result<()> {
        self.act("fill", &[json!(selector), json!(text)]).map(drop)
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            bail!("the browser's program ended: {:?}", self.program.exit_status()?);
        }
        let mut answer: Value = serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => bail!("{error}"),
            None => Ok(answer["ok"].take()),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.input.take());
        // It closes the browser and removes its profile; if it does not, it is killed.
        drop(self.program.wait(std::time::Duration::from_secs(10)));
    }
}
