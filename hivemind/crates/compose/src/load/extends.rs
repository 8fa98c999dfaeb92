//! Services that extend others, of the same file or of another one.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use hivemind_model::ErrorCode;
use hivemind_yaml::nearest;

use crate::{
    limits::{EXTENDS_DEPTH_MAX, MERGED_BYTES_MAX},
    load::Scope,
    merge::{merge_files, merge_services},
    reader::{At, Reader, shown},
    tree::{Filling, Pair, Tree, Value},
};

/// The fields of `extends`.
const FIELDS: &[&str] = &["service", "file"];

/// `tree` with the services that its services extend merged into them. `before` is what the files before made.
pub(super) fn resolved(
    reader: &mut Reader<'_>,
    tree: Arc<Tree>,
    before: Option<&Arc<Tree>>,
    scope: &Scope,
) -> Arc<Tree> {
    let Some(services) = tree.get("services").cloned() else { return tree };
    if !services.pairs().iter().any(|pair| pair.value.get("extends").is_some()) {
        return tree;
    }
    let trees = [Some(tree.clone()), before.cloned()].into_iter().flatten().collect();
    let mut resolution = Resolution {
        reader,
        scope,
        trees,
        has_before: before.is_some(),
        files: HashMap::new(),
        done: HashMap::new(),
        weight: 0,
    };
    let mut pairs = Vec::new();
    for pair in services.pairs() {
        let mut chain = vec![(HERE, pair.key.clone())];
        let value = resolution.service(HERE, &pair.key, &mut chain);
        if value.is_none() {
            resolution.reader.spoilt.insert(format!("services.{}", pair.key));
        }
        pairs.push(Pair { value: value.unwrap_or_else(|| without_extends(&pair.value)), ..pair.clone() });
    }
    let services = services.with(Value::Map(pairs));
    let replaced = |pair: &Pair| match pair.key.as_str() {
        "services" => Pair { value: services.clone(), ..pair.clone() },
        _ => pair.clone(),
    };
    tree.with(Value::Map(tree.pairs().iter().map(replaced).collect()))
}

/// The file itself among the trees; the one behind it is what the files before made, if there are any.
const HERE: usize = 0;

struct Resolution<'r, 'a> {
    reader: &'r mut Reader<'a>,
    scope: &'r Scope,
    trees: Vec<Arc<Tree>>,
    has_before: bool,
    /// Other files and where they are among the trees; none if they could not be read.
    files: HashMap<PathBuf, Option<usize>>,
    done: HashMap<(usize, String), Option<Arc<Tree>>>,
    /// Bytes that merged services stand for so far.
    weight: usize,
}

impl Resolution<'_, '_> {
    /// A service with all that it extends; none if something is wrong with that.
    fn service(&mut self, tree: usize, name: &str, chain: &mut Vec<(usize, String)>) -> Option<Arc<Tree>> {
        if let Some(done) = self.done.get(&(tree, name.to_owned())) {
            return done.clone();
        }
        let own = self.find(tree, name)?;
        let merged = match own.get("extends").filter(|extends| !extends.is_null()) {
            Some(extends) => self.extended(tree, name, &own, extends, chain),
            None => Some(without_extends(&own)),
        };
        self.done.insert((tree, name.to_owned()), merged.clone());
        merged
    }

    fn extended(
        &mut self,
        tree: usize,
        name: &str,
        own: &Arc<Tree>,
        extends: &Arc<Tree>,
        chain: &mut Vec<(usize, String)>,
    ) -> Option<Arc<Tree>> {
        let at = At { node: extends, path: format!("services.{name}.extends"), key: None };
        let (target, base) = self.target(tree, &at)?;
        let link = (target, base);
        if chain.contains(&link) {
            let told = self.told(chain.iter().chain([&link]));
            let message = format!("services that extend each other: {told}");
            self.reader.fault(&at, ErrorCode::OutOfRange, message, "leave one of them out");
            return None;
        }
        if chain.len() > EXTENDS_DEPTH_MAX {
            let message = format!("more than {EXTENDS_DEPTH_MAX} services that extend each other");
            self.reader.fault(&at, ErrorCode::OutOfRange, message, "extend one that has what is wanted");
            return None;
        }
        chain.push(link.clone());
        let base = self.service(link.0, &link.1, chain);
        chain.pop();
        let base = base?;
        self.weight = self.weight.saturating_add(base.weight);
        if self.weight > MERGED_BYTES_MAX {
            let message = "services that come to too much with what they extend".to_owned();
            self.reader.fault(&at, ErrorCode::OutOfRange, message, "extend smaller services");
            return None;
        }
        Some(merge_services(&base, &without_extends(own)))
    }

    /// The tree and the name of the service that is extended.
    fn target(&mut self, tree: usize, at: &At<'_>) -> Option<(usize, String)> {
        let (service, file) = match &at.node.value {
            Value::Scalar { .. } => (at.clone(), None),
            _ => {
                if !self.reader.map(at, FIELDS, &[]) {
                    return None;
                }
                let hint = "name the service that it extends";
                (self.reader.required(at, "service", hint)?, at.get("file"))
            }
        };
        let name = self.reader.text(&service)?;
        let in_file = match &file {
            Some(file) => self.open(file)?,
            None => tree,
        };
        let found = match self.find(in_file, &name) {
            Some(_) => Some(in_file),
            None if in_file == HERE && self.has_before => self.find(HERE + 1, &name).map(|_| HERE + 1),
            None => None,
        };
        if found.is_none() && self.reader.is_full() {
            self.reader.faults.more += 1;
        } else if found.is_none() {
            let known: Vec<String> = self.names(in_file);
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let message = format!("there is no service {} to extend", shown(&name));
            let hint = match nearest(&name, &known) {
                Some(name) => format!("did you mean {name:?}?"),
                None => "name a service of this file, or give the file that has it".to_owned(),
            };
            self.reader.fault(&service, ErrorCode::OutOfRange, message, hint);
        }
        Some((found?, name))
    }

    fn find(&self, tree: usize, name: &str) -> Option<Arc<Tree>> {
        self.trees.get(tree)?.get("services")?.get(name).cloned()
    }

    fn names(&self, tree: usize) -> Vec<String> {
        let services = self.trees.get(tree).and_then(|tree| tree.get("services"));
        services.map(|s| s.pairs().iter().map(|pair| pair.key.clone()).collect()).unwrap_or_default()
    }

    /// Reads the file that `at` names.
    fn open(&mut self, at: &At<'_>) -> Option<usize> {
        let text = self.reader.text(at)?;
        let path = self.reader.sources.resolve(at.node.file, &text);
        if let Some(known) = self.files.get(&path) {
            return *known;
        }
        let opened = self.read(&path, at);
        let index = opened.map(|tree| {
            self.trees.push(tree);
            self.trees.len() - 1
        });
        self.files.insert(path, index);
        index
    }

    fn read(&mut self, path: &Path, at: &At<'_>) -> Option<Arc<Tree>> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let environment = &self.scope.environment;
        let file = self.reader.open(path, directory, environment, Some(at))?;
        let mut merged: Option<Arc<Tree>> = None;
        for document in self.reader.documents(file) {
            let tree = Filling::new(file, environment.clone()).tree(&document, self.reader);
            merged = Some(merged.map_or(tree.clone(), |before| merge_files(&before, &tree)));
        }
        Some(merged.unwrap_or_else(|| Tree::empty_map(file)))
    }

    /// `web → base (common.yaml)`
    fn told<'c>(&self, chain: impl Iterator<Item = &'c (usize, String)>) -> String {
        let told = |(tree, name): &(usize, String)| match (tree, self.trees.get(*tree)) {
            (&HERE, _) | (_, None) => name.clone(),
            (_, Some(tree)) => format!("{name} ({})", self.reader.sources.name(tree.file)),
        };
        chain.map(told).collect::<Vec<_>>().join(" → ")
    }
}

fn without_extends(service: &Arc<Tree>) -> Arc<Tree> {
    match &service.value {
        Value::Map(pairs) if service.get("extends").is_some() => {
            let others = pairs.iter().filter(|pair| pair.key != "extends");
            service.with(Value::Map(others.cloned().collect()))
        }
        _ => service.clone(),
    }
}
