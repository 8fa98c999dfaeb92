//! Changes of a node: its labels, its taints, and whether replicas are put there.

use std::time::Duration;

use clap::Args;
use hivemind_model::{ErrorCode, Node, Problems};

use super::{show, taint};
use crate::cli::{
    Session,
    fault::Failure,
    labels,
    output::{self, FormatArgs},
};

/// How often a change is tried while others change the node, too.
const TRIES: u32 = 5;

/// How long is waited after the first try that came too late; each time as much longer.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Flags of `node label`.
#[derive(Args, Debug)]
pub(crate) struct LabelArgs {
    /// The node
    #[arg(value_name = "NAME")]
    name: String,
    /// Labels to set and to remove
    #[arg(value_name = "KEY=VALUE|KEY-", required = true)]
    changes: Vec<String>,
    #[command(flatten)]
    pub(super) output: FormatArgs,
}

/// Flags of `node taint`.
#[derive(Args, Debug)]
pub(crate) struct TaintArgs {
    /// The node
    #[arg(value_name = "NAME")]
    name: String,
    /// Taints to set and to remove
    #[arg(value_name = "KEY[=VALUE]:EFFECT|KEY[:EFFECT]-", required = true)]
    changes: Vec<String>,
    #[command(flatten)]
    pub(super) output: FormatArgs,
}

/// Changes the node that answers to `word`, again if somebody else changed it meanwhile; returns it as it is kept, and
/// whether anything had to be changed.
pub(super) async fn change(
    session: &Session,
    word: &str,
    set: impl Fn(&mut Node),
) -> Result<(Node, bool), Failure> {
    let mut tries = 0;
    loop {
        tries += 1;
        let before = session.find_one::<Node>(None, word).await?;
        let mut node = before.clone();
        set(&mut node);
        if node == before {
            return Ok((node, false));
        }
        match session.client.replace_node(&node).await {
            Ok(node) => return Ok((node, true)),
            Err(error) if error.code == ErrorCode::Stale && tries < TRIES => {
                tokio::time::sleep(RETRY_AFTER * tries).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

pub(super) async fn label(session: &Session, args: &LabelArgs) -> Result<(), Failure> {
    let mut problems = Problems::default();
    let changes = labels::changes("", &args.changes, true, |_| None, &mut problems);
    problems.into_result()?;
    let set = |node: &mut Node| labels::apply(&changes, &mut node.metadata.labels);
    let (node, changed) = change(session, &args.name, set).await?;
    let told = || {
        let done = if changed { "labelled" } else { "unchanged" };
        format!("node/{} {done}: {}\n", node.metadata.name, or_none(labels::text(&node.metadata.labels)))
    };
    output::print(&output::object(&node, args.output.format, told)?)
}

pub(super) async fn taint(session: &Session, args: &TaintArgs) -> Result<(), Failure> {
    let mut problems = Problems::default();
    let changes = taint::read(&args.changes, &mut problems);
    problems.into_result()?;
    let set = |node: &mut Node| taint::apply(&changes, &mut node.spec.taints);
    let (node, changed) = change(session, &args.name, set).await?;
    let told = || {
        let done = if changed { "tainted" } else { "unchanged" };
        format!("node/{} {done}: {}\n", node.metadata.name, or_none(show::taints(&node)))
    };
    output::print(&output::object(&node, args.output.format, told)?)
}

fn or_none(text: String) -> String {
    if text.is_empty() { "none".to_owned() } else { text }
}

pub(super) async fn cordon(session: &Session, names: &[&str]) -> Result<(), Failure> {
    each(session, names, "cordoned", |node| node.spec.cordoned = true).await
}

pub(super) async fn uncordon(session: &Session, names: &[&str]) -> Result<(), Failure> {
    let set = |node: &mut Node| (node.spec.cordoned, node.spec.draining) = (false, false);
    each(session, names, "uncordoned", set).await
}

/// Changes each of the nodes, after all of them were found.
async fn each(
    session: &Session,
    words: &[&str],
    done: &str,
    set: impl Fn(&mut Node) + Copy,
) -> Result<(), Failure> {
    for node in session.find_all::<Node>(None, words).await? {
        let (node, changed) = change(session, &node.metadata.name, set).await?;
        let done = if changed { done } else { "unchanged" };
        output::print(&format!("node/{} {done}\n", node.metadata.name))?;
    }
    Ok(())
}
