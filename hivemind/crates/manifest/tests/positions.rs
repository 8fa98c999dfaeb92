//! Every fault is told at its own line and column, and all of them at once.

use hivemind_manifest::{Manifests, Options, Source, read};
use hivemind_model::{
    ErrorCode, LabelOperator, NetworkPolicy, NetworkPolicySpec, PolicySpec, PortRef, Problem,
};

const OPTIONS: Options<'_> = Options { namespace: "default", only_this_namespace: false };

fn from(text: &str) -> Manifests {
    read(&[Source::new("rules.yaml", text.as_bytes().to_vec())], OPTIONS, &|_| Vec::new())
}

/// `line:column code message` of each fault.
fn faults(text: &str) -> Vec<String> {
    let found = from(text).faults;
    assert!(found.iter().all(|fault| !fault.hint.is_empty()), "no hint: {found:?}");
    found.iter().map(|f| format!("{}:{} {} {}", f.line, f.column, f.code, f.message)).collect()
}

fn network(policy: &NetworkPolicy) -> &NetworkPolicySpec {
    match &policy.spec {
        PolicySpec::NetworkPolicy(spec) => spec,
        other => panic!("{other:?}"),
    }
}

const WHOLE: &str = r#"# who may reach the shop
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: web
  namespace: shop
  labels: {team: front}
  annotations:
    why: "it is 1.10"
  uid: 0c1e
  creationTimestamp: 2026-01-01T00:00:00Z
  generation: 3
  managedFields:
    - manager: kubectl
spec:
  podSelector:
    matchLabels:
      app: web
  policyTypes: [Ingress, Egress]
  ingress:
    - from:
        - podSelector: {}
          namespaceSelector:
            matchExpressions:
              - {key: tier, operator: NotIn, values: [back]}
        - ipBlock:
            cidr: 10.0.0.0/8
            except: ["10.1.0.0/16"]
      ports:
        - port: 80
        - {protocol: UDP, port: 8000, endPort: 8010}
        - port: http
  egress:
    - {}
status:
  conditions: []
"#;

#[test]
fn a_policy_is_read_with_all_that_it_says() {
    let read = from(WHOLE);
    assert_eq!(read.faults, []);
    let NetworkPolicy { metadata, .. } = &read.policies[0].policy;
    let spec = network(&read.policies[0].policy);
    assert_eq!((metadata.name.as_str(), metadata.namespace.as_str()), ("web", "shop"));
    assert_eq!(
        (&metadata.labels["team"], &metadata.annotations["why"]),
        (&"front".into(), &"it is 1.10".into())
    );
    assert_eq!((metadata.generation, metadata.uid.is_nil()), (0, true));
    let rule = &spec.ingress[0];
    assert_eq!(
        rule.from[0].namespace_selector.as_ref().unwrap().match_expressions[0].operator,
        LabelOperator::NotIn
    );
    assert_eq!(rule.from[0].pod_selector, Some(Default::default()));
    assert_eq!(rule.from[1].ip_block.as_ref().unwrap().except, ["10.1.0.0/16"]);
    assert_eq!((&rule.ports[0].port, rule.ports[1].end_port), (&Some(PortRef::Number(80)), Some(8010)));
    assert_eq!(rule.ports[2].port, Some(PortRef::Name("http".into())));
    assert_eq!((spec.policy_types.len(), spec.egress.len()), (2, 1));
}

#[test]
fn json_documents_lists_and_aliases_are_read_as_well() {
    let json = "{\n\t\"apiVersion\": \"networking.k8s.io/v1\", \"kind\": \"NetworkPolicy\",\n\t\"metadata\": {\"name\": \"a\"},\n\t\"spec\": {\"podSelector\": {}}\n}\n";
    let list = "---\nkind: List\napiVersion: v1\nitems:\n- &one\n  apiVersion: networking.k8s.io/v1\n  kind: NetworkPolicy\n  metadata: {name: b}\n  spec: {podSelector: &all {}, ingress: [{from: [{podSelector: *all}]}]}\n---\n";
    let read = read(
        &[Source::new("a.json", json.into()), Source::new("b.yaml", list.into())],
        Options { namespace: "shop", only_this_namespace: true },
        &|_| Vec::new(),
    );
    assert_eq!(read.faults, []);
    let names: Vec<_> =
        read.policies.iter().map(|p| (&*p.policy.metadata.namespace, &*p.policy.metadata.name)).collect();
    assert_eq!(names, [("shop", "a"), ("shop", "b")]);
}

/// A good document whose spec ends with `more`, whose first line is line 6.
fn with(more: &str) -> String {
    format!("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: a\nspec:\n{more}")
}

#[test]
fn unknown_fields_are_told_with_what_was_meant() {
    let text = with(
        "  podselector: {}\n  ingress:\n  - from:\n    - ports:\n      - port: 80\n    frm: []\n  zzz: 1\n",
    );
    assert_eq!(
        faults(&text),
        [
            "6:3 HM0113 unknown field \"podselector\"",
            "9:7 HM0113 unknown field \"ports\"",
            "11:5 HM0113 unknown field \"frm\"",
            "12:3 HM0113 unknown field \"zzz\"",
        ]
    );
    let hints: Vec<String> = from(&text).faults.into_iter().map(|f| f.hint).collect();
    assert_eq!(
        hints,
        [
            "did you mean \"podSelector\"?",
            "\"ports\" belongs in an entry of ingress or egress, beside from or to: check the indentation",
            "did you mean \"from\"?",
            "the fields here are podSelector, policyTypes, ingress, egress",
        ]
    );
}

#[test]
fn what_is_not_indented_deep_enough_is_told_with_what_was_left_empty() {
    let text = with(
        "  podSelector:\n    matchLabels:\n  app: web\n  ingress:\n  - from:\n    - podSelector:\n      matchLabels: {a: b}\n",
    );
    let told: Vec<_> = from(&text).faults.into_iter().map(|f| (f.line, f.column, f.hint)).collect();
    let hint = |key: &str, empty: &str| {
        format!("{empty:?} before it is empty: indent {key:?} deeper, if it belongs below it")
    };
    assert_eq!(told, [(8, 3, hint("app", "matchLabels")), (12, 7, hint("matchLabels", "podSelector"))]);
}

#[test]
fn values_of_the_wrong_type_are_told_at_the_value() {
    let text = with(
        "  podSelector: {matchLabels: {version: 1.10, on: true, x: , y: [a]}}\n  policyTypes: Ingress\n  ingress:\n    from: []\n  egress:\n  - to: [10.0.0.0/8]\n    ports:\n    - {port: \"80\", protocol: tcp, endPort: 70000}\n    - 80\n",
    );
    assert_eq!(
        faults(&text),
        [
            "6:40 HM0114 spec.podSelector.matchLabels.version is the number 1.10 where a text is wanted",
            "6:50 HM0114 spec.podSelector.matchLabels.on is the boolean true where a text is wanted",
            "6:56 HM0114 spec.podSelector.matchLabels.x is empty where a text is wanted",
            "6:64 HM0114 spec.podSelector.matchLabels.y is a list where a text is wanted",
            "7:16 HM0114 spec.policyTypes is the text \"Ingress\" where a list is wanted",
            "9:5 HM0114 spec.ingress is a map where a list is wanted",
            "11:10 HM0114 spec.egress[0].to[0] is the text \"10.0.0.0/8\" where a map is wanted",
            "13:14 HM0114 spec.egress[0].ports[0].port is the text \"80\" where a number is wanted",
            "13:30 HM0103 \"tcp\" is not one of \"TCP\", \"UDP\" or \"SCTP\"",
            "13:44 HM0103 70000 is not a port",
            "14:7 HM0114 spec.egress[0].ports[1] is the number 80 where a map is wanted",
        ]
    );
    let hint = |line, column| {
        from(&text).faults.into_iter().find(|f| (f.line, f.column) == (line, column)).unwrap().hint
    };
    assert_eq!(hint(6, 40), "put it in quotes: \"1.10\"");
    assert_eq!(hint(13, 14), "write it without quotes: 80");
    assert_eq!(hint(13, 30), "did you mean \"TCP\"?");
}

#[test]
fn what_is_missing_is_told_where_it_should_be() {
    assert_eq!(
        faults(
            "metadata:\n  labels: {a: b}\nspec:\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
        ),
        [
            "1:1 HM0114 apiVersion is missing",
            "1:1 HM0114 kind is missing",
            "2:3 HM0114 metadata.name is missing",
            "3:1 HM0114 spec is missing",
            "5:1 HM0114 metadata is missing",
            "5:1 HM0114 spec is missing",
        ]
    );
    let text = with(
        "  ingress:\n  - from:\n    - ipBlock: {except: []}\n  podSelector:\n    matchExpressions:\n    - key: a\n",
    );
    assert_eq!(
        faults(&text),
        [
            "8:16 HM0114 spec.ingress[0].from[0].ipBlock.cidr is missing",
            "11:7 HM0114 spec.podSelector.matchExpressions[0].operator is missing",
        ]
    );
}

#[test]
fn other_kinds_are_told_by_their_name_with_what_is_supported() {
    assert_eq!(
        faults(
            "apiVersion: apps/v1\nkind: Deployment\nspec: {replicas: 1}\n---\napiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {}\n---\nhello\n"
        ),
        [
            "2:7 HM0108 kind \"Deployment\" of \"apps/v1\" is not supported",
            "5:13 HM0108 apiVersion \"extensions/v1beta1\" of NetworkPolicy is not supported",
            "10:1 HM0114 the document is the text \"hello\" where a map is wanted",
        ]
    );
    let kind = from("apiVersion: networking.k8s.io/v1\nkind: Networkpolicy\n").faults.remove(0);
    assert_eq!(kind.hint, "did you mean \"NetworkPolicy\"?");
}

#[test]
fn keys_and_policies_that_stand_twice_are_told_with_the_first() {
    let text = with("  podSelector: {}\n  podSelector: {}\n---\n") + &with("  podSelector: {}\n");
    assert_eq!(
        faults(&text),
        [
            "7:3 HM0107 \"podSelector\" stands twice in one map, first in line 6",
            "12:9 HM0107 policy \"a\" of namespace \"default\" stands twice, first at rules.yaml:4:9",
        ]
    );
}

#[test]
fn names_labels_and_namespaces_are_checked_where_they_stand() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: Web_1, namespace: shop}\nspec: {podSelector: {matchLabels: {_x: a, app: \"not ok\"}}}\n";
    assert_eq!(
        faults(text),
        [
            "3:18 HM0101 \"Web_1\" is not a valid name",
            "4:36 HM0110 \"_x\" is not a label key",
            "4:48 HM0110 \"not ok\" is not a label value",
        ]
    );
    let only = Options { namespace: "default", only_this_namespace: true };
    let fault = read(&[Source::new("r", text.into())], only, &|_| Vec::new()).faults.remove(1);
    assert_eq!((fault.line, fault.column, fault.code), (3, 36, ErrorCode::Unsupported));
}

#[test]
fn what_is_not_yaml_is_told_and_the_next_document_is_read() {
    let text = format!("a: [1, 2\nb: 3\n---\n{}---\na:\n\tx: 1\n---\nkey: \"open\n", with("  zzz: 1\n"));
    let found = faults(&text);
    let places: Vec<&str> = found.iter().map(|f| f.rsplit_once(" HM").map_or("", |(p, _)| p)).collect();
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(found[0].contains("HM0100") && places[0].starts_with(['1', '2']), "{found:#?}");
    assert!(found[1].starts_with("9:3 HM0113"), "{found:#?}");
    assert!(found[2].starts_with("12:") && found[2].contains("tab"), "{found:#?}");
    assert!(found[3].contains("a quote is not closed"), "{found:#?}");
}

#[test]
fn what_the_check_of_policies_says_is_told_at_the_place_of_its_field() {
    let text = with(
        "  podSelector: {matchLabels: {example.com/tier: web}}\n  ingress:\n  - from:\n    - ipBlock:\n        cidr: 10.0.0.0/33\n    - ipBlock: {cidr: 1}\n",
    );
    let problem = |field: &str| Problem {
        code: ErrorCode::InvalidCidr,
        field: field.to_owned(),
        message: "bad".into(),
        hint: "mend it".into(),
    };
    let fields = [
        "spec.ingress[0].from[0].ipBlock.cidr",
        "spec.ingress[0].from[1].ipBlock.cidr",
        "spec.ingress[0].from[0].nosuch",
        "spec.podSelector.matchLabels.example.com/tier",
        "spec.podSelector.matchLabels[example.com/tier]",
    ];
    let check = |policy: &NetworkPolicy| {
        assert_eq!(network(policy).ingress[0].from[0].ip_block.as_ref().unwrap().cidr, "10.0.0.0/33");
        fields.map(problem).to_vec()
    };
    let read = read(&[Source::new("rules.yaml", text.into())], OPTIONS, &check);
    let places: Vec<_> = read.faults.iter().map(|f| (f.line, f.column, f.message.len() == 3)).collect();
    // The second is at fault already for its type, which is told once.
    assert_eq!(places, [(6, 49, true), (6, 49, true), (9, 7, true), (10, 15, true), (11, 23, false)]);
    let cidr = read.faults.iter().find(|f| f.line == 10).unwrap();
    assert_eq!(cidr.to_string(), "rules.yaml:10:15: HM0111: bad");
    let excerpt = cidr.excerpt.as_ref().unwrap();
    assert_eq!((excerpt.text.as_str(), excerpt.before, excerpt.width), ("        cidr: 10.0.0.0/33", 14, 11));
}

#[test]
fn sizes_are_bounded() {
    let deep = format!("a: {}", "[".repeat(100_000));
    assert!(faults(&deep)[0].contains("nested more than 64 deep"));
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..20 {
        let all = vec![format!("*a{}", i - 1); 10].join(", ");
        laughs.push_str(&format!("a{i}: &a{i} [{all}]\n"));
    }
    let found = faults(&laughs);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("aliases that stand for too much"));
    assert!(faults("a: &a [*a]\n")[0].starts_with("1:8 HM0103 an alias within what it stands for"));
    let many = "kind: X\napiVersion: v1\n---\n".repeat(2_000);
    let read = from(&many);
    assert_eq!((read.faults.len(), read.more_faults), (100, 901));
    let large = "# x\n".repeat(300_000);
    assert_eq!(faults(&large), ["1:1 HM0103 more than 1 MiB"]);
    let latin = read_bytes(b"a: b\nc: \xe9\n");
    assert_eq!((latin.line, latin.column, latin.message.as_str()), (2, 4, "a byte that is not UTF-8"));
}

fn read_bytes(bytes: &[u8]) -> hivemind_manifest::Fault {
    read(&[Source::new("x", bytes.to_vec())], OPTIONS, &|_| Vec::new()).faults.remove(0)
}
