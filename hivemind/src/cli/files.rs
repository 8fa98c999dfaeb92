//! The files that manifests are read from.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use hivemind_manifest::{FILE_BYTES_MAX, Source};
use hivemind_model::{ErrorCode, Problem};

/// The most files of one folder.
const FILES_MAX: usize = 1_000;

/// The names that files of a folder may end with; others are passed over.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// Reads all of `names`: files, folders (their files, not those of folders within), or `-` for the standard input. What
/// cannot be read is told besides what can.
pub(crate) fn read(names: &[PathBuf]) -> (Vec<Source>, Vec<Problem>) {
    let mut sources = Vec::new();
    let mut problems = Vec::new();
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
    (sources, problems)
}

/// One byte more than is allowed, so that what is too long is seen to be so.
fn take(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The file itself, or the files of the folder in the order of their names.
fn files(name: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    if !name.is_dir() {
        return vec![name.to_owned()];
    }
    let wanted = |path: &PathBuf| {
        let ending = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        // A link that leads nowhere is told; what is read without an end, such as a pipe, is passed over.
        let may_be_read = fs::metadata(path).map_or(true, |metadata| metadata.is_file());
        ending.is_some_and(|e| ENDINGS.contains(&e.as_str())) && may_be_read
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
        problems.push(problem(ErrorCode::Malformed, name, message, hint));
    } else if files.len() > FILES_MAX {
        let message = format!("the folder {shown} has more than {FILES_MAX} manifests");
        problems.push(problem(ErrorCode::OutOfRange, name, message, "divide it"));
        files.clear();
    }
    files.sort();
    files
}

fn unreadable(name: &Path, error: &io::Error, problems: &mut Vec<Problem>) {
    let shown = name.display();
    let (message, hint) = match error.kind() {
        io::ErrorKind::NotFound => (format!("there is no file {shown}"), "check the name after -f"),
        io::ErrorKind::PermissionDenied => {
            (format!("you may not read {shown}"), "change its mode, or use sudo")
        }
        _ => (format!("{shown} cannot be read: {error}"), "check the name after -f"),
    };
    problems.push(problem(ErrorCode::Malformed, name, message, hint));
}

fn problem(code: ErrorCode, name: &Path, message: String, hint: &str) -> Problem {
    Problem { code, field: format!("-f {}", name.display()), message, hint: hint.to_owned() }
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
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket.yaml")).unwrap();
        let (sources, problems) = read(&[folder.path().to_owned()]);
        assert_eq!(problems, []);
        let names: Vec<_> = sources.iter().map(|s| s.name().rsplit('/').next().unwrap().to_owned()).collect();
        assert_eq!(names, ["a.yaml", "b.yml", "c.JSON"]);
    }

    #[test]
    fn all_that_cannot_be_read_is_told_besides_what_can() {
        let [empty, full] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        fs::write(full.path().join("a.yaml"), "a").unwrap();
        std::os::unix::fs::symlink("/nosuch", full.path().join("lost.yaml")).unwrap();
        let (sources, problems) =
            read(&["/nosuch.yaml".into(), empty.path().to_owned(), full.path().to_owned()]);
        assert!(sources.len() == 1 && sources[0].name().ends_with("/a.yaml"));
        let messages: Vec<_> = problems.iter().map(|p| p.message.as_str()).collect();
        assert_eq!(messages[0], "there is no file /nosuch.yaml");
        assert!(messages[1].contains("has no manifests"), "{messages:?}");
        assert!(messages[2].contains("/lost.yaml") && messages.len() == 3, "{messages:?}");
    }
}
