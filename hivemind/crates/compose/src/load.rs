//! From files to one tree: each is read, its variables are filled in, what its services extend and what it includes is brought in,
//! and then they are merged in their order.

mod extends;
mod include;
mod open;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use hivemind_yaml::Node;

use crate::{
    environment::Environment,
    merge::merge_files,
    reader::{At, Reader},
    source::FileId,
    tree::{Filling, Tree},
};

/// What is the same for files that are merged with each other.
#[derive(Clone)]
pub(crate) struct Scope {
    /// What relative paths begin at.
    pub(crate) directory: PathBuf,
    pub(crate) environment: Arc<Environment>,
    /// The files that lead to these by including each other, the first one first, and these.
    pub(crate) chain: Vec<PathBuf>,
}

/// A file that was read, and its documents.
pub(crate) struct Opened {
    pub(crate) file: FileId,
    pub(crate) documents: Vec<Arc<Node>>,
}

/// Reads `paths`, which are named at `from` if they are named in a file.
pub(crate) fn open_all(
    reader: &mut Reader<'_>,
    paths: &[PathBuf],
    scope: &Scope,
    from: Option<&At<'_>>,
) -> Vec<Opened> {
    let open = |path: &PathBuf| open_one(reader, path, scope, from);
    paths.iter().filter_map(open).collect()
}

fn open_one(reader: &mut Reader<'_>, path: &Path, scope: &Scope, from: Option<&At<'_>>) -> Option<Opened> {
    let file = reader.open(path, &scope.directory, &scope.environment, from)?;
    Some(Opened { file, documents: reader.documents(file) })
}

/// What `opened` make together.
pub(crate) fn merged(reader: &mut Reader<'_>, opened: &[Opened], scope: &Scope) -> Option<Arc<Tree>> {
    let mut merged: Option<Arc<Tree>> = None;
    for Opened { file, documents } in opened {
        for document in documents {
            let tree = Filling::new(*file, scope.environment.clone()).tree(document, reader);
            if !reader.is_map(&At::top(&tree)) {
                continue;
            }
            let tree = extends::resolved(reader, tree, merged.as_ref(), scope);
            let tree = include::resolved(reader, tree, scope);
            merged = Some(match merged {
                Some(before) => merge_files(&before, &tree),
                None => tree,
            });
        }
    }
    merged
}
