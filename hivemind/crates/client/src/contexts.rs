//! Daemons elsewhere under names, kept in a file of the user's.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    ops::Range,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use hivemind_model::{ApiError, ErrorCode, Problems, check_name};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::{
    client::Client,
    fingerprint::Fingerprint,
    remote::{Remote, Secured, Trust},
};

/// What `current` must not be, and `use` takes to mean: the daemon of this machine, over its socket.
const LOCAL: &str = "local";

/// The file's name, below the user's directory of configurations.
const FILE: &str = "hivemind/contexts.toml";

/// A way to a daemon under a name.
pub type Context = Remote;

/// The contexts of a user, as they are in the file. Changes are made by [`Contexts::save`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contexts {
    path: PathBuf,
    current: Option<String>,
    contexts: BTreeMap<String, Context>,
}

/// The file, with the places of what may be wrong in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    current: Option<Spanned<String>>,
    #[serde(default)]
    contexts: BTreeMap<Spanned<String>, Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Entry {
    url: Spanned<String>,
    token: Spanned<String>,
    ca_file: Option<Spanned<PathBuf>>,
    fingerprint: Option<Spanned<String>>,
}

#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<&'a str>,
    contexts: BTreeMap<&'a str, WrittenEntry<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct WrittenEntry<'a> {
    url: &'a str,
    token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
}

impl Contexts {
    /// Where the file is: `hivemind/contexts.toml` below `$XDG_CONFIG_HOME`, or below `.config` in the home directory.
    ///
    /// # Errors
    /// `FileFailed` for a user without a home directory.
    pub fn default_path() -> Result<PathBuf, ApiError> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let directory =
            absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
        directory.map(|directory| directory.join(FILE)).ok_or_else(|| {
            let what = "there is no directory for contexts: neither XDG_CONFIG_HOME nor HOME is set";
            ApiError::new(ErrorCode::FileFailed, what, "set HOME to your home directory")
        })
    }

    /// Reads the file at `path`; one that is not there holds no contexts.
    ///
    /// # Errors
    /// `InvalidConfig` with all faults at once, each with its line; `FileFailed` for a file that cannot be read, or that
    /// others may read.
    pub fn load(path: impl Into<PathBuf>) -> Result<Self, ApiError> {
        let path = path.into();
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Contexts { path, current: None, contexts: BTreeMap::new() });
            }
            Err(error) => return Err(failed(&path, "read", &error)),
        };
        let shown = path.display();
        let file: File = toml::from_str(&text).map_err(|error| {
            let what = format!("{shown} cannot be read: {}", error.to_string().trim_end());
            let hint = "mend the line, or move the file away and add the contexts again";
            ApiError::new(ErrorCode::InvalidConfig, what, hint).at(shown.to_string())
        })?;
        let mut problems = Problems::default();
        let mut contexts = BTreeMap::new();
        for (name, entry) in file.contexts {
            let mut wrong = |span: Range<usize>, error: ApiError| {
                let place = format!("{shown}:{}", line(&text, span.start));
                for (message, hint) in every(error) {
                    problems.add(ErrorCode::InvalidConfig, &place, message, hint);
                }
            };
            if let Err(error) = check_context_name(name.as_ref()) {
                wrong(name.span(), error);
            }
            match entry.into_inner().check(&mut wrong) {
                Some(context) => drop(contexts.insert(name.into_inner(), context)),
                None => continue,
            }
        }
        if let Some(current) = &file.current
            && !contexts.contains_key(current.as_ref())
            && problems.is_empty()
        {
            let place = format!("{shown}:{}", line(&text, current.span().start));
            let what = format!("the current context {:?} is not there", current.as_ref());
            problems.add(ErrorCode::InvalidConfig, place, what, "choose one: hivemind context use NAME");
        }
        problems.into_result()?;
        Ok(Contexts { path, current: file.current.map(Spanned::into_inner), contexts })
    }

    /// The file that they are kept in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The context that is used where none is named; `None`: the daemon of this machine, over its socket.
    pub fn current(&self) -> Option<&str> {
        self.current.as_deref()
    }

    /// All contexts in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Context)> {
        self.contexts.iter().map(|(name, context)| (name.as_str(), context))
    }

    /// The context of that name.
    ///
    /// # Errors
    /// `ContextNotFound`.
    pub fn get(&self, name: &str) -> Result<&Context, ApiError> {
        self.contexts.get(name).ok_or_else(|| {
            let what = format!("there is no context {name:?}");
            ApiError::new(ErrorCode::ContextNotFound, what, "see what there is: hivemind context ls")
        })
    }

    /// A client of the context `name`, of the current one if none is named; `None` if that is the daemon of this machine
    /// (`local`), over its socket.
    ///
    /// # Errors
    /// `ContextNotFound`, and those of [`Client::remote`].
    pub fn client(&self, name: Option<&str>) -> Result<Option<Client>, ApiError> {
        match name.or(self.current()) {
            None | Some(LOCAL) => Ok(None),
            Some(name) => Client::remote(self.get(name)?).map(Some),
        }
    }

    /// Adds a context, in the place of the one of that name if there is one.
    ///
    /// # Errors
    /// `InvalidName`, and those of [`Client::remote`].
    pub fn add(&mut self, name: &str, context: Context) -> Result<(), ApiError> {
        check_context_name(name)?;
        Secured::new(&context)?;
        self.contexts.insert(name.to_owned(), context);
        Ok(())
    }

    /// Removes a context. If it is the current one, the daemon of this machine is used from then on.
    ///
    /// # Errors
    /// `ContextNotFound`.
    pub fn remove(&mut self, name: &str) -> Result<(), ApiError> {
        self.get(name)?;
        self.contexts.remove(name);
        if self.current() == Some(name) {
            self.current = None;
        }
        Ok(())
    }

    /// Makes a context the current one; `local` stands for the daemon of this machine.
    ///
    /// # Errors
    /// `ContextNotFound`.
    pub fn choose(&mut self, name: &str) -> Result<(), ApiError> {
        self.current = match name {
            LOCAL => None,
            name => {
                self.get(name)?;
                Some(name.to_owned())
            }
        };
        Ok(())
    }

    /// Writes the file in the place of the one that is there, readable by its owner only.
    ///
    /// # Errors
    /// `FileFailed`, `DiskFull`; the file is as it was then.
    pub fn save(&self) -> Result<(), ApiError> {
        let contexts = self.contexts.iter().map(|(name, Remote { url, token, trust })| {
            let (ca_file, fingerprint) = match trust {
                Trust::System => (None, None),
                Trust::CaFile(path) => (Some(path.as_path()), None),
                Trust::Fingerprint(fingerprint) => (None, Some(fingerprint.to_string())),
            };
            (name.as_str(), WrittenEntry { url, token, ca_file, fingerprint })
        });
        let text = toml::to_string(&Written { current: self.current(), contexts: contexts.collect() })
            .map_err(|e| {
                ApiError::new(ErrorCode::Internal, format!("contexts cannot be written: {e}"), "")
            })?;
        self.replace(&text).map_err(|error| failed(&self.path, "written", &error))
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        // A new file of this kind is its owner's only.
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        std::fs::File::open(directory)?.sync_all()
    }
}

impl Entry {
    /// The context, if nothing is wrong with it.
    fn check(self, wrong: &mut impl FnMut(Range<usize>, ApiError)) -> Option<Context> {
        let fingerprint = self.fingerprint.map(|text| (text.as_ref().parse::<Fingerprint>(), text.span()));
        let trust = match (self.ca_file, fingerprint) {
            (Some(file), Some(_)) => {
                let what = "both ca-file and fingerprint say what to trust";
                wrong(file.span(), ApiError::new(ErrorCode::InvalidConfig, what, "leave one out"));
                return None;
            }
            (Some(file), None) => Trust::CaFile(file.into_inner()),
            (None, Some((Ok(fingerprint), _))) => Trust::Fingerprint(fingerprint),
            (None, Some((Err(error), span))) => {
                wrong(span, error);
                return None;
            }
            (None, None) => Trust::System,
        };
        let (url, token) = (self.url.span(), self.token.span());
        // What the certificates are is seen when they are used: a lost file of one context must not keep others from use.
        let plain = Remote { url: self.url.into_inner(), token: self.token.into_inner(), trust };
        match Secured::check(&plain) {
            Ok(()) => Some(plain),
            Err(error) => {
                wrong(if error.field.as_deref() == Some("token") { token } else { url }, error);
                None
            }
        }
    }
}

fn check_context_name(name: &str) -> Result<(), ApiError> {
    let mut problems = Problems::default();
    check_name("name", name, 63, &mut problems);
    if name == LOCAL {
        let what = format!("{LOCAL:?} stands for the daemon of this machine");
        problems.add(ErrorCode::InvalidName, "name", what, "choose another name");
    }
    problems.into_result()
}

fn every(error: ApiError) -> Vec<(String, String)> {
    if error.problems.is_empty() {
        return vec![(error.message, error.hint)];
    }
    error.problems.into_iter().map(|problem| (problem.message, problem.hint)).collect()
}

/// The line, from 1, in which `place` is.
fn line(text: &str, place: usize) -> usize {
    text.bytes().take(place).filter(|byte| *byte == b'\n').count() + 1
}

fn read(path: &Path) -> io::Result<String> {
    let file = std::fs::File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        let what = format!("it holds tokens and others may read it (mode {:03o})", mode & 0o777);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    io::read_to_string(file)
}

fn failed(path: &Path, done: &str, error: &io::Error) -> ApiError {
    let path = path.display();
    let (code, hint) = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorCode::DiskFull, "make room on the disk".to_owned())
        }
        _ => (ErrorCode::FileFailed, format!("make it yours alone: chmod 600 {path}")),
    };
    ApiError::new(code, format!("the contexts in {path} cannot be {done}: {error}"), hint)
}

#[cfg(test)]
mod tests;
