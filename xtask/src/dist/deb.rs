//! The Debian package, laid out by hand and built by `dpkg-deb`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Release, glibc};
use crate::debian::{architecture, recreate};
use crate::process;
use crate::workspace::Workspace;

/// Scripts that dpkg runs (Debian Policy, chapter 6).
const MAINTAINER_SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Writes `hivemind_VERSION_ARCHITECTURE.deb`.
pub(super) fn pack(workspace: &Workspace, release: &Release, directory: &Path) -> Result<PathBuf> {
    let architecture = architecture()?;
    let tree = workspace.artifacts().join("dist/deb");
    recreate(&tree)?;
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755))?;
    lay_out(release, &tree)?;
    put(&tree.join("DEBIAN/control"), control(release, &architecture, &tree)?.as_bytes(), 0o644)?;

    let file = directory.join(format!("hivemind_{}_{architecture}.deb", release.version));
    process::run(
        Command::new("dpkg-deb")
            .args(["--build", "--root-owner-group", "-Zxz"])
            .arg(&tree)
            .arg(&file)
            .env("SOURCE_DATE_EPOCH", release.timestamp.to_string()),
    )?;
    Ok(file)
}

fn lay_out(release: &Release, tree: &Path) -> Result<()> {
    let packaging = &release.packaging;
    copy(&release.program, &tree.join("usr/bin/hivemind"), 0o755)?;
    copy(&packaging.join("hivemind.service"), &tree.join("lib/systemd/system/hivemind.service"), 0o644)?;
    copy(&packaging.join("config.toml"), &tree.join("etc/hivemind/config.toml"), 0o644)?;
    put(&tree.join("DEBIAN/conffiles"), b"/etc/hivemind/config.toml\n", 0o644)?;
    for name in super::PROMETHEUS {
        let rules = Path::new("prometheus").join(name);
        copy(&packaging.join(&rules), &tree.join("usr/share/hivemind").join(&rules), 0o644)?;
    }
    for script in MAINTAINER_SCRIPTS {
        copy(&packaging.join("debian").join(script), &tree.join("DEBIAN").join(script), 0o755)?;
    }
    let documents = tree.join("usr/share/doc/hivemind");
    copy(&packaging.join("debian/copyright"), &documents.join("copyright"), 0o644)?;
    for document in &release.documents {
        let name = document.file_name().context("a document without a name")?;
        copy(document, &documents.join(name), 0o644)?;
    }
    for (shell, text) in &release.completions {
        let path = match *shell {
            "bash" => "usr/share/bash-completion/completions/hivemind",
            "zsh" => "usr/share/zsh/vendor-completions/_hivemind",
            _ => "usr/share/fish/vendor_completions.d/hivemind.fish",
        };
        put(&tree.join(path), text.as_bytes(), 0o644)?;
    }
    Ok(())
}

fn control(release: &Release, architecture: &str, tree: &Path) -> Result<String> {
    let glibc = glibc::version_needed(&fs::read(&release.program)?)
        .context("the program names no version of the C library; was it linked statically?")?;
    Ok(format!(
        "Package: hivemind\n\
         Version: {version}\n\
         Architecture: {architecture}\n\
         Maintainer: The Hivemind authors <hivemind@localhost>\n\
         Installed-Size: {size}\n\
         Depends: libc6 (>= {glibc}), libgcc-s1, containerd, runc, passwd\n\
         Section: admin\n\
         Priority: optional\n\
         Description: container runner and orchestrator with its own eBPF data path\n \
         Runs containers on one Linux machine or on many: deploys and scales apps,\n \
         gives them names, and balances their connections inside the kernel. Stopping\n \
         or upgrading the daemon disturbs neither containers nor connections.\n",
        version = release.version,
        size = size_kb(tree)?,
    ))
}

/// The size of all files below a directory, in units of 1,024 bytes, each file rounded up.
fn size_kb(directory: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() { size_kb(&entry.path())? } else { metadata.len().div_ceil(1024) };
    }
    Ok(total)
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    put(to, &content, mode)
}

/// Writes a file and the directories above it with modes that do not depend on the umask.
fn put(to: &Path, content: &[u8], mode: u32) -> Result<()> {
    let parent = to.parent().context("a file of the package without a directory")?;
    fs::create_dir_all(parent)?;
    for directory in parent.ancestors().take_while(|directory| !directory.ends_with("dist")) {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    }
    fs::write(to, content).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}
