//! Reads values out of trees and collects what is wrong with them. What cannot be read is left out of what comes of it, so that
//! the rest can still be checked.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use hivemind_model::ErrorCode;
use hivemind_yaml::{FAULTS_MAX, Fault, Faults, Place, Plain, alternatives, nearest};

use crate::{
    environment::Environment,
    file::Files,
    source::{FileId, Sources},
    spot::{Located, Spot},
    tree::{Pair, Style, Tree, Value},
};

/// What a reading has at hand, and what it found so far.
pub(crate) struct Reader<'a> {
    pub(crate) files: &'a dyn Files,
    /// Where the user is: files are called as they are seen from there.
    pub(crate) directory: PathBuf,
    pub(crate) sources: Sources,
    pub(crate) faults: Faults,
    pub(crate) warnings: Faults,
    /// Bytes of all files so far.
    pub(crate) bytes: usize,
    /// Documents of all files so far.
    pub(crate) documents: usize,
    /// Bytes that values came to by their variables so far.
    pub(crate) expanded_bytes: usize,
    /// Ports so far, ranges written out.
    pub(crate) ports: usize,
    /// Files of variables that were read, which several services may name.
    pub(crate) variable_files: HashMap<PathBuf, FileId>,
    /// How often they were read.
    pub(crate) variable_readings: usize,
    /// Paths of services that lack something since it could not be read, which is told already.
    pub(crate) spoilt: BTreeSet<String>,
}

/// A value and how it is called.
#[derive(Clone)]
pub(crate) struct At<'t> {
    pub(crate) node: &'t Tree,
    pub(crate) path: String,
    pub(crate) key: Option<Place>,
}

impl<'t> At<'t> {
    pub(crate) fn top(node: &'t Tree) -> Self {
        At { node, path: String::new(), key: None }
    }

    /// The value of a field; none where nothing is said.
    pub(crate) fn get(&self, key: &str) -> Option<At<'t>> {
        let pair = self.node.pairs().iter().find(|pair| pair.key == key)?;
        (!pair.value.is_null()).then(|| self.pair(pair))
    }

    /// What a map holds, fields of which nothing is said included.
    pub(crate) fn pairs(&self) -> Vec<(&'t str, At<'t>)> {
        self.node.pairs().iter().map(|pair| (pair.key.as_str(), self.pair(pair))).collect()
    }

    fn pair(&self, pair: &'t Pair) -> At<'t> {
        At { node: &pair.value, path: self.below(&pair.key), key: Some(pair.place) }
    }

    pub(crate) fn below(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(crate) fn spot(&self) -> Spot {
        Spot { file: self.node.file, place: self.node.place, key: self.key, path: Arc::from(&*self.path) }
    }

    pub(crate) fn located<T>(&self, value: T) -> Located<T> {
        Located { value, spot: self.spot() }
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(files: &'a dyn Files, directory: PathBuf) -> Self {
        Reader {
            files,
            directory,
            sources: Sources::default(),
            faults: Faults::default(),
            warnings: Faults::default(),
            bytes: 0,
            documents: 0,
            expanded_bytes: 0,
            ports: 0,
            variable_files: HashMap::new(),
            variable_readings: 0,
            spoilt: BTreeSet::new(),
        }
    }

    /// Whether further faults are only counted, so that nothing dear has to be found out for their sake.
    pub(crate) fn is_full(&self) -> bool {
        self.faults.list.len() >= FAULTS_MAX
    }

    /// Adds a fault of the value at `at`.
    pub(crate) fn fault(&mut self, at: &At<'_>, code: ErrorCode, message: String, hint: impl Into<String>) {
        self.fault_in(at.node.file, at.node.place, &at.path, code, message, hint);
    }

    pub(crate) fn fault_in(
        &mut self,
        file: FileId,
        place: Place,
        field: &str,
        code: ErrorCode,
        message: String,
        hint: impl Into<String>,
    ) {
        let Reader { faults, sources, .. } = self;
        add_once(faults, || sources.fault_at(file, place, code, field, message, hint));
    }

    /// Adds a fault of what stands at `spot`.
    pub(crate) fn fault_at(
        &mut self,
        spot: &Spot,
        code: ErrorCode,
        message: String,
        hint: impl Into<String>,
    ) {
        self.fault_in(spot.file, spot.place, &spot.path, code, message, hint);
    }

    /// Adds a warning of what stands at `spot`.
    pub(crate) fn warn(&mut self, spot: &Spot, code: ErrorCode, message: String, hint: impl Into<String>) {
        self.warn_in(spot.file, spot.place, &spot.path, code, message, hint);
    }

    pub(crate) fn warn_in(
        &mut self,
        file: FileId,
        place: Place,
        field: &str,
        code: ErrorCode,
        message: String,
        hint: impl Into<String>,
    ) {
        let Reader { warnings, sources, .. } = self;
        add_once(warnings, || sources.fault_at(file, place, code, field, message, hint));
    }

    /// What the variables of `file` stand for.
    pub(crate) fn environment(&self, file: FileId) -> Arc<Environment> {
        self.sources.get(file).map(|file| file.environment.clone()).unwrap_or_default()
    }

    /// Checks that `at` is a map of `known` fields, of those of an extension (`x-…`), and no others; false if it is no map.
    pub(crate) fn map(&mut self, at: &At<'_>, known: &[&str], other: &[&str]) -> bool {
        if !self.is_map(at) {
            return false;
        }
        let all = [known, other].concat();
        for pair in at.node.pairs() {
            let key = pair.key.as_str();
            if all.contains(&key) || key.starts_with("x-") {
                continue;
            }
            if self.is_full() {
                self.faults.more += 1;
                continue;
            }
            let hint = match (nearest(key, &all), all.len()) {
                (Some(name), _) => format!("did you mean {name:?}?"),
                (None, ..=12) => format!("the fields here are {}", all.join(", ")),
                (None, _) => {
                    "see the reference for the fields here; one of your own begins with x-".to_owned()
                }
            };
            let message = format!("unknown field {}", shown(key));
            let path = at.below(key);
            self.fault_in(pair.value.file, pair.place, &path, ErrorCode::UnknownField, message, hint);
        }
        true
    }

    pub(crate) fn is_map(&mut self, at: &At<'_>) -> bool {
        let is_map = matches!(at.node.value, Value::Map(_));
        if !is_map {
            self.wrong_type(at, "a map", "write its fields as 'name: value', one a line, indented below it");
        }
        is_map
    }

    /// The value of a field that has to be there.
    pub(crate) fn required<'t>(&mut self, at: &At<'t>, key: &str, hint: &str) -> Option<At<'t>> {
        let found = at.get(key);
        if found.is_none() {
            let place = at.node.get(key).map_or(at.node.place, |node| node.place);
            let path = at.below(key);
            let message = format!("{path} is missing");
            self.fault_in(at.node.file, place, &path, ErrorCode::WrongType, message, hint);
        }
        found
    }

    /// The entries of a list.
    pub(crate) fn list<'t>(&mut self, at: &At<'t>) -> Vec<At<'t>> {
        let Value::List(items) = &at.node.value else {
            self.wrong_type(at, "a list", "begin each entry with '- '");
            return Vec::new();
        };
        let item = |(index, node): (usize, &'t Arc<Tree>)| At {
            node,
            path: format!("{}[{index}]", at.path),
            key: None,
        };
        items.iter().enumerate().map(item).collect()
    }

    /// A text; what looks like a number or a boolean has to stand in quotes, since other programs would read it as such.
    pub(crate) fn text(&mut self, at: &At<'_>) -> Option<String> {
        match &at.node.value {
            Value::Scalar { text, style } if is_text(text, *style) => Some(text.clone()),
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

    /// The text of anything but a list or a map.
    pub(crate) fn scalar<'t>(&mut self, at: &At<'t>, wanted: &str) -> Option<&'t str> {
        let text = at.node.scalar().filter(|_| !at.node.is_null());
        if text.is_none() {
            self.wrong_type(at, wanted, "write one value here");
        }
        text
    }

    /// A whole number, with or without quotes.
    pub(crate) fn integer(&mut self, at: &At<'_>) -> Option<i64> {
        let text = at.node.scalar().unwrap_or_default();
        if hivemind_yaml::plain(text) != Plain::Integer {
            self.wrong_type(at, "a number", "write a whole number, for example 80");
            return None;
        }
        let number = hivemind_yaml::integer(text);
        if number.is_none() {
            let message = format!("{} is out of range", shown(text));
            self.fault(at, ErrorCode::OutOfRange, message, "use a smaller number");
        }
        number
    }

    /// True or false, with or without quotes.
    pub(crate) fn boolean(&mut self, at: &At<'_>) -> Option<bool> {
        match at.node.scalar() {
            Some(text) if hivemind_yaml::plain(text) == Plain::Boolean => {
                Some(text.eq_ignore_ascii_case("true"))
            }
            _ => {
                self.wrong_type(at, "a boolean", "write true or false");
                None
            }
        }
    }

    /// One of a few names.
    pub(crate) fn choice<T: Copy>(&mut self, at: &At<'_>, choices: &[(&str, T)]) -> Option<T> {
        let text = self.scalar(at, "a text")?;
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() && self.is_full() {
            self.faults.more += 1;
        } else if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let message = format!("{} is not one of {}", shown(text), alternatives(&names));
            let hint = match nearest(text, &names) {
                Some(name) => format!("did you mean {name:?}?"),
                None => format!("use {}", alternatives(&names)),
            };
            self.fault(at, ErrorCode::OutOfRange, message, hint);
        }
        found
    }

    pub(crate) fn wrong_type(&mut self, at: &At<'_>, wanted: &str, hint: impl Into<String>) {
        let name = if at.path.is_empty() { "the document" } else { &at.path };
        let message = format!("{name} is {} where {wanted} is wanted", what_is(at.node));
        self.fault(at, ErrorCode::WrongType, message, hint);
    }
}

/// What several services share is read once for each of them; what is wrong there is told once.
fn add_once(faults: &mut Faults, fault: impl FnOnce() -> Fault) {
    if faults.list.len() >= FAULTS_MAX {
        faults.more += 1;
        return;
    }
    let fault = fault();
    let same = |other: &Fault| {
        (&other.file, other.line, other.column, other.code)
            == (&fault.file, fault.line, fault.column, fault.code)
    };
    if !faults.list.iter().any(same) {
        faults.add(|| fault);
    }
}

fn is_text(text: &str, style: Style) -> bool {
    style != Style::Plain || hivemind_yaml::plain(text) == Plain::Text
}

fn what_is(node: &Tree) -> String {
    match &node.value {
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
        Value::Scalar { text, style: Style::Quoted | Style::Filled } => format!("the text {}", shown(text)),
        Value::Scalar { text, style: Style::Plain } => match hivemind_yaml::plain(text) {
            Plain::Null => "empty".to_owned(),
            Plain::Boolean => format!("the boolean {text}"),
            Plain::Integer | Plain::Number => format!("the number {}", shown(text).trim_matches('"')),
            Plain::Text => format!("the text {}", shown(text)),
        },
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
