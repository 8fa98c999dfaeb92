//! The kinds of policies, and what is told where a document is none of them or has what only another has.

use hivemind_manifest::{Manifests, Options, Source, read};
use hivemind_model::{
    ClusterAction, ClusterTier, Entity, ErrorCode, IcmpFamily, Metadata, PolicyAction, PolicyKind,
    PolicySpec, SYSTEM_NAMESPACE,
};

const OPTIONS: Options<'_> = Options { namespace: "shop", only_this_namespace: true };

fn from(text: &str) -> Manifests {
    read(&[Source::new("rules.yaml", text.as_bytes().to_vec())], OPTIONS, &|_| Vec::new())
}

/// `line:column code message` and the hint of each fault.
fn faults(text: &str) -> Vec<(String, String)> {
    let found = from(text).faults.into_iter();
    found.map(|f| (format!("{}:{} {} {}", f.line, f.column, f.code, f.message), f.hint)).collect()
}

/// What `faults` tells, in pairs of texts.
fn told(text: &str, expected: &[(&str, &str)]) {
    let expected: Vec<(String, String)> =
        expected.iter().map(|(message, hint)| ((*message).to_owned(), (*hint).to_owned())).collect();
    assert_eq!(faults(text), expected, "{text}");
}

const CLUSTER: &str = "\
apiVersion: policy.networking.k8s.io/v1beta1
kind: ClusterNetworkPolicy
metadata:
  name: guard
  labels: {team: ops}
spec:
  tier: Baseline
  priority: 7
  subject:
    pods:
      namespaceSelector: {matchLabels: {team: shop}}
      podSelector: {matchLabels: {app: db}}
  ingress:
  - name: monitoring first
    action: Accept
    from:
    - namespaces: {matchLabels: {team: monitoring}}
    - pods: {podSelector: {}}
    protocols:
    - tcp: {destinationPort: {number: 80}}
    - udp: {destinationPort: {range: {start: 1, end: 9}}}
    - destinationNamedPort: http
  egress:
  - action: Deny
    to:
    - networks: [10.0.0.0/8, '::/0']
    - nodes: {}
  - action: Pass
    to: [{domainNames: ['*.example.org']}]
status:
  conditions: []
";

#[test]
fn a_policy_of_the_whole_cluster_is_read_alike_in_both_of_its_versions() {
    let read = from(CLUSTER);
    assert_eq!(read.faults, []);
    let policy = &read.policies[0].policy;
    let Metadata { name, namespace, labels, .. } = &policy.metadata;
    assert_eq!(
        (name.as_str(), namespace.as_str(), labels["team"].as_str()),
        ("guard", SYSTEM_NAMESPACE, "ops")
    );
    let PolicySpec::ClusterNetworkPolicy(spec) = &policy.spec else { panic!("{policy:?}") };
    assert_eq!((spec.tier, spec.priority), (ClusterTier::Baseline, 7));
    let pods = spec.subject.pods.as_ref().unwrap();
    assert_eq!((&pods.pod_selector.match_labels["app"], &spec.subject.namespaces), (&"db".to_owned(), &None));
    let rule = &spec.ingress[0];
    assert_eq!(
        (rule.name.as_str(), rule.action, rule.from.len()),
        ("monitoring first", ClusterAction::Accept, 2)
    );
    let port = |i: usize| {
        let protocol = &rule.protocols[i];
        let ports = protocol.tcp.as_ref().or(protocol.udp.as_ref()).unwrap();
        ports.destination_port.clone().unwrap()
    };
    let range = port(1).range.unwrap();
    assert_eq!((port(0).number, range.start, range.end), (Some(80), 1, 9));
    assert_eq!(rule.protocols[2].destination_named_port.as_deref(), Some("http"));
    let to = &spec.egress[0].to;
    assert_eq!((to[0].networks.len(), to[1].nodes.clone()), (2, Some(Default::default())));
    assert_eq!(spec.egress[1].to[0].domain_names, ["*.example.org"]);

    let older = from(&CLUSTER.replace("v1beta1", "v1alpha2"));
    assert_eq!((older.faults.len(), &older.policies[0].policy), (0, policy));
    let oldest = CLUSTER.replace("v1beta1", "v1alpha1");
    told(
        &oldest,
        &[(
            "1:13 HM0108 apiVersion \"policy.networking.k8s.io/v1alpha1\" of ClusterNetworkPolicy is not supported",
            "write apiVersion: policy.networking.k8s.io/v1beta1 or policy.networking.k8s.io/v1alpha2",
        )],
    );
}

const EXTENDED: &str = "\
apiVersion: hivemind/v1
kind: Policy
metadata: {name: more}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  audit: true
  log: false
  until: 2030-01-31T18:00:00+01:00
  ingress:
  - action: Deny
    from: [{entity: world}, {ipBlock: {cidr: 10.0.0.0/8}}]
    ports: [{port: http}, {port: 80, endPort: 90, protocol: UDP}]
    icmp: [{type: 8}, {family: IPv6, type: 1, code: 4}]
  egress:
  - to: [{domainName: example.org}, {podSelector: {}, namespaceSelector: {}}]
";

#[test]
fn a_policy_that_says_more_is_read_with_all_that_it_says() {
    let read = from(EXTENDED);
    assert_eq!(read.faults, []);
    let policy = &read.policies[0].policy;
    assert_eq!(policy.metadata.namespace, "shop");
    let PolicySpec::Policy(spec) = &policy.spec else { panic!("{policy:?}") };
    assert_eq!((spec.audit, spec.log, spec.policy_types.len()), (true, false, 2));
    assert_eq!(spec.until, Some("2030-01-31T17:00:00Z".parse().unwrap()));
    let rule = &spec.ingress[0];
    assert_eq!((rule.action, rule.from[0].entity), (PolicyAction::Deny, Some(Entity::World)));
    assert_eq!(
        (rule.icmp[0].family, rule.icmp[0].kind, rule.icmp[0].code),
        (IcmpFamily::IPv4, Some(8), None)
    );
    assert_eq!(
        (rule.icmp[1].family, rule.icmp[1].kind, rule.icmp[1].code),
        (IcmpFamily::IPv6, Some(1), Some(4))
    );
    assert_eq!((spec.egress[0].action, spec.egress[0].to.len()), (PolicyAction::Allow, 2));
    assert_eq!(spec.egress[0].to[0].domain_name.as_deref(), Some("example.org"));
}

#[test]
fn a_policy_of_the_whole_cluster_is_in_no_namespace() {
    let text = CLUSTER.replace("  name: guard\n", "  name: guard\n  namespace: shop\n");
    told(
        &text,
        &[(
            "5:14 HM0108 a ClusterNetworkPolicy is of the whole cluster, and in no namespace",
            "leave it out: spec.subject says whom the policy applies to",
        )],
    );
}

#[test]
fn what_a_policy_of_the_whole_cluster_lacks_or_has_wrongly_is_told_at_its_place() {
    let text = "\
apiVersion: policy.networking.k8s.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: a}
spec:
  tier: admin
  subject: {namespaces: {}, pods: {namespaceSelector: {}}}
  ingress:
  - from: [{namespaces: {}}]
    action: Allow
    protocols: []
  - ports: []
  egress:
  - action: Deny
    to: [{networks: []}]
    protocols: [{tcp: {}}, {udp: {destinationPort: {range: {start: 1}}}}, {tpc: {}}]
";
    told(
        text,
        &[
            ("5:3 HM0114 spec.priority is missing", "give a number from 0, asked first, to 1000"),
            ("5:9 HM0103 \"admin\" is not one of \"Admin\" or \"Baseline\"", "did you mean \"Admin\"?"),
            (
                "6:35 HM0114 spec.subject.pods.podSelector is missing",
                "say which replicas; for all write podSelector: {}",
            ),
            (
                "9:13 HM0103 \"Allow\" is not one of \"Accept\", \"Deny\" or \"Pass\"",
                "use \"Accept\", \"Deny\" or \"Pass\"",
            ),
            ("10:16 HM0103 spec.ingress[0].protocols is an empty list", "for all protocols leave it out"),
            (
                "11:5 HM0113 unknown field \"ports\"",
                "\"ports\" is a field of NetworkPolicy and Policy, which ClusterNetworkPolicy is not",
            ),
            ("11:5 HM0114 spec.ingress[1].action is missing", "use Accept, Deny or Pass"),
            (
                "11:5 HM0114 spec.ingress[1].from is missing",
                "for all replicas write from: [{namespaces: {}}]",
            ),
            (
                "14:21 HM0103 spec.egress[0].to[0].networks is an empty list",
                "name a block, for example 192.0.2.0/24",
            ),
            (
                "15:23 HM0114 spec.egress[0].protocols[0].tcp.destinationPort is missing",
                "for all ports write destinationPort: {range: {start: 1, end: 65535}}",
            ),
            (
                "15:60 HM0114 spec.egress[0].protocols[1].udp.destinationPort.range.end is missing",
                "give the last port of the range",
            ),
            ("15:76 HM0113 unknown field \"tpc\"", "did you mean \"tcp\"?"),
        ],
    );
}

#[test]
fn what_a_policy_that_says_more_has_wrongly_is_told_at_its_place() {
    let text = "\
apiVersion: hivemind/v1
kind: Policy
metadata: {name: a}
spec:
  podSelector: {}
  audit: yes
  log: 'true'
  until: tomorrow
  tier: Admin
  ingress:
  - action: Pass
    from: [{entity: World}, {domainName: 1.5}, {audit: true}]
    icmp: [{type: ping}, {family: IPv5}]
";
    told(
        text,
        &[
            (
                "6:10 HM0114 spec.audit is the text \"yes\" where a boolean is wanted",
                "write true or false, without quotes",
            ),
            (
                "7:8 HM0114 spec.log is the text \"true\" where a boolean is wanted",
                "write true or false, without quotes",
            ),
            ("8:10 HM0103 \"tomorrow\" is not a time", "write it as 2030-01-31T18:00:00Z"),
            (
                "9:3 HM0113 unknown field \"tier\"",
                "\"tier\" is a field of ClusterNetworkPolicy, which Policy is not",
            ),
            ("11:13 HM0103 \"Pass\" is not one of \"Allow\" or \"Deny\"", "use \"Allow\" or \"Deny\""),
            (
                "12:21 HM0103 \"World\" is not one of \"host\", \"node\", \"world\" or \"cluster\"",
                "did you mean \"world\"?",
            ),
            (
                "12:42 HM0114 spec.ingress[0].from[1].domainName is the number 1.5 where a text is wanted",
                "put it in quotes: \"1.5\"",
            ),
            ("12:49 HM0113 unknown field \"audit\"", "\"audit\" belongs below spec: check the indentation"),
            (
                "13:19 HM0114 spec.ingress[0].icmp[0].type is the text \"ping\" where a number is wanted",
                "write a whole number, for example 80",
            ),
            ("13:35 HM0103 \"IPv5\" is not one of \"IPv4\" or \"IPv6\"", "did you mean \"IPv4\"?"),
        ],
    );
}

#[test]
fn what_only_another_kind_has_is_told_as_such() {
    let text = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a}
spec:
  podSelector: {}
  ingress:
  - action: Deny
    from: [{entity: host}]
";
    told(
        text,
        &[
            (
                "7:5 HM0113 unknown field \"action\"",
                "\"action\" is a field of ClusterNetworkPolicy and Policy, which NetworkPolicy is not",
            ),
            (
                "8:13 HM0113 unknown field \"entity\"",
                "\"entity\" is a field of Policy, which NetworkPolicy is not",
            ),
        ],
    );
}

#[test]
fn kinds_and_versions_that_are_not_read_are_told_with_those_that_are() {
    for (text, message, hint) in [
        (
            "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\n",
            "2:7 HM0108 kind \"AdminNetworkPolicy\" of \"policy.networking.k8s.io/v1alpha1\" is not supported",
            "write it as ClusterNetworkPolicy of policy.networking.k8s.io/v1beta1 with tier: Admin",
        ),
        (
            "apiVersion: v1\nkind: Pod\n",
            "2:7 HM0108 kind \"Pod\" of \"v1\" is not supported",
            "what can be applied is NetworkPolicy of networking.k8s.io/v1, ClusterNetworkPolicy of \
             policy.networking.k8s.io/v1beta1, Policy of hivemind/v1, and List of such",
        ),
        (
            "apiVersion: hivemind/v1\nkind: Polcy\n",
            "2:7 HM0108 kind \"Polcy\" of \"hivemind/v1\" is not supported",
            "did you mean \"Policy\"?",
        ),
        (
            "apiVersion: hivemind/v1\nmetadata: {name: a}\nspec: {podSelector: {}}\n",
            "1:1 HM0114 kind is missing",
            "write kind: Policy",
        ),
        (
            "apiVersion: networking.k8s.io/v1\nkind: Policy\nmetadata: {name: a}\nspec: {podSelector: {}}\n",
            "1:13 HM0108 apiVersion \"networking.k8s.io/v1\" of Policy is not supported",
            "write apiVersion: hivemind/v1",
        ),
        (
            "apiVersion: hivemind/v1\nkind: List\nitems: []\n",
            "1:13 HM0108 apiVersion \"hivemind/v1\" of List is not supported",
            "write apiVersion: v1",
        ),
    ] {
        told(text, &[(message, hint)]);
    }
}

#[test]
fn lists_hold_policies_of_their_kind_which_need_not_say_it_again() {
    let item = |kind: &str, name: &str| {
        let spec = match kind {
            "ClusterNetworkPolicy" => "{tier: Admin, priority: 1, subject: {namespaces: {}}}",
            _ => "{podSelector: {}}",
        };
        format!("- metadata: {{name: {name}}}\n  spec: {spec}\n")
    };
    for kind in PolicyKind::ALL {
        let (name, version) = (kind.name(), kind.api_version());
        let text = format!(
            "apiVersion: {version}\nkind: {name}List\nmetadata: {{}}\nitems:\n{}{}  kind: {name}\n",
            item(name, "a"),
            item(name, "b")
        );
        let read = from(&text);
        assert_eq!(read.faults, [], "{text}");
        let kinds: Vec<_> = read.policies.iter().map(|document| document.policy.spec.kind()).collect();
        assert_eq!(kinds, [kind, kind]);
    }
    let mixed = format!(
        "apiVersion: hivemind/v1\nkind: PolicyList\nitems:\n{}{}  kind: NetworkPolicy\n",
        item("Policy", "a"),
        item("NetworkPolicy", "b")
    );
    told(
        &mixed,
        &[(
            "8:9 HM0108 NetworkPolicy stands in a list of Policy",
            "make it a List of v1, which may hold any",
        )],
    );
    let any = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: hivemind/v1, kind: Policy, metadata: {name: a}, spec: {}}\n- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: b}, spec: {}}\n";
    assert_eq!((from(any).faults.len(), from(any).policies.len()), (0, 2));
}

#[test]
fn names_are_unique_among_all_kinds_of_a_namespace() {
    let network = |namespace: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: more, namespace: {namespace}}}\nspec: {{podSelector: {{}}}}\n"
        )
    };
    told(
        &format!("{EXTENDED}---\n{}", network("shop")),
        &[(
            "20:18 HM0107 the name of NetworkPolicy \"more\" of namespace \"shop\" is that of the Policy at rules.yaml:3:18",
            "leave one of the two, or give one another name",
        )],
    );
    told(
        &format!("{CLUSTER}---\n{CLUSTER}"),
        &[(
            "36:9 HM0107 policy \"guard\" of the whole cluster stands twice, first at rules.yaml:4:9",
            "leave one of the two, or give one another name",
        )],
    );
    let both = format!("{}---\n{}", network("shop"), CLUSTER.replace("guard", "more"));
    assert_eq!(faults(&both), [], "they are in different namespaces");
}

#[test]
fn the_documents_of_one_reading_are_bounded() {
    let one = |i: usize| EXTENDED.replace("more", &format!("p-{i}"));
    let many: Vec<Source> = (0..1_001).map(|i| Source::new("many.yaml", one(i).into_bytes())).collect();
    let read = read(&many, OPTIONS, &|_| Vec::new());
    assert_eq!((read.policies.len(), read.faults.len()), (1_000, 1));
    let fault = &read.faults[0];
    assert_eq!((fault.code, fault.message.as_str()), (ErrorCode::OutOfRange, "more than 1000 documents"));
    assert!(!fault.hint.is_empty());
}
