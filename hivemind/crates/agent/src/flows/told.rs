//! A flow's numbers in words.

use std::sync::Arc;

use hivemind_common::policy::{RULE_HOST, rule_parts};
use hivemind_datapath::{DropReason, FlowEvent, FlowKind, FlowPeer};
use hivemind_model::{Flow, FlowEnd, FlowEvent as Happened, FlowVerdict, Identity, RuleRef};

use super::{names::Names, round_trips::RoundTrips};

/// The protocol whose round trips are measured.
pub(crate) const TCP: u8 = 6;

/// The event as users see it.
pub(crate) fn flow(event: &FlowEvent, names: &Names, round_trips: &RoundTrips, node: &str) -> Flow {
    let (happened, verdict, reason, explanation) = match event.kind {
        FlowKind::New => (Happened::New, FlowVerdict::Allowed, "", String::new()),
        FlowKind::Live => (Happened::Live, FlowVerdict::Allowed, "", String::new()),
        FlowKind::Closed => (Happened::Closed, FlowVerdict::Allowed, "", String::new()),
        FlowKind::Dropped(reason) if reason.is_denial() => {
            (Happened::Denied, FlowVerdict::Denied, reason.name(), denial(reason, event, names))
        }
        FlowKind::Dropped(reason) => {
            (Happened::Dropped, FlowVerdict::Dropped, reason.name(), reason.meaning().to_owned())
        }
    };
    let audit = if verdict == FlowVerdict::Allowed { audit(event, names) } else { None };
    let (verdict, explanation) = match audit {
        Some(explanation) => (FlowVerdict::Audited, explanation),
        None => (verdict, explanation),
    };
    let has_ports = matches!(event.protocol, 6 | 17 | 132);
    Flow {
        time: event.time,
        node: node.to_owned(),
        event: happened,
        verdict,
        reason: reason.to_owned(),
        explanation,
        egress_rule: rule(event.egress_rule, names),
        ingress_rule: rule(event.ingress_rule, names),
        source: end(&event.source, has_ports, names, node),
        destination: end(&event.destination, has_ports, names, node),
        protocol: protocol(event.protocol),
        began: event.began,
        bytes_sent: event.bytes[0],
        bytes_received: event.bytes[1],
        packets_sent: event.packets[0],
        packets_received: event.packets[1],
        rtt_us: (event.protocol == TCP)
            .then(|| round_trips.mean_us(event.source.identity, event.destination.identity))
            .flatten(),
    }
}

/// The policy that denies it, or would have to allow it; of several of these it is the one that was made first.
fn denial(reason: DropReason, event: &FlowEvent, names: &Names) -> String {
    let (number, whom) = match reason {
        DropReason::PolicyEgress => (event.egress_rule, "source"),
        _ => (event.ingress_rule, "destination"),
    };
    match rule(number, names) {
        Some(rule) if !rule.namespace.is_empty() => format!("{}: {}", reason.meaning(), says(&rule, whom)),
        _ => reason.meaning().to_owned(),
    }
}

/// What a rule says of a connection that it refuses.
fn says(rule: &RuleRef, whom: &str) -> String {
    let RuleRef { namespace, policy, direction, index } = rule;
    match index {
        Some(index) => format!("{namespace}/{policy} denies it by {direction}[{index}]"),
        None => format!("{namespace}/{policy} governs the {whom}, and no rule allows it"),
    }
}

/// Why a connection that may pass would not, if a policy did not only tell.
fn audit(event: &FlowEvent, names: &Names) -> Option<String> {
    let ends = [(event.egress_rule, "source"), (event.ingress_rule, "destination")];
    let (number, whom) = ends.into_iter().find(|(number, _)| is_of_audit(*number, names))?;
    rule(number, names).map(|rule| format!("would be denied: {}", says(&rule, whom)))
}

/// Whether a policy that only tells would deny the connection, if it may pass.
pub(crate) fn is_audited(event: &FlowEvent, names: &Names) -> bool {
    [event.egress_rule, event.ingress_rule].into_iter().any(|number| is_of_audit(number, names))
}

/// Whether the rule is one of a policy that only tells.
fn is_of_audit(number: u32, names: &Names) -> bool {
    rule_parts(number).and_then(|parts| names.policy(parts.policy)).is_some_and(|policy| policy.is_audit)
}

/// One end of what node `here` saw.
pub(crate) fn end(peer: &FlowPeer, has_ports: bool, names: &Names, here: &str) -> FlowEnd {
    let mut end = FlowEnd {
        kind: kind(peer.identity).to_owned(),
        identity: peer.identity,
        address: peer.address,
        port: has_ports.then_some(peer.port),
        ..FlowEnd::default()
    };
    if let Some((namespace, app)) = names.identity(peer.identity) {
        (end.namespace, end.app) = (namespace.to_owned(), app.to_owned());
    }
    if let Some(replica) = peer.address.and_then(|address| names.replica(address, peer.identity)) {
        (end.replica, end.node) = (replica.name.clone(), replica.node.clone());
        if end.app.is_empty() {
            (end.namespace, end.app) = (replica.namespace.clone(), replica.app.clone());
        }
    }
    if peer.identity == Identity::NODE
        && let Some(node) = peer.address.and_then(|address| names.node(address))
    {
        end.node = node.to_owned();
    }
    if let Some(name) = domain(peer, names) {
        end.domain = name.to_string();
    }
    // Each node has its own.
    if matches!(peer.identity, Identity::HOST | Identity::DNS) {
        end.node = here.to_owned();
    }
    end
}

/// The name for which an address outside was answered last.
pub(crate) fn domain<'a>(peer: &FlowPeer, names: &'a Names) -> Option<&'a Arc<str>> {
    names.answered.name(peer.address.filter(|_| peer.identity == Identity::WORLD)?)
}

fn kind(identity: u32) -> &'static str {
    match identity {
        Identity::HOST => "host",
        Identity::WORLD => "world",
        Identity::DNS => "dns",
        Identity::NODE => "node",
        Identity::CHECK => "check",
        Identity::FIRST.. => "replica",
        _ => "unknown",
    }
}

pub(crate) fn rule(number: u32, names: &Names) -> Option<RuleRef> {
    if number == RULE_HOST {
        return Some(RuleRef::node_to_replicas());
    }
    let parts = rule_parts(number)?;
    let (namespace, policy) = match names.policy(parts.policy) {
        Some(known) => (known.namespace.clone(), known.name.clone()),
        None => (String::new(), format!("policy {}", parts.policy)),
    };
    let direction = if parts.egress { "egress" } else { "ingress" };
    Some(RuleRef { namespace, policy, direction: direction.to_owned(), index: parts.index })
}

pub(crate) fn protocol(number: u8) -> String {
    match number {
        0 => String::new(),
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use hivemind_common::policy::rule_number;
    use jiff::Timestamp;

    use super::*;
    use crate::flows::names::PolicyName;

    fn event(kind: FlowKind) -> FlowEvent {
        FlowEvent {
            time: Timestamp::UNIX_EPOCH,
            began: None,
            kind,
            source: FlowPeer { address: Some([10, 200, 0, 7].into()), port: 40_000, identity: 300 },
            destination: FlowPeer { address: Some([192, 0, 2, 1].into()), port: 80, identity: 2 },
            protocol: 6,
            egress_rule: 0,
            ingress_rule: 0,
            bytes: [1, 2],
            packets: [3, 4],
            interface: 5,
        }
    }

    fn names() -> Names {
        let mut names = Names::default();
        names.know_identity(300, "shop", "web");
        let policy = |name: &str, is_audit| PolicyName {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            is_audit,
            is_logged: false,
        };
        names.know_policy(7, policy("only-client", false));
        names.know_policy(8, policy("trial", true));
        names
    }

    #[test]
    fn what_is_only_told_bears_the_rule_that_would_deny_it() {
        let told = |rule| {
            let flow = flow(
                &FlowEvent { ingress_rule: rule, ..event(FlowKind::New) },
                &names(),
                &RoundTrips::default(),
                "n",
            );
            (flow.verdict, flow.explanation)
        };
        assert_eq!(
            told(rule_number(8, 0, None)),
            (
                FlowVerdict::Audited,
                "would be denied: shop/trial governs the destination, and no rule allows it".to_owned()
            )
        );
        assert_eq!(told(rule_number(8, 0, Some(1))).1, "would be denied: shop/trial denies it by ingress[1]");
        assert_eq!(told(rule_number(7, 0, Some(1))), (FlowVerdict::Allowed, String::new()));
    }

    #[test]
    fn a_denial_is_told_from_a_drop_and_both_from_what_passes() {
        let judged = |kind| {
            let flow = flow(&event(kind), &names(), &RoundTrips::default(), "n");
            (flow.event, flow.verdict, flow.reason)
        };
        assert_eq!(
            judged(FlowKind::Dropped(DropReason::PolicyIngress)),
            (Happened::Denied, FlowVerdict::Denied, "policy_ingress".to_owned())
        );
        assert_eq!(
            judged(FlowKind::Dropped(DropReason::SpoofedSource)),
            (Happened::Dropped, FlowVerdict::Dropped, "spoofed_source".to_owned())
        );
        assert_eq!(judged(FlowKind::New), (Happened::New, FlowVerdict::Allowed, String::new()));
    }

    #[test]
    fn a_denial_names_the_policy_that_would_have_to_allow_it() {
        let denied = FlowEvent {
            ingress_rule: rule_number(7, 0, None),
            ..event(FlowKind::Dropped(DropReason::PolicyIngress))
        };
        assert_eq!(
            flow(&denied, &names(), &RoundTrips::default(), "n").explanation,
            "no policy lets it enter its destination: shop/only-client governs the destination, and no rule allows it"
        );
        let gone = FlowEvent { ingress_rule: rule_number(9, 0, None), ..denied };
        assert_eq!(
            flow(&gone, &names(), &RoundTrips::default(), "n").explanation,
            "no policy lets it enter its destination"
        );
    }

    #[test]
    fn ends_and_rules_have_their_names() {
        let rules = FlowEvent {
            egress_rule: rule_number(7, hivemind_common::policy::EGRESS, Some(2)),
            ingress_rule: rule_number(9, 0, None),
            ..event(FlowKind::New)
        };
        let flow = flow(&rules, &names(), &RoundTrips::default(), "n");
        assert_eq!((flow.source.namespace.as_str(), flow.source.app.as_str()), ("shop", "web"));
        assert_eq!((flow.destination.kind.as_str(), flow.destination.port), ("world", Some(80)));
        let egress = flow.egress_rule.unwrap();
        assert_eq!(
            (egress.policy.as_str(), egress.direction.as_str(), egress.index),
            ("only-client", "egress", Some(2))
        );
        let ingress = flow.ingress_rule.unwrap();
        assert_eq!((ingress.policy.as_str(), ingress.index), ("policy 9", None), "it is gone");
    }

    #[test]
    fn an_end_that_is_the_nodes_own_is_on_that_node_and_the_world_on_none() {
        let mut probe = event(FlowKind::New);
        probe.source.identity = Identity::HOST;
        let flow = flow(&probe, &names(), &RoundTrips::default(), "n");
        assert_eq!((flow.source.node.as_str(), flow.destination.node.as_str()), ("n", ""));
    }

    #[test]
    fn the_nodes_own_rule_has_a_name_and_no_rule_has_none() {
        assert_eq!(rule(RULE_HOST, &names()), Some(RuleRef::node_to_replicas()));
        assert_eq!(rule(0, &names()), None);
    }

    #[test]
    fn a_ping_has_no_ports() {
        let ping = FlowEvent { protocol: 1, ..event(FlowKind::New) };
        let flow = flow(&ping, &names(), &RoundTrips::default(), "n");
        assert_eq!((flow.source.port, flow.protocol.as_str()), (None, "icmp"));
    }
}
