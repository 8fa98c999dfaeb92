//! Values of types of our own, which have all that the model's may come to have.

use std::collections::BTreeMap;

use hivemind_yaml::{Faults, Source, documents};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value as Json, json};
use utoipa::ToSchema;

use crate::{
    reader::{At, Reader},
    schema::Schema,
};

/// Everything.
#[derive(Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Whole {
    /// What it is called.
    title: String,
    /// From 2 to 9.
    #[serde(default)]
    #[schema(minimum = 2, maximum = 9)]
    count: Option<u8>,
    #[serde(default)]
    small: Vec<u16>,
    #[serde(default)]
    signed: Option<i8>,
    #[serde(default)]
    ratio: Option<f64>,
    #[serde(default)]
    parts: Vec<Part>,
    #[serde(default)]
    by_name: BTreeMap<String, Part>,
    #[serde(default)]
    words: BTreeMap<String, String>,
    #[serde(default)]
    colour: Option<Colour>,
    #[serde(default)]
    how: Option<How>,
    #[serde(default)]
    tagged: Option<Tagged>,
    #[serde(default)]
    either: Option<Either>,
    #[serde(default)]
    free: Json,
    /// How much.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "3kg")]
    amount: Option<Amount>,
    /// More than that.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    amounts: Vec<Amount>,
}

/// A part, of parts.
#[derive(Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Part {
    /// Its size.
    size: u32,
    #[serde(default)]
    #[schema(no_recursion)]
    parts: Vec<Part>,
    #[serde(flatten)]
    more: More,
}

#[derive(Debug, Default, PartialEq, Deserialize, ToSchema)]
struct More {
    #[serde(default)]
    loud: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Colour {
    Red,
    Green,
}

#[derive(Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum How {
    ByHand { tool: String },
    ByPost { stamps: u8 },
    Never,
}

#[derive(Debug, PartialEq, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase")]
enum Tagged {
    File { path: String },
    Port { number: u16 },
}

#[derive(Debug, PartialEq, Deserialize, ToSchema)]
#[serde(untagged)]
enum Either {
    Number(i64),
    Name(String),
    Many(Vec<String>),
}

/// Kilograms, with the unit, or tons, as a number.
#[derive(Debug, PartialEq)]
struct Amount(f64);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Number(tons) => return Ok(Amount(tons * 1_000.0)),
            Written::Text(text) => text,
        };
        let kilos = text.strip_suffix("kg").and_then(|kilos| kilos.parse().ok());
        kilos.map(Amount).ok_or_else(|| D::Error::custom(format!("{text:?} is no amount: write kilos, 3kg")))
    }
}

/// What is read of a text, and its faults as `line:column field: message | hint`.
fn read(text: &str) -> (Option<Whole>, Vec<String>) {
    let source = Source::new("x", text.into());
    let mut faults = Faults::default();
    let root = documents(&source, &mut faults).remove(0);
    let schema = Schema::of::<Whole>();
    let home = |_: &str, field: &str| {
        schema
            .homes(field)
            .first()
            .map(|home| format!("it belongs below {}", if home.is_empty() { "all" } else { home }))
    };
    let mut reader = Reader { source: &source, home: &home, faults: &mut faults };
    let at = At { node: &root, path: String::new() };
    let value = reader.value(&schema, &schema.root, &at);
    let whole = value.and_then(|value| reader.typed(&schema, &at, value, 0));
    faults.list.sort_by_key(|fault| (fault.line, fault.column));
    let told = faults.list.into_iter();
    (
        whole,
        told.map(|f| format!("{}:{} {}: {} | {}", f.line, f.column, f.field, f.message, f.hint)).collect(),
    )
}

/// A text with a title before it is free of faults.
fn good(text: &str) -> Whole {
    let (whole, faults) = read(&format!("title: a\n{text}"));
    assert_eq!(faults, Vec::<String>::new(), "{text}");
    whole.unwrap()
}

/// What is told of a text, which begins in line 2.
fn bad(text: &str, expected: &[&str]) {
    let (_, faults) = read(&format!("title: a\n{text}"));
    assert_eq!(faults, expected, "{text}");
}

#[test]
fn values_of_all_forms_are_read() {
    let whole = good(
        "count: 9\nsmall: [0, 65535, 0x10]\nsigned: -128\nratio: 2\nparts:\n- size: 1\n  loud: true\n  parts: [{size: 2}]\nbyName: {x: {size: 3}}\nwords: {a.b/c: \"1\", d: e}\ncolour: red\nhow: {byHand: {tool: saw}}\ntagged: {type: port, number: 80}\neither: [a]\nfree: {a: [1, x, null, 1.5, true], b: \"2\"}\namount: 0.5\namounts: [3kg, 2]\n",
    );
    let inner = Part { size: 2, ..Part::default() };
    assert_eq!(
        whole,
        Whole {
            title: "a".into(),
            count: Some(9),
            small: vec![0, 65_535, 16],
            signed: Some(-128),
            ratio: Some(2.0),
            parts: vec![Part { size: 1, parts: vec![inner], more: More { loud: true } }],
            by_name: BTreeMap::from([("x".into(), Part { size: 3, ..Part::default() })]),
            words: [("a.b/c", "1"), ("d", "e")].map(|(k, v)| (k.into(), v.into())).into(),
            colour: Some(Colour::Red),
            how: Some(How::ByHand { tool: "saw".into() }),
            tagged: Some(Tagged::Port { number: 80 }),
            either: Some(Either::Many(vec!["a".into()])),
            free: json!({"a": [1, "x", null, 1.5, true], "b": "2"}),
            amount: Some(Amount(500.0)),
            amounts: vec![Amount(3.0), Amount(2_000.0)],
        }
    );
}

#[test]
fn what_says_nothing_is_as_if_it_were_not_there() {
    let whole = good("count:\ncolour: ~\nhow: null\ntagged:\neither:\nparts:\nwords:\namount:\nfree:\n");
    assert_eq!(whole, Whole { title: "a".into(), ..Whole::default() });
    assert_eq!(good("how: never\neither: 5\n").how, Some(How::Never));
    assert_eq!(good("either: \"5\"\n").either, Some(Either::Name("5".into())));
}

#[test]
fn fields_that_are_unknown_or_missing_are_told_with_where_they_belong() {
    let (_, faults) =
        read("titel: b\nstamps: 1\nzzz: 1\nparts:\n- {}\n- {sise: 1}\n- {size: 1, loud: 1, title: x}\n");
    assert_eq!(
        faults,
        [
            "1:1 titel: unknown field \"titel\" | did you mean \"title\"?",
            "1:1 title: title is missing | add title: what it is called",
            "2:1 stamps: unknown field \"stamps\" | it belongs below how.byPost",
            "3:1 zzz: unknown field \"zzz\" | the fields here are amount, amounts, byName, colour, count, either, free, how, parts, ratio, signed, small, tagged, title, words",
            "5:3 parts[0].size: parts[0].size is missing | add size: its size",
            "6:3 parts[1].size: parts[1].size is missing | add size: its size",
            "6:4 parts[1].sise: unknown field \"sise\" | did you mean \"size\"?",
            "7:19 parts[2].loud: parts[2].loud is the number 1 where a boolean is wanted | write true or false, without quotes",
            "7:22 parts[2].title: unknown field \"title\" | it belongs below all",
        ]
    );
}

#[test]
fn values_of_the_wrong_type_are_told_at_the_value() {
    bad(
        "count: \"3\"\nsmall: 5\nratio: x\nparts: {}\nbyName: []\nwords: {a: 1.10, b: , c: [x]}\ncolour: 5\nfree: 1\n",
        &[
            "2:8 count: count is the text \"3\" where a number is wanted | write it without quotes: 3",
            "3:8 small: small is the number 5 where a list is wanted | begin each entry with '- '",
            "4:8 ratio: ratio is the text \"x\" where a number is wanted | write a number without quotes, for example 1.5",
            "5:8 parts: parts is a map where a list is wanted | begin each entry with '- '",
            "6:9 byName: byName is a list where a map is wanted | write its fields as 'name: value', one a line, indented below it",
            "7:12 words.a: words.a is the number 1.10 where a text is wanted | put it in quotes: \"1.10\"",
            "7:18 words.b: words.b is empty where a text is wanted | for an empty text write b: \"\"",
            "7:26 words.c: words.c is a list where a text is wanted | write one value here",
            "8:9 colour: colour is the number 5 where a text is wanted | put it in quotes: \"5\"",
        ],
    );
    let (_, faults) = read("- a\n");
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].starts_with("1:1 : the document is a list where a map is wanted"), "{faults:?}");
}

#[test]
fn numbers_that_are_out_of_range_are_told_by_the_schema_or_else_by_the_type() {
    bad(
        "count: 1\nsmall: [1, 65536, -1, 99999999999999999999, 18446744073709551615, 1.5]\nsigned: -129\nratio: .inf\n",
        &[
            "2:8 count: 1 is out of range | give 2 or more",
            "3:12 small[1]: 65536 is out of range | give 0 to 65535",
            "3:19 small[2]: -1 is out of range | give 0 or more",
            "3:23 small[3]: \"99999999999999999999\" is out of range | use a smaller number",
            "3:45 small[4]: 18446744073709551615 is out of range | give 0 to 65535",
            "3:67 small[5]: small[5] is the number 1.5 where a whole number is wanted | write it without a fraction, for example 80",
            "4:9 signed: -129 is out of range | give -128 to 127",
            "5:8 ratio: ratio is the number .inf where a number is wanted | write a number without quotes, for example 1.5",
        ],
    );
    bad("count: 10\n", &["2:8 count: 10 is out of range | give 9 or less"]);
}

#[test]
fn words_that_are_none_of_a_few_are_told_with_the_nearest() {
    bad(
        "colour: gren\n",
        &["2:9 colour: \"gren\" is not one of \"red\" or \"green\" | did you mean \"green\"?"],
    );
}

#[test]
fn of_several_forms_the_one_that_was_meant_is_read() {
    bad("how: {byHnd: {tool: x}}\n", &["2:7 how.byHnd: unknown field \"byHnd\" | did you mean \"byHand\"?"]);
    bad("how: {}\n", &["2:6 how: how has none of \"byHand\" or \"byPost\" | give one of them"]);
    bad(
        "how: {byHand: {tool: x}, byPost: {stamps: 1}}\n",
        &["2:6 how: how has more than one of \"byHand\" or \"byPost\" | leave one"],
    );
    bad(
        "how: {byPost: {stamp: 1}}\n",
        &[
            "2:15 how.byPost.stamps: how.byPost.stamps is missing | add stamps",
            "2:16 how.byPost.stamp: unknown field \"stamp\" | did you mean \"stamps\"?",
        ],
    );
    bad("how: nver\n", &["2:6 how: \"nver\" is not one of \"never\" | did you mean \"never\"?"]);
    bad("how: [1]\n", &["2:6 how: how is a list where a map or a text is wanted | write one of these here"]);
    bad(
        "tagged: {type: files, path: x}\n",
        &["2:16 tagged.type: \"files\" is not one of \"file\" or \"port\" | did you mean \"file\"?"],
    );
    bad(
        "tagged: {type: file, number: 80}\n",
        &[
            "2:9 tagged.path: tagged.path is missing | add path",
            "2:22 tagged.number: unknown field \"number\" | it belongs below tagged",
        ],
    );
    bad(
        "either: {}\n",
        &["2:9 either: either is a map where a number, a text or a list is wanted | write one of these here"],
    );
}

#[test]
fn all_that_the_type_itself_refuses_is_told_at_its_place() {
    let (whole, faults) = read(
        "title: 5\namount: 3 kilos\namounts:\n- 1kg\n- much\n- more\nparts: [{size: 4294967296}]\nsmall: [70000]\n",
    );
    assert_eq!(
        faults,
        [
            "1:8 title: title is the number 5 where a text is wanted | put it in quotes: \"5\"",
            "2:9 amount: \"3 kilos\" is no amount | write kilos, 3kg",
            "5:3 amounts[1]: \"much\" is no amount | write kilos, 3kg",
            "7:16 parts[0].size: 4294967296 is out of range | give 0 to 4294967295",
            "8:9 small[0]: 70000 is out of range | give 0 to 65535",
        ]
    );
    // Of what has several forms, the type tells only that it is at fault.
    bad(
        "tagged: {type: file, path: 5}\nparts: [{size: 1, parts: [{size: 4294967296}]}]\n",
        &[
            "2:28 tagged.path: tagged.path is the number 5 where a text is wanted | put it in quotes: \"5\"",
            "3:34 parts[0].parts[0].size: 4294967296 is out of range | give 0 to 4294967295",
        ],
    );
    // Nothing is known that could stand in for an amount of a list, which is left out as a whole.
    let whole = whole.unwrap();
    assert_eq!((whole.title.as_str(), whole.amount, whole.amounts, whole.small), ("", None, vec![], vec![1]));
}

#[test]
fn schemas_of_other_shapes_are_understood() {
    let named = BTreeMap::from([
        (
            "Base".to_owned(),
            json!({"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}),
        ),
        ("Loop".to_owned(), json!({"$ref": "#/components/schemas/Loop"})),
        (
            "Endless".to_owned(),
            json!({"type": "object", "required": ["next"], "properties": {"next": {"$ref": "#/x/Endless"}}}),
        ),
    ]);
    let root = json!({
        "allOf": [
            {"$ref": "#/components/schemas/Base"},
            {"type": "object", "properties": {
                "kind": {"const": "x"},
                "level": {"anyOf": [{"type": "null"}, {"type": ["integer", "boolean"], "maximum": 3.0}]},
                "mode": {"oneOf": [{"const": "on", "description": "It is."}, {"const": "off"}]},
                "open": {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "integer"}},
                "lost": {"$ref": "#/components/schemas/Nowhere"},
                "loop": {"$ref": "#/components/schemas/Loop"},
                "endless": {"$ref": "#/components/schemas/Endless"},
            }},
        ],
    });
    let schema = Schema::from_json(&root, &named);
    let source = Source::new(
        "x",
        "{id: a, kind: y, level: 4, mode: of, open: {a: 1, b: x, c: 2}, lost: [1], loop: 1, endless: {}, d: 1}".into(),
    );
    let mut faults = Faults::default();
    let root = documents(&source, &mut faults).remove(0);
    let mut reader = Reader { source: &source, home: &|_, _| None, faults: &mut faults };
    let value = reader.value(&schema, &schema.root, &At { node: &root, path: String::new() }).unwrap();
    let told: Vec<&str> = faults.list.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(told, ["d", "endless.next", "kind", "level", "mode", "open.b"]);
    assert_eq!((&value["open"]["c"], &value["lost"], &value["loop"]), (&json!(2), &json!([1]), &json!(1)));
}
