//! `status`: how the daemon and its machine are.

use std::process::ExitCode;

use clap::Args;
use hivemind_model::{Problem, Status};
use jiff::Timestamp;

use super::{
    Session,
    fault::{Colours, Outcome},
    output::{self, Format, FormatArgs},
    table::{Table, fields},
    units::{age, size},
};

/// Flags of `status`.
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) output: FormatArgs,
}

impl StatusArgs {
    /// Asks the daemon and prints what it says.
    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        let status = session.client.status().await?;
        output::print(&match self.output.format {
            Format::Json => output::json(&status)?,
            Format::Yaml => output::yaml(&status)?,
            Format::Name => format!("node/{}\n", status.node),
            Format::Table | Format::Wide => describe(&status, Timestamp::now(), Colours::for_stdout()),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn describe(status: &Status, now: Timestamp, colours: Colours) -> String {
    let sum = |denied: bool| -> u64 {
        status.drops.iter().filter(|d| d.reason.starts_with("policy_") == denied).map(|d| d.packets).sum()
    };
    let (drops, denied) = (sum(false), sum(true));
    let mut text = fields(&[
        ("Daemon", format!("{}, pid {}, up {}", status.version, status.pid, age(status.started_at, now))),
        ("Node", format!("{}, kernel {}", status.node, status.kernel)),
        ("Containerd", status.containerd.clone().unwrap_or_else(|| "does not answer".to_owned())),
        ("Apps", status.apps.to_string()),
        ("Replicas", format!("{} ready of {}", status.ready_replicas, status.replicas)),
        ("Domain", status.cluster_domain.clone()),
        ("Store", format!("revision {}, {}", status.store_revision, size(status.store_bytes))),
        (
            "Data path",
            format!(
                "map version {}, {drops} packets dropped, {denied} denied by policies",
                status.datapath_abi
            ),
        ),
    ]);
    if !status.maps.is_empty() {
        let mut table = Table::new(["MAP", "ENTRIES", "CAPACITY"]);
        for map in &status.maps {
            table.row(vec![map.name.clone(), map.entries.to_string(), map.capacity.to_string()]);
        }
        text.push_str(&format!("\n{}", table.render()));
    }
    if !status.drops.is_empty() {
        let mut table = Table::new(["DROPPED FOR", "PACKETS"]);
        for drop in &status.drops {
            table.row(vec![drop.reason.clone(), drop.packets.to_string()]);
        }
        text.push_str(&format!("\n{}", table.render()));
    }
    if !status.events.is_empty() {
        let mut table = Table::new(["FLOW EVENTS", "TOLD", "LOST"]);
        for event in &status.events {
            table.row(vec![event.class.clone(), event.told.to_string(), event.lost.to_string()]);
        }
        text.push_str(&format!("\n{}", table.render()));
    }
    text.push_str(&problems(&status.problems, colours));
    text
}

/// What is wrong, below what is.
pub(crate) fn problems(problems: &[Problem], colours: Colours) -> String {
    let mut text = String::new();
    for problem in problems {
        let head = colours.paint("1;33", &format!("problem[{}]", problem.code));
        text.push_str(&format!("\n{head}: {}\n", problem.message));
        if !problem.hint.is_empty() {
            text.push_str(&format!("  hint: {}\n", problem.hint));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use hivemind_model::{DropCount, ErrorCode, EventCount, MapFill};

    use super::*;

    #[test]
    fn the_status_tells_what_is_wrong_and_what_to_do() {
        let status = Status {
            version: "0.1.0".into(),
            node: "n1".into(),
            pid: 42,
            started_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            cluster_domain: "hivemind.internal".into(),
            kernel: "6.18.0".into(),
            store_revision: 7,
            store_bytes: 1_500_000,
            containerd: None,
            datapath_abi: 1,
            apps: 1,
            replicas: 3,
            ready_replicas: 2,
            maps: vec![MapFill { name: "endpoints".into(), entries: 3, capacity: 65_536 }],
            drops: vec![
                DropCount { reason: "no route".into(), packets: 5 },
                DropCount { reason: "policy_ingress".into(), packets: 2 },
            ],
            end_drops: vec![],
            heaviest: vec![],
            events: vec![EventCount { class: "policy_ingress".into(), told: 2, lost: 1 }],
            problems: vec![Problem {
                code: ErrorCode::ContainerdUnreachable,
                field: String::new(),
                message: "containerd does not answer".into(),
                hint: "systemctl restart containerd".into(),
            }],
        };
        assert_eq!(
            describe(&status, "2026-01-01T00:03:00Z".parse().unwrap(), Colours::Off),
            "Daemon:      0.1.0, pid 42, up 3m\n\
             Node:        n1, kernel 6.18.0\n\
             Containerd:  does not answer\n\
             Apps:        1\n\
             Replicas:    2 ready of 3\n\
             Domain:      hivemind.internal\n\
             Store:       revision 7, 1.5 MB\n\
             Data path:   map version 1, 5 packets dropped, 2 denied by policies\n\
             \n\
             MAP         ENTRIES   CAPACITY\n\
             endpoints   3         65536\n\
             \n\
             DROPPED FOR      PACKETS\n\
             no route         5\n\
             policy_ingress   2\n\
             \n\
             FLOW EVENTS      TOLD   LOST\n\
             policy_ingress   2      1\n\
             \n\
             problem[HM0501]: containerd does not answer\n  hint: systemctl restart containerd\n"
        );
    }
}
