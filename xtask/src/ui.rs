//! `cargo xtask ui`: builds the dashboard into `ui/dist/site`, from where the program's build takes it.
//!
//! The types of the API are made from `docs/reference/openapi.json`, which a test holds to what the server says.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::process;
use crate::workspace::Workspace;

/// How long fetching the packages may take.
const FETCH_LIMIT: Duration = Duration::from_secs(5 * 60);

/// How long each step of the build may take.
const STEP_LIMIT: Duration = Duration::from_secs(3 * 60);

/// What lies in `ui/` and is not a source.
const NOT_SOURCES: [&str; 3] = ["node_modules", "dist", "schema.d.ts"];

/// Checks and builds the page, unless what is there was made from these sources.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    let ui = workspace.root().join("ui");
    let dist = ui.join("dist");
    fs::create_dir_all(&dist)?;
    let lock = File::create(workspace.artifacts().join("ui.lock")).context("cannot make the lock of ui/")?;
    lock.lock().context("cannot lock ui/")?;

    let made_from = fingerprint(workspace, &ui)?;
    let stamp = workspace.artifacts().join("ui.made-from");
    if dist.join("site/index.html").is_file()
        && fs::read_to_string(&stamp).is_ok_and(|text| text == made_from)
    {
        println!("The dashboard in {} is up to date.", dist.display());
        return Ok(());
    }
    fetch(workspace, &ui)?;
    for step in ["types", "check", "build"] {
        process::run_within(
            workspace.command("npm")?.current_dir(&ui).args(["run", "--silent", step]),
            STEP_LIMIT,
        )
        .with_context(|| format!("`npm run {step}` in {} does not pass", ui.display()))?;
    }
    fs::write(&stamp, made_from).context("cannot write what the dashboard was made from")
}

/// Brings the packages that the lock file names, none of whose scripts is run, unless they are there.
pub(crate) fn fetch(workspace: &Workspace, ui: &Path) -> Result<()> {
    let wanted = fs::read(ui.join("package-lock.json")).context("cannot read ui/package-lock.json")?;
    let wanted = hex(&Sha256::digest(wanted));
    let stamp = ui.join("node_modules/.made-from");
    if fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    let mut npm = workspace.command("npm")?;
    npm.current_dir(ui).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    process::run_within(&mut npm, FETCH_LIMIT)
        .context("cannot fetch the dashboard's packages; check the network and npm's registry")?;
    fs::write(stamp, wanted).context("cannot write which packages are there")
}

/// Changes when a source of the page or the API's description does.
fn fingerprint(workspace: &Workspace, ui: &Path) -> Result<String> {
    let mut files = vec![workspace.root().join("docs/reference/openapi.json")];
    sources(ui, &mut files)?;
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        hash.update(format!("{}\0{}\0", file.display(), content.len()));
        hash.update(content);
    }
    Ok(hex(&hash.finalize()))
}

fn sources(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if NOT_SOURCES.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            sources(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_made_from_its_sources_and_not_from_what_was_made() {
        let workspace = Workspace::locate().unwrap();
        let mut files = Vec::new();
        sources(&workspace.root().join("ui"), &mut files).unwrap();
        let named = |end: &str| files.iter().any(|file| file.ends_with(end));
        assert!(named("src/App.svelte") && named("package-lock.json") && named("public/theme.js"));
        assert!(
            !named("schema.d.ts")
                && !files.iter().any(|file| file.to_string_lossy().contains("node_modules"))
        );
    }

    #[test]
    fn the_lock_file_names_no_hosts() {
        let workspace = Workspace::locate().unwrap();
        let lock = fs::read_to_string(workspace.root().join("ui/package-lock.json")).unwrap();
        assert!(lock.contains("\"integrity\"") && !lock.contains("\"resolved\""));
    }
}
