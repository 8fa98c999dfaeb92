//! Tags and merge keys are read where they are allowed, and faults elsewhere.

use std::sync::Arc;

use hivemind_model::ErrorCode;
use hivemind_yaml::{Faults, Node, Options, Source, Value, documents, documents_with};

const ALLOWED: Options = Options { tags: &["!reset", "!override"], merge_keys: true };

fn read(text: &str) -> (Vec<Arc<Node>>, Faults) {
    let mut faults = Faults::default();
    let read = documents_with(&Source::new("x.yaml", text.into()), ALLOWED, &mut faults);
    (read, faults)
}

/// The value of a field that is a scalar.
fn scalar<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    match &node.get(key)?.value {
        Value::Scalar { text, .. } => Some(text),
        _ => None,
    }
}

#[test]
fn what_stands_in_a_map_wins_over_what_is_merged_into_it_whichever_comes_first() {
    let text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc:\n  x: 0\n  <<: [*a, *b]\nd:\n  <<: *b\n  z: 9\n";
    let (read, faults) = read(text);
    assert_eq!(faults.list, []);
    let c = read[0].get("c").unwrap();
    assert_eq!((scalar(c, "x"), scalar(c, "y"), scalar(c, "z")), (Some("0"), Some("2"), Some("4")));
    let d = read[0].get("d").unwrap();
    assert_eq!((scalar(d, "y"), scalar(d, "z")), (Some("3"), Some("9")));
    let Value::Map(entries) = &d.value else { panic!("{d:?}") };
    assert_eq!(entries.len(), 2);
    assert_eq!(d.get("y").unwrap().place.line, 2, "a merged field stands where it was written");
}

#[test]
fn only_maps_can_be_merged() {
    let (_, faults) = read("a: &a 1\nb:\n  <<: *a\nc:\n  <<: [{x: 1}, 2]\n");
    let told: Vec<_> = faults.list.iter().map(|f| (f.code, f.line, f.column)).collect();
    assert_eq!(told, [(ErrorCode::WrongType, 1, 7), (ErrorCode::WrongType, 5, 7)]);
}

#[test]
fn a_quoted_merge_key_is_a_key_like_others() {
    let (read, faults) = read("'<<': 1\n");
    assert_eq!((faults.list.len(), scalar(&read[0], "<<")), (0, Some("1")));
}

#[test]
fn allowed_tags_stay_at_their_nodes_and_others_are_faults() {
    let (read, faults) = read("a: !reset null\nb: !override [1]\nc: !reset {x: 1}\nd: !other 1\n");
    let tag = |key: &str| read[0].get(key).unwrap().tag;
    assert_eq!((tag("a"), tag("b"), tag("c")), (Some("!reset"), Some("!override"), Some("!reset")));
    assert_eq!(faults.list.len(), 1);
    assert!(faults.list[0].message.contains("!other"), "{:?}", faults.list);
}

#[test]
fn neither_is_read_where_it_is_not_allowed() {
    let mut faults = Faults::default();
    documents(&Source::new("x.yaml", "a: &a {x: 1}\nb:\n  <<: *a\nc: !reset 1\n".into()), &mut faults);
    let told: Vec<_> = faults.list.iter().map(|f| (f.code, f.line)).collect();
    assert_eq!(told, [(ErrorCode::Unsupported, 3), (ErrorCode::Unsupported, 4)]);
}
