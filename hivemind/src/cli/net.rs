//! `net`: what the network would do with a packet, whether every path of it works, and what was dropped.

mod drops;

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    str::FromStr,
};

use clap::{Args, Subcommand, ValueEnum};
use hivemind_client::TraceOptions;
use hivemind_model::{ErrorCode, FlowVerdict, NetCheck, NetOutcome, NetProbe, NetStep, NetTrace, RuleRef};

use super::{
    Session,
    fault::{Colours, Outcome, fault},
    output::{self, Format},
};

/// The exit code if a path does not work, or a packet does not arrive.
const FAILED: u8 = 1;

/// The port of `--outside` if none is given.
const OUTSIDE_PORT: u16 = 443;

/// Commands on the network.
#[derive(Subcommand, Debug)]
pub(crate) enum NetCommand {
    /// Show whose packets were dropped, and why
    Drops(drops::DropsArgs),
    /// Walk every path of a node's network and say which work
    #[command(
        after_help = "Two ends are made for as long as it takes, in network namespaces of their own; they speak to one another, to a \
service in front of one of them, to DNS and to the node, in both address families. Nothing is sent off the machine unless \
--outside says where. What was made is removed afterwards, also if the command is interrupted.

A path that fails is told with what to look at. Exit codes: 0 all that was walked works, 1 something does not.

Examples:
  hivemind net check
  hivemind net check --outside 192.0.2.1:443
  hivemind net check --json | jq -r '.probes[] | select(.outcome == \"failed\") | .explanation'"
    )]
    Check(CheckArgs),
    /// Say step by step what would become of a packet, without sending it
    #[command(
        after_help = "The programs of the sender's node are run on the first packet of a connection, by what they know now, and then \
on the answer. Nothing is sent and nothing is changed. A line tells the program, the interface at which it sits, what it \
found and what it did; the last line is the verdict, as flows has it. The socket hooks cannot be run so: what they would do \
is read from their tables, and of a service that spreads its clients one endpoint stands for all.

FROM and TO are an app, app/replica, host (the node's own processes) or an address. TO as an app is the address of its \
service. Apps are looked for in the namespace of -n.

Exit codes: 0 it arrives, 1 it does not.

Examples:
  hivemind net trace client web:80
  hivemind net trace client/client-k3f9q 10.200.0.7:53/udp
  hivemind net trace 192.0.2.7 host:8080              a published port, asked from outside
  hivemind net trace client web:80 --json | jq -r .verdict"
    )]
    Trace(TraceArgs),
}

/// Flags of `net check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Another node than the one that answers
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Also reach this address by TCP; the port is 443 if none is given
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    outside: Option<Outside>,
    /// Print the API's JSON; errors too
    #[arg(long)]
    json: bool,
}

/// Flags of `net trace`.
#[derive(Args, Debug)]
pub(crate) struct TraceArgs {
    /// Who sends the packet
    #[arg(value_name = "FROM")]
    from: String,
    /// Where it is sent to; the protocol is tcp or udp
    #[arg(value_name = "TO:PORT[/PROTOCOL]")]
    to: Target,
    /// The port that it is sent from; one from which nothing is known if it is left out
    #[arg(long, value_name = "PORT")]
    source_port: Option<u16>,
    /// Take the IPv6 addresses of apps, replicas and the node
    #[arg(long)]
    ipv6: bool,
    /// The node whose programs are asked, if FROM is host or an address outside
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Print the API's JSON; errors too
    #[arg(long)]
    json: bool,
}

/// An address off the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outside(SocketAddr);

impl FromStr for Outside {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Outside(address));
        }
        let address = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let address = address.map_err(|_| "give an address, or [address]:port with brackets around IPv6")?;
        Ok(Outside(SocketAddr::new(address, OUTSIDE_PORT)))
    }
}

/// `TO:PORT[/PROTOCOL]`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    end: String,
    port: u16,
    protocol: Protocol,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl FromStr for Target {
    type Err = String;

    /// The slash of app/replica stands before the port, that of the protocol behind it.
    fn from_str(text: &str) -> Result<Self, String> {
        let (end, rest) = text.rsplit_once(':').ok_or("say the port: TO:PORT")?;
        let (port, protocol) = match rest.split_once('/') {
            None => (rest, Protocol::Tcp),
            Some((port, "tcp")) => (port, Protocol::Tcp),
            Some((port, "udp")) => (port, Protocol::Udp),
            Some((_, other)) => return Err(format!("{other:?} is no protocol: tcp or udp")),
        };
        let port = port.parse().ok().filter(|port| *port != 0);
        let port = port.ok_or_else(|| format!("{rest:?} is no port: give one from 1 to 65535"))?;
        let bare = end.strip_prefix('[').and_then(|end| end.strip_suffix(']'));
        if end.contains(':') && bare.is_none() {
            return Err("put brackets around an IPv6 address: [fd00::1]:80".to_owned());
        }
        let end = bare.unwrap_or(end);
        if end.is_empty() {
            return Err("say where it is sent to: an app, app/replica, host or an address".to_owned());
        }
        Ok(Target { end: end.to_owned(), port, protocol })
    }
}

impl NetCommand {
    pub(crate) fn format(&self) -> Format {
        let json = match self {
            NetCommand::Drops(args) => return args.format(),
            NetCommand::Check(args) => args.json,
            NetCommand::Trace(args) => args.json,
        };
        if json { Format::Json } else { Format::Table }
    }

    pub(crate) async fn run(&self, session: &Session) -> Outcome {
        match self {
            NetCommand::Drops(args) => args.run(session).await,
            NetCommand::Check(args) => args.run(session).await,
            NetCommand::Trace(args) => args.run(session).await,
        }
    }
}

impl CheckArgs {
    async fn run(&self, session: &Session) -> Outcome {
        let outside = self.outside.map(|outside| outside.0.to_string());
        let check = session.client.check_network(self.node.as_deref(), outside.as_deref()).await?;
        output::print(&match self.json {
            true => output::json(&check)?,
            false => describe(&check, Colours::for_stdout()),
        })?;
        let any_failed = check.probes.iter().any(|probe| probe.outcome == NetOutcome::Failed);
        Ok(if any_failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
    }
}

impl TraceArgs {
    async fn run(&self, session: &Session) -> Outcome {
        if self.source_port == Some(0) {
            return Err(fault(
                ErrorCode::OutOfRange,
                "--source-port: 0 is no port",
                "give one from 1 to 65535",
            ));
        }
        let protocol = match self.to.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let bare = self.from.strip_prefix('[').and_then(|from| from.strip_suffix(']'));
        let from = bare.unwrap_or(&self.from);
        // To whom an address speaks is of its family.
        let ipv6 = self.ipv6 || from.parse::<IpAddr>().is_ok_and(|from| from.is_ipv6());
        let options = TraceOptions {
            from: from.to_owned(),
            to: self.to.end.clone(),
            port: self.to.port,
            protocol: protocol.to_owned(),
            source_port: self.source_port,
            namespace: Some(session.namespace.clone()),
            ipv6,
            node: self.node.clone(),
        };
        let trace = session.client.trace(&options).await?;
        output::print(&match self.json {
            true => output::json(&trace)?,
            false => steps(&trace, Colours::for_stdout()),
        })?;
        Ok(if trace.verdict == FlowVerdict::Allowed { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
    }
}

fn describe(check: &NetCheck, colours: Colours) -> String {
    let width = check.probes.iter().map(|probe| probe.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for NetProbe { name, outcome, duration_us, explanation } in &check.probes {
        let mark = match outcome {
            NetOutcome::Passed => colours.paint("32", "ok  "),
            NetOutcome::Skipped => colours.paint("33", "skip"),
            NetOutcome::Failed => colours.paint("1;31", "fail"),
        };
        let said = match outcome {
            NetOutcome::Passed => took(*duration_us),
            NetOutcome::Skipped | NetOutcome::Failed => explanation.clone(),
        };
        text.push_str(&format!("{mark}  {name:<width$}  {said}\n"));
    }
    let count = |outcome| check.probes.iter().filter(|probe| probe.outcome == outcome).count();
    let (failed, passed) = (count(NetOutcome::Failed), count(NetOutcome::Passed));
    text.push_str(&match failed {
        0 => format!("\nAll {passed} paths of node {} that were walked work.\n", check.node),
        _ => format!("\n{failed} of {} paths of node {} do not work.\n", failed + passed, check.node),
    });
    text
}

fn took(us: u64) -> String {
    if us < 1_000 { format!("{us} µs") } else { format!("{:.1} ms", us as f64 / 1_000.0) }
}

fn steps(trace: &NetTrace, colours: Colours) -> String {
    let mut text =
        format!("{} to {} by {} on node {}\n", trace.source, trace.destination, trace.protocol, trace.node);
    for (i, step) in trace.steps.iter().enumerate() {
        let way = if step.is_reply { "<-" } else { "->" };
        let at = match step.interface.as_str() {
            "" => step.program.clone(),
            interface => format!("{} at {interface}", step.program),
        };
        text.push_str(&format!("{:>2} {way} {at}: {}\n", i + 1, found_and_did(step)));
    }
    let verdict = match trace.verdict {
        FlowVerdict::Allowed => colours.paint("32", "allowed"),
        FlowVerdict::Denied => colours.paint("1;31", "denied"),
        FlowVerdict::Dropped => colours.paint("33", "dropped"),
        FlowVerdict::Audited => colours.paint("36", "audited"),
    };
    text.push_str(&verdict);
    if !trace.explanation.is_empty() {
        text.push_str(&format!("  {}", trace.explanation));
    }
    text.push('\n');
    text
}

fn found_and_did(step: &NetStep) -> String {
    let rules: Vec<_> = [&step.egress_rule, &step.ingress_rule].into_iter().flatten().map(rule).collect();
    let rules = if rules.is_empty() { String::new() } else { format!("by {}", rules.join(", ")) };
    let parts = [step.found.clone(), rules, step.did.clone()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

fn rule(rule: &RuleRef) -> String {
    let place = match rule.namespace.as_str() {
        "" | hivemind_model::DEFAULT_NAMESPACE => String::new(),
        other => format!("{other}/"),
    };
    let index = rule.index.map(|index| format!("[{index}]")).unwrap_or_default();
    format!("{place}{}/{}{index}", rule.policy, rule.direction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_end_with_a_port_and_perhaps_a_protocol() {
        let target = |end: &str, port, protocol| Ok(Target { end: end.to_owned(), port, protocol });
        for (text, wanted) in [
            ("web:80", target("web", 80, Protocol::Tcp)),
            ("web/web-k3f9q:80/udp", target("web/web-k3f9q", 80, Protocol::Udp)),
            ("10.0.0.1:53/udp", target("10.0.0.1", 53, Protocol::Udp)),
            ("[fd00::1]:443/tcp", target("fd00::1", 443, Protocol::Tcp)),
        ] {
            assert_eq!(text.parse::<Target>(), wanted, "{text}");
        }
        for wrong in ["web", "web:0", "web:99999", "web:80/sctp", "fd00::1:80", ":80", "web:"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_outside_has_a_port_in_any_case() {
        for (text, wanted) in [
            ("192.0.2.1", "192.0.2.1:443"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("2001:db8::1", "[2001:db8::1]:443"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ] {
            assert_eq!(text.parse::<Outside>(), Ok(Outside(wanted.parse().unwrap())), "{text}");
        }
        assert!("example.com".parse::<Outside>().is_err());
    }

    #[test]
    fn what_fails_is_told_with_what_to_look_at() {
        let probe = |name: &str, outcome, explanation: &str| NetProbe {
            name: name.into(),
            outcome,
            duration_us: 1_234,
            explanation: explanation.into(),
        };
        let check = NetCheck {
            node: "n1".into(),
            probes: vec![
                probe("DNS over IPv4", NetOutcome::Failed, "look there"),
                probe("by name", NetOutcome::Passed, ""),
                probe("outside", NetOutcome::Skipped, "say where"),
            ],
        };
        assert_eq!(
            describe(&check, Colours::Off),
            "fail  DNS over IPv4  look there\nok    by name        1.2 ms\nskip  outside        say where\n\n\
             1 of 2 paths of node n1 do not work.\n"
        );
    }

    #[test]
    fn a_packets_way_is_told_line_by_line_and_ends_with_the_verdict() {
        let step = |is_reply, program: &str, interface: &str, found: &str, did: &str| NetStep {
            is_reply,
            program: program.into(),
            interface: interface.into(),
            found: found.into(),
            did: did.into(),
            source: None,
            destination: None,
            egress_rule: None,
            ingress_rule: (!is_reply && !interface.is_empty()).then(|| RuleRef {
                namespace: "shop".into(),
                policy: "only".into(),
                direction: "ingress".into(),
                index: Some(0),
            }),
        };
        let trace = NetTrace {
            node: "n1".into(),
            source: "10.200.0.5:40000".parse().unwrap(),
            destination: "10.204.0.9:80".parse().unwrap(),
            protocol: "tcp".into(),
            steps: vec![
                step(false, "sock_connect4", "", "its destination becomes 10.200.0.7:80", "sent on"),
                step(false, "from_replica", "hm1", "a new connection", "delivered"),
                step(true, "from_replica", "hm2", "the connection", "delivered"),
            ],
            verdict: FlowVerdict::Dropped,
            reason: "no_endpoint".into(),
            explanation: "the endpoint is gone".into(),
        };
        assert_eq!(
            steps(&trace, Colours::Off),
            "10.200.0.5:40000 to 10.204.0.9:80 by tcp on node n1\n \
             1 -> sock_connect4: its destination becomes 10.200.0.7:80; sent on\n \
             2 -> from_replica at hm1: a new connection; by shop/only/ingress[0]; delivered\n \
             3 <- from_replica at hm2: the connection; delivered\n\
             dropped  the endpoint is gone\n"
        );
    }
}
