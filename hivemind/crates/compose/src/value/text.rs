//! Texts, lists of them, and texts by name.

use std::{collections::BTreeMap, ops::Deref};

use hivemind_model::ErrorCode;

use crate::{
    print::Out,
    reader::{At, Reader, shown},
    record::{Field, Yaml, print_map},
    spot::Located,
    tree::Value,
};

/// A text, a number or a boolean, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar(pub String);

impl Deref for Scalar {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Yaml for Scalar {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        reader.scalar(at, "a text or a number").map(|text| Scalar(text.to_owned()))
    }

    fn print(&self) -> Out {
        Out::Text(self.0.clone())
    }
}

/// A list that may be written as its only entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMore<T = String>(pub Vec<Located<T>>);

impl<T> Deref for OneOrMore<T> {
    type Target = [Located<T>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T: Yaml> Field for OneOrMore<T> {
    fn absent() -> Self {
        OneOrMore(Vec::new())
    }

    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Self {
        match at.node.value {
            Value::Scalar { .. } => {
                OneOrMore(T::read(reader, at).map(|one| at.located(one)).into_iter().collect())
            }
            _ => OneOrMore(Field::read(reader, at)),
        }
    }

    fn print(&self) -> Option<Out> {
        Field::print(&self.0)
    }
}

/// Values by name, such as networks that a service is in: a map, or a list of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named<T>(pub BTreeMap<String, Located<T>>);

impl<T> Deref for Named<T> {
    type Target = BTreeMap<String, Located<T>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T: Yaml + Default> Field for Named<T> {
    fn absent() -> Self {
        Named(BTreeMap::new())
    }

    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Self {
        match &at.node.value {
            Value::Map(_) => Named(Field::read(reader, at)),
            Value::List(_) => {
                let mut read = BTreeMap::new();
                for item in reader.list(at) {
                    let Some(name) = reader.text(&item) else { continue };
                    if read.contains_key(&name) {
                        let message = format!("{} stands twice", shown(&name));
                        reader.fault(&item, ErrorCode::Repeated, message, "leave one of the two");
                        continue;
                    }
                    read.insert(name, item.located(T::default()));
                }
                Named(read)
            }
            Value::Scalar { .. } => {
                reader.wrong_type(at, "a list or a map", "begin each entry with '- '");
                Self::absent()
            }
        }
    }

    fn print(&self) -> Option<Out> {
        (!self.0.is_empty()).then(|| print_map(&self.0))
    }
}

/// Texts by name: a map, or a list of `name=value`. Without a value it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValues(pub BTreeMap<String, Located<Scalar>>);

impl Deref for KeyValues {
    type Target = BTreeMap<String, Located<Scalar>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Field for KeyValues {
    fn absent() -> Self {
        KeyValues::default()
    }

    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Self {
        let mut read = BTreeMap::new();
        for (key, value) in key_values(reader, at) {
            read.insert(key, value.map(|text| Scalar(text.unwrap_or_default())));
        }
        KeyValues(read)
    }

    fn print(&self) -> Option<Out> {
        (!self.0.is_empty()).then(|| print_map(&self.0))
    }
}

/// Variables by name: as [`KeyValues`], but one without a value has that of the environment, and is left out if it has none there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables(pub BTreeMap<String, Located<Scalar>>);

impl Deref for Variables {
    type Target = BTreeMap<String, Located<Scalar>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Field for Variables {
    fn absent() -> Self {
        Variables::default()
    }

    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Self {
        let mut read = BTreeMap::new();
        for (key, value) in key_values(reader, at) {
            if key.is_empty() || key.contains('\0') {
                let message = format!("{} is not a variable's name", shown(&key));
                reader.fault_at(&value.spot, ErrorCode::InvalidEnv, message, "write NAME=value");
                continue;
            }
            let environment = reader.environment(value.spot.file);
            let text = value.value.clone().or_else(|| environment.get(&key).map(str::to_owned));
            read.extend(text.map(|text| (key, value.with(Scalar(text)))));
        }
        Variables(read)
    }

    fn print(&self) -> Option<Out> {
        (!self.0.is_empty()).then(|| print_map(&self.0))
    }
}

/// The names and values of either form, in the order of the text.
pub(crate) fn key_values(reader: &mut Reader<'_>, at: &At<'_>) -> Vec<(String, Located<Option<String>>)> {
    let mut read: Vec<(String, Located<Option<String>>)> = Vec::new();
    match &at.node.value {
        Value::Map(_) => {
            for (key, value) in at.pairs() {
                let text = match value.node.is_null() {
                    true => Some(None),
                    false => reader.scalar(&value, "a text").map(|text| Some(text.to_owned())),
                };
                read.extend(text.map(|text| (key.to_owned(), value.located(text))));
            }
        }
        Value::List(_) => {
            let mut known = std::collections::HashSet::new();
            for item in reader.list(at) {
                let Some(text) = reader.text(&item) else { continue };
                let (key, value) = match text.split_once('=') {
                    Some((key, value)) => (key, Some(value.to_owned())),
                    None => (text.as_str(), None),
                };
                if !known.insert(key.to_owned()) {
                    let message = format!("{} is set twice", shown(key));
                    reader.fault(&item, ErrorCode::Repeated, message, "leave one of the two");
                    continue;
                }
                read.push((key.to_owned(), item.located(value)));
            }
        }
        Value::Scalar { .. } => {
            reader.wrong_type(at, "a map or a list", "write NAME: value, or - NAME=value, one a line");
        }
    }
    read
}
