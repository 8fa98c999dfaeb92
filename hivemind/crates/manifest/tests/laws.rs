//! What holds of all texts.

use hivemind_manifest::{Options, Source, read};
use proptest::{prelude::*, sample::select};

const OPTIONS: Options<'_> = Options { namespace: "default", only_this_namespace: false };

/// Pieces of which texts are made that come near to manifests.
const PIECES: &[&str] = &[
    "apiVersion: networking.k8s.io/v1\n",
    "kind: NetworkPolicy\n",
    "kind: List\n",
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

/// A document that is good but for the values `BAD`, in block or flow style.
fn document() -> impl Strategy<Value = String> {
    let style = (1_usize..5, any::<bool>(), 0_usize..4, any::<bool>(), "[a-zé]{0,8}");
    style.prop_map(|(indent, flow, blank, comment, label)| {
        let i = " ".repeat(indent);
        let head = format!(
            "{}apiVersion: networking.k8s.io/v1\n{}kind: NetworkPolicy\nmetadata:\n{i}name: a\n{i}annotations: {{note: \"{label}\", b: BAD}}\nspec:\n",
            "\n".repeat(blank),
            if comment { "# é: BUT\n" } else { "" },
        );
        if flow {
            return format!("{head}{i}{{podSelector: {{matchLabels: {{x: BAD}}}},\n{i}ingress: [{{from: [{{ipBlock: {{cidr: BAD}}}}]}}]}}\n");
        }
        format!(
            "{head}{i}podSelector:\n{i}{i}matchLabels:\n{i}{i}{i}x: BAD\n{i}ingress:\n{i}- from:\n{i}  - ipBlock:\n{i}    {i}cidr:   BAD # {label}\n"
        )
    })
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
        let read = read(&[Source::new("x", text.clone().into_bytes())], OPTIONS, &|_| Vec::new());
        let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
        for fault in read.faults {
            prop_assert!(fault.line >= 1 && fault.line <= lines + 1, "{fault} in {text:?}");
            prop_assert!(fault.column >= 1 && fault.column <= text.chars().count() + 2, "{fault} in {text:?}");
        }
    }

    #[test]
    fn bytes_do_not_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read(&[Source::new("x", bytes)], OPTIONS, &|_| Vec::new());
    }

    #[test]
    fn a_fault_points_at_what_is_wrong_however_the_text_is_laid_out(document in document()) {
        let wrong = document.replace("BAD", "1.5");
        let read = read(&[Source::new("x", wrong.clone().into_bytes())], OPTIONS, &|_| Vec::new());
        let told: Vec<_> = read.faults.iter().map(|f| (f.line, f.column)).collect();
        prop_assert_eq!(told, places(&wrong, "1.5"), "{}", wrong);
        let shown = |f: &hivemind_manifest::Fault| {
            let e = f.excerpt.as_ref().unwrap();
            e.text.chars().skip(e.before).take(e.width).collect::<String>()
        };
        prop_assert!(read.faults.iter().all(|f| shown(f) == "1.5"));
    }
}
