//! Values that may have one of several forms.

use serde_json::Value as Json;

use hivemind_model::ErrorCode;
use hivemind_yaml::{Plain, Value, alternatives, plain};

use crate::{
    reader::{At, Reader},
    schema::{Field, Form, Object, Schema, Shape},
};

/// How badly a map fits a form; the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Misfit {
    /// Fields whose value would have to be another word.
    other_words: usize,
    unknown: usize,
    missing: usize,
}

impl Reader<'_> {
    /// A value of the one of `shapes` that it was most likely meant to be.
    pub(super) fn one_of(&mut self, schema: &Schema, shapes: &[Shape], at: &At<'_>) -> Option<Json> {
        let taken: Vec<&Shape> = shapes.iter().filter(|shape| takes(schema, shape, at)).collect();
        let objects: Vec<&Object> = taken.iter().filter_map(|shape| object(schema, shape)).collect();
        match (taken.as_slice(), objects.as_slice()) {
            ([], _) => {
                let wanted: Vec<&str> = shapes.iter().map(|shape| name(schema, shape)).collect();
                self.wrong_type(at, &either(&wanted), "write one of these here");
                None
            }
            ([one], _) => self.value(schema, one, at),
            // Several that are no maps differ in what a schema does not say.
            ([one, ..], []) => self.value(schema, one, at),
            (_, objects) => self.best_of(schema, objects, at),
        }
    }

    fn best_of(&mut self, schema: &Schema, objects: &[&Object], at: &At<'_>) -> Option<Json> {
        let rated: Vec<(Misfit, &Object)> =
            objects.iter().map(|object| (misfit(schema, object, at), *object)).collect();
        let least = rated.iter().map(|(misfit, _)| *misfit).min()?;
        let best: Vec<&Object> =
            rated.iter().filter(|(misfit, _)| *misfit == least).map(|(_, object)| *object).collect();
        if let Some(field) = by_word(schema, &best, at) {
            return self.refuse_word(schema, objects, &field);
        }
        let (Some(first), is_clear) = (best.first(), best.len() == 1) else { return None };
        if is_clear || least.unknown == 0 && least.missing == 0 {
            let fields: Vec<&Field> = first.fields.iter().collect();
            return self.object(schema, &fields, first.others.as_deref(), at);
        }
        self.refuse_all(&best, at)
    }

    /// Tells that what is said fits several forms alike, and none of them.
    fn refuse_all(&mut self, best: &[&Object], at: &At<'_>) -> Option<Json> {
        let mut known: Vec<&str> = Vec::new();
        for field in best.iter().flat_map(|object| &object.fields) {
            if !known.contains(&field.name.as_str()) {
                known.push(&field.name);
            }
        }
        let before = self.faults.list.len() + self.faults.more;
        self.map(at, &known);
        if self.faults.list.len() + self.faults.more > before {
            return None;
        }
        let leading = best.iter().filter_map(|object| object.fields.iter().find(|field| field.required));
        let names: Vec<&str> = leading.map(|field| field.name.as_str()).collect();
        let said = names.iter().filter(|name| at.get(name).is_some()).count();
        let path = if at.path.is_empty() { "the document" } else { &at.path };
        let (message, hint) = match said {
            0 => (format!("{path} has none of {}", alternatives(&names)), "give one of them"),
            _ => (format!("{path} has more than one of {}", alternatives(&names)), "leave one"),
        };
        self.fault(at, ErrorCode::WrongType, message, hint);
        None
    }

    /// Tells that the word that says which form it is is none of those that there are.
    fn refuse_word(&mut self, schema: &Schema, objects: &[&Object], at: &At<'_>) -> Option<Json> {
        let name = at.path.rsplit('.').next().unwrap_or_default();
        let words: Vec<&str> = objects.iter().filter_map(|object| word(schema, object, name)).collect();
        let choices: Vec<(&str, ())> = words.into_iter().map(|word| (word, ())).collect();
        self.choice(at, &choices);
        None
    }
}

/// Whether a value of such a kind may be of `shape`.
fn takes(schema: &Schema, shape: &Shape, at: &At<'_>) -> bool {
    match (&schema.resolve(shape).form, &at.node.value) {
        (Form::Any | Form::Named(_), _)
        | (Form::Object(_), Value::Map(_))
        | (Form::List(_), Value::List(_))
        | (Form::Text | Form::Choice(_), Value::Scalar { plain: false, .. }) => true,
        (Form::OneOf(shapes), _) => shapes.iter().any(|shape| takes(schema, shape, at)),
        (form, Value::Scalar { text, plain: true }) => match plain(text) {
            Plain::Null => shape.nullable,
            Plain::Boolean => matches!(form, Form::Boolean),
            Plain::Integer => matches!(form, Form::Integer(..) | Form::Number),
            Plain::Number => matches!(form, Form::Number),
            Plain::Text => matches!(form, Form::Text | Form::Choice(_)),
        },
        _ => false,
    }
}

fn object<'s>(schema: &'s Schema, shape: &'s Shape) -> Option<&'s Object> {
    match &schema.resolve(shape).form {
        Form::Object(object) => Some(object),
        _ => None,
    }
}

fn misfit(schema: &Schema, object: &Object, at: &At<'_>) -> Misfit {
    let is_known = |key: &str| object.fields.iter().any(|field| field.name == key);
    let said = |field: &&Field| at.get(&field.name).is_some();
    let unknown =
        at.entries().iter().filter(|entry| object.others.is_none() && !is_known(&entry.key)).count();
    Misfit {
        other_words: object.fields.iter().filter(|field| has_other_word(schema, field, at)).count(),
        unknown,
        missing: object.fields.iter().filter(|field| field.required && !said(field)).count(),
    }
}

/// Whether `field` has only one word, and another is said.
fn has_other_word(schema: &Schema, field: &Field, at: &At<'_>) -> bool {
    let Form::Choice(words) = &schema.resolve(&field.shape).form else { return false };
    let said = at.get(&field.name).map(|at| &at.node.value);
    words.len() == 1 && matches!(said, Some(Value::Scalar { text, .. }) if *text != words[0])
}

/// The field by whose word the forms differ, if it says none of them.
fn by_word<'n>(schema: &Schema, best: &[&Object], at: &At<'n>) -> Option<At<'n>> {
    let field = best.first()?.fields.iter().find(|field| has_other_word(schema, field, at))?;
    at.get(&field.name)
}

/// The only word that `object` has in its field `name`.
fn word<'s>(schema: &'s Schema, object: &'s Object, name: &str) -> Option<&'s str> {
    let field = object.fields.iter().find(|field| field.name == name)?;
    match &schema.resolve(&field.shape).form {
        Form::Choice(words) if words.len() == 1 => words.first().map(String::as_str),
        _ => None,
    }
}

/// What a value of `shape` is called.
fn name<'s>(schema: &'s Schema, shape: &'s Shape) -> &'s str {
    match &schema.resolve(shape).form {
        Form::Text | Form::Choice(_) => "a text",
        Form::Integer(..) | Form::Number => "a number",
        Form::Boolean => "a boolean",
        Form::List(_) => "a list",
        Form::Object(_) => "a map",
        Form::Any | Form::Named(_) | Form::OneOf(_) => "a value",
    }
}

/// `a text or a number`, each once.
fn either(names: &[&str]) -> String {
    let mut once: Vec<&str> = Vec::new();
    for name in names {
        if !once.contains(name) {
            once.push(name);
        }
    }
    match once.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => once.concat(),
    }
}
