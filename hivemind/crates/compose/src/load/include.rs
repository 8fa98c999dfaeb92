//! Other projects that a file includes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use hivemind_model::ErrorCode;

use crate::{
    limits::INCLUDE_DEPTH_MAX,
    load::{Scope, merged, open_all},
    merge::settled,
    reader::{At, Reader},
    source::join,
    tree::{Pair, Tree, Value},
};

/// The fields of an entry of `include`.
const FIELDS: &[&str] = &["path", "project_directory", "env_file"];

/// What is taken over from a project that is included.
const SECTIONS: [&str; 5] = ["services", "networks", "volumes", "configs", "secrets"];

/// `tree` with what it includes.
pub(super) fn resolved(reader: &mut Reader<'_>, tree: Arc<Tree>, scope: &Scope) -> Arc<Tree> {
    let node = tree.clone();
    let Some(include) = At::top(&node).get("include") else { return tree };
    let mut whole = tree;
    for entry in reader.list(&include) {
        if let Some(included) = included(reader, &entry, scope) {
            whole = imported(reader, &whole, &settled(&included));
        }
    }
    let others = whole.pairs().iter().filter(|pair| pair.key != "include");
    whole.with(Value::Map(others.cloned().collect()))
}

/// The project that an entry names.
fn included(reader: &mut Reader<'_>, entry: &At<'_>, scope: &Scope) -> Option<Arc<Tree>> {
    let is_short = entry.node.scalar().is_some();
    if !is_short && !reader.map(entry, FIELDS, &[]) {
        return None;
    }
    let path = match is_short {
        true => entry.clone(),
        false => reader.required(entry, "path", "name the file to include")?,
    };
    let paths = paths(reader, &path)?;
    let first = paths.first()?;
    if let Some(known) = paths.iter().find(|path| scope.chain.contains(path)) {
        let chain: Vec<String> = scope.chain.iter().chain([known]).map(|path| reader.display(path)).collect();
        let message = format!("files that include each other: {}", chain.join(" → "));
        reader.fault(&path, ErrorCode::OutOfRange, message, "leave one of them out");
        return None;
    }
    if scope.chain.len() > INCLUDE_DEPTH_MAX {
        let message = format!("files include each other more than {INCLUDE_DEPTH_MAX} deep");
        reader.fault(&path, ErrorCode::OutOfRange, message, "include the last of them here");
        return None;
    }
    let directory = match entry.get("project_directory") {
        Some(at) => {
            let text = reader.text(&at)?;
            reader.sources.resolve(at.node.file, &text)
        }
        None => first.parent().unwrap_or(Path::new("/")).to_owned(),
    };
    let environment = match entry.get("env_file") {
        Some(at) => {
            let files = self::paths(reader, &at)?;
            reader.with_files(&scope.environment, &files, Some(&at))
        }
        None => {
            let file = join(&directory, ".env");
            let files: Vec<PathBuf> = reader.files.exists(&file).then_some(file).into_iter().collect();
            reader.with_files(&scope.environment, &files, Some(entry))
        }
    };
    let chain = [scope.chain.as_slice(), &paths].concat();
    let scope = Scope { directory, environment, chain };
    let opened = open_all(reader, &paths, &scope, Some(&path));
    merged(reader, &opened, &scope)
}

/// A path or a list of such.
fn paths(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Vec<PathBuf>> {
    let entries = match at.node.scalar() {
        Some(_) => vec![at.clone()],
        None => reader.list(at),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let text = reader.text(&entry)?;
        paths.push(reader.sources.resolve(entry.node.file, &text));
    }
    Some(paths)
}

/// `tree` and what `included` has besides.
fn imported(reader: &mut Reader<'_>, tree: &Arc<Tree>, included: &Arc<Tree>) -> Arc<Tree> {
    let mut whole = tree.pairs().to_vec();
    for section in SECTIONS {
        let Some(theirs) = included.get(section).filter(|theirs| !theirs.pairs().is_empty()) else {
            continue;
        };
        let index = whole.iter().position(|pair| pair.key == section);
        let own = index.and_then(|index| whole.get(index)).map(|pair| pair.value.clone());
        let mut pairs = own.as_ref().map(|own| own.pairs().to_vec()).unwrap_or_default();
        let known: std::collections::HashMap<String, Pair> =
            pairs.iter().map(|pair| (pair.key.clone(), pair.clone())).collect();
        for pair in theirs.pairs() {
            match known.get(&pair.key) {
                None => pairs.push(pair.clone()),
                Some(own) if own.value.says_as(&pair.value) => {}
                Some(own) => conflict(reader, section, own, pair),
            }
        }
        let value = own.unwrap_or_else(|| theirs.clone()).with(Value::Map(pairs));
        match index.and_then(|index| whole.get_mut(index)) {
            Some(pair) => pair.value = value,
            None => whole.push(Pair { key: section.to_owned(), place: theirs.place, value }),
        }
    }
    tree.with(Value::Map(whole))
}

fn conflict(reader: &mut Reader<'_>, section: &str, own: &Pair, theirs: &Pair) {
    let there = format!("{}:{}", reader.sources.name(theirs.value.file), theirs.place.line);
    let path = format!("{section}.{}", own.key);
    let message = format!("{path} is another one than that of {there}, which is included");
    let hint = "give one of them another name, or change it in an override file";
    reader.fault_in(own.value.file, own.place, &path, ErrorCode::Repeated, message, hint);
}
