//! The files of a reading: their texts, and what paths and variables in them mean.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use hivemind_model::ErrorCode;
use hivemind_yaml::{Fault, Place, Source};

use crate::{environment::Environment, spot::Spot};

/// One of [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileId(pub(crate) u16);

/// A file that was read.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    pub(crate) source: Source,
    /// What relative paths in it begin at.
    pub(crate) directory: PathBuf,
    /// What its variables stand for.
    pub(crate) environment: Arc<Environment>,
}

/// All files that a project was read from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<SourceFile>,
}

/// Where what concerns a whole file is told.
pub(crate) const TOP: Place = Place { line: 1, column: 1, width: 1 };

impl Sources {
    /// `compose.yaml:7:5`, where a value begins.
    pub fn position(&self, spot: &Spot) -> String {
        format!("{}:{}:{}", self.name(spot.file), spot.place.line, spot.place.column)
    }

    /// A fault of the value at `spot`, with the line that it stands in.
    pub fn fault(&self, spot: &Spot, code: ErrorCode, message: String, hint: impl Into<String>) -> Fault {
        self.fault_at(spot.file, spot.place, code, &spot.path, message, hint)
    }

    pub(crate) fn fault_at(
        &self,
        file: FileId,
        place: Place,
        code: ErrorCode,
        field: &str,
        message: String,
        hint: impl Into<String>,
    ) -> Fault {
        match self.files.get(usize::from(file.0)) {
            Some(file) => file.source.fault(place, code, field, message, hint),
            None => Source::new("", Vec::new()).fault(place, code, field, message, hint),
        }
    }

    pub(crate) fn add(&mut self, file: SourceFile) -> FileId {
        let id = FileId(u16::try_from(self.files.len()).unwrap_or(u16::MAX));
        self.files.push(file);
        id
    }

    pub(crate) fn get(&self, file: FileId) -> Option<&SourceFile> {
        self.files.get(usize::from(file.0))
    }

    pub(crate) fn set_environment(&mut self, file: FileId, environment: Arc<Environment>) {
        if let Some(file) = self.files.get_mut(usize::from(file.0)) {
            file.environment = environment;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    pub(crate) fn name(&self, file: FileId) -> &str {
        self.get(file).map_or("", |file| file.source.name())
    }

    /// The place in the order of reading of the file that is called `name`.
    pub(crate) fn order(&self, name: &str) -> usize {
        self.files.iter().position(|file| file.source.name() == name).unwrap_or(usize::MAX)
    }

    /// Where the dollar sign at byte `offset` of `text` stands, a scalar that begins at `place`: the text has neither the quotes
    /// and escapes nor the lines that the file has, but dollar signs are the same in both.
    pub(crate) fn dollar(&self, file: FileId, place: Place, text: &str, offset: usize) -> Place {
        let before = text.get(..offset).unwrap_or_default().matches('$').count();
        let whole = self.get(file).and_then(|file| file.source.text().ok()).unwrap_or_default();
        let mut left = before;
        for (index, line) in whole.split('\n').enumerate().skip(place.line.saturating_sub(1)) {
            let skipped = if index + 1 == place.line { place.column.saturating_sub(1) } else { 0 };
            for (at, c) in line.chars().enumerate().skip(skipped) {
                match (c, left) {
                    ('$', 0) => return Place { line: index + 1, column: at + 1, width: 1 },
                    ('$', _) => left -= 1,
                    _ => {}
                }
            }
        }
        place
    }

    /// The path that `text`, which stands in `file`, means.
    pub(crate) fn resolve(&self, file: FileId, text: &str) -> PathBuf {
        match self.get(file) {
            Some(file) => absolute(&file.directory, &file.environment, text),
            None => PathBuf::from(text),
        }
    }
}

fn absolute(directory: &Path, environment: &Environment, text: &str) -> PathBuf {
    match (text.strip_prefix('~'), environment.get("HOME")) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            join(Path::new(home), rest.trim_start_matches('/'))
        }
        _ => join(directory, text),
    }
}

/// `path` as seen from `directory`, without `.` and `..`. It asks nobody, so links in between are not followed.
pub(crate) fn join(directory: &Path, path: impl AsRef<Path>) -> PathBuf {
    use std::path::Component;
    let mut joined = PathBuf::new();
    for component in directory.join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(joined.pop()),
            other => joined.push(other),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_seen_from_the_directory_of_their_file() {
        for (path, whole) in [
            ("a", "/p/a"),
            ("./a/../b", "/p/b"),
            ("../a", "/a"),
            ("/x/./y", "/x/y"),
            ("../../..", "/"),
            (".", "/p"),
        ] {
            assert_eq!(join(Path::new("/p"), path), Path::new(whole), "{path}");
        }
        let environment = Environment::of([("HOME".to_owned(), "/home/me".to_owned())].into());
        assert_eq!(absolute(Path::new("/p"), &environment, "~/a"), Path::new("/home/me/a"));
        assert_eq!(absolute(Path::new("/p"), &environment, "~a"), Path::new("/p/~a"));
    }
}
