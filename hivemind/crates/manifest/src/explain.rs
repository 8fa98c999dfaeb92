//! Says what can be written at a place in a manifest, in the words of the model's own documentation.

mod defaults;

use hivemind_model::{ErrorCode, Problem};
use hivemind_yaml::nearest;
use serde::Serialize;

use crate::{
    fields,
    kind::Kind,
    schema::{Field, Form, Schema, Shape, Step},
};
use defaults::Defaults;

/// How deep the tree of fields is told.
const DEPTH_MAX: usize = 16;

/// What can be written at a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The kind of the document.
    pub kind: &'static str,
    /// The newest version of its kind.
    pub api_version: &'static str,
    /// The whole path, such as `app.spec.template`.
    pub path: String,
    /// What stands there; its own `fields` are what can be written below it.
    #[serde(flatten)]
    pub field: ExplainedField,
}

/// A field, as people read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedField {
    /// The last word of its path.
    pub name: String,
    /// What it is: `text`, `list of Container`, …
    #[serde(rename = "type")]
    pub type_name: String,
    /// Whether it has to be said.
    pub required: bool,
    /// Whether the server writes it, whatever is said.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// What it is where nothing is said, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// How it may be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example: Option<String>,
    /// The words that it may be, if it is one of a few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// What it means; a line for each paragraph.
    pub doc: String,
    /// What can be written below it: all of it, or only the next level.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<ExplainedField>,
}

/// What can be written at `path`, such as `app.spec.template.containers` or, without `spec`, `app.template.containers`; with
/// `recursive`, the whole tree below it.
///
/// # Errors
/// There is no such kind or field: with the nearest one.
pub fn explain(path: &str, recursive: bool) -> Result<Explanation, Problem> {
    let clean: String = path.chars().filter(|c| !c.is_whitespace()).collect();
    let mut words = clean.split('.').map(|word| word.split('[').next().unwrap_or_default());
    let kind = kind(words.next().unwrap_or_default())?;
    let explainer = Explainer { kind, schema: kind.schema() };
    let mut at = At { steps: Vec::new(), path: kind.word(), shape: &explainer.schema.root, required: true };
    for word in words.filter(|word| !word.is_empty()) {
        at = explainer.step(at, word)?;
    }
    let depth = if recursive { DEPTH_MAX } else { 1 };
    let name = at.path.rsplit('.').next().unwrap_or_default().to_owned();
    let defaults = Defaults::of(kind, &explainer.schema, at.steps.split_last().map_or(&[], |(_, rest)| rest));
    let mut field = explainer.field(&name, &at, &defaults, depth);
    if at.steps.is_empty() {
        field.type_name = kind.name().to_owned();
    } else if let Some(doc) = explainer.type_doc(at.shape).filter(|doc| *doc != field.doc) {
        // What the field is for is one thing, what can be said in it another.
        field.doc = format!("{}\n{doc}", field.doc);
    }
    let path = at.path;
    Ok(Explanation { kind: kind.name(), api_version: kind.api_version(), path, field })
}

/// The kind that is called `word`, in the singular or plural.
fn kind(word: &str) -> Result<Kind, Problem> {
    let lower = word.to_lowercase();
    let singular = match lower.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None => lower.strip_suffix('s').unwrap_or(&lower).to_owned(),
    };
    if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.word() == singular) {
        return Ok(kind);
    }
    let known = Kind::ALL.map(Kind::word);
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let hint = match nearest(&singular, &known) {
        Some(name) => format!("did you mean {name}?"),
        None => format!("begin with one of {}", known.join(", ")),
    };
    Err(unknown(word, format!("there is no kind {word:?}"), hint))
}

fn unknown(path: &str, message: String, hint: String) -> Problem {
    Problem { code: ErrorCode::UnknownField, field: path.to_owned(), message, hint }
}

/// A place in the schema.
struct At<'s> {
    steps: Vec<Step>,
    path: String,
    shape: &'s Shape,
    required: bool,
}

impl<'s> At<'s> {
    fn below(&self, through: usize, field: &'s Field) -> At<'s> {
        let mut steps = self.steps.clone();
        steps.extend((0..through).map(|_| Step::Index(0)));
        steps.push(Step::Key(field.name.clone()));
        let path = format!("{}.{}", self.path, field.name);
        At { steps, path, shape: &field.shape, required: field.required }
    }

    /// Whether what stands there is the server's to write.
    fn is_read_only(&self) -> bool {
        match self.steps.as_slice() {
            [Step::Key(first), ..] if first == "status" => true,
            [Step::Key(first), Step::Key(second), ..] if first == "metadata" => {
                !fields::METADATA_SAID.contains(&second.as_str())
            }
            _ => false,
        }
    }
}

struct Explainer {
    kind: Kind,
    schema: Schema,
}

impl Explainer {
    /// The field `word` of what stands at `at`, or, at the top, of its spec.
    fn step<'s>(&'s self, at: At<'s>, word: &str) -> Result<At<'s>, Problem> {
        let (through, fields) = self.fields(at.shape);
        if let Some(field) = fields.iter().find(|field| field.name == word) {
            return Ok(at.below(through, field));
        }
        if at.steps.is_empty()
            && let Some(spec) = fields.iter().find(|field| field.name == "spec")
            && let (0, fields) = self.fields(&spec.shape)
            && let Some(field) = fields.iter().find(|field| field.name == word)
        {
            return Ok(at.below(0, spec).below(0, field));
        }
        let known: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        let hint = match (nearest(word, &known), self.elsewhere(word)) {
            (Some(name), _) => format!("did you mean {}.{name}?", at.path),
            (None, Some(path)) => format!("did you mean {path}?"),
            (None, None) if known.is_empty() => format!("no field can be named below {}", at.path),
            (None, None) => format!("the fields there are {}", known.join(", ")),
        };
        let path = format!("{}.{word}", at.path);
        Err(unknown(&path, format!("there is no field {path}"), hint))
    }

    /// The path of the field anywhere in the document that is called `word`, or nearly so.
    fn elsewhere(&self, word: &str) -> Option<String> {
        let all = self.schema.all_fields();
        let names: Vec<&str> = all.iter().map(|(_, name)| *name).collect();
        let name = nearest(word, &names)?;
        let (home, _) = all.iter().find(|(_, field)| *field == name)?;
        let home = home.replace("[]", "");
        let parts = [self.kind.word(), home, name.to_owned()];
        Some(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("."))
    }

    /// What is said of the type that stands in `shape`, be it in a list.
    fn type_doc<'s>(&'s self, shape: &'s Shape) -> Option<&'s str> {
        let shape = match &self.schema.resolve(shape).form {
            Form::List(item) => item,
            _ => shape,
        };
        let is_type =
            matches!((&shape.form, &self.schema.resolve(shape).form), (Form::Named(_), Form::Object(_)));
        let doc = self.schema.resolve(shape).doc.as_str();
        (is_type && !doc.is_empty()).then_some(doc)
    }

    /// The fields of what stands in `shape`, and through how many lists or maps the way to them leads.
    fn fields<'s>(&'s self, mut shape: &'s Shape) -> (usize, Vec<&'s Field>) {
        for through in 0..DEPTH_MAX {
            let fields = self.schema.fields(shape);
            match self.schema.inner(shape) {
                Some(inner) if fields.is_empty() => shape = inner,
                _ => return (through, fields),
            }
        }
        (0, Vec::new())
    }

    /// What stands at `at`, with `depth` levels of fields below it; `defaults` are those beside it.
    fn field(&self, name: &str, at: &At<'_>, defaults: &Defaults, depth: usize) -> ExplainedField {
        let resolved = self.schema.resolve(at.shape);
        let shown = |value: &serde_json::Value| match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let default = at.shape.default.as_ref().map(shown).or_else(|| defaults.get(name));
        let choices = match &resolved.form {
            Form::Choice(words) => words.clone(),
            _ => Vec::new(),
        };
        ExplainedField {
            name: name.to_owned(),
            type_name: self.type_name(at.shape),
            required: at.required,
            read_only: at.is_read_only(),
            default: default.filter(|_| !at.required && !at.is_read_only()),
            example: at.shape.example.as_ref().or(resolved.example.as_ref()).map(shown),
            choices,
            doc: if at.shape.doc.is_empty() { &resolved.doc } else { &at.shape.doc }.clone(),
            fields: if depth == 0 { Vec::new() } else { self.below(at, depth) },
        }
    }

    /// The fields below `at`: those that have to be said first.
    fn below(&self, at: &At<'_>, depth: usize) -> Vec<ExplainedField> {
        let (through, mut fields) = self.fields(at.shape);
        fields.sort_by_key(|field| !field.required);
        let mut steps = at.steps.clone();
        steps.extend((0..through).map(|_| Step::Index(0)));
        let defaults = Defaults::of(self.kind, &self.schema, &steps);
        let mut told = if at.steps.is_empty() { self.head() } else { Vec::new() };
        for field in fields {
            let below = at.below(through, field);
            // What the server writes is told by its name, and not to its last field.
            let depth = if below.is_read_only() { 0 } else { depth - 1 };
            told.push(self.field(&field.name, &below, &defaults, depth));
        }
        told
    }

    /// What every document begins with.
    fn head(&self) -> Vec<ExplainedField> {
        let field = |name: &str, words: &[&str], doc: &str| ExplainedField {
            name: name.to_owned(),
            type_name: words.join(" | "),
            required: true,
            choices: words.iter().map(|&word| word.to_owned()).collect(),
            doc: doc.to_owned(),
            ..ExplainedField::default()
        };
        vec![
            field("apiVersion", self.kind.api_versions(), "The version of its kind."),
            field("kind", &[self.kind.name()], "What the document is."),
        ]
    }

    fn type_name(&self, shape: &Shape) -> String {
        let resolved = self.schema.resolve(shape);
        match (&shape.form, &resolved.form) {
            (Form::Named(name), Form::Object(_)) => name.clone(),
            (_, Form::Any | Form::Named(_)) => "anything".to_owned(),
            (_, Form::Text) => "text".to_owned(),
            (_, Form::Choice(words)) => words.join(" | "),
            (_, Form::Integer(..)) => "whole number".to_owned(),
            (_, Form::Number) => "number".to_owned(),
            (_, Form::Boolean) => "boolean".to_owned(),
            (_, Form::List(item)) => format!("list of {}", self.type_name(item)),
            (_, Form::Object(object)) => match &object.others {
                Some(others) if object.fields.is_empty() => format!("map of {}", self.type_name(others)),
                _ => "fields".to_owned(),
            },
            (_, Form::OneOf(shapes)) => {
                let names: Vec<String> = shapes.iter().map(|shape| self.type_name(shape)).collect();
                names.join(" or ")
            }
        }
    }
}
