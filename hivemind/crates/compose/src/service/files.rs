//! Files of variables and labels that services name.

use std::{collections::HashSet, sync::Arc};

use hivemind_model::ErrorCode;

use crate::{
    dotenv::{self, Format},
    environment,
    reader::{At, Reader, shown},
    spot::{Located, Spot},
    tree::Value,
    value::{KeyValues, Scalar, Variables},
};

/// The fields of an entry of `env_file`.
const FIELDS: &[&str] = &["path", "required", "format"];

/// Adds the variables of the files that `env_file` names, below those of `environment`. A later file wins; what `environment`
/// names and nobody gives a value is left out, whatever the files say.
pub(super) fn variables(reader: &mut Reader<'_>, at: &At<'_>, environment: &mut Variables) {
    let below = at.below("environment");
    let said = names(at, "environment");
    let read = read(reader, at, "env_file", &below);
    for (name, variable) in read.into_iter().rev().filter(|(name, _)| !said.contains(name.as_str())) {
        environment.0.entry(name).or_insert(variable);
    }
}

/// The names that a field has, in either of its forms.
fn names<'t>(at: &At<'t>, key: &str) -> HashSet<&'t str> {
    let Some(field) = at.get(key) else { return HashSet::new() };
    match &field.node.value {
        Value::List(items) => {
            let texts = items.iter().filter_map(|item| item.scalar());
            texts.map(|text| text.split_once('=').map_or(text, |(name, _)| name)).collect()
        }
        _ => field.node.pairs().iter().map(|pair| pair.key.as_str()).collect(),
    }
}

/// Adds the labels of the files that `label_file` names, below those of `labels`.
pub(super) fn labels(reader: &mut Reader<'_>, at: &At<'_>, labels: &mut KeyValues) {
    let below = at.below("labels");
    let read = read(reader, at, "label_file", &below);
    for (name, label) in read.into_iter().rev() {
        labels.0.entry(name).or_insert(label);
    }
}

/// The variables of all files of a field, in their order.
fn read(reader: &mut Reader<'_>, at: &At<'_>, key: &str, below: &str) -> Vec<(String, Located<Scalar>)> {
    let Some(field) = at.get(key) else { return Vec::new() };
    let entries = match field.node.value {
        Value::Scalar { .. } => vec![field.clone()],
        _ => reader.list(&field),
    };
    let mut known: Vec<(String, Located<Scalar>)> = Vec::new();
    for entry in entries {
        let Some((path, format)) = entry_of(reader, &entry, key) else { continue };
        // Values may name variables of the files before, and then those of the project.
        let so_far: environment::Variables =
            known.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
        let outer = Arc::new(reader.environment(entry.node.file).below(so_far));
        let Some((file, variables)) = reader.variables(&path, &outer, format, Some(&entry)) else { continue };
        for dotenv::Variable { name, value, place } in variables {
            let Some(value) = value.or_else(|| outer.get(&name).map(str::to_owned)) else { continue };
            let path = Arc::from(format!("{below}.{name}"));
            let spot = Spot { file, place, key: None, path };
            known.push((name, Located { value: Scalar(value), spot }));
        }
    }
    known
}

/// The path of a file and how it is written; none if it is not there and need not be.
fn entry_of(reader: &mut Reader<'_>, at: &At<'_>, key: &str) -> Option<(std::path::PathBuf, Format)> {
    if at.node.scalar().is_some() || key == "label_file" {
        let text = reader.text(at)?;
        return Some((reader.sources.resolve(at.node.file, &text), Format::Compose));
    }
    if !reader.map(at, FIELDS, &[]) {
        return None;
    }
    let path = reader.required(at, "path", "say which file: path: ./web.env")?;
    let text = reader.text(&path)?;
    let path = reader.sources.resolve(path.node.file, &text);
    let is_required = at.get("required").is_none_or(|at| reader.boolean(&at).unwrap_or(true));
    let format = match at.get("format") {
        None => Format::Compose,
        Some(at) => {
            let text = reader.text(&at)?;
            if text != "raw" {
                let message = format!("{} is not a format", shown(&text));
                reader.fault(&at, ErrorCode::OutOfRange, message, "write raw, or leave it out");
                return None;
            }
            Format::Raw
        }
    };
    (is_required || reader.files.exists(&path)).then_some((path, format))
}
