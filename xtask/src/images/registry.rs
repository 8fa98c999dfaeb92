//! The storage of a registry that holds the images, filled by real pushes through a registry on loopback.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::recipe::Recipe;
use crate::debian::recreate;
use crate::process;
use crate::workspace::Workspace;

const START_LIMIT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Whether the storage names every image.
pub(super) fn is_complete(images: &Path, recipes: &[Recipe]) -> bool {
    recipes.iter().all(|recipe| {
        let tag = format!("{}/_manifests/tags/latest/current/link", recipe.name);
        storage(images).join("docker/registry/v2/repositories/library").join(tag).is_file()
    })
}

/// Pushes every image as `library/NAME:latest` and puts the storage in place.
pub(super) fn fill(workspace: &Workspace, images: &Path, recipes: &[Recipe]) -> Result<()> {
    let storage_new = images.join("registry.new");
    recreate(&storage_new)?;
    let mut registry = Registry::start(workspace, images, &storage_new)?;
    let pushed = recipes.iter().try_for_each(|recipe| registry.push(workspace, images, recipe.name));
    registry.stop()?;
    pushed?;

    let storage = storage(images);
    let storage_old = images.join("registry.old");
    recreate(&storage_old)?;
    if storage.exists() {
        // Renamed first: a registry that serves it meanwhile must miss it for no longer than two renames.
        fs::rename(&storage, &storage_old)?;
    }
    fs::rename(&storage_new, &storage).context("cannot put the registry's storage in place")?;
    fs::remove_dir_all(&storage_old)?;
    println!("{} serves {} images", storage.display(), recipes.len());
    Ok(())
}

fn storage(images: &Path) -> PathBuf {
    images.join("registry")
}

/// A registry on loopback for as long as the pushes last.
struct Registry {
    process: Child,
    address: SocketAddr,
}

impl Registry {
    fn start(workspace: &Workspace, images: &Path, storage: &Path) -> Result<Self> {
        // The port is free at this moment; a registry that loses the race for it exits, which is noticed below.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let config = images.join("registry.yml");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
                storage.display()
            ),
        )?;
        let log = File::create(images.join("registry.log"))?;
        let process = workspace
            .command("docker-registry")?
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start docker-registry; run `cargo xtask setup`")?;
        let mut registry = Self { process, address };
        if let Err(error) = registry.wait_until_ready() {
            registry.stop()?;
            return Err(error.context("its log is target/images/registry.log"));
        }
        Ok(registry)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("docker-registry exited ({status})");
            }
            if Instant::now() > deadline {
                bail!("docker-registry does not answer on {}", self.address);
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    fn push(&self, workspace: &Workspace, images: &Path, name: &str) -> Result<()> {
        let from = format!("oci-archive:{}", images.join(format!("{name}.tar")).display());
        let to = format!("docker://{}/library/{name}:latest", self.address);
        // Nothing to verify: the image was made a moment ago and never left this machine.
        let arguments =
            ["--insecure-policy", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"];
        process::run(workspace.command("skopeo")?.args(arguments).args([from, to]))
    }

    fn stop(&mut self) -> Result<()> {
        if self.process.try_wait()?.is_none() {
            process::end(&mut self.process)?;
        }
        Ok(())
    }
}
