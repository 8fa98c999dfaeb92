#![no_main]
//! A Compose file that is also its own override, what it includes, and its file of variables: from its bytes to what is printed.

use std::path::{Path, PathBuf};

use hivemind_compose::{FileError, Files, Request, plan, read};

/// Every file of the project has the same bytes.
struct Same<'i>(&'i [u8]);

impl Files for Same<'_> {
    fn read(&self, path: &Path, _bytes_max: usize) -> Result<Vec<u8>, FileError> {
        if self.exists(path) { Ok(self.0.to_vec()) } else { Err(FileError::Missing) }
    }

    fn exists(&self, path: &Path) -> bool {
        path.starts_with("/project") && path.components().count() < 5
    }
}

/// One file alone.
struct One<'t>(&'t str);

impl Files for One<'_> {
    fn read(&self, _path: &Path, _bytes_max: usize) -> Result<Vec<u8>, FileError> {
        Ok(self.0.as_bytes().to_vec())
    }

    fn exists(&self, path: &Path) -> bool {
        path == Path::new("/project/compose.yaml")
    }
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let environment = [("TAG", "1.2"), ("HOME", "/home/me")];
    let mut request = Request {
        directory: "/project".into(),
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Request::default()
    };
    let found = read(&request, &Same(input));
    let lines = 1 + input.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
    for fault in found.faults.iter().chain(&found.warnings) {
        assert!((1..=lines + 1).contains(&fault.line) && fault.column >= 1, "{fault:?} of {lines} lines");
        assert!(!fault.message.is_empty() && !fault.message.contains('\n'), "{fault:?}");
    }
    let again = read(&request, &Same(input));
    assert_eq!(found.faults, again.faults, "a second reading finds other faults");
    let Some(project) = found.project else { return };
    let planned = plan(&project);
    assert_eq!(planned.plan.is_some(), planned.faults.is_empty());
    for app in planned.plan.iter().flat_map(|plan| &plan.apps) {
        app.validate().expect("a plan has only apps that are valid");
    }
    let printed = project.to_yaml();
    request.files = vec![PathBuf::from("compose.yaml")];
    let read_back = read(&request, &One(&printed));
    assert!(read_back.faults.is_empty(), "{:?} in {printed}", read_back.faults);
    // The name may come from variables that the file with them gave.
    let read_back = read_back.project.expect("a reading without faults has a project");
    assert_eq!(read_back.to_yaml(), printed, "what is printed reads back as something else");
});
