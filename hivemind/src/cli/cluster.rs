//! `cluster`: the members, as one of them sees them.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use hivemind_model::ClusterStatus;
use jiff::Timestamp;

use super::{
    Session,
    fault::{Colours, Outcome},
    node::role_name,
    output::{self, Format, FormatArgs},
    rows::joined,
    status::problems,
    table::{Table, fields},
    units::age,
};

/// Commands on the cluster.
#[derive(Subcommand, Debug)]
pub(crate) enum ClusterCommand {
    /// Show the members as the node that is asked sees them
    #[command(
        after_help = "Each node sees the others for itself: asked on two nodes, the command may tell two things while a node or the network \
between them is in trouble. What the server makes of it is shown by hivemind node ls.

Examples:
  hivemind cluster status
  hivemind cluster status -o json | jq -r '.members[] | select(.state != \"Ready\") | .name'"
    )]
    Status(ClusterStatusArgs),
}

/// Flags of `cluster status`.
#[derive(Args, Debug)]
pub(crate) struct ClusterStatusArgs {
    #[command(flatten)]
    output: FormatArgs,
}

impl ClusterCommand {
    pub(crate) fn format(&self) -> Format {
        match self {
            ClusterCommand::Status(args) => args.output.format,
        }
    }

    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        let status = session.client.cluster().await?;
        output::print(&match self.format() {
            Format::Json => output::json(&status)?,
            Format::Yaml => output::yaml(&status)?,
            Format::Name => status.members.iter().map(|member| format!("node/{}\n", member.name)).collect(),
            Format::Table | Format::Wide => describe(&status, Timestamp::now(), Colours::for_stdout()),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn describe(status: &ClusterStatus, now: Timestamp, colours: Colours) -> String {
    let connected = match (status.server, status.connected) {
        (true, true) => "yes, is the server itself",
        (false, true) => "yes",
        (_, false) => "no, goes on by what it knows",
    };
    let mut text = fields(&[
        ("Cluster", status.id.to_string()),
        ("Node", status.node.clone()),
        ("Role", role_name(status.server).to_owned()),
        ("Routing", status.routing.as_str().to_owned()),
        ("Connected", connected.to_owned()),
    ]);
    let mut table = Table::new(["NAME", "STATE", "ADDRESS", "SINCE", "INCARNATION", "RTT"]);
    for member in &status.members {
        table.row(vec![
            member.name.clone(),
            member.state.as_str().to_owned(),
            joined(member.address),
            member.since.map(|since| age(since, now)).unwrap_or_default(),
            member.incarnation.to_string(),
            member.round_trip_us.map(round_trip).unwrap_or_default(),
        ]);
    }
    text.push_str(&format!("\n{}", table.render()));
    text.push_str(&problems(&status.problems, colours));
    text
}

/// `340 µs`, `1.2 ms`, `120 ms`.
fn round_trip(micros: u32) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..100_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        _ => format!("{} ms", micros / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use hivemind_model::{ClusterMember, ErrorCode, NodeState, Problem, Routing};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_cluster_is_told_with_its_members_and_what_is_wrong() {
        let member = |name: &str, state, since: Option<&str>, round_trip_us| ClusterMember {
            name: name.into(),
            address: Some([192, 168, 1, 11].into()),
            state,
            incarnation: 3,
            since: since.map(|text| text.parse().unwrap()),
            round_trip_us,
        };
        let status = ClusterStatus {
            id: Uuid::nil(),
            node: "node-2".into(),
            server: false,
            routing: Routing::Overlay,
            connected: false,
            members: vec![
                member("node-1", NodeState::Dead, Some("2026-01-01T00:00:00Z"), None),
                member("node-2", NodeState::Ready, None, Some(340)),
            ],
            problems: vec![Problem {
                code: ErrorCode::Disconnected,
                field: String::new(),
                message: "this node has not heard from its server".into(),
                hint: "see whether its daemon runs".into(),
            }],
        };
        assert_eq!(
            describe(&status, "2026-01-01T00:03:00Z".parse().unwrap(), Colours::Off),
            "Cluster:    00000000-0000-0000-0000-000000000000\n\
             Node:       node-2\n\
             Role:       agent\n\
             Routing:    overlay\n\
             Connected:  no, goes on by what it knows\n\
             \n\
             NAME     STATE   ADDRESS        SINCE   INCARNATION   RTT\n\
             node-1   Dead    192.168.1.11   3m      3             -\n\
             node-2   Ready   192.168.1.11   -       3             340 µs\n\
             \n\
             problem[HM0516]: this node has not heard from its server\n  hint: see whether its daemon runs\n"
        );
    }

    #[test]
    fn round_trips_are_told_in_the_unit_that_fits() {
        for (micros, text) in [(0, "0 µs"), (999, "999 µs"), (1_290, "1.2 ms"), (120_900, "120 ms")] {
            assert_eq!(round_trip(micros), text);
        }
    }
}
