//! Progress on standard error: lines that change in place on a terminal, plain lines elsewhere.

use std::{
    collections::HashMap,
    io::{self, IsTerminal},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::progress::Step;
use crate::cli::output::{Format, note};

/// The most replicas that have a line of their own in place; the rest is left to the summary.
const LINES_MAX: usize = 20;

/// Shows steps as they come.
pub(crate) enum Painter {
    /// Shows nothing.
    Silent,
    /// A line a step.
    Plain,
    /// A line a replica.
    Live { all: MultiProgress, lines: HashMap<String, ProgressBar> },
}

impl Painter {
    /// What fits standard error; nothing where programs read the result, which may read errors there too.
    pub(crate) fn for_stderr(format: Format) -> Self {
        if format.is_for_programs() {
            Painter::Silent
        } else if io::stderr().is_terminal() {
            Painter::Live { all: MultiProgress::new(), lines: HashMap::new() }
        } else {
            Painter::Plain
        }
    }

    /// Shows a step.
    pub(crate) fn show(&mut self, step: &Step) {
        match self {
            Painter::Silent => {}
            Painter::Plain if step.is_new => note(&format!("{}  {}", step.replica, step.text)),
            Painter::Plain => {}
            Painter::Live { all, lines } if step.is_last => {
                if let Some(line) = lines.remove(&step.replica) {
                    line.finish_and_clear();
                    all.remove(&line);
                }
            }
            Painter::Live { all, lines } => {
                if !lines.contains_key(&step.replica) && lines.len() < LINES_MAX {
                    lines.insert(step.replica.clone(), all.add(line()));
                }
                if let Some(line) = lines.get(&step.replica) {
                    line.set_message(format!("{}  {}", step.replica, step.text));
                }
            }
        }
    }

    /// Tells something that is of no replica.
    pub(crate) fn say(&self, text: &str) {
        match self {
            Painter::Silent => {}
            Painter::Plain => note(text),
            // Where the terminal is gone, so is whoever would have read it.
            Painter::Live { all, .. } => drop(all.println(text)),
        }
    }

    /// Leaves the last state of all lines on the terminal; what comes then stands below.
    pub(crate) fn finish(&mut self) {
        if let Painter::Live { lines, .. } = self {
            lines.drain().for_each(|(_, line)| line.abandon());
        }
    }
}

fn line() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    let line = ProgressBar::new_spinner().with_style(style);
    line.enable_steady_tick(std::time::Duration::from_millis(120));
    line
}
