//! Reads values as their schema says, into JSON for the model's own types to judge.
//!
//! What is at fault is told. In the value that comes of it, it is left out or, where it must not be missing, something stands in for
//! it, so that the rest can still be checked.

mod alternatives;
mod typed;

use serde_json::{Map, Number, Value as Json};

use hivemind_model::ErrorCode;
use hivemind_yaml::{Entry, Plain, Value, plain};

use crate::{
    reader::{At, Reader},
    schema::{Field, Form, Schema, Shape},
};

impl Reader<'_> {
    /// The value at `at` by its `shape`; none if it is at fault as a whole, which has been told.
    pub(crate) fn value(&mut self, schema: &Schema, shape: &Shape, at: &At<'_>) -> Option<Json> {
        let resolved = schema.resolve(shape);
        if at.node.is_null() && (shape.nullable || resolved.nullable) {
            return Some(Json::Null);
        }
        match &resolved.form {
            Form::Any | Form::Named(_) => self.anything(at),
            Form::Text => self.words(at),
            Form::Choice(words) => {
                let choices: Vec<(&str, ())> = words.iter().map(|word| (word.as_str(), ())).collect();
                self.choice(at, &choices)?;
                self.text(at).map(Json::from)
            }
            Form::Integer(min, max) => self.whole_number(at, *min, *max),
            Form::Number => self.number(at),
            Form::Boolean => self.boolean(at).map(Json::from),
            Form::List(item) => {
                let Value::List(items) = &at.node.value else {
                    self.list(at);
                    return None;
                };
                let mut read = Vec::with_capacity(items.len());
                for at in at.items(items) {
                    read.push(self.value(schema, item, &at).unwrap_or_else(|| schema.stand_in(item)));
                }
                Some(Json::Array(read))
            }
            Form::Object(object) => {
                let fields: Vec<&Field> = object.fields.iter().collect();
                self.object(schema, &fields, object.others.as_deref(), at)
            }
            Form::OneOf(shapes) => self.one_of(schema, shapes, at),
        }
    }

    /// A map with `fields`, and with `others` if there may be any.
    pub(crate) fn object(
        &mut self,
        schema: &Schema,
        fields: &[&Field],
        others: Option<&Shape>,
        at: &At<'_>,
    ) -> Option<Json> {
        let known: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        let entries = match others {
            None => self.map(at, &known).then(|| at.entries())?,
            Some(_) => self.entries(at)?,
        };
        let mut read = Map::new();
        for field in fields {
            if let Some(at) = at.get(&field.name) {
                read.extend(self.value(schema, &field.shape, &at).map(|value| (field.name.clone(), value)));
            } else if field.required {
                self.required(at, &field.name, &missing_hint(field));
            }
            if field.required && !read.contains_key(&field.name) {
                read.insert(field.name.clone(), schema.stand_in(&field.shape));
            }
        }
        if let Some(others) = others {
            let is_other = |entry: &&Entry| !known.contains(&entry.key.as_str());
            for entry in entries.iter().filter(is_other) {
                let below = At { node: &entry.value, path: at.below(&entry.key) };
                read.extend(self.entry(schema, others, &below, &entry.key).map(|v| (entry.key.clone(), v)));
            }
        }
        Some(Json::Object(read))
    }

    /// A value of a map of anything.
    fn entry(&mut self, schema: &Schema, shape: &Shape, at: &At<'_>, key: &str) -> Option<Json> {
        let is_text = matches!(schema.resolve(shape).form, Form::Text);
        if at.node.is_null() && is_text && !shape.nullable {
            self.wrong_type(at, "a text", format!("for an empty text write {key}: \"\""));
            return None;
        }
        self.value(schema, shape, at)
    }

    /// A text. Whether a number is one, such as an amount of memory, is for the model's type to say.
    fn words(&mut self, at: &At<'_>) -> Option<Json> {
        if let Value::Scalar { text, plain: true } = &at.node.value
            && matches!(plain(text), Plain::Integer | Plain::Number)
            && let Some(number) = json_number(text)
        {
            return Some(Json::Number(number));
        }
        self.text(at).map(Json::from)
    }

    fn whole_number(&mut self, at: &At<'_>, min: Option<i64>, max: Option<u64>) -> Option<Json> {
        let large = match &at.node.value {
            Value::Scalar { text, plain: true } => {
                text.parse::<u64>().ok().filter(|n| i64::try_from(*n).is_err())
            }
            _ => None,
        };
        let number = match large {
            Some(large) => i128::from(large),
            None => i128::from(self.integer(at)?),
        };
        let hint = if min.is_some_and(|min| number < i128::from(min)) {
            min.map(|min| format!("give {min} or more"))
        } else if max.is_some_and(|max| number > i128::from(max)) {
            max.map(|max| format!("give {max} or less"))
        } else {
            None
        };
        if let Some(hint) = hint {
            self.fault(at, ErrorCode::OutOfRange, format!("{number} is out of range"), hint);
            return None;
        }
        Number::from_i128(number).map(Json::Number)
    }

    fn number(&mut self, at: &At<'_>) -> Option<Json> {
        let number = match &at.node.value {
            Value::Scalar { text, plain: true } if matches!(plain(text), Plain::Integer | Plain::Number) => {
                json_number(text)
            }
            _ => None,
        };
        if number.is_none() {
            self.wrong_type(at, "a number", "write a number without quotes, for example 1.5");
        }
        number.map(Json::Number)
    }

    /// What has no schema, as it stands.
    fn anything(&mut self, at: &At<'_>) -> Option<Json> {
        match &at.node.value {
            Value::List(items) => {
                let read = at.items(items).into_iter();
                Some(read.map(|at| self.anything(&at).unwrap_or_default()).collect())
            }
            Value::Map(entries) => {
                let mut read = Map::new();
                for entry in entries {
                    let below = At { node: &entry.value, path: at.below(&entry.key) };
                    read.extend(self.anything(&below).map(|value| (entry.key.clone(), value)));
                }
                Some(Json::Object(read))
            }
            Value::Scalar { text, plain: false } => Some(Json::from(text.as_str())),
            Value::Scalar { text, plain: true } => Some(match plain(text) {
                Plain::Null => Json::Null,
                Plain::Boolean => Json::from(text.eq_ignore_ascii_case("true")),
                Plain::Integer | Plain::Number => {
                    json_number(text).map_or_else(|| Json::from(text.as_str()), Json::Number)
                }
                Plain::Text => Json::from(text.as_str()),
            }),
        }
    }
}

/// The number that `text` is, if JSON has it.
fn json_number(text: &str) -> Option<Number> {
    if let Some(whole) = hivemind_yaml::integer(text) {
        return Some(whole.into());
    }
    if let Ok(whole) = text.parse::<u64>() {
        return Some(whole.into());
    }
    Number::from_f64(text.parse().ok()?)
}

/// What to do about a field that is missing: what it is, in its author's words.
fn missing_hint(field: &Field) -> String {
    match field.shape.clause() {
        clause if clause.is_empty() => format!("add {}", field.name),
        clause => format!("add {}: {clause}", field.name),
    }
}

#[cfg(test)]
mod tests;
