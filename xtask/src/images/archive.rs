//! An image as an OCI layout in a tar file (<https://github.com/opencontainers/image-spec/blob/main/image-layout.md>).

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Result, bail};
use flate2::{Compression, GzBuilder};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::hex;
use super::recipe::Recipe;

/// The time of everything in an image, so that the same packages give the same image.
const EPOCH: &str = "1970-01-01T00:00:00Z";
const SEARCH_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image with one layer.
pub(super) struct Archive {
    /// The configuration, the compressed layer and the manifest.
    blobs: [Blob; 3],
    index: Vec<u8>,
}

struct Blob {
    hash: String,
    bytes: Vec<u8>,
}

impl Archive {
    /// An image of this machine's architecture from an uncompressed layer.
    pub(super) fn new(recipe: &Recipe, layer: &[u8]) -> Result<Self> {
        let platform = json!({ "architecture": architecture()?, "os": "linux" });
        let layer_blob = Blob::new(compress(layer)?);
        let config = json!({
            "architecture": platform["architecture"],
            "os": platform["os"],
            "created": EPOCH,
            "config": run_config(recipe),
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", Blob::new(layer.to_vec()).hash)] },
            "history": [{ "created": EPOCH, "created_by": "cargo xtask images" }],
        });
        let config = Blob::new(serde_json::to_vec(&config)?);
        let manifest = Blob::new(serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [layer_blob.descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
        }))?);
        let mut reference = manifest.descriptor(MANIFEST);
        reference["platform"] = platform;
        reference["annotations"] = json!({
            "io.containerd.image.name": format!("docker.io/library/{}:latest", recipe.name),
            "org.opencontainers.image.ref.name": "latest",
        });
        let index = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [reference],
        }))?;
        Ok(Self { blobs: [config, layer_blob, manifest], index })
    }

    /// The digest of the manifest, by which the image is known.
    pub(super) fn digest(&self) -> String {
        format!("sha256:{}", self.blobs[2].hash)
    }

    /// Writes the file, whole or not at all.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let temporary = file.with_extension("new");
        let mut builder = tar::Builder::new(File::create(&temporary)?);
        append(&mut builder, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut builder, "index.json", &self.index)?;
        for blob in &self.blobs {
            append(&mut builder, &format!("blobs/sha256/{}", blob.hash), &blob.bytes)?;
        }
        builder.into_inner()?.sync_all()?;
        Ok(fs::rename(&temporary, file)?)
    }
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { hash: hex(&Sha256::digest(&bytes)), bytes }
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({
            "mediaType": media_type,
            "digest": format!("sha256:{}", self.hash),
            "size": self.bytes.len(),
        })
    }
}

fn run_config(recipe: &Recipe) -> Value {
    let set = |keys: Vec<String>| {
        Value::Object(keys.into_iter().map(|key| (key, json!({}))).collect::<Map<_, _>>())
    };
    let mut config = json!({
        "Env": [SEARCH_PATH],
        "Cmd": recipe.command,
        "WorkingDir": "/",
        "StopSignal": recipe.stop_signal,
    });
    if !recipe.ports.is_empty() {
        config["ExposedPorts"] = set(recipe.ports.iter().map(|port| format!("{port}/tcp")).collect());
    }
    if !recipe.volumes.is_empty() {
        config["Volumes"] = set(recipe.volumes.iter().map(|&path| path.to_owned()).collect());
    }
    config
}

fn compress(layer: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
    encoder.write_all(layer)?;
    Ok(encoder.finish()?)
}

fn append(builder: &mut tar::Builder<File>, path: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    Ok(builder.append_data(&mut header, path, bytes)?)
}

/// The image specification's name (Go's) for this machine's architecture.
fn architecture() -> Result<&'static str> {
    Ok(match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "riscv64" => "riscv64",
        "s390x" => "s390x",
        "powerpc64" => "ppc64le",
        "arm" => "arm",
        other => bail!("images for {other} are not known here; add its name to architecture() in archive.rs"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::recipe::RECIPES;

    #[test]
    fn the_same_layer_gives_the_same_image() {
        let first = Archive::new(&RECIPES[1], b"layer").unwrap();
        let second = Archive::new(&RECIPES[1], b"layer").unwrap();
        assert_eq!(first.index, second.index);
        assert_ne!(first.digest(), Archive::new(&RECIPES[1], b"another layer").unwrap().digest());
    }

    #[test]
    fn every_descriptor_names_a_blob_of_its_size() {
        let archive = Archive::new(&RECIPES[2], b"layer").unwrap();
        let manifest: Value = serde_json::from_slice(&archive.blobs[2].bytes).unwrap();
        let config: Value = serde_json::from_slice(&archive.blobs[0].bytes).unwrap();
        assert_eq!(manifest["config"]["digest"], format!("sha256:{}", archive.blobs[0].hash));
        assert_eq!(manifest["layers"][0]["size"], archive.blobs[1].bytes.len());
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", hex(&Sha256::digest(b"layer"))));
        assert_eq!(config["config"]["ExposedPorts"], json!({ "6379/tcp": {} }));
    }
}
