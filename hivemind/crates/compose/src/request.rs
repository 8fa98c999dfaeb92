//! What is to be read, and what comes of it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use hivemind_model::ErrorCode;
use hivemind_yaml::{Fault, Source, Value};

use crate::{
    check,
    environment::Environment,
    file::Files,
    interpolate::Template,
    limits::MERGED_BYTES_MAX,
    load::{self, Opened, Scope},
    merge::settled,
    project::{Project, is_project_name, project_name_of},
    reader::{At, Reader, shown},
    service::Service,
    source::{FileId, TOP, join},
    spot::{Located, Spot},
    tree::Tree,
};

/// What is to be read.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Where the user is, an absolute path: what relative paths of the request begin at, and where files are looked for.
    pub directory: PathBuf,
    /// The files, which are merged in this order; without any, those that `COMPOSE_FILE` names, or those of the usual names.
    pub files: Vec<PathBuf>,
    /// What relative paths in the files begin at; none: the directory of the first file.
    pub project_directory: Option<PathBuf>,
    /// Files of variables in place of `.env` in the project's directory.
    pub env_files: Vec<PathBuf>,
    /// The project's name; none: what `COMPOSE_PROJECT_NAME` or the files say, or that of the directory.
    pub name: Option<String>,
    /// The profiles that are active, `*` for all; without any, those that `COMPOSE_PROFILES` names.
    pub profiles: Vec<String>,
    /// Services that are part of the project whatever their profiles: those that the user asks for by name.
    pub services: Vec<String>,
    /// The variables of the user's environment.
    pub environment: BTreeMap<String, String>,
}

/// What came of a reading.
#[derive(Debug)]
pub struct Reading {
    /// The project; none if there are faults.
    pub project: Option<Project>,
    /// All faults, in the order of the files and of their lines; at most [`crate::FAULTS_MAX`].
    pub faults: Vec<Fault>,
    /// How many faults there are besides.
    pub more_faults: usize,
    /// What its author may not have meant, in the same order.
    pub warnings: Vec<Fault>,
}

/// Names of the files that are read if none is named, the first one that is there.
pub const FILE_NAMES: [&str; 4] =
    ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// Names of the files that are read on top of one of [`FILE_NAMES`], the first one that is there.
const OVERRIDE_NAMES: [&str; 4] = [
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yaml",
    "docker-compose.override.yml",
];

/// The files of the usual names, of `directory` or of the nearest one above it that has one.
pub fn usual_files(directory: &Path, files: &dyn Files) -> Vec<PathBuf> {
    for directory in directory.ancestors() {
        let first = |names: [&str; 4]| {
            names.into_iter().map(|name| directory.join(name)).find(|path| files.exists(path))
        };
        if let Some(found) = first(FILE_NAMES) {
            return std::iter::once(found).chain(first(OVERRIDE_NAMES)).collect();
        }
    }
    Vec::new()
}

/// Reads a project.
pub fn read(request: &Request, files: &dyn Files) -> Reading {
    let mut reader = Reader::new(files, request.directory.clone());
    let project = project(request, &mut reader);
    let Reader { sources, mut faults, mut warnings, .. } = reader;
    for list in [&mut faults.list, &mut warnings.list] {
        list.sort_by_cached_key(|fault| (sources.order(&fault.file), fault.line, fault.column));
        list.dedup();
    }
    let project = project.filter(|_| faults.list.is_empty()).map(|project| Project { sources, ..project });
    Reading { project, faults: faults.list, more_faults: faults.more, warnings: warnings.list }
}

fn project(request: &Request, reader: &mut Reader<'_>) -> Option<Project> {
    let real = Arc::new(Environment::of(request.environment.clone()));
    let paths = named_files(request, reader, &real);
    let Some(first) = paths.first() else {
        let source = Source::new(FILE_NAMES[0], Vec::new());
        let message = format!("there is none of {}, here or above", FILE_NAMES.join(", "));
        reader
            .faults
            .add(|| source.fault(TOP, ErrorCode::Malformed, "", message, "make one, or name the file"));
        return None;
    };
    let directory = match &request.project_directory {
        Some(directory) => join(&request.directory, directory),
        None => first.parent().unwrap_or(Path::new("/")).to_owned(),
    };
    let environment = project_environment(request, reader, &real, &directory);
    let mut scope = Scope { directory, environment, chain: paths.clone() };
    let opened = load::open_all(reader, &paths, &scope, None);
    let name = name(request, reader, &opened, &scope)?;
    let named = [("COMPOSE_PROJECT_NAME".to_owned(), name.value.clone())].into();
    scope.environment = Arc::new(scope.environment.below(named));
    for Opened { file, .. } in &opened {
        reader.sources.set_environment(*file, scope.environment.clone());
    }
    // Files that say nothing are a project without services, which is told as such.
    let first = opened.first().map_or(FileId(0), |opened| opened.file);
    let tree = load::merged(reader, &opened, &scope).unwrap_or_else(|| Tree::empty_map(first));
    if tree.weight > MERGED_BYTES_MAX {
        let message = "files that come to too much with what they include and extend".to_owned();
        reader.fault(&At::top(&tree), ErrorCode::OutOfRange, message, "make several projects of it");
        return None;
    }
    let tree = settled(&tree);
    let profiles = profiles(request, &scope.environment);
    let is_active = |name: &str, service: &Service| {
        let is_asked_for = |profile: &String| profiles.iter().any(|p| p == "*" || p == profile);
        service.profiles.is_empty()
            || request.services.iter().any(|wanted| wanted == name)
            || service.profiles.iter().any(|profile| is_asked_for(profile))
    };
    let project = Project::read(reader, &At::top(&tree), name, &is_active);
    check::check(reader, &project);
    Some(project)
}

/// The files of the request, of `COMPOSE_FILE`, or of the usual names.
fn named_files(request: &Request, reader: &mut Reader<'_>, real: &Arc<Environment>) -> Vec<PathBuf> {
    let whole = |path: &PathBuf| join(&request.directory, path);
    if !request.files.is_empty() {
        return request.files.iter().map(whole).collect();
    }
    let environment = project_environment(request, reader, real, &request.directory);
    match environment.get("COMPOSE_FILE").filter(|files| !files.is_empty()) {
        Some(files) => {
            let separator =
                environment.get("COMPOSE_PATH_SEPARATOR").filter(|s| !s.is_empty()).unwrap_or(":");
            files.split(separator).map(|path| whole(&PathBuf::from(path))).collect()
        }
        None => usual_files(&request.directory, reader.files),
    }
}

fn project_environment(
    request: &Request,
    reader: &mut Reader<'_>,
    real: &Arc<Environment>,
    directory: &Path,
) -> Arc<Environment> {
    let files: Vec<PathBuf> = match request.env_files.is_empty() {
        true => Some(join(directory, ".env")).filter(|path| reader.files.exists(path)).into_iter().collect(),
        false => request.env_files.iter().map(|path| join(&request.directory, path)).collect(),
    };
    reader.with_files(real, &files, None)
}

fn profiles(request: &Request, environment: &Environment) -> Vec<String> {
    match request.profiles.is_empty() {
        true => {
            let named = environment.get("COMPOSE_PROFILES").unwrap_or_default().split(',').map(str::trim);
            named.filter(|profile| !profile.is_empty()).map(str::to_owned).collect()
        }
        false => request.profiles.clone(),
    }
}

/// The project's name, and where it stands if it stands in a file; none if it is none.
fn name(
    request: &Request,
    reader: &mut Reader<'_>,
    opened: &[Opened],
    scope: &Scope,
) -> Option<Located<String>> {
    let first = opened.first().map_or(FileId(0), |opened| opened.file);
    let top = Spot { file: first, place: TOP, key: None, path: Arc::from("name") };
    let asked = request.name.clone().or_else(|| {
        scope.environment.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty()).map(str::to_owned)
    });
    let said = said_name(opened, scope);
    let found = match (asked, said) {
        (Some(name), _) => Located { value: name, spot: top },
        (None, Some(said)) => said,
        (None, None) => {
            let directory = scope.directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            Located { value: project_name_of(directory), spot: top }
        }
    };
    if !is_project_name(&found.value) {
        let (message, hint) = match found.value.is_empty() {
            true => ("the project has no name".to_owned(), "give it one: name: shop"),
            false => (
                format!("{} is not the name of a project", shown(&found.value)),
                "use a-z, 0-9, '-' and '_', beginning with a letter or digit",
            ),
        };
        reader.fault_at(&found.spot, ErrorCode::InvalidName, message, hint);
    }
    // With a name that is none the files are still read, for their faults.
    Some(found)
}

/// The name that the last of the files says. What is wrong with its variables is told when the file is read.
fn said_name(opened: &[Opened], scope: &Scope) -> Option<Located<String>> {
    let documents = opened.iter().flat_map(|Opened { file, documents }| documents.iter().map(|d| (*file, d)));
    let mut said = None;
    for (file, document) in documents {
        let Some(node) = document.get("name") else { continue };
        let Value::Scalar { text, .. } = &node.value else { continue };
        let template = Template::parse(text).ok();
        let expanded =
            template.and_then(|t| t.expand(&|name| scope.environment.get(name), &mut Vec::new()).ok());
        let spot = Spot { file, place: node.place, key: None, path: Arc::from("name") };
        said = expanded.map(|value| Located { value, spot }).or(said);
    }
    said
}
