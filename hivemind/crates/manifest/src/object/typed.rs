//! From JSON to the model's types, which refuse what no schema tells: amounts, addresses, numbers that are too large.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use serde_path_to_error::{Path, Segment};

use hivemind_model::ErrorCode;
use hivemind_yaml::{FAULTS_MAX, Node, Value};

use crate::{
    reader::{At, Reader, is_within, shown},
    schema::{Schema, Shape, Step},
};

impl Reader<'_> {
    /// What `T` makes of `value`, which was read at `root`. What it refuses is told at its place and mended, until all is told
    /// or nothing can be mended; then there is none. `before` is how many faults there were before this document.
    pub(crate) fn typed<T: DeserializeOwned>(
        &mut self,
        schema: &Schema,
        root: &At<'_>,
        mut value: Json,
        before: usize,
    ) -> Option<T> {
        let mut refused = BTreeSet::new();
        // Each value is mended in two ways at most, and more faults than these are not told.
        for _ in 0..2 * FAULTS_MAX {
            let error = match serde_path_to_error::deserialize::<_, T>(&value) {
                Ok(typed) => return Some(typed),
                Err(error) => error,
            };
            let refusal = error.inner().to_string();
            let steps = narrowed(root, steps(error.path()), &refusal);
            let path = text(&steps);
            let is_first = refused.insert(path.clone());
            // A stand-in that is refused stands for something that was told.
            let told = self.faults.list.iter().skip(before).any(|fault| is_within(&fault.field, &path));
            if is_first && !told {
                let hint = schema.at(&steps).map(|(shape, _)| how(shape)).unwrap_or_default();
                self.refusal(root, &path, &refusal, hint);
            }
            if !mend(schema, &mut value, &steps, is_first) {
                return None;
            }
        }
        None
    }

    /// Tells that the model's type refuses what stands at `path`; `hint` says what it would take.
    fn refusal(&mut self, root: &At<'_>, path: &str, error: &str, hint: String) {
        let at = At { node: root.node.nearest_to(path), path: path.to_owned() };
        let shows = match &at.node.value {
            Value::Scalar { text, .. } => text.as_str(),
            _ => "",
        };
        if error.starts_with("invalid type") {
            let (wanted, hint) = match error.contains("expected a string") {
                true => ("a text".to_owned(), format!("put it in quotes: {shows:?}")),
                false => (expected(error).to_owned(), hint),
            };
            self.wrong_type(&at, &wanted, hint);
            return;
        }
        if error.starts_with("invalid value")
            && let Some(range) = range(expected(error))
        {
            let message = format!("{} is out of range", shown(shows).trim_matches('"'));
            self.fault(&at, ErrorCode::OutOfRange, message, range);
            return;
        }
        // Amounts are told as what they are not, and how they are written.
        let (message, hint) = match error.strip_prefix(&format!("{shows:?}")) {
            Some(rest) => match rest.split_once(": ") {
                Some((what, how)) => (format!("{}{what}", shown(shows)), how.to_owned()),
                None => (format!("{}{rest}", shown(shows)), hint),
            },
            None if shows.is_empty() => (error.to_owned(), hint),
            None => (format!("{} cannot be used here: {error}", shown(shows)), hint),
        };
        self.fault(&at, ErrorCode::OutOfRange, message, hint);
    }
}

/// How a value of `shape` is written.
fn how(shape: &Shape) -> String {
    match (&shape.example, shape.clause()) {
        (Some(Json::String(example)), _) => format!("write it like {example}"),
        (Some(example), _) => format!("write it like {example}"),
        (None, clause) if clause.is_empty() => String::new(),
        (None, clause) => format!("what is wanted: {clause}"),
    }
}

/// What serde says that it wanted.
fn expected(error: &str) -> &str {
    error.rsplit_once("expected ").map_or("another value", |(_, wanted)| wanted)
}

/// Which numbers a type of Rust's takes.
fn range(name: &str) -> Option<String> {
    let (min, max) = match name {
        "u8" => (0, u64::from(u8::MAX)),
        "u16" => (0, u64::from(u16::MAX)),
        "u32" => (0, u64::from(u32::MAX)),
        "u64" | "usize" => (0, u64::MAX),
        "i8" => (i64::from(i8::MIN), 127),
        "i16" => (i64::from(i16::MIN), 32_767),
        "i32" => (i64::from(i32::MIN), 2_147_483_647),
        "i64" | "isize" => (i64::MIN, u64::MAX >> 1),
        name if name.starts_with("a nonzero ") => (1, u64::MAX),
        _ => return None,
    };
    match max {
        u64::MAX => Some(format!("give {min} or more")),
        max => Some(format!("give {min} to {max}")),
    }
}

/// Makes the value at `steps` one that might be taken: leaves it out or puts another in its place; at the second try, leaves out
/// what it is in. False if nothing can be done.
fn mend(schema: &Schema, value: &mut Json, steps: &[Step], is_first: bool) -> bool {
    let last = steps.len();
    let is_required = |len: usize| schema.at(&steps[..len]).is_none_or(|(_, required)| required);
    if is_first && last > 0 && is_required(last) {
        let Some(target) = find(value, steps) else { return false };
        let Some((shape, _)) = schema.at(steps) else { return false };
        let stand_in = schema.stand_in(shape);
        if *target != stand_in {
            *target = stand_in;
            return true;
        }
    }
    (1..=last).rev().any(|len| !is_required(len) && remove(value, &steps[..len]))
}

fn find<'v>(value: &'v mut Json, steps: &[Step]) -> Option<&'v mut Json> {
    steps.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Index(index) => value.get_mut(index),
    })
}

/// Removes a field; false if it is not there.
fn remove(value: &mut Json, steps: &[Step]) -> bool {
    let Some((Step::Key(key), within)) = steps.split_last() else { return false };
    let object = find(value, within).and_then(Json::as_object_mut);
    object.is_some_and(|object| object.remove(key).is_some())
}

fn steps(path: &Path) -> Vec<Step> {
    let step = |segment: &Segment| match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Enum { variant } => Some(Step::Key(variant.clone())),
        Segment::Unknown => None,
    };
    path.iter().map_while(step).collect()
}

/// The way to the number that is refused. Where one of several forms is tried, serde tells only the way to what has the forms.
fn narrowed(root: &At<'_>, mut steps: Vec<Step>, refusal: &str) -> Vec<Step> {
    let node = root.node.nearest_to(&text(&steps));
    if let Some((_, rest)) = refusal.split_once('`')
        && let Some((number, _)) = rest.split_once('`')
    {
        steps.extend(way_to(node, number).unwrap_or_default());
    }
    steps
}

fn way_to(node: &Node, number: &str) -> Option<Vec<Step>> {
    let before = |step: Step, rest: Vec<Step>| [vec![step], rest].concat();
    match &node.value {
        Value::Scalar { text, plain } => (*plain && text == number).then(Vec::new),
        Value::List(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| Some(before(Step::Index(index), way_to(item, number)?))),
        Value::Map(entries) => entries
            .iter()
            .find_map(|entry| Some(before(Step::Key(entry.key.clone()), way_to(&entry.value, number)?))),
    }
}

/// `spec.template.containers[0].image`.
fn text(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.push_str(&format!(".{key}")),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}
