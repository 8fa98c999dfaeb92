//! The files that manifests are read from.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use hivemind_manifest::{FILE_BYTES_MAX, Source};
use hivemind_model::{ErrorCode, Problems};

use crate::cli::fault::Failure;

/// The most files of one folder.
const FILES_MAX: usize = 1_000;

/// The names that files of a folder may end with; others are passed over.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// Reads all of `names`: files, folders (their files, not those of folders within), or `-` for the standard input. All
/// that cannot be read is told at once.
pub(crate) fn read(names: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    let mut problems = Problems::default();
    for name in names {
        if name.as_os_str() == "-" {
            match take(io::stdin().lock()) {
                Ok(bytes) => sources.push(Source::new("standard input", bytes)),
                Err(error) => unreadable(Path::new("-"), &error, &mut problems),
            }
            continue;
        }
        for file in files(name, &mut problems) {
            match File::open(&file).and_then(take) {
                Ok(bytes) => sources.push(Source::new(&file.display().to_string(), bytes)),
                Err(error) => unreadable(&file, &error, &mut problems),
            }
        }
    }
    problems.into_result()?;
    Ok(sources)
}

/// One byte more than is allowed, so that what is too long is seen to be so.
fn take(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The file itself, or the files of the folder in the order of their names.
fn files(name: &Path, problems: &mut Problems) -> Vec<PathBuf> {
    if !name.is_dir() {
        return vec![name.to_owned()];
    }
    let wanted = |path: &PathBuf| {
        let ending = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        ending.is_some_and(|e| ENDINGS.contains(&e.as_str())) && path.is_file()
    };
    let entries = match fs::read_dir(name) {
        Ok(entries) => entries,
        Err(error) => {
            unreadable(name, &error, problems);
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(wanted).take(FILES_MAX + 1).collect();
    let shown = name.display().to_string();
    if files.is_empty() {
        let message = format!("the folder {shown} has no manifests");
        let hint = "name files that end with .yaml, .yml or .json; folders within it are not looked into";
        problems.add(ErrorCode::Malformed, format!("-f {shown}"), message, hint);
    } else if files.len() > FILES_MAX {
        let message = format!("the folder {shown} has more than {FILES_MAX} manifests");
        problems.add(ErrorCode::OutOfRange, format!("-f {shown}"), message, "divide it");
        files.clear();
    }
    files.sort();
    files
}

fn unreadable(name: &Path, error: &io::Error, problems: &mut Problems) {
    let shown = name.display();
    let (message, hint) = match error.kind() {
        io::ErrorKind::NotFound => (format!("there is no file {shown}"), "check the name after -f"),
        io::ErrorKind::PermissionDenied => {
            (format!("you may not read {shown}"), "change its mode, or use sudo")
        }
        _ => (format!("{shown} cannot be read: {error}"), "check the name after -f"),
    };
    problems.add(ErrorCode::Malformed, format!("-f {shown}"), message, hint);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_manifests_in_order_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yml", "a.yaml", "c.JSON", "notes.txt", ".hidden"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        fs::create_dir(folder.path().join("deep.yaml")).unwrap();
        let read = read(&[folder.path().to_owned()]).unwrap();
        let names: Vec<_> = read.iter().map(|s| s.name().rsplit('/').next().unwrap().to_owned()).collect();
        assert_eq!(names, ["a.yaml", "b.yml", "c.JSON"]);
    }

    #[test]
    fn all_that_cannot_be_read_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let Err(Failure::Told(told)) = read(&["/nosuch.yaml".into(), folder.path().to_owned()]) else {
            panic!("read");
        };
        let messages: Vec<_> = told.error.problems.iter().map(|p| p.message.as_str()).collect();
        assert_eq!(messages[0], "there is no file /nosuch.yaml");
        assert!(messages[1].contains("has no manifests") && told.error.problems.len() == 2);
    }
}
