//! Reads files, within bounds, and tells those that cannot be read.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use hivemind_model::ErrorCode;
use hivemind_yaml::{Node, Options, Source, documents_with};

use crate::{
    dotenv::{self, Format},
    environment::{Environment, Variables},
    limits::{
        DOCUMENTS_MAX, FILE_BYTES_MAX, FILES_MAX, INTERPOLATED_BYTES_MAX, TOTAL_BYTES_MAX,
        VARIABLE_READINGS_MAX,
    },
    reader::{At, Reader},
    source::{FileId, SourceFile, TOP},
    tree::{OVERRIDE, RESET},
};

/// What Compose files have beside the core schema of YAML.
const YAML: Options = Options { tags: &[RESET, OVERRIDE], merge_keys: true };

impl Reader<'_> {
    /// Reads a file that is named at `from`, or by whoever asks.
    pub(crate) fn open(
        &mut self,
        path: &Path,
        directory: &Path,
        environment: &Arc<Environment>,
        from: Option<&At<'_>>,
    ) -> Option<FileId> {
        let wrong = match self.files.read(path, FILE_BYTES_MAX) {
            Ok(_) if self.sources.len() >= FILES_MAX => {
                Err((ErrorCode::OutOfRange, format!("more than {FILES_MAX} files")))
            }
            Ok(bytes) if bytes.len() > FILE_BYTES_MAX => {
                Err((ErrorCode::OutOfRange, format!("more than {} MiB", FILE_BYTES_MAX >> 20)))
            }
            Ok(bytes) if self.bytes + bytes.len() > TOTAL_BYTES_MAX => Err((
                ErrorCode::OutOfRange,
                format!("more than {} MiB, all files together", TOTAL_BYTES_MAX >> 20),
            )),
            Ok(bytes) => Ok(bytes),
            Err(error) => Err((ErrorCode::Malformed, error.to_string())),
        };
        let name = self.display(path);
        match wrong {
            Ok(bytes) => {
                self.bytes += bytes.len();
                let source = Source::new(&name, bytes);
                let (directory, environment) = (directory.to_owned(), environment.clone());
                Some(self.sources.add(SourceFile { source, directory, environment }))
            }
            Err((code, message)) => {
                let hint = "check its path and who may read it";
                match from {
                    Some(at) => self.fault(at, code, format!("{name}: {message}"), hint),
                    None => {
                        let source = Source::new(&name, Vec::new());
                        self.faults.add(|| source.fault(TOP, code, "", message, hint));
                    }
                }
                None
            }
        }
    }

    /// How a file is called: as it is seen from where the user is.
    pub(super) fn display(&self, path: &Path) -> String {
        path.strip_prefix(&self.directory).unwrap_or(path).display().to_string()
    }

    pub(crate) fn documents(&mut self, file: FileId) -> Vec<Arc<Node>> {
        let Some(opened) = self.sources.get(file) else { return Vec::new() };
        let mut documents = documents_with(&opened.source.clone(), YAML, &mut self.faults);
        self.documents += documents.len();
        if self.documents > DOCUMENTS_MAX {
            let message = format!("more than {DOCUMENTS_MAX} documents");
            self.fault_in(file, TOP, "", ErrorCode::OutOfRange, message, "make one of several");
            documents.clear();
        }
        documents
    }

    /// The variables of a file that has to be there. Values may name those of `environment`.
    pub(crate) fn variables(
        &mut self,
        path: &Path,
        environment: &Arc<Environment>,
        format: Format,
        from: Option<&At<'_>>,
    ) -> Option<(FileId, Vec<dotenv::Variable>)> {
        let file = match self.variable_files.get(path) {
            Some(file) => *file,
            None => {
                let directory: PathBuf = path.parent().map(Path::to_owned).unwrap_or_default();
                let file = self.open(path, &directory, environment, from)?;
                self.variable_files.insert(path.to_owned(), file);
                file
            }
        };
        self.variable_readings += 1;
        if self.variable_readings > VARIABLE_READINGS_MAX {
            let message = format!("files of variables are named more than {VARIABLE_READINGS_MAX} times");
            self.fault_in(file, TOP, "", ErrorCode::OutOfRange, message, "name them less often");
            return None;
        }
        let source = self.sources.get(file)?.source.clone();
        let text = match source.text() {
            Ok(text) => text,
            Err(fault) => {
                self.faults.add(|| *fault);
                return None;
            }
        };
        let dotenv::Read { variables, faults, warnings, .. } =
            dotenv::read(text, format, &|name| environment.get(name));
        for dotenv::Wrong { place, code, message, hint } in faults {
            self.fault_in(file, place, "", code, message, hint);
        }
        for dotenv::Wrong { place, code, message, hint } in warnings {
            self.warn_in(file, place, "", code, message, hint);
        }
        let bytes = variables.iter().filter_map(|variable| variable.value.as_ref()).map(String::len);
        self.expanded_bytes = self.expanded_bytes.saturating_add(bytes.sum());
        if self.expanded_bytes > INTERPOLATED_BYTES_MAX {
            let message = "variables that stand for too much".to_owned();
            self.fault_in(file, TOP, "", ErrorCode::OutOfRange, message, "leave out what is not needed");
            return None;
        }
        Some((file, variables))
    }

    /// `environment` with what the files `paths` say besides; the last of them wins.
    pub(crate) fn with_files(
        &mut self,
        environment: &Arc<Environment>,
        paths: &[PathBuf],
        from: Option<&At<'_>>,
    ) -> Arc<Environment> {
        let mut known = Variables::new();
        for path in paths {
            let so_far = Arc::new(environment.above(known.clone()));
            let read = self.variables(path, &so_far, Format::Compose, from);
            let valued = read.into_iter().flat_map(|(_, variables)| variables);
            known.extend(valued.filter_map(|variable| Some((variable.name, variable.value?))));
        }
        Arc::new(environment.above(known))
    }
}
