//! `flows`: who speaks to whom, what was refused, and why.

mod line;

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use futures::StreamExt;
use hivemind_client::{FlowOptions, Selection};
use hivemind_model::{App, ErrorCode, FlowLine, FlowVerdict, FlowWords};

use super::{
    Session,
    fault::{Colours, Failure, Outcome, fault},
    near::near,
    output::{self, note},
};

/// How many flows a node remembers.
const REMEMBERED_MAX: u64 = 4096;

/// Flags of `flows`.
#[derive(Args, Debug)]
#[command(
    after_help = "A line tells when, whether it may pass, who began it and with whom, and what happened: new (its \
first packet passed), live (it goes on; the time is that of its beginning), closed, denied (a policy refused a packet of it) or dropped (it could not be \
carried). only-client/ingress[0] names the rule that allowed it; only-client/ingress, without a number, a policy that \
governs the replica and has no rule that allows it. Bytes and packets are those that who began it sent, and those that \
came back.

An end is an app, NAMESPACE/APP, NAMESPACE/* (all of a namespace), node/NAME (the processes of a node), host (those of the \
node that tells), dns, world, unknown, an address or a block of addresses. --to takes a domain name too: that for which the \
node's DNS server last answered a replica with the address. Flows of all namespaces are shown; with -n, apps without a \
namespace are of that one.

With --since, events are shown if the nodes remember them that far back. If they do not, what is on disk is shown instead: a \
line for each minute, pair of ends, protocol and port, with exact totals; which of the two it is is said on standard \
error.

Examples:
  hivemind flows --follow
  hivemind flows --verdict denied --to web-app
  hivemind flows --from 10.0.0.0/8 --tail 20
  hivemind flows --to api.example.org --since 1h
  hivemind flows --to 'shop/*' --port 8000-8099/tcp --since 1h
  hivemind flows --reason no_backend --since 2026-01-31T12:00:00Z
  hivemind flows -f -o wide                                     with the node of each end
  hivemind flows -f -o json | jq -r 'select(.type == \"flow\") | .object.reason'"
)]
pub(crate) struct FlowsArgs {
    /// Only flows that this began
    #[arg(long, value_name = "END")]
    from: Option<String>,
    /// Only flows to this
    #[arg(long, value_name = "END")]
    to: Option<String>,
    /// Only flows to this port: 80, 80/tcp, 8000-8099
    #[arg(long, value_name = "PORTS")]
    port: Option<String>,
    /// Only flows of this protocol: tcp, udp, icmp, icmpv6, sctp, or its number
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<String>,
    /// Only flows that were judged so
    #[arg(long, value_enum)]
    verdict: Option<Verdict>,
    /// Only flows that were refused for this reason, as -o json tells it: policy_ingress, no_backend, …
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Only what happened since then: 30s, 30m, 1h, 2d ago, or a time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Go on with new flows as they come, until Ctrl-C
    #[arg(long, short = 'f')]
    follow: bool,
    /// Of what is known already, only the last N [default: 100; with --since all that are remembered]
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
    /// How to print; errors too are JSON with json
    #[arg(long = "output", short = 'o', value_name = "FORMAT", value_enum, default_value_t)]
    format: FlowFormat,
}

/// How flows are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum FlowFormat {
    /// A line each.
    #[default]
    Compact,
    /// The same with the node of each end and the round trip.
    Wide,
    /// The API's JSON, one object a line.
    Json,
}

/// Whether a flow may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Verdict {
    /// It may.
    Allowed,
    /// A policy says no.
    Denied,
    /// It cannot be carried.
    Dropped,
    /// It may, and a policy that only tells would say no.
    Audited,
}

impl FlowsArgs {
    /// How errors are printed.
    pub(crate) fn error_format(&self) -> output::Format {
        match self.format {
            FlowFormat::Compact | FlowFormat::Wide => output::Format::Table,
            FlowFormat::Json => output::Format::Json,
        }
    }

    /// Prints flows to their end, or until nobody wants them any more.
    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        let words = FlowWords {
            from: self.from.as_deref().map(|end| in_namespace(session, end)),
            to: self.to.as_deref().map(|end| in_namespace(session, end)),
            verdict: self.verdict.map(|verdict| match verdict {
                Verdict::Allowed => FlowVerdict::Allowed,
                Verdict::Denied => FlowVerdict::Denied,
                Verdict::Dropped => FlowVerdict::Dropped,
                Verdict::Audited => FlowVerdict::Audited,
            }),
            port: self.port.clone(),
            protocol: self.protocol.clone(),
            reason: self.reason.clone(),
            since: self.since.clone(),
            until: None,
        };
        let tail = self.tail.or(self.since.is_some().then_some(REMEMBERED_MAX));
        let options = FlowOptions { words, follow: self.follow, tail };
        let mut flows = session.client.flows(&options).await.map_err(at_flag)?;
        let mut printer = line::Printer::new(Colours::for_stdout(), self.format == FlowFormat::Wide);
        let (mut any, mut told_from_disk, mut said_events) = (false, false, false);
        while let Some(item) = flows.next().await {
            let item = item?;
            if let FlowLine::Reach(reach) = &item {
                let too_short = !reach.complete && !told_from_disk;
                if too_short && !self.follow {
                    told_from_disk = true;
                    note(&format!(
                        "node {} remembers its events since {} only: these are the records of minutes that are on disk",
                        reach.node,
                        reach.since.strftime("%Y-%m-%dT%H:%M:%SZ")
                    ));
                    flows = session.client.flow_history(&options.words).await.map_err(at_flag)?;
                } else if too_short {
                    note(&format!("node {} remembers its events since {} only", reach.node, reach.since));
                } else if !said_events {
                    said_events = true;
                    note("the nodes remember their events that far back: these are they");
                }
                continue;
            }
            any = true;
            output::print(&match self.format {
                FlowFormat::Compact | FlowFormat::Wide => printer.text(&item),
                FlowFormat::Json => json_line(&item)?,
            })?;
        }
        if self.follow {
            return Err(fault(
                ErrorCode::DaemonUnreachable,
                "the daemon ended the stream",
                "run the command again",
            ));
        }
        if !any && self.format != FlowFormat::Json {
            note("no such flows are known; --follow shows those to come");
            for end in options.words.from.iter().chain(&options.words.to) {
                note_stranger(session, end).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Says so if `end` looks like an app and there is none of that name. It may be gone, so that is no error.
async fn note_stranger(session: &Session, end: &str) -> Result<(), Failure> {
    let name = end.rsplit('/').next().unwrap_or(end);
    if !is_name(name) {
        return Ok(());
    }
    let apps = session.client.list::<App>(&Selection::default()).await?.items;
    let names = || apps.iter().map(|app| app.metadata.name.as_str());
    // A replica is named after its app.
    if names().any(|app| name.strip_prefix(app).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')))
    {
        return Ok(());
    }
    let near = near(name, names()).first().map(|app| format!("; did you mean {app:?}?")).unwrap_or_default();
    note(&format!("there is no app {name:?}{near}"));
    Ok(())
}

fn json_line(line: &FlowLine) -> Result<String, Failure> {
    match serde_json::to_string(line) {
        Ok(text) => Ok(text + "\n"),
        Err(e) => Err(fault(ErrorCode::Internal, format!("a flow cannot be written as JSON: {e}"), "")),
    }
}

/// `end` with the session's namespace, if that was named and `end` is the bare name of an app.
fn in_namespace(session: &Session, end: &str) -> String {
    if is_name(end) && session.namespace_given {
        format!("{}/{end}", session.namespace)
    } else {
        end.to_owned()
    }
}

/// Whether `end` is the bare name of an app, as far as one can see.
fn is_name(end: &str) -> bool {
    let is_word = ["host", "dns", "world", "unknown"].contains(&end);
    !is_word && end.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The API's parameters are flags here.
fn at_flag(mut error: hivemind_model::ApiError) -> Failure {
    let flag = |field: &str| match field {
        "from" | "to" | "port" | "protocol" | "verdict" | "reason" | "since" | "tail" => format!("--{field}"),
        other => other.to_owned(),
    };
    error.field = error.field.as_deref().map(flag);
    error.problems.iter_mut().for_each(|problem| problem.field = flag(&problem.field));
    error.into()
}
