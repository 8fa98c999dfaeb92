//! What policies decide that want it written to the daemon's log.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hivemind_common::policy::rule_parts;
use hivemind_datapath::{FlowEvent, FlowKind};
use hivemind_model::{Flow, FlowEnd, RuleRef};
use tracing::{info, warn};

use super::{names::Names, round_trips::RoundTrips, told};

/// How many lines are written in [`SPAN`], at most; how many more there were is told after it.
const LINES_MAX: u64 = 200;
const SPAN: Duration = Duration::from_secs(10);

/// Writes the lines.
pub(super) struct PolicyLog {
    names: Arc<Mutex<Names>>,
    node: String,
    began: Instant,
    lines: u64,
}

impl PolicyLog {
    pub(super) fn new(names: Arc<Mutex<Names>>, node: String) -> Self {
        PolicyLog { names, node, began: Instant::now(), lines: 0 }
    }

    /// Writes a line if a rule of a policy that wants it has decided about a new connection.
    pub(super) fn note(&mut self, event: &FlowEvent) {
        let is_decision = match event.kind {
            FlowKind::New => true,
            FlowKind::Dropped(reason) => reason.is_denial(),
            FlowKind::Live | FlowKind::Closed => false,
        };
        if !is_decision {
            return;
        }
        let flow = {
            let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            let wants = |rule: u32| {
                rule_parts(rule)
                    .and_then(|parts| names.policy(parts.policy))
                    .is_some_and(|policy| policy.is_logged)
            };
            if !wants(event.egress_rule) && !wants(event.ingress_rule) {
                return;
            }
            told::flow(event, &names, &RoundTrips::default(), &self.node)
        };
        if self.may_write(Instant::now()) {
            write(&flow);
        }
    }

    /// Whether one more line may be written; tells of those that were not when there may be some again.
    fn may_write(&mut self, now: Instant) -> bool {
        if now.duration_since(self.began) >= SPAN {
            let missed = self.lines.saturating_sub(LINES_MAX);
            if missed > 0 {
                warn!(missed, "Policies decided about more connections than are written to the log");
            }
            (self.began, self.lines) = (now, 0);
        }
        self.lines += 1;
        self.lines <= LINES_MAX
    }
}

fn write(flow: &Flow) {
    let rule = |rule: &Option<RuleRef>| rule.as_ref().map(in_words).unwrap_or_default();
    info!(
        verdict = flow.verdict.as_str(),
        source = end(&flow.source),
        destination = end(&flow.destination),
        protocol = flow.protocol,
        egress = rule(&flow.egress_rule),
        ingress = rule(&flow.ingress_rule),
        explanation = flow.explanation,
        "A policy decided about a connection"
    );
}

fn in_words(RuleRef { namespace, policy, direction, index }: &RuleRef) -> String {
    let index = index.map(|index| format!("[{index}]")).unwrap_or_default();
    format!("{namespace}/{policy}/{direction}{index}")
}

fn end(end: &FlowEnd) -> String {
    let name = match end.app.as_str() {
        "" => end.kind.clone(),
        app => format!("{}/{app}", end.namespace),
    };
    let address = end.address.map(|address| match end.port {
        Some(port) => format!(" {}", std::net::SocketAddr::new(address, port)),
        None => format!(" {address}"),
    });
    name + &address.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_are_written_in_a_span_and_no_more() {
        let mut log = PolicyLog::new(Arc::default(), "n".to_owned());
        let began = log.began;
        let written =
            |log: &mut PolicyLog, now, count: u64| (0..count).filter(|_| log.may_write(now)).count() as u64;
        assert_eq!(written(&mut log, began, LINES_MAX + 50), LINES_MAX);
        assert_eq!(written(&mut log, began + SPAN / 2, 5), 0);
        assert_eq!(written(&mut log, began + SPAN, 5), 5);
    }

    #[test]
    fn an_end_is_told_by_its_name_and_its_address() {
        let replica = FlowEnd {
            kind: "replica".into(),
            namespace: "shop".into(),
            app: "web".into(),
            address: Some([10, 200, 0, 7].into()),
            port: Some(80),
            ..FlowEnd::default()
        };
        assert_eq!(end(&replica), "shop/web 10.200.0.7:80");
        assert_eq!(end(&FlowEnd { kind: "host".into(), ..FlowEnd::default() }), "host");
    }
}
