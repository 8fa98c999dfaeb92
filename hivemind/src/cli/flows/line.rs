//! A flow in one line.

use std::net::IpAddr;

use hivemind_model::{
    DEFAULT_NAMESPACE, Flow, FlowEnd, FlowEvent, FlowLine, FlowLoss, FlowMinute, FlowShare, FlowVerdict,
    RuleRef,
};
use ipnet::IpNet;

use crate::cli::{fault::Colours, units::size};

/// The most characters that a column grows to; longer texts push what follows to the right.
const COLUMN_CHARS_MAX: usize = 48;

/// Prints lines below one another; columns grow with what they have to hold.
pub(crate) struct Printer {
    colours: Colours,
    wide: bool,
    ends: [usize; 2],
}

impl Printer {
    /// With the node of each end if `wide`.
    pub(crate) fn new(colours: Colours, wide: bool) -> Self {
        Printer { colours, wide, ends: [24, 20] }
    }

    /// One line, ended by a line feed.
    pub(crate) fn text(&mut self, line: &FlowLine) -> String {
        match line {
            FlowLine::Flow(flow) => self.flow(flow),
            FlowLine::Minute(minute) => self.minute(minute),
            FlowLine::Reach(_) => String::new(),
            FlowLine::Lost(loss) => self.colours.paint("1;33", &lost(loss)) + "\n",
        }
    }

    /// `2026-01-31T12:00Z  allowed  client -> web:80  tcp  12 connections  …`, and a line for each share that says more.
    fn minute(&mut self, flows: &FlowMinute) -> String {
        let (verdict, colour) = verdict(flows.verdict);
        let [source, destination] = self.both(&flows.source, &flows.destination);
        let noun = match (flows.verdict, flows.connections) {
            (FlowVerdict::Allowed | FlowVerdict::Audited, 1) => "connection",
            (FlowVerdict::Allowed | FlowVerdict::Audited, _) => "connections",
            (FlowVerdict::Denied, 1) => "attempt",
            (FlowVerdict::Denied, _) => "attempts",
            (FlowVerdict::Dropped, 1) => "packet",
            (FlowVerdict::Dropped, _) => "packets",
        };
        let about = if flows.exact { "" } else { "at least " };
        let mut notes = vec![format!("{about}{} {noun}", flows.connections)];
        let sent = [flows.packets_sent, flows.packets_received];
        notes.push(carried(sent, [flows.bytes_sent, flows.bytes_received]));
        notes.extend(self.wide.then(|| flows.rtt_us.map(round_trip)).flatten());
        notes.extend(self.wide.then(|| format!("({})", flows.node)));
        notes.extend((flows.seconds > 60).then(|| format!("in {} s", flows.seconds)));
        notes.retain(|note| !note.is_empty());
        let mut text = format!(
            "{}  {}  {source} -> {destination}  {:<5}  {}\n",
            flows.minute.strftime("%Y-%m-%dT%H:%MZ"),
            self.colours.paint(colour, &format!("{verdict:<7}")),
            flows.protocol,
            notes.join("  "),
        );
        flows
            .shares
            .iter()
            .filter_map(|share| share_line(share, flows.verdict_of(share)))
            .for_each(|line| text += &line);
        if flows.untold > 0 {
            text += &format!("    {:>7}  were not told one by one\n", flows.untold);
        }
        text
    }

    /// Both ends, padded to their columns.
    fn both(&mut self, source: &FlowEnd, destination: &FlowEnd) -> [String; 2] {
        let texts = [source, destination].map(|at| match self.wide && !at.node.is_empty() {
            true => format!("{} ({})", end(at), at.node),
            false => end(at),
        });
        for (width, text) in self.ends.iter_mut().zip(&texts) {
            *width = (*width).max(text.chars().count()).min(COLUMN_CHARS_MAX);
        }
        let [source, destination] = texts;
        let [from, to] = self.ends;
        [format!("{source:<from$}"), format!("{destination:<to$}")]
    }

    fn flow(&mut self, flow: &Flow) -> String {
        let (verdict, colour) = verdict(flow.verdict);
        let [source, destination] = self.both(&flow.source, &flow.destination);
        // What goes on stands where it began, as it is sorted.
        let time = flow.began.filter(|_| flow.event == FlowEvent::Live).unwrap_or(flow.time);
        let mut line = format!(
            "{}  {}  {source} -> {destination}  {:<5} {:<7}",
            // The day is of interest to programs, which have the whole time.
            time.strftime("%H:%M:%S%.3f"),
            self.colours.paint(colour, &format!("{verdict:<7}")),
            flow.protocol,
            event(flow.event),
        );
        let rtt = flow.rtt_us.filter(|_| self.wide).map(round_trip).unwrap_or_default();
        let notes: Vec<String> =
            [why(flow), rules(flow), counts(flow), rtt].into_iter().filter(|note| !note.is_empty()).collect();
        line.push_str(&format!("  {}", notes.join("  ")));
        line.truncate(line.trim_end().len());
        line + "\n"
    }
}

fn verdict(verdict: FlowVerdict) -> (&'static str, &'static str) {
    match verdict {
        FlowVerdict::Allowed => ("allowed", "32"),
        FlowVerdict::Denied => ("denied", "1;31"),
        FlowVerdict::Dropped => ("dropped", "33"),
        FlowVerdict::Audited => ("audited", "36"),
    }
}

fn round_trip(rtt_us: u64) -> String {
    format!("rtt {}.{:03} ms", rtt_us / 1_000, rtt_us % 1_000)
}

/// What a share says beyond its record.
fn share_line(share: &FlowShare, verdict: FlowVerdict) -> Option<String> {
    let address = |of: &Option<IpNet>| {
        of.map(|block| match block.prefix_len() == block.max_prefix_len() {
            true => block.addr().to_string(),
            false => block.to_string(),
        })
    };
    let mut notes = Vec::new();
    notes.extend(share.verdict.map(|verdict| verdict.as_str().to_owned()));
    notes.extend(address(&share.source).map(|source| format!("from {source}")));
    notes.extend(address(&share.destination).map(|destination| match share.domain.as_str() {
        "" => format!("to {destination}"),
        domain => format!("to {domain} ({destination})"),
    }));
    notes.extend((!share.reason.is_empty()).then(|| share.reason.clone()));
    notes.extend([&share.egress_rule, &share.ingress_rule].into_iter().flatten().map(|of| rule(of, verdict)));
    (!notes.is_empty()).then(|| format!("    {:>7}  {}\n", share.connections, notes.join("  ")))
}

fn event(event: FlowEvent) -> &'static str {
    match event {
        FlowEvent::New => "new",
        FlowEvent::Live => "live",
        FlowEvent::Closed => "closed",
        FlowEvent::Denied => "denied",
        FlowEvent::Dropped => "dropped",
    }
}

/// `web-app-k3f9q:80`, `shop/web-k3f9q:80`, `world 192.0.2.1:443`.
fn end(end: &FlowEnd) -> String {
    let port = end.port.map(|port| format!(":{port}")).unwrap_or_default();
    let address = match end.address {
        Some(IpAddr::V6(address)) if end.port.is_some() => format!("[{address}]{port}"),
        Some(address) => format!("{address}{port}"),
        None => port.clone(),
    };
    let named = if end.replica.is_empty() { &end.app } else { &end.replica };
    match end.kind.as_str() {
        _ if !named.is_empty() => {
            let place = match end.namespace.as_str() {
                "" | DEFAULT_NAMESPACE => String::new(),
                other => format!("{other}/"),
            };
            // A replica that is gone is told by its app and its address.
            let is_gone = end.replica.is_empty() && end.address.is_some();
            let rest = if is_gone { format!(" {address}") } else { port };
            format!("{place}{named}{rest}").trim_end().to_owned()
        }
        "dns" => format!("dns{port}"),
        _ if !end.domain.is_empty() => format!("{} ({address})", end.domain),
        kind => format!("{kind} {address}").trim_end().to_owned(),
    }
}

fn why(flow: &Flow) -> String {
    match flow.verdict {
        FlowVerdict::Allowed => String::new(),
        _ if flow.explanation.is_empty() => flow.reason.clone(),
        _ => flow.explanation.clone(),
    }
}

/// The rules that decided, by direction: of a flow that was refused the one that did.
fn rules(flow: &Flow) -> String {
    let all = [&flow.egress_rule, &flow.ingress_rule];
    all.into_iter().flatten().map(|which| rule(which, flow.verdict)).collect::<Vec<_>>().join(", ")
}

fn rule(rule: &RuleRef, verdict: FlowVerdict) -> String {
    // The node's own: it is no rule of a policy.
    if rule.index.is_none() && verdict == FlowVerdict::Allowed {
        return rule.policy.clone();
    }
    let place = match rule.namespace.as_str() {
        "" | DEFAULT_NAMESPACE => String::new(),
        other => format!("{other}/"),
    };
    let index = rule.index.map(|index| format!("[{index}]")).unwrap_or_default();
    format!("{place}{}/{}{index}", rule.policy, rule.direction)
}

fn counts(flow: &Flow) -> String {
    carried([flow.packets_sent, flow.packets_received], [flow.bytes_sent, flow.bytes_received])
}

fn carried(packets: [u64; 2], bytes: [u64; 2]) -> String {
    let one = |packets: u64, bytes: u64| {
        let noun = if packets == 1 { "packet" } else { "packets" };
        format!("{packets} {noun} {}", size(bytes))
    };
    match packets {
        [0, 0] => String::new(),
        [_, 0] => one(packets[0], bytes[0]),
        _ => format!("{}, back {}", one(packets[0], bytes[0]), one(packets[1], bytes[1])),
    }
}

fn lost(loss: &FlowLoss) -> String {
    let noun = if loss.events == 1 { "event was" } else { "events were" };
    let why = match loss.place.as_str() {
        "kernel" => "more came at once than the kernel tells",
        "stream" => "they came faster than they were read",
        other => other,
    };
    format!("-- {} {noun} lost here: {why} --", loss.events)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(namespace: &str, name: &str, port: u16) -> FlowEnd {
        FlowEnd {
            kind: "replica".into(),
            namespace: namespace.into(),
            app: name.rsplit_once('-').unwrap().0.into(),
            replica: name.into(),
            node: "n2".into(),
            identity: 256,
            address: Some("10.200.0.5".parse().unwrap()),
            port: Some(port),
            domain: String::new(),
        }
    }

    fn flow() -> Flow {
        Flow {
            time: "2026-01-01T12:00:00.123456Z".parse().unwrap(),
            node: "n1".into(),
            event: FlowEvent::Closed,
            verdict: FlowVerdict::Allowed,
            reason: String::new(),
            explanation: String::new(),
            egress_rule: None,
            ingress_rule: Some(RuleRef {
                namespace: "default".into(),
                policy: "only-client".into(),
                direction: "ingress".into(),
                index: Some(0),
            }),
            source: replica("default", "client-aaaaa", 41_234),
            destination: replica("shop", "web-bbbbb", 80),
            protocol: "tcp".into(),
            began: None,
            bytes_sent: 420,
            bytes_received: 1_500,
            packets_sent: 6,
            packets_received: 1,
            rtt_us: Some(1_234),
        }
    }

    fn text(flow: Flow) -> String {
        Printer::new(Colours::Off, false).text(&FlowLine::Flow(Box::new(flow)))
    }

    #[test]
    fn a_flow_is_told_in_one_line_with_its_rule_and_counts() {
        assert_eq!(
            text(flow()),
            "12:00:00.123  allowed  client-aaaaa:41234       -> shop/web-bbbbb:80     tcp   closed   \
             only-client/ingress[0]  6 packets 420 B, back 1 packet 1.5 kB\n"
        );
    }

    #[test]
    fn a_flow_that_was_refused_says_why() {
        let mut denied = flow();
        (denied.event, denied.verdict) = (FlowEvent::Denied, FlowVerdict::Denied);
        denied.reason = "policy_ingress".into();
        denied.explanation = "no rule of its policies lets it in".into();
        denied.ingress_rule.as_mut().unwrap().index = None;
        (denied.packets_sent, denied.packets_received) = (0, 0);
        denied.source = FlowEnd {
            kind: "world".into(),
            address: Some("2001:db8::1".parse().unwrap()),
            port: Some(5),
            ..FlowEnd::default()
        };
        denied.destination.replica = String::new();
        assert_eq!(
            text(denied),
            "12:00:00.123  denied   world [2001:db8::1]:5    -> shop/web 10.200.0.5:80  tcp   denied   \
             no rule of its policies lets it in  only-client/ingress\n"
        );
    }

    #[test]
    fn the_nodes_own_rule_has_a_name_and_no_number() {
        let mut probe = flow();
        probe.ingress_rule = Some(RuleRef {
            namespace: "hivemind-system".into(),
            policy: "node-to-replicas".into(),
            direction: "ingress".into(),
            index: None,
        });
        assert!(text(probe).contains("  node-to-replicas  6 packets"));
    }

    #[test]
    fn the_node_of_an_end_is_told_if_that_is_asked_for_and_known() {
        let mut known = flow();
        known.source.node = String::new();
        let line = Printer::new(Colours::Off, true).text(&FlowLine::Flow(Box::new(known)));
        assert!(line.contains("  client-aaaaa:41234       -> shop/web-bbbbb:80 (n2)  tcp"), "{line}");
    }

    #[test]
    fn columns_grow_and_stay() {
        let mut printer = Printer::new(Colours::Off, false);
        let mut long = flow();
        long.source.replica = "a-replica-with-a-rather-long-name-ccccc".into();
        let wide = printer.text(&FlowLine::Flow(Box::new(long)));
        let after = printer.text(&FlowLine::Flow(Box::new(flow())));
        assert_eq!(wide.find(" -> "), after.find(" -> "));
    }

    #[test]
    fn losses_stand_on_a_line_of_their_own() {
        let loss = FlowLine::Lost(FlowLoss { events: 12, place: "kernel".into() });
        assert_eq!(
            Printer::new(Colours::Off, false).text(&loss),
            "-- 12 events were lost here: more came at once than the kernel tells --\n"
        );
    }

    #[test]
    fn ends_without_a_port_or_an_address_are_told_as_far_as_they_are_known() {
        let of = |kind: &str, address: Option<&str>, port| FlowEnd {
            kind: kind.into(),
            address: address.map(|a| a.parse().unwrap()),
            port,
            ..FlowEnd::default()
        };
        for (known, told) in [
            (of("host", Some("10.0.0.1"), Some(22)), "host 10.0.0.1:22"),
            (of("world", Some("2001:db8::1"), None), "world 2001:db8::1"),
            (of("dns", Some("169.254.20.10"), Some(53)), "dns:53"),
            (of("unknown", None, None), "unknown"),
        ] {
            assert_eq!(end(&known), told);
        }
        let named = FlowEnd { domain: "api.example.org".into(), ..of("world", Some("192.0.2.1"), Some(443)) };
        assert_eq!(end(&named), "api.example.org (192.0.2.1:443)");
    }
}
