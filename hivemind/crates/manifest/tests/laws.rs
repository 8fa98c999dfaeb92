//! What holds of all texts.

#[path = "laws/apps.rs"]
mod apps;

use hivemind_manifest::{Options, Source, read, read_all};
use proptest::{prelude::*, sample::select};
use serde_json::json;

use apps::app;

const OPTIONS: Options<'_> = Options { namespace: "default", only_this_namespace: false };

/// Pieces of which texts are made that come near to manifests.
const PIECES: &[&str] = &[
    "apiVersion: networking.k8s.io/v1\n",
    "kind: NetworkPolicy\n",
    "kind: List\n",
    "apiVersion: policy.networking.k8s.io/v1beta1\nkind: ClusterNetworkPolicy\n",
    "apiVersion: hivemind/v1\nkind: Policy\n",
    "apiVersion: hivemind/v1\nkind: App\nmetadata: {name: a}\nspec:\n",
    "kind: Namespace\n",
    "kind: Volume\n",
    "  template:\n    containers:\n    - image: a\n",
    "      env: [{name: A, value: 1}]\n",
    "      resources: {cpu: 0.5, memory: x}\n",
    "replicas: 70000000000\n",
    "hostAliases: [{ip: 1}]\n",
    "service: {ports: [{port: -1}]}\n",
    "labels: {a: 1}\n",
    "kind: ClusterNetworkPolicyList\n",
    "kind: PolicyList\n",
    "tier: Admin\n",
    "priority: 1\n",
    "subject:",
    "namespaces:",
    "pods:",
    "to:",
    "action: Deny\n",
    "protocols:",
    "tcp:",
    "destinationPort:",
    "range: {start: 1, end: 2}",
    "networks:",
    "domainNames:",
    "icmp:",
    "type: 8\n",
    "entity: host\n",
    "until: 2030-01-01T00:00:00Z\n",
    "audit: true\n",
    "items:\n",
    "metadata:\n",
    "  name: a\n",
    "spec:\n",
    "  podSelector:",
    " {}\n",
    "\n",
    "  ",
    "- ",
    "ingress:",
    "from:",
    "ports:",
    "port: 80\n",
    "cidr: 1\n",
    "[",
    "]",
    "{",
    "}",
    ", ",
    ": ",
    "&a ",
    "*a ",
    "\"",
    "'",
    "|\n",
    ">-\n",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "!!str ",
    "!x ",
    "#",
    "<<: ",
    "? ",
    "\t",
    "\r\n",
    "é",
    "\u{feff}",
    "\u{0}",
    "~",
    "matchLabels:",
    "status:\n",
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        prop::collection::vec(select(PIECES), 0..60).prop_map(|pieces| pieces.concat()),
    ]
}

/// How a document is laid out.
#[derive(Clone, Debug)]
struct Style {
    indent: usize,
    flow: bool,
    blank: usize,
    comment: bool,
    label: String,
}

fn style() -> impl Strategy<Value = Style> {
    let parts = (1_usize..5, any::<bool>(), 0_usize..4, any::<bool>(), "[a-zé]{0,8}");
    parts.prop_map(|(indent, flow, blank, comment, label)| Style { indent, flow, blank, comment, label })
}

/// The head of a document of a kind, in which the value `BAD` stands once.
fn head(style: &Style, version: &str, kind: &str) -> String {
    let i = " ".repeat(style.indent);
    format!(
        "{}apiVersion: {version}\n{}kind: {kind}\nmetadata:\n{i}name: a\n{i}annotations: {{note: \"{}\", b: BAD}}\nspec:\n",
        "\n".repeat(style.blank),
        if style.comment { "# é: BUT\n" } else { "" },
        style.label,
    )
}

/// A NetworkPolicy that is good but for the values `BAD`, in block or flow style.
fn network(style: &Style) -> String {
    let (i, label) = (" ".repeat(style.indent), &style.label);
    let head = head(style, "networking.k8s.io/v1", "NetworkPolicy");
    if style.flow {
        return format!(
            "{head}{i}{{podSelector: {{matchLabels: {{x: BAD}}}},\n{i}ingress: [{{from: [{{ipBlock: {{cidr: BAD}}}}]}}]}}\n"
        );
    }
    format!(
        "{head}{i}podSelector:\n{i}{i}matchLabels:\n{i}{i}{i}x: BAD\n{i}ingress:\n{i}- from:\n{i}  - ipBlock:\n{i}    {i}cidr:   BAD # {label}\n"
    )
}

/// The same of a ClusterNetworkPolicy.
fn cluster(style: &Style) -> String {
    let (i, label) = (" ".repeat(style.indent), &style.label);
    let version = ["v1beta1", "v1alpha2"][style.blank % 2];
    let head = head(style, &format!("policy.networking.k8s.io/{version}"), "ClusterNetworkPolicy");
    if style.flow {
        return format!(
            "{head}{i}{{tier: BAD, priority: 1, subject: {{namespaces: {{matchLabels: {{x: BAD}}}}}},\n{i}egress: [{{action: Deny, to: [{{networks: [BAD]}}],\n{i}protocols: [{{tcp: {{destinationPort: {{number: BAD}}}}}}]}}]}}\n"
        );
    }
    format!(
        "{head}{i}tier: BAD\n{i}priority:   BAD # {label}\n{i}subject:\n{i}{i}pods:\n{i}{i}{i}podSelector: {{matchLabels: {{x: BAD}}}}\n{i}egress:\n{i}- action: BAD\n{i}  to:\n{i}  - domainNames:\n{i}    - BAD\n"
    )
}

/// The same of a Policy.
fn extended(style: &Style) -> String {
    let (i, label) = (" ".repeat(style.indent), &style.label);
    let head = head(style, "hivemind/v1", "Policy");
    if style.flow {
        return format!(
            "{head}{i}{{podSelector: {{}}, audit: BAD, until: BAD,\n{i}ingress: [{{action: Deny, icmp: [{{type: BAD}}]}}]}}\n"
        );
    }
    format!(
        "{head}{i}podSelector: {{}}\n{i}log:   BAD # {label}\n{i}egress:\n{i}- action: BAD\n{i}  to:\n{i}  - entity: BAD\n{i}  - domainName: BAD\n{i}  icmp: [{{family: BAD, code: BAD}}]\n"
    )
}

/// The same of an App, whose one kind of fault is that a text is wanted.
fn app_document(style: &Style) -> String {
    let (i, label) = (" ".repeat(style.indent), &style.label);
    let head = head(style, "hivemind/v1", "App");
    if style.flow {
        return format!(
            "{head}{i}{{replicas: BAD, hostnames: [BAD], template: {{labels: {{x: BAD}},\n{i}containers: [{{image: BAD, user: BAD,\n{i}ports: [{{hostPort: BAD, containerPort: 1, protocol: BAD}}], env: [{{name: A, value: BAD}}, BAD]}}]}}}}\n"
        );
    }
    format!(
        "{head}{i}service:\n{i}{i}headless: BAD\n{i}{i}sessionAffinity: BAD\n{i}template:\n{i}{i}restartedAt:   BAD # {label}\n{i}{i}hostAliases: BAD\n{i}{i}sysctls:\n{i}{i}{i}net.core.somaxconn: BAD\n{i}{i}containers:\n{i}{i}- image: a\n{i}{i}  command:\n{i}{i}  - BAD\n{i}{i}  ulimits: [{{name: BAD, soft: BAD}}]\n{i}{i}  resources:\n{i}{i}  {i}pids: BAD\n"
    )
}

/// A document of any kind that is good but for the values `BAD`.
fn document() -> impl Strategy<Value = String> {
    (style(), select(vec![network as fn(&Style) -> String, cluster, extended, app_document]))
        .prop_map(|(style, of)| of(&style))
}

/// Where each `needle` stands, line and column from 1.
fn places(text: &str, needle: &str) -> Vec<(usize, usize)> {
    let of_line = |(number, line): (usize, &str)| {
        let found: Vec<_> =
            line.match_indices(needle).map(|(at, _)| (number + 1, line[..at].chars().count() + 1)).collect();
        found
    };
    text.lines().enumerate().flat_map(of_line).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_reader_panic_and_every_fault_is_within_the_text(text in text()) {
        let read = read_all(&[Source::new("x", text.clone().into_bytes())], OPTIONS, &|_| Vec::new());
        let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
        for document in read.apps.iter().filter(|_| read.faults.is_empty()) {
            prop_assert_eq!(document.app.validate(), Ok(()), "{}", text);
        }
        for fault in read.faults {
            prop_assert!(fault.line >= 1 && fault.line <= lines + 1, "{fault} in {text:?}");
            prop_assert!(fault.column >= 1 && fault.column <= text.chars().count() + 2, "{fault} in {text:?}");
        }
    }

    #[test]
    fn bytes_do_not_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read(&[Source::new("x", bytes.clone())], OPTIONS, &|_| Vec::new());
        read_all(&[Source::new("x", bytes)], OPTIONS, &|_| Vec::new());
    }

    #[test]
    fn a_fault_points_at_what_is_wrong_however_the_text_is_laid_out(document in document()) {
        let wrong = document.replace("BAD", "1.5");
        let read = read_all(&[Source::new("x", wrong.clone().into_bytes())], OPTIONS, &|_| Vec::new());
        let told: Vec<_> = read.faults.iter().map(|f| (f.line, f.column)).collect();
        prop_assert_eq!(told, places(&wrong, "1.5"), "{}", wrong);
        let shown = |f: &hivemind_manifest::Fault| {
            let e = f.excerpt.as_ref().unwrap();
            e.text.chars().skip(e.before).take(e.width).collect::<String>()
        };
        prop_assert!(read.faults.iter().all(|f| shown(f) == "1.5"));
    }

    #[test]
    fn an_app_that_is_printed_and_read_again_is_the_same(app in app()) {
        prop_assert_eq!(app.validate(), Ok(()));
        let mut document = serde_json::to_value(&app).unwrap();
        document["apiVersion"] = json!("hivemind/v1");
        document["kind"] = json!("App");
        let yaml = serde_saphyr::to_string(&document).unwrap();
        for text in [yaml, document.to_string(), serde_json::to_string_pretty(&document).unwrap()] {
            let mut read = read_all(&[Source::new("x", text.clone().into_bytes())], OPTIONS, &|_| Vec::new());
            prop_assert_eq!(&read.faults, &vec![], "{}", text);
            prop_assert_eq!(&read.apps.remove(0).app, &app, "{}", text);
        }
    }
}
