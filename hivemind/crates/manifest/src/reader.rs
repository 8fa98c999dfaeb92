//! Reads values out of nodes and collects what is wrong with them. What cannot be read is left out or empty in what comes
//! of it, in its own place, so that the rest can still be checked.

use std::{collections::BTreeMap, sync::Arc};

use hivemind_model::{ErrorCode, Problems, check_label};
use jiff::Timestamp;

use hivemind_yaml::{Entry, Faults, Node, Place, Plain, Source, Value, alternatives, nearest};

/// A node and how it is called.
#[derive(Clone)]
pub(crate) struct At<'n> {
    pub(crate) node: &'n Node,
    pub(crate) path: String,
}

impl<'n> At<'n> {
    /// The value of a field; none where nothing is said.
    pub(crate) fn get(&self, key: &str) -> Option<At<'n>> {
        let node = self.node.get(key).filter(|node| !node.is_null())?;
        Some(At { node, path: self.below(key) })
    }

    /// How the field `key` of it is called.
    pub(crate) fn below(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The entries of a map; none of all else.
    pub(crate) fn entries(&self) -> &'n [Entry] {
        match &self.node.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The entries of the list that it is.
    pub(crate) fn items(&self, items: &'n [Arc<Node>]) -> Vec<At<'n>> {
        let item = |(index, node)| At { node, path: format!("{}[{index}]", self.path) };
        items.iter().map(AsRef::as_ref).enumerate().map(item).collect()
    }
}

/// Reads values of one source.
pub(crate) struct Reader<'a> {
    pub(crate) source: &'a Source,
    /// Where a field belongs that stands in another place, if that is known of what is read: by the path of that place and the
    /// field.
    pub(crate) home: &'a dyn Fn(&str, &str) -> Option<String>,
    pub(crate) faults: &'a mut Faults,
}

impl Reader<'_> {
    /// Adds a fault of the value at `at`.
    pub(crate) fn fault(&mut self, at: &At<'_>, code: ErrorCode, message: String, hint: impl Into<String>) {
        self.fault_in(at.node.place, &at.path, code, message, hint);
    }

    pub(crate) fn fault_in(
        &mut self,
        place: Place,
        field: &str,
        code: ErrorCode,
        message: String,
        hint: impl Into<String>,
    ) {
        self.faults.add(|| self.source.fault(place, code, field, message, hint));
    }

    /// Checks that `at` is a map of `known` fields and no others; false if it is no map.
    pub(crate) fn map(&mut self, at: &At<'_>, known: &[&str]) -> bool {
        let Some(entries) = self.entries(at) else { return false };
        for (index, entry) in entries.iter().enumerate() {
            if !known.contains(&entry.key.as_str()) {
                let path = at.below(&entry.key);
                let message = format!("unknown field {}", shown(&entry.key));
                let before = index.checked_sub(1).and_then(|before| entries.get(before));
                let hint = unknown_hint(|key| (self.home)(&at.path, key), &entry.key, known, before);
                self.fault_in(entry.key_place, &path, ErrorCode::UnknownField, message, hint);
            }
        }
        true
    }

    /// The value of a field that has to be there.
    pub(crate) fn required<'n>(&mut self, at: &At<'n>, key: &str, hint: &str) -> Option<At<'n>> {
        let found = at.get(key);
        if found.is_none() {
            // A field without a value is told at itself, one that is not there at what it should be in.
            let place = at.node.get(key).map_or(at.node.place, |node| node.place);
            let message = format!("{} is missing", at.below(key));
            self.fault_in(place, &at.below(key), ErrorCode::WrongType, message, hint);
        }
        found
    }

    /// The entries of a map; what is none is told.
    pub(crate) fn entries<'n>(&mut self, at: &At<'n>) -> Option<&'n [Entry]> {
        match &at.node.value {
            Value::Map(entries) => Some(entries),
            _ => {
                self.wrong_type(
                    at,
                    "a map",
                    "write its fields as 'name: value', one a line, indented below it",
                );
                None
            }
        }
    }

    /// What `read` makes of the entries of the list that a field is.
    pub(crate) fn each<T>(
        &mut self,
        at: &At<'_>,
        key: &str,
        mut read: impl FnMut(&mut Self, &At<'_>) -> Option<T>,
    ) -> Vec<T> {
        let list = at.get(key).map(|at| self.list(&at)).unwrap_or_default();
        list.iter().filter_map(|at| read(self, at)).collect()
    }

    /// As [`Reader::each`], of a list that says something if it is there; without, it means `hint`.
    pub(crate) fn some<T>(
        &mut self,
        at: &At<'_>,
        key: &str,
        hint: &str,
        read: impl FnMut(&mut Self, &At<'_>) -> Option<T>,
    ) -> Vec<T> {
        if let Some(list) = at.get(key)
            && matches!(&list.node.value, Value::List(items) if items.is_empty())
        {
            let message = format!("{} is an empty list", list.path);
            self.fault(&list, ErrorCode::OutOfRange, message, hint);
        }
        self.each(at, key, read)
    }

    /// The entries of a list.
    pub(crate) fn list<'n>(&mut self, at: &At<'n>) -> Vec<At<'n>> {
        let Value::List(items) = &at.node.value else {
            self.wrong_type(at, "a list", "begin each entry with '- '");
            return Vec::new();
        };
        at.items(items)
    }

    /// A text; what looks like a number or a boolean has to stand in quotes, since other programs would read it as such.
    pub(crate) fn text(&mut self, at: &At<'_>) -> Option<String> {
        match &at.node.value {
            Value::Scalar { text, plain } if !plain || hivemind_yaml::plain(text) == Plain::Text => {
                Some(text.clone())
            }
            Value::Scalar { text, .. } => {
                self.wrong_type(at, "a text", format!("put it in quotes: {text:?}"));
                None
            }
            _ => {
                self.wrong_type(at, "a text", "write one value here");
                None
            }
        }
    }

    /// A whole number.
    pub(crate) fn integer(&mut self, at: &At<'_>) -> Option<i64> {
        match &at.node.value {
            Value::Scalar { text, plain: true } if hivemind_yaml::plain(text) == Plain::Integer => {
                let number = hivemind_yaml::integer(text);
                if number.is_none() {
                    let message = format!("{} is out of range", shown(text));
                    self.fault(at, ErrorCode::OutOfRange, message, "use a smaller number");
                }
                number
            }
            Value::Scalar { text, plain: false } if hivemind_yaml::plain(text) == Plain::Integer => {
                self.wrong_type(at, "a number", format!("write it without quotes: {text}"));
                None
            }
            Value::Scalar { text, plain: true } if hivemind_yaml::plain(text) == Plain::Number => {
                self.wrong_type(at, "a whole number", "write it without a fraction, for example 80");
                None
            }
            _ => {
                self.wrong_type(at, "a number", "write a whole number, for example 80");
                None
            }
        }
    }

    /// True or false.
    pub(crate) fn boolean(&mut self, at: &At<'_>) -> Option<bool> {
        match &at.node.value {
            Value::Scalar { text, plain: true } if hivemind_yaml::plain(text) == Plain::Boolean => {
                Some(text.eq_ignore_ascii_case("true"))
            }
            _ => {
                self.wrong_type(at, "a boolean", "write true or false, without quotes");
                None
            }
        }
    }

    /// A time (RFC 3339).
    pub(crate) fn time(&mut self, at: &At<'_>) -> Option<Timestamp> {
        let text = self.text(at)?;
        let time = text.parse().ok();
        if time.is_none() {
            let message = format!("{} is not a time", shown(&text));
            self.fault(at, ErrorCode::OutOfRange, message, "write it as 2030-01-31T18:00:00Z");
        }
        time
    }

    /// One of a few names.
    pub(crate) fn choice<T: Copy>(&mut self, at: &At<'_>, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(at)?;
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let message = format!("{} is not one of {}", shown(&text), alternatives(&names));
            let hint = match nearest(&text, &names) {
                Some(name) => format!("did you mean {name:?}?"),
                None => format!("use {}", alternatives(&names)),
            };
            self.fault(at, ErrorCode::OutOfRange, message, hint);
        }
        found
    }

    /// A map of texts.
    pub(crate) fn texts(&mut self, at: &At<'_>) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        for entry in self.entries(at).unwrap_or_default() {
            let below = At { node: &entry.value, path: at.below(&entry.key) };
            if below.node.is_empty() {
                let hint = format!("for an empty text write {}: \"\"", entry.key);
                self.wrong_type(&below, "a text", hint);
            } else if let Some(text) = self.text(&below) {
                texts.insert(entry.key.clone(), text);
            }
        }
        texts
    }

    /// Labels, checked; a bad key is told at the key, a bad value at the value, by `code`.
    pub(crate) fn labels(&mut self, at: &At<'_>, code: ErrorCode) -> BTreeMap<String, String> {
        let texts = self.texts(at);
        for entry in self.entries(at).unwrap_or_default() {
            let Some(value) = texts.get(&entry.key) else { continue };
            for (key, value, place) in
                [(entry.key.as_str(), "", entry.key_place), ("key", value.as_str(), entry.value.place)]
            {
                let mut problems = Problems::default();
                check_label("", key, value, &mut problems);
                if let Err(error) = problems.into_result() {
                    self.fault_in(place, &at.below(&entry.key), code, error.message, error.hint);
                }
            }
        }
        texts
    }

    /// Adds what one of the model's checks finds, at `place`.
    pub(crate) fn checked(&mut self, place: Place, field: &str, check: impl FnOnce(&mut Problems)) {
        let mut problems = Problems::default();
        check(&mut problems);
        let Err(error) = problems.into_result() else { return };
        if error.problems.is_empty() {
            self.fault_in(place, field, error.code, error.message, error.hint);
            return;
        }
        for problem in error.problems {
            self.fault_in(place, field, problem.code, problem.message, problem.hint);
        }
    }

    /// Tells that the value at `at` is not what is `wanted`.
    pub(crate) fn wrong_type(&mut self, at: &At<'_>, wanted: &str, hint: impl Into<String>) {
        let is = match &at.node.value {
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
            Value::Scalar { text, plain: false } => format!("the text {}", shown(text)),
            Value::Scalar { text, plain: true } => match hivemind_yaml::plain(text) {
                Plain::Null => "empty".to_owned(),
                Plain::Boolean => format!("the boolean {text}"),
                Plain::Integer | Plain::Number => format!("the number {}", shown(text).trim_matches('"')),
                Plain::Text => format!("the text {}", shown(text)),
            },
        };
        let name = if at.path.is_empty() { "the document" } else { &at.path };
        let message = format!("{name} is {is} where {wanted} is wanted");
        self.fault(at, ErrorCode::WrongType, message, hint);
    }
}

/// The most characters of a value that a message quotes.
const QUOTED_CHARS_MAX: usize = 64;

/// `text` in quotes, not longer than a line takes.
pub(crate) fn shown(text: &str) -> String {
    if text.chars().nth(QUOTED_CHARS_MAX).is_none() {
        return format!("{text:?}");
    }
    let begin: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    format!("{:?}", begin + "…")
}

/// Whether the field `inner` is `outer`, or within it.
pub(crate) fn is_within(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn unknown_hint(
    home: impl Fn(&str) -> Option<String>,
    key: &str,
    known: &[&str],
    before: Option<&Entry>,
) -> String {
    if let Some(name) = nearest(key, known) {
        return format!("did you mean {name:?}?");
    }
    if let Some(empty) = before.and_then(left_empty) {
        return format!("{empty:?} before it is empty: indent {key:?} deeper, if it belongs below it");
    }
    home(key).unwrap_or_else(|| format!("the fields here are {}", known.join(", ")))
}

/// The field at the end of `entry` that nothing is said of.
fn left_empty(entry: &Entry) -> Option<&str> {
    match &entry.value.value {
        Value::Map(entries) => left_empty(entries.last()?),
        Value::List(items) => match &items.last()?.value {
            Value::Map(entries) => left_empty(entries.last()?),
            _ => None,
        },
        Value::Scalar { .. } => entry.value.is_empty().then_some(&entry.key),
    }
}
