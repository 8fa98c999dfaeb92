//! Policies in words.

use std::fmt;

use hivemind_model::{
    ClusterAction, ClusterPeer, ClusterPort, ClusterPorts, ClusterProtocol, Entity, ExtendedPeer, IcmpFamily,
    IcmpMessage, LabelExpression, LabelOperator, LabelSelector, NetworkPolicy, PolicyAction, PolicyPeer,
    PolicyPort, PolicyProtocol, PolicySpec, PolicyType, PortRef,
};

/// Whom a selector selects: `app=web`, `tier in (a,b)`, `!old`; `all` for everyone.
pub(crate) fn selector(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().map(|(key, value)| format!("{key}={value}"));
    let all: Vec<String> = labels.chain(selector.match_expressions.iter().map(expression)).collect();
    if all.is_empty() { "all".to_owned() } else { all.join(",") }
}

fn expression(LabelExpression { key, operator, values }: &LabelExpression) -> String {
    match (operator, values.as_slice()) {
        (LabelOperator::In, [value]) => format!("{key}={value}"),
        (LabelOperator::NotIn, [value]) => format!("{key}!={value}"),
        (LabelOperator::In, values) => format!("{key} in ({})", values.join(",")),
        (LabelOperator::NotIn, values) => format!("{key} not in ({})", values.join(",")),
        (LabelOperator::Exists, _) => key.clone(),
        (LabelOperator::DoesNotExist, _) => format!("!{key}"),
    }
}

fn peer(peer: &PolicyPeer) -> String {
    let PolicyPeer { pod_selector, namespace_selector, ip_block } = peer;
    if let Some(block) = ip_block {
        let except = match block.except.is_empty() {
            true => String::new(),
            false => format!(" except {}", block.except.join(",")),
        };
        return format!("{}{except}", block.cidr);
    }
    let pods = pod_selector.as_ref().map_or("all".to_owned(), selector);
    match namespace_selector {
        None => pods,
        Some(namespaces) if namespaces.is_empty() => format!("{pods} of all namespaces"),
        Some(namespaces) => format!("{pods} of namespaces {}", selector(namespaces)),
    }
}

fn port(port: &PolicyPort) -> String {
    let protocol = match port.protocol {
        PolicyProtocol::Tcp => "tcp",
        PolicyProtocol::Udp => "udp",
        PolicyProtocol::Sctp => "sctp",
    };
    match (&port.port, port.end_port) {
        (None, _) => protocol.to_owned(),
        (Some(PortRef::Number(first)), Some(last)) => format!("{first}-{last}/{protocol}"),
        (Some(PortRef::Number(number)), None) => format!("{number}/{protocol}"),
        (Some(PortRef::Name(name)), _) => format!("{name}/{protocol}"),
    }
}

/// Whom a policy applies to.
pub(crate) fn subject(policy: &NetworkPolicy) -> String {
    match &policy.spec {
        PolicySpec::NetworkPolicy(spec) => selector(&spec.pod_selector),
        PolicySpec::Policy(spec) => selector(&spec.pod_selector),
        PolicySpec::ClusterNetworkPolicy(spec) => match (&spec.subject.namespaces, &spec.subject.pods) {
            (_, Some(pods)) => {
                cluster_peer(&ClusterPeer { pods: Some(pods.clone()), ..ClusterPeer::default() })
            }
            (namespaces, None) => cluster_peer(&ClusterPeer {
                namespaces: Some(namespaces.clone().unwrap_or_default()),
                ..ClusterPeer::default()
            }),
        },
    }
}

fn extended_peer(said: &ExtendedPeer) -> String {
    let ExtendedPeer { pod_selector, namespace_selector, ip_block, entity, domain_name } = said;
    match (entity, domain_name) {
        (Some(Entity::Host), _) => "host".to_owned(),
        (Some(Entity::Node), _) => "node".to_owned(),
        (Some(Entity::World), _) => "world".to_owned(),
        (Some(Entity::Cluster), _) => "cluster".to_owned(),
        (None, Some(name)) => name.clone(),
        (None, None) => peer(&PolicyPeer {
            pod_selector: pod_selector.clone(),
            namespace_selector: namespace_selector.clone(),
            ip_block: ip_block.clone(),
        }),
    }
}

fn cluster_peer(said: &ClusterPeer) -> String {
    let ClusterPeer { namespaces, pods, nodes, networks, domain_names } = said;
    let of = |pod_selector: Option<LabelSelector>, namespaces: &LabelSelector| {
        peer(&PolicyPeer { pod_selector, namespace_selector: Some(namespaces.clone()), ip_block: None })
    };
    match (namespaces, pods, nodes) {
        (Some(namespaces), _, _) => of(None, namespaces),
        (_, Some(pods), _) => of(Some(pods.pod_selector.clone()), &pods.namespace_selector),
        (_, _, Some(nodes)) => format!("{} nodes", selector(nodes)),
        _ => networks.iter().chain(domain_names).cloned().collect::<Vec<_>>().join(" or "),
    }
}

fn message(message: &IcmpMessage) -> String {
    let name = if message.family == IcmpFamily::IPv4 { "icmp" } else { "icmpv6" };
    let part = |what: &str, number: Option<i64>| number.map(|n| format!(" {what} {n}")).unwrap_or_default();
    format!("{name}{}{}", part("type", message.kind), part("code", message.code))
}

fn cluster_protocol(said: &ClusterProtocol) -> String {
    let ClusterProtocol { tcp, udp, sctp, destination_named_port } = said;
    let ports = |protocol: &str, ports: &ClusterPorts| match &ports.destination_port {
        Some(ClusterPort { number: Some(number), .. }) => format!("{number}/{protocol}"),
        Some(ClusterPort { range: Some(range), .. }) => format!("{}-{}/{protocol}", range.start, range.end),
        _ => protocol.to_owned(),
    };
    match (tcp, udp, sctp) {
        (Some(tcp), _, _) => ports("tcp", tcp),
        (_, Some(udp), _) => ports("udp", udp),
        (_, _, Some(sctp)) => ports("sctp", sctp),
        _ => destination_named_port.clone().unwrap_or_default(),
    }
}

/// A rule in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// What becomes of what it matches; empty where rules can only allow.
    pub(crate) action: &'static str,
    /// What it matches: `app=client on 80/tcp`.
    pub(crate) said: String,
    /// How its author calls it; most often not at all.
    pub(crate) name: String,
}

impl Rule {
    fn new(action: &'static str, peers: &[String], speech: &[String]) -> Self {
        let who = if peers.is_empty() { "anyone".to_owned() } else { peers.join(" or ") };
        let said = if speech.is_empty() { who } else { format!("{who} on {}", speech.join(",")) };
        Rule { action, said, name: String::new() }
    }

    fn plain(peers: &[PolicyPeer], ports: &[PolicyPort]) -> Self {
        Rule::new("", &each(peers, peer), &each(ports, port))
    }

    fn extended(
        action: PolicyAction,
        peers: &[ExtendedPeer],
        ports: &[PolicyPort],
        icmp: &[IcmpMessage],
    ) -> Self {
        let action = if action == PolicyAction::Deny { "deny" } else { "allow" };
        let speech = [each(ports, port), each(icmp, message)].concat();
        Rule::new(action, &each(peers, extended_peer), &speech)
    }

    fn cluster(
        name: &str,
        action: ClusterAction,
        peers: &[ClusterPeer],
        protocols: &[ClusterProtocol],
    ) -> Self {
        let action = match action {
            ClusterAction::Accept => "accept",
            ClusterAction::Deny => "deny",
            ClusterAction::Pass => "pass",
        };
        let rule = Rule::new(action, &each(peers, cluster_peer), &each(protocols, cluster_protocol));
        Rule { name: name.to_owned(), ..rule }
    }
}

/// `deny world on 80/tcp`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = if self.action.is_empty() { "" } else { " " };
        write!(f, "{}{space}{}", self.action, self.said)
    }
}

fn each<T>(all: &[T], word: impl Fn(&T) -> String) -> Vec<String> {
    all.iter().map(word).collect()
}

/// The rules of a direction; `None` if the policy does not govern it.
pub(crate) fn rules(policy: &NetworkPolicy, direction: PolicyType) -> Option<Vec<Rule>> {
    if !policy.spec.governs(direction) {
        return None;
    }
    let is_ingress = direction == PolicyType::Ingress;
    Some(match &policy.spec {
        PolicySpec::NetworkPolicy(spec) if is_ingress => {
            spec.ingress.iter().map(|r| Rule::plain(&r.from, &r.ports)).collect()
        }
        PolicySpec::NetworkPolicy(spec) => spec.egress.iter().map(|r| Rule::plain(&r.to, &r.ports)).collect(),
        PolicySpec::Policy(spec) if is_ingress => {
            spec.ingress.iter().map(|r| Rule::extended(r.action, &r.from, &r.ports, &r.icmp)).collect()
        }
        PolicySpec::Policy(spec) => {
            spec.egress.iter().map(|r| Rule::extended(r.action, &r.to, &r.ports, &r.icmp)).collect()
        }
        PolicySpec::ClusterNetworkPolicy(spec) if is_ingress => {
            spec.ingress.iter().map(|r| Rule::cluster(&r.name, r.action, &r.from, &r.protocols)).collect()
        }
        PolicySpec::ClusterNetworkPolicy(spec) => {
            spec.egress.iter().map(|r| Rule::cluster(&r.name, r.action, &r.to, &r.protocols)).collect()
        }
    })
}

/// The most characters of rules in a table.
const CELL_CHARS_MAX: usize = 48;

/// A direction in a few words: `any` if it is not governed, `none` if nothing is allowed.
pub(crate) fn cell(policy: &NetworkPolicy, direction: PolicyType) -> String {
    match rules(policy, direction) {
        None => "any".to_owned(),
        Some(rules) if rules.is_empty() => "none".to_owned(),
        Some(rules) => {
            let rules: Vec<String> = rules.iter().map(Rule::to_string).collect();
            let text = rules.join("; ");
            if text.chars().count() <= CELL_CHARS_MAX {
                text
            } else if let [one] = rules.as_slice() {
                let begin: String = one.chars().take(CELL_CHARS_MAX).collect();
                begin + "…"
            } else {
                format!("{} rules", rules.len())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hivemind_manifest::{Options, Source, read};
    use hivemind_model::PolicyKind;

    use super::*;

    fn briefly(policy: &NetworkPolicy, direction: PolicyType) -> Vec<String> {
        rules(policy, direction).unwrap().iter().map(Rule::to_string).collect()
    }

    fn policy(spec: &str) -> NetworkPolicy {
        of_kind(PolicyKind::NetworkPolicy, spec)
    }

    fn of_kind(kind: PolicyKind, spec: &str) -> NetworkPolicy {
        let (version, kind) = (kind.api_version(), kind.name());
        let text = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n");
        let options = Options { namespace: "default", only_this_namespace: false };
        let mut read = read(&[Source::new("x", text.into())], options, &|_| Vec::new());
        assert_eq!(read.faults, []);
        read.policies.remove(0).policy
    }

    #[test]
    fn rules_are_told_in_words() {
        let policy = policy(
            "{podSelector: {matchLabels: {app: web}, matchExpressions: [{key: tier, operator: NotIn, values: [a, b]}, {key: old, operator: DoesNotExist}]}, \
             ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 80}, {port: 1, endPort: 9, protocol: UDP}]}, \
             {from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {podSelector: {}, namespaceSelector: {matchLabels: {team: x}}}, {namespaceSelector: {}}]}, {}], \
             policyTypes: [Ingress, Egress]}",
        );
        assert_eq!(subject(&policy), "app=web,tier not in (a,b),!old");
        assert_eq!(
            briefly(&policy, PolicyType::Ingress),
            [
                "app=client on 80/tcp,1-9/udp",
                "10.0.0.0/8 except 10.1.0.0/16 or all of namespaces team=x or all of all namespaces",
                "anyone",
            ]
        );
        assert_eq!(cell(&policy, PolicyType::Ingress), "3 rules");
        assert_eq!(cell(&policy, PolicyType::Egress), "none");
    }

    #[test]
    fn what_a_policy_does_not_govern_is_open() {
        let policy = policy("{podSelector: {}, ingress: [{ports: [{port: 80}]}]}");
        assert_eq!(
            (cell(&policy, PolicyType::Ingress), cell(&policy, PolicyType::Egress)),
            ("anyone on 80/tcp".into(), "any".into())
        );
        assert_eq!(subject(&policy), "all");
    }

    #[test]
    fn rules_of_the_whole_cluster_are_told_with_what_becomes_of_what_they_match() {
        let policy = of_kind(
            PolicyKind::ClusterNetworkPolicy,
            "{tier: Admin, priority: 1, subject: {pods: {podSelector: {matchLabels: {app: db}}}}, \
             ingress: [{name: first, action: Accept, from: [{namespaces: {matchLabels: {team: x}}}, {pods: {podSelector: {}}}], \
             protocols: [{tcp: {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 1, end: 9}}}}, {destinationNamedPort: http}]}], \
             egress: [{action: Deny, to: [{networks: [10.0.0.0/8, '::/0']}, {nodes: {matchLabels: {a: b}}}]}, \
             {action: Pass, to: [{namespaces: {}}]}, {action: Accept, to: [{domainNames: ['*.example.org']}]}]}",
        );
        assert_eq!(subject(&policy), "app=db of all namespaces");
        assert_eq!(
            briefly(&policy, PolicyType::Ingress),
            ["accept all of namespaces team=x or all of all namespaces on 80/tcp,1-9/udp,http"]
        );
        assert_eq!(rules(&policy, PolicyType::Ingress).unwrap()[0].name, "first");
        assert_eq!(
            briefly(&policy, PolicyType::Egress),
            ["deny 10.0.0.0/8 or ::/0 or a=b nodes", "pass all of all namespaces", "accept *.example.org",]
        );
    }

    #[test]
    fn rules_that_say_more_are_told_with_all_of_it() {
        let policy = of_kind(
            PolicyKind::Policy,
            "{podSelector: {}, ingress: [{action: Deny, from: [{entity: world}, {ipBlock: {cidr: 10.0.0.0/8}}], \
             ports: [{port: http}], icmp: [{type: 8}, {family: IPv6, type: 1, code: 4}, {}]}], egress: [{to: [{domainName: a.org}]}]}",
        );
        assert_eq!(
            briefly(&policy, PolicyType::Ingress),
            ["deny world or 10.0.0.0/8 on http/tcp,icmp type 8,icmpv6 type 1 code 4,icmp"]
        );
        assert_eq!(briefly(&policy, PolicyType::Egress), ["allow a.org"]);
        assert_eq!(cell(&policy, PolicyType::Egress), "allow a.org");
    }
}
