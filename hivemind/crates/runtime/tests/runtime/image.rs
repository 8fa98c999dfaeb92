//! Images for tests: a static busybox, and whatever a test wants to be wrong with it.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// An image in memory.
#[derive(Clone)]
pub(crate) struct TestImage {
    pub(crate) config: Value,
    /// Compressed layers.
    pub(crate) layers: Vec<Vec<u8>>,
}

impl TestImage {
    /// busybox with a few users, whose command is a shell.
    pub(crate) fn busybox() -> Self {
        static LAYER: OnceLock<(Vec<u8>, String)> = OnceLock::new();
        let (layer, diff_id) = LAYER.get_or_init(|| {
            let tar = busybox_layer();
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(&tar).unwrap();
            (gzip.finish().unwrap(), digest(&tar))
        });
        let config = json!({
            "architecture": architecture(), "os": "linux",
            "config": {"Env": ["PATH=/bin", "IMAGE=yes"], "Cmd": ["/bin/sh"], "WorkingDir": "/srv",
                       "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}}, "StopSignal": "SIGQUIT"},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        });
        Self { config, layers: vec![layer.clone()] }
    }

    /// With one more layer, a file of that content.
    pub(crate) fn with_file(mut self, path: &str, content: &[u8]) -> Self {
        let tar = archive(&[(path, content)]);
        self.config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(digest(&tar).into());
        let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
        gzip.write_all(&tar).unwrap();
        self.layers.push(gzip.finish().unwrap());
        self
    }

    pub(crate) fn config_bytes(&self) -> Vec<u8> {
        self.config.to_string().into_bytes()
    }

    pub(crate) fn manifest(&self) -> Vec<u8> {
        let descriptor = |kind: &str, bytes: &[u8]| {
            json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(bytes),
                   "size": bytes.len()})
        };
        let layers: Vec<Value> =
            self.layers.iter().map(|layer| descriptor("layer.v1.tar+gzip", layer)).collect();
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
               "config": descriptor("config.v1+json", &self.config_bytes()), "layers": layers})
        .to_string()
        .into_bytes()
    }

    /// An index with the image for this machine, and one for another that exists nowhere.
    pub(crate) fn index(&self) -> Vec<u8> {
        let manifest = self.manifest();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
            {"mediaType": kind, "digest": digest(b"elsewhere"), "size": 1,
             "platform": {"os": "linux", "architecture": "sparc"}},
            {"mediaType": kind, "digest": digest(&manifest), "size": manifest.len(),
             "platform": {"os": "linux", "architecture": architecture()}},
        ]})
        .to_string()
        .into_bytes()
    }

    /// Every blob by its digest, the manifest and the index among them.
    pub(crate) fn blobs(&self) -> BTreeMap<String, Vec<u8>> {
        let documents = [self.config_bytes(), self.manifest(), self.index()];
        documents.into_iter().chain(self.layers.clone()).map(|bytes| (digest(&bytes), bytes)).collect()
    }

    pub(crate) fn oci_archive(&self, name: &str) -> Vec<u8> {
        let manifest = self.manifest();
        let index = json!({"schemaVersion": 2, "manifests": [
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(&manifest),
             "size": manifest.len(), "annotations": {"org.opencontainers.image.ref.name": name}}]});
        let index = index.to_string().into_bytes();
        let mut files = vec![("oci-layout".to_owned(), b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec())];
        files.extend(
            self.blobs()
                .into_iter()
                .map(|(digest, bytes)| (digest.replacen("sha256:", "blobs/sha256/", 1), bytes)),
        );
        files.push(("index.json".to_owned(), index));
        archive(&files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect::<Vec<_>>())
    }

    /// As old versions of `docker save` write it.
    pub(crate) fn docker_archive(&self, name: &str) -> Vec<u8> {
        let config = self.config_bytes();
        let config_name = format!("{}.json", digest(&config).trim_start_matches("sha256:"));
        let mut files = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let mut tar = Vec::new();
            std::io::copy(&mut flate2::read::GzDecoder::new(layer.as_slice()), &mut tar).unwrap();
            files.push((format!("{index}/layer.tar"), tar));
        }
        let layers: Vec<&String> = files.iter().map(|(path, _)| path).collect();
        let manifest = json!([{"Config": config_name, "RepoTags": [name], "Layers": layers}]).to_string();
        files.push((config_name, config));
        files.push(("manifest.json".to_owned(), manifest.into_bytes()));
        archive(&files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect::<Vec<_>>())
    }
}

pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

fn busybox_layer() -> Vec<u8> {
    let program = busybox_program();
    let mut tar = tar::Builder::new(Vec::new());
    let entry = |kind: tar::EntryType, mode: u32, size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size as u64);
        header
    };
    for directory in ["bin", "etc", "srv", "tmp", "data"] {
        tar.append_data(&mut entry(tar::EntryType::Directory, 0o755, 0), directory, [].as_slice()).unwrap();
    }
    let content = fs::read(&program).unwrap();
    tar.append_data(
        &mut entry(tar::EntryType::Regular, 0o755, content.len()),
        "bin/busybox",
        content.as_slice(),
    )
    .unwrap();
    let applets = Command::new(&program).arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(applets).unwrap().lines().filter(|name| *name != "busybox") {
        let mut header = entry(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    let files: [(&str, &str); 4] = [
        ("etc/passwd", "root:x:0:0::/root:/bin/sh\nweb:x:101:102::/srv:/bin/sh\n"),
        ("etc/group", "root:x:0:\nweb:x:102:\nlogs:x:9:web\n"),
        ("data/seed", "from the image\n"),
        ("etc/notes.txt", "not a program\n"),
    ];
    for (path, text) in files {
        tar.append_data(&mut entry(tar::EntryType::Regular, 0o644, text.len()), path, text.as_bytes())
            .unwrap();
    }
    tar.into_inner().unwrap()
}

/// Debian's static busybox: the machine's, or unpacked once from its package.
fn busybox_program() -> PathBuf {
    let installed = Path::new("/bin/busybox");
    if installed.exists() {
        return installed.to_owned();
    }
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("busybox");
    if !kept.exists() {
        let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let script = "apt-get download busybox-static >/dev/null && dpkg -x busybox-static_*.deb root";
        let done = Command::new("sh").args(["-c", script]).current_dir(work.path()).status().unwrap();
        assert!(done.success(), "install busybox-static, or make its package available to apt");
        // Renamed, so that tests that run beside this one see all of it or nothing.
        let whole = work.path().join("whole");
        fs::copy(work.path().join("root/bin/busybox"), &whole).unwrap();
        fs::rename(whole, &kept).unwrap();
    }
    kept
}
