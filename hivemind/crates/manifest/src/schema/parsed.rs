//! Reads JSON Schema, as far as derived ones go.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Field, Form, NESTED_MAX, Object, Schema, Shape};

/// Schemas by the names of their types.
type Named = BTreeMap<String, Value>;

impl Schema {
    /// Of the schema of a type and those that it refers to.
    pub(crate) fn from_json(root: &Value, named: &Named) -> Self {
        let parser = Parser { named };
        let all = named.iter().map(|(name, json)| (name.clone(), parser.shape(json, 0))).collect();
        Schema { root: parser.shape(root, 0), named: all }
    }
}

/// What a time looks like (RFC 3339).
const TIME: &str = "2030-01-31T18:00:00Z";

struct Parser<'a> {
    named: &'a Named,
}

impl Parser<'_> {
    fn shape(&self, json: &Value, depth: usize) -> Shape {
        if depth > NESTED_MAX {
            return Shape::default();
        }
        let own = Shape {
            doc: text(json, "description").map(prose).unwrap_or_default(),
            default: json.get("default").cloned(),
            example: json
                .get("example")
                .or_else(|| json.get("examples")?.get(0))
                .cloned()
                .or_else(|| (text(json, "format")? == "date-time").then(|| Value::from(TIME))),
            ..Shape::default()
        };
        if let Some(name) = text(json, "$ref") {
            return Shape { form: Form::Named(type_name(name)), ..own };
        }
        if let Some(items) = list(json, "oneOf").or_else(|| list(json, "anyOf")) {
            return self.one_of(own, items, depth);
        }
        if let Some(items) = list(json, "allOf") {
            let merged = match items {
                [one] => self.shape(one, depth + 1),
                _ => items.iter().map(|item| self.whole(item, depth)).fold(Shape::default(), merge),
            };
            return with(own, merged);
        }
        if let Some(words) = list(json, "enum").or_else(|| json.get("const").map(std::slice::from_ref)) {
            let texts: Option<Vec<String>> =
                words.iter().filter(|word| !word.is_null()).map(|w| w.as_str().map(str::to_owned)).collect();
            let nullable = words.iter().any(Value::is_null) || types(json).contains(&"null");
            return Shape { form: texts.map_or(Form::Any, Form::Choice), nullable, ..own };
        }
        self.of_types(own, json, depth)
    }

    /// By the names of its types.
    fn of_types(&self, own: Shape, json: &Value, depth: usize) -> Shape {
        let types = types(json);
        let nullable = types.contains(&"null");
        let mut forms: Vec<Form> = types
            .into_iter()
            .filter(|name| *name != "null")
            .map(|name| match name {
                "string" => Form::Text,
                "integer" => Form::Integer(bound(json, "minimum"), bound(json, "maximum")),
                "number" => Form::Number,
                "boolean" => Form::Boolean,
                "array" => {
                    let item = json.get("items").map(|items| self.shape(items, depth + 1));
                    Form::List(Box::new(item.unwrap_or_default()))
                }
                "object" => Form::Object(self.object(json, depth)),
                _ => Form::Any,
            })
            .collect();
        let form = match forms.len() {
            0 if json.get("properties").is_some() => Form::Object(self.object(json, depth)),
            0 => Form::Any,
            1 => forms.remove(0),
            _ => Form::OneOf(forms.into_iter().map(|form| Shape { form, ..Shape::default() }).collect()),
        };
        Shape { form, nullable, ..own }
    }

    /// An object. One that says nothing of its fields may have any; one that names some has no others unless it says so.
    fn object(&self, json: &Value, depth: usize) -> Object {
        let required = list(json, "required").unwrap_or_default();
        let properties = json.get("properties").and_then(Value::as_object);
        let field = |(name, property): (&String, &Value)| Field {
            name: name.clone(),
            shape: self.shape(property, depth + 1),
            required: required.iter().any(|required| required == name),
        };
        let others = match json.get("additionalProperties") {
            Some(Value::Bool(false)) => None,
            Some(Value::Bool(true)) => Some(Shape::default()),
            Some(shape) => Some(self.shape(shape, depth + 1)),
            None => properties.is_none().then(Shape::default),
        };
        Object { fields: properties.into_iter().flatten().map(field).collect(), others: others.map(Box::new) }
    }

    fn one_of(&self, own: Shape, items: &[Value], depth: usize) -> Shape {
        let (null, items): (Vec<&Value>, Vec<&Value>) =
            items.iter().partition(|item| types(item) == ["null"]);
        let mut shapes: Vec<Shape> = items.into_iter().map(|item| self.shape(item, depth + 1)).collect();
        let own = Shape { nullable: own.nullable || !null.is_empty(), ..own };
        if shapes.len() == 1 {
            return with(own, shapes.remove(0));
        }
        let words = |shape: &Shape| match &shape.form {
            Form::Choice(words) => Some(words.clone()),
            _ => None,
        };
        // Words of which each has its own documentation are a choice like any other.
        let choice: Option<Vec<Vec<String>>> = shapes.iter().map(words).collect();
        let form = choice.map_or_else(|| Form::OneOf(shapes), |words| Form::Choice(words.concat()));
        Shape { form, ..own }
    }

    /// What `json` is, and not merely its name.
    fn whole(&self, json: &Value, depth: usize) -> Shape {
        let target = text(json, "$ref").and_then(|name| self.named.get(&type_name(name)));
        match target {
            Some(target) if depth <= NESTED_MAX => self.whole(target, depth + 1),
            _ => self.shape(json, depth + 1),
        }
    }
}

/// `inner`, of which `own` says more.
fn with(own: Shape, inner: Shape) -> Shape {
    Shape {
        form: inner.form,
        nullable: own.nullable || inner.nullable,
        doc: if own.doc.is_empty() { inner.doc } else { own.doc },
        default: own.default.or(inner.default),
        example: own.example.or(inner.example),
    }
}

/// What has the fields of both; of several forms, each has those of the other.
fn merge(a: Shape, b: Shape) -> Shape {
    let form = match (a.form, b.form) {
        (Form::Any, form) | (form, Form::Any) => form,
        (Form::OneOf(shapes), form) | (form, Form::OneOf(shapes)) => {
            let other = Shape { form, ..Shape::default() };
            Form::OneOf(shapes.into_iter().map(|shape| merge(shape, other.clone())).collect())
        }
        (Form::Object(mut a), Form::Object(b)) => {
            a.fields.extend(b.fields);
            Form::Object(Object { others: a.others.or(b.others), fields: a.fields })
        }
        (form, _) => form,
    };
    Shape { form, doc: if a.doc.is_empty() { b.doc } else { a.doc }, ..Shape::default() }
}

fn text<'j>(json: &'j Value, key: &str) -> Option<&'j str> {
    json.get(key)?.as_str()
}

fn list<'j>(json: &'j Value, key: &str) -> Option<&'j [Value]> {
    json.get(key)?.as_array().map(Vec::as_slice)
}

/// The names of the types that a value may have.
fn types(json: &Value) -> Vec<&str> {
    match json.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A bound, which may be written with a fraction.
fn bound<T: TryFrom<i128>>(json: &Value, key: &str) -> Option<T> {
    let number = json.get(key)?;
    let whole = number
        .as_i64()
        .map(i128::from)
        .or_else(|| number.as_u64().map(i128::from))
        .or_else(|| number.as_f64().map(|fraction| fraction as i128))?;
    T::try_from(whole).ok()
}

/// `Container` of `#/components/schemas/Container`.
fn type_name(reference: &str) -> String {
    reference.rsplit('/').next().unwrap_or(reference).to_owned()
}

/// Documentation as people read it: paragraphs in a line each, links by their words.
fn prose(doc: &str) -> String {
    let paragraphs =
        doc.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    let mut text = paragraphs.collect::<Vec<_>>().join("\n");
    let mut from = 0;
    while let Some(open) = text[from..].find("[`").map(|at| from + at) {
        let Some(close) = text[open..].find("`]").map(|at| open + at) else { break };
        let rest = &text[close + 2..];
        let target = match rest.strip_prefix('(').and_then(|rest| rest.find(')')) {
            Some(end) => end + 2,
            None => 0,
        };
        let words = text[open + 1..=close].to_owned();
        text.replace_range(open..close + 2 + target, &words);
        from = open + words.len();
    }
    text
}
