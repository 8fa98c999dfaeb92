//! What values may be: their fields, types and words of documentation, as the model derives them (JSON Schema, by utoipa).
//!
//! A [`Schema`] is made for the kind that a document is of, and for no other: making one costs time and memory that a command
//! with nothing of that kind need not spend.

mod of_kind;
mod parsed;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::{PartialSchema, ToSchema};

/// How many names may stand for each other before something that is no name; and how deep what is required may be nested in each
/// other. A schema of a type that exists has neither.
const NESTED_MAX: usize = 32;

/// What values of a type may be.
#[derive(Debug)]
pub(crate) struct Schema {
    /// The type itself.
    pub(crate) root: Shape,
    /// The types that it is made of, by their names.
    named: BTreeMap<String, Shape>,
}

/// What one value may be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) form: Form,
    /// Whether it may be null.
    pub(crate) nullable: bool,
    /// What the model's author says of it; may be empty.
    pub(crate) doc: String,
    pub(crate) default: Option<Value>,
    pub(crate) example: Option<Value>,
}

/// The form of a value.
#[derive(Clone, Debug, Default)]
pub(crate) enum Form {
    /// Whatever there is.
    #[default]
    Any,
    Text,
    /// One of these texts.
    Choice(Vec<String>),
    /// A whole number from the one to the other, both included.
    Integer(Option<i64>, Option<u64>),
    Number,
    Boolean,
    List(Box<Shape>),
    Object(Object),
    /// What one of these is.
    OneOf(Vec<Shape>),
    /// What the type of that name is.
    Named(String),
}

/// Fields and their values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Object {
    /// The fields that have a name of their own.
    pub(crate) fields: Vec<Field>,
    /// What the values of all other keys are; without, there are no others.
    pub(crate) others: Option<Box<Shape>>,
}

/// A field of an object.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) shape: Shape,
    /// Whether it has to be said.
    pub(crate) required: bool,
}

/// A step from a value to one within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

impl Schema {
    /// The schema of a type of the model.
    pub(crate) fn of<T: ToSchema>() -> Self {
        let mut named = Vec::new();
        T::schemas(&mut named);
        let json = |schema| serde_json::to_value(schema).unwrap_or_default();
        let named = named.into_iter().map(|(name, schema)| (name, json(schema))).collect();
        Schema::from_json(&json(<T as PartialSchema>::schema()), &named)
    }

    /// What `shape` stands for, if it is a name.
    pub(crate) fn resolve<'s>(&'s self, mut shape: &'s Shape) -> &'s Shape {
        for _ in 0..NESTED_MAX {
            match &shape.form {
                Form::Named(name) => match self.named.get(name) {
                    Some(found) => shape = found,
                    None => break,
                },
                _ => break,
            }
        }
        shape
    }

    /// The fields that a value of `shape` may have; of several forms, those of all.
    pub(crate) fn fields<'s>(&'s self, shape: &'s Shape) -> Vec<&'s Field> {
        match &self.resolve(shape).form {
            Form::Object(object) => object.fields.iter().collect(),
            Form::OneOf(shapes) => {
                let mut fields: Vec<&Field> = Vec::new();
                for field in shapes.iter().flat_map(|shape| self.fields(shape)) {
                    if !fields.iter().any(|known| known.name == field.name) {
                        fields.push(field);
                    }
                }
                fields
            }
            _ => Vec::new(),
        }
    }

    /// What the entries of a list are, or the values of a map.
    pub(crate) fn inner<'s>(&'s self, shape: &'s Shape) -> Option<&'s Shape> {
        match &self.resolve(shape).form {
            Form::List(item) => Some(item),
            Form::Object(object) => object.others.as_deref(),
            Form::OneOf(shapes) => shapes.iter().find_map(|shape| self.inner(shape)),
            _ => None,
        }
    }

    /// What stands at the end of `steps`, and whether it has to be there.
    pub(crate) fn at<'s>(&'s self, steps: &[Step]) -> Option<(&'s Shape, bool)> {
        let mut found = (&self.root, true);
        for step in steps {
            found = match step {
                Step::Key(key) => match self.fields(found.0).into_iter().find(|field| field.name == *key) {
                    Some(field) => (&field.shape, field.required),
                    None => (self.inner(found.0)?, false),
                },
                // Without an entry those behind it would be called wrongly.
                Step::Index(_) => (self.inner(found.0)?, true),
            };
        }
        Some(found)
    }

    /// A value that `shape` allows, to stand where one is at fault or missing while the rest is checked.
    pub(crate) fn stand_in(&self, shape: &Shape) -> Value {
        self.stand_in_within(shape, 0)
    }

    fn stand_in_within(&self, shape: &Shape, depth: usize) -> Value {
        let resolved = self.resolve(shape);
        if let Some(example) = shape.example.as_ref().or(resolved.example.as_ref()) {
            return example.clone();
        }
        if depth > NESTED_MAX {
            return Value::Null;
        }
        match &resolved.form {
            Form::Any | Form::Named(_) => Value::Null,
            Form::Text => json!(""),
            Form::Choice(words) => json!(words.first()),
            Form::Integer(min, max) => {
                let least = min.unwrap_or(1).max(1);
                max.filter(|max| u64::try_from(least).is_ok_and(|least| least > *max))
                    .map_or(json!(least), |max| json!(max))
            }
            Form::Number => json!(1),
            Form::Boolean => json!(false),
            Form::List(_) => json!([]),
            Form::Object(object) => {
                let required = object.fields.iter().filter(|field| field.required);
                let value =
                    |field: &Field| (field.name.clone(), self.stand_in_within(&field.shape, depth + 1));
                Value::Object(required.map(value).collect::<Map<_, _>>())
            }
            Form::OneOf(shapes) => {
                shapes.first().map_or(Value::Null, |shape| self.stand_in_within(shape, depth + 1))
            }
        }
    }

    /// The places at which a field of that name is known, such as `spec.template.containers[]`; of the root it is empty.
    pub(crate) fn homes(&self, name: &str) -> Vec<String> {
        let of_name = self.all_fields().into_iter().filter(|(_, field)| *field == name);
        of_name.map(|(home, _)| home).collect()
    }

    /// Every field that there is, with its home.
    pub(crate) fn all_fields(&self) -> Vec<(String, &str)> {
        let mut found = Vec::new();
        self.collect(&self.root, "", &mut Vec::new(), &mut found);
        found
    }

    fn collect<'s>(
        &'s self,
        shape: &'s Shape,
        path: &str,
        within: &mut Vec<&'s str>,
        found: &mut Vec<(String, &'s str)>,
    ) {
        if let Form::Named(of) = &shape.form {
            // A type that is part of itself has nothing new.
            if !within.contains(&of.as_str()) {
                within.push(of);
                self.collect(self.resolve(shape), path, within, found);
                within.pop();
            }
            return;
        }
        for field in self.fields(shape) {
            found.push((path.to_owned(), &field.name));
            let below = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
            self.collect(&field.shape, &below, within, found);
        }
        if let Some(inner) = self.inner(shape) {
            self.collect(inner, &format!("{path}[]"), within, found);
        }
    }
}

impl Shape {
    /// The first sentence or line of what its author says of it.
    pub(crate) fn summary(&self) -> &str {
        let line = self.doc.lines().next().unwrap_or_default();
        line.split_once(". ").map_or(line, |(first, _)| first).trim_end_matches('.')
    }

    /// [`Shape::summary`] as part of another sentence.
    pub(crate) fn clause(&self) -> String {
        let summary = self.summary();
        let mut letters = summary.chars();
        match (letters.next(), letters.clone().next()) {
            // CPU and the like stay as they are.
            (Some(first), second) if second.is_none_or(|c| !c.is_uppercase()) => {
                first.to_lowercase().chain(letters).collect()
            }
            _ => summary.to_owned(),
        }
    }
}
