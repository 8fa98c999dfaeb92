//! A node as people read it.

use hivemind_model::{Node, Taint};
use jiff::Timestamp;

use crate::cli::{
    fault::Colours,
    labels,
    output::Row,
    rows::joined,
    status::problems,
    table::fields,
    units::{age, size},
};

/// `Ready`, `Ready,draining`, `Dead,cordoned HM0517`.
fn state(node: &Node) -> String {
    let mut text = node.status.state.as_str().to_owned();
    if node.spec.draining {
        text.push_str(",draining");
    } else if node.spec.cordoned {
        text.push_str(",cordoned");
    }
    if let Some(problem) = &node.status.problem {
        text.push_str(&format!(" {}", problem.code));
    }
    text
}

fn role(node: &Node) -> &'static str {
    role_name(node.spec.server)
}

/// What a node is to its cluster.
pub(crate) fn role_name(server: bool) -> &'static str {
    if server { "server" } else { "agent" }
}

/// `gpu=true:NoSchedule`, as `node taint` takes it.
pub(super) fn taint_text(taint: &Taint) -> String {
    let value = if taint.value.is_empty() { String::new() } else { format!("={}", taint.value) };
    format!("{}{value}:{}", taint.key, taint.effect.as_str())
}

/// All taints with a comma between each two.
pub(super) fn taints(node: &Node) -> String {
    joined(node.spec.taints.iter().map(taint_text))
}

fn since(node: &Node, now: Timestamp) -> String {
    node.status.since.map(|since| age(since, now)).unwrap_or_default()
}

impl Row for Node {
    fn header(wide: bool) -> Vec<&'static str> {
        let mut header =
            vec!["NAME", "STATE", "SINCE", "ROLE", "ADDRESS", "VERSION", "CPUS", "MEMORY", "REPLICAS", "AGE"];
        if wide {
            header.extend(["REPLICAS IPV6", "NUMBER", "KERNEL", "CONTAINERD", "LABELS", "TAINTS"]);
        }
        header
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let mut cells = vec![
            self.metadata.name.clone(),
            state(self),
            since(self, now),
            role(self).to_owned(),
            joined(self.spec.address),
            self.status.version.clone(),
            self.status.cpus.to_string(),
            size(self.status.memory_bytes),
            self.spec.replica_range_v4.clone(),
            age(self.metadata.creation_timestamp, now),
        ];
        if wide {
            cells.extend([
                self.spec.replica_range_v6.clone(),
                self.spec.number.to_string(),
                self.status.kernel.clone(),
                self.status.containerd.clone(),
                labels::text(&self.metadata.labels),
                taints(self),
            ]);
        }
        cells
    }
}

/// All there is to know about a node.
pub(super) fn describe(node: &Node, now: Timestamp, colours: Colours) -> String {
    let Node { metadata, spec, status } = node;
    let mut state = status.state.as_str().to_owned();
    if let Some(since) = status.since {
        state.push_str(&format!(" for {}", age(since, now)));
    }
    if spec.draining {
        state.push_str(", draining: its replicas are being moved to other nodes");
    } else if spec.cordoned {
        state.push_str(", cordoned: no new replicas are put there");
    }
    let lines = |text: String| text.replace(',', "\n");
    let mut text = fields(&[
        ("Name", metadata.name.clone()),
        ("Id", metadata.id.clone()),
        ("State", state),
        ("Role", role(node).to_owned()),
        ("Number", spec.number.to_string()),
        ("Address", joined(spec.address)),
        ("Replicas", format!("{}, {}", spec.replica_range_v4, spec.replica_range_v6)),
        ("Labels", lines(labels::text(&metadata.labels))),
        ("Taints", lines(taints(node))),
        ("Version", status.version.clone()),
        ("Kernel", status.kernel.clone()),
        ("Containerd", status.containerd.clone()),
        ("Cpus", status.cpus.to_string()),
        ("Memory", size(status.memory_bytes)),
        ("Age", age(metadata.creation_timestamp, now)),
    ]);
    text.push_str(&problems(status.problem.as_slice(), colours));
    text
}

#[cfg(test)]
mod tests {
    use hivemind_model::{ErrorCode, List, Metadata, NodeSpec, NodeState, NodeStatus, Problem, TaintEffect};

    use super::*;
    use crate::cli::output::{Format, list};

    fn node() -> Node {
        let mut metadata = Metadata::new("default", "node-2");
        metadata.id = "node-k3f9q".into();
        metadata.creation_timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        metadata.labels = [("disk", "ssd"), ("zone", "west")].map(|(k, v)| (k.into(), v.into())).into();
        Node {
            metadata,
            spec: NodeSpec {
                number: 2,
                replica_range_v4: "10.200.1.0/24".into(),
                replica_range_v6: "fd12:3456:789a:2::/64".into(),
                address: Some([192, 168, 1, 12].into()),
                cordoned: true,
                draining: true,
                taints: vec![Taint {
                    key: "gpu".into(),
                    value: "true".into(),
                    effect: TaintEffect::NoSchedule,
                }],
                ..NodeSpec::default()
            },
            status: NodeStatus {
                state: NodeState::Suspect,
                since: Some("2026-01-01T00:02:30Z".parse().unwrap()),
                version: "0.1.0".into(),
                kernel: "6.18.0".into(),
                containerd: "2.1.0".into(),
                cpus: 4,
                memory_bytes: 8_000_000_000,
                ..NodeStatus::default()
            },
        }
    }

    fn now() -> Timestamp {
        "2026-01-01T00:03:00Z".parse().unwrap()
    }

    #[test]
    fn nodes_are_told_in_a_line_each() {
        let nodes = List { resource_version: 1, items: vec![node()] };
        assert_eq!(
            list(&nodes, Format::Table, false, now()).unwrap(),
            "NAME     STATE              SINCE   ROLE    ADDRESS        VERSION   CPUS   MEMORY   REPLICAS        AGE\n\
             node-2   Suspect,draining   30s     agent   192.168.1.12   0.1.0     4      8.0 GB   10.200.1.0/24   3m\n"
        );
        let wide = list(&nodes, Format::Wide, false, now()).unwrap();
        assert!(wide.ends_with("   disk=ssd,zone=west   gpu=true:NoSchedule\n"), "{wide}");
    }

    #[test]
    fn a_node_that_stands_alone_has_neither_address_nor_since() {
        let mut alone = node();
        (alone.spec.server, alone.spec.address, alone.status.since) = (true, None, None);
        (alone.spec.cordoned, alone.spec.draining) = (false, false);
        alone.status.state = NodeState::Ready;
        assert_eq!(alone.cells(false, now())[1..5], ["Ready", "", "server", ""]);
    }

    #[test]
    fn a_node_is_described_with_its_problem() {
        let mut node = node();
        node.spec.draining = false;
        node.status.problem = Some(Problem {
            code: ErrorCode::OverlayFailed,
            field: String::new(),
            message: "UDP port 4789 is taken".into(),
            hint: "free it".into(),
        });
        assert_eq!(
            describe(&node, now(), Colours::Off),
            "Name:        node-2\n\
             Id:          node-k3f9q\n\
             State:       Suspect for 30s, cordoned: no new replicas are put there\n\
             Role:        agent\n\
             Number:      2\n\
             Address:     192.168.1.12\n\
             Replicas:    10.200.1.0/24, fd12:3456:789a:2::/64\n\
             Labels:      disk=ssd\n             zone=west\n\
             Taints:      gpu=true:NoSchedule\n\
             Version:     0.1.0\n\
             Kernel:      6.18.0\n\
             Containerd:  2.1.0\n\
             Cpus:        4\n\
             Memory:      8.0 GB\n\
             Age:         3m\n\
             \n\
             problem[HM0517]: UDP port 4789 is taken\n  hint: free it\n"
        );
        assert_eq!(node.cells(false, now())[1], "Suspect,cordoned HM0517");
    }
}
