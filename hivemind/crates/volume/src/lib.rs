//! Named volumes on one node's disk.
//!
//! A volume is a directory that outlives the containers that mount it, below
//! `<root>/<namespace>/<name>/_data`, with what is known of it in `<root>/<namespace>/<name>/volume.json`. A new one may
//! take the content that an image has at the place where it will be mounted. The crate does not mount anything, does
//! not know who uses a volume, and limits no sizes; a volume stays on the node where it was made.
//!
//! Start at [`Volumes`]. A volume appears as a whole, by one rename: whatever dies while one is made leaves nothing that
//! is taken for a volume, and the next start sweeps it away.

#![forbid(unsafe_code)]

mod copy;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

const NAME_LENGTH_MAX: usize = 63;
const DATA_DIR: &str = "_data";
const METADATA_FILE: &str = "volume.json";
/// Directories with this prefix are volumes in the making; no volume's name begins so.
const UNFINISHED_PREFIX: &str = ".new-";

/// The name of a volume or of a namespace: up to 63 lower-case letters, digits, `-`, `_` and `.`, starting with a
/// letter or a digit. It is one component of a path, and never leads out of the volumes' directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName(String);

impl VolumeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VolumeName {
    type Err = VolumeError;

    fn from_str(text: &str) -> Result<Self, VolumeError> {
        let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let allowed = |byte: u8| alphanumeric(byte) || matches!(byte, b'-' | b'_' | b'.');
        if text.len() <= NAME_LENGTH_MAX
            && text.bytes().next().is_some_and(alphanumeric)
            && text.bytes().all(allowed)
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(VolumeError::Name { name: text.to_owned() })
        }
    }
}

/// A volume of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The namespace to which it belongs.
    pub namespace: VolumeName,
    /// Its name within the namespace.
    pub name: VolumeName,
    /// The directory that is to be mounted.
    pub path: PathBuf,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Why a volume could not be made, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The name cannot be used. Nothing was changed.
    #[error(
        "{name:?} is no volume name: up to {NAME_LENGTH_MAX} lower-case letters, digits, '-', '_' and '.', starting with a letter or digit"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// There is a volume of that name. Nothing was changed.
    #[error("volume {namespace}/{name} exists already")]
    Exists {
        /// Its namespace.
        namespace: VolumeName,
        /// Its name.
        name: VolumeName,
    },
    /// There is no such volume. Nothing was changed.
    #[error("there is no volume {namespace}/{name}")]
    NotFound {
        /// Its namespace.
        namespace: VolumeName,
        /// Its name.
        name: VolumeName,
    },
    /// Somebody uses the volume. Nothing was changed; remove its users first.
    #[error("volume {namespace}/{name} is in use by {}", users.join(", "))]
    InUse {
        /// Its namespace.
        namespace: VolumeName,
        /// Its name.
        name: VolumeName,
        /// Who uses it.
        users: Vec<String>,
    },
    /// The disk is full. What was half-made is removed; make room and try again.
    #[error("no space left for volume {namespace}/{name}")]
    NoSpace {
        /// Its namespace.
        namespace: VolumeName,
        /// Its name.
        name: VolumeName,
    },
    /// The image's content cannot be found or copied. What was half-made is removed.
    #[error("cannot copy {path} of the image")]
    Populate {
        /// The path within the image.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The disk failed otherwise. What was half-made is removed, now or at the next start.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// The cause.
        source: io::Error,
    },
}

/// What a new volume begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// The image's root filesystem, where it is mounted.
    pub rootfs: PathBuf,
    /// A directory of the image, as an absolute path within it.
    pub path: PathBuf,
}

/// What is kept of a volume beside its content.
#[derive(Serialize, Deserialize)]
struct Metadata {
    created_at: Timestamp,
}

/// The volumes of this node. Clones are equivalent, and all methods may run at once: of two that make the same volume,
/// one does, and the other finds it.
///
/// Methods whose names end in `_blocking` do what the others do on the calling thread: for callers that are on a thread
/// of their own already, such as one with an image mounted.
#[derive(Debug, Clone)]
pub struct Volumes {
    root: Arc<Path>,
}

impl Volumes {
    /// The volumes below `root`, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into().into() }
    }

    /// Removes what processes that died have left half-made. Call it before the first volume is made.
    pub async fn sweep(&self) -> Result<(), VolumeError> {
        self.on_blocking_thread(|volumes| volumes.sweep_blocking()).await
    }

    /// Makes an empty volume.
    ///
    /// # Errors
    /// [`VolumeError::Exists`], [`VolumeError::NoSpace`], [`VolumeError::Io`].
    pub async fn create(&self, namespace: &VolumeName, name: &VolumeName) -> Result<Volume, VolumeError> {
        let (namespace, name) = (namespace.clone(), name.clone());
        self.on_blocking_thread(move |volumes| {
            if volumes.get_blocking(&namespace, &name)?.is_some() {
                return Err(VolumeError::Exists { namespace, name });
            }
            volumes.prepare_blocking(&namespace, &name, None)
        })
        .await
    }

    /// The volume, made if there is none: then with the content of `seed`, owners, modes, times, links and extended
    /// attributes included, or empty where the image has no such directory.
    ///
    /// # Errors
    /// [`VolumeError::Populate`], [`VolumeError::NoSpace`], [`VolumeError::Io`].
    pub async fn prepare(
        &self,
        namespace: &VolumeName,
        name: &VolumeName,
        seed: Option<Seed>,
    ) -> Result<Volume, VolumeError> {
        let (namespace, name) = (namespace.clone(), name.clone());
        self.on_blocking_thread(move |volumes| volumes.prepare_blocking(&namespace, &name, seed.as_ref()))
            .await
    }

    /// The volume, if there is one.
    pub async fn get(
        &self,
        namespace: &VolumeName,
        name: &VolumeName,
    ) -> Result<Option<Volume>, VolumeError> {
        let (namespace, name) = (namespace.clone(), name.clone());
        self.on_blocking_thread(move |volumes| volumes.get_blocking(&namespace, &name)).await
    }

    /// All volumes, by namespace and name.
    pub async fn list(&self) -> Result<Vec<Volume>, VolumeError> {
        self.on_blocking_thread(|volumes| volumes.list_blocking()).await
    }

    /// Removes a volume with its content, unless somebody uses it: `users` are the caller's names for those who do.
    ///
    /// # Errors
    /// [`VolumeError::InUse`], [`VolumeError::NotFound`], [`VolumeError::Io`].
    pub async fn delete(
        &self,
        namespace: &VolumeName,
        name: &VolumeName,
        users: &[String],
    ) -> Result<(), VolumeError> {
        let (namespace, name) = (namespace.clone(), name.clone());
        if !users.is_empty() {
            return Err(VolumeError::InUse { namespace, name, users: users.to_vec() });
        }
        self.on_blocking_thread(move |volumes| volumes.delete_blocking(&namespace, &name)).await
    }

    /// As [`Volumes::prepare`].
    pub fn prepare_blocking(
        &self,
        namespace: &VolumeName,
        name: &VolumeName,
        seed: Option<&Seed>,
    ) -> Result<Volume, VolumeError> {
        if let Some(volume) = self.get_blocking(namespace, name)? {
            return Ok(volume);
        }
        let unfinished = self.unfinished(namespace);
        let made = self.make(namespace, name, seed, &unfinished);
        if made.is_err() {
            // The error that matters is the first.
            let _ = remove_tree(&unfinished);
        }
        made?;
        tracing::info!(%namespace, %name, "Made a volume");
        self.get_blocking(namespace, name)?
            .ok_or_else(|| VolumeError::NotFound { namespace: namespace.clone(), name: name.clone() })
    }

    /// As [`Volumes::get`].
    pub fn get_blocking(
        &self,
        namespace: &VolumeName,
        name: &VolumeName,
    ) -> Result<Option<Volume>, VolumeError> {
        let directory = self.directory(namespace, name);
        let file = directory.join(METADATA_FILE);
        let failed = |source| VolumeError::Io { what: format!("read {}", file.display()), source };
        let text = match fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        let metadata: Metadata = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
        Ok(Some(Volume {
            namespace: namespace.clone(),
            name: name.clone(),
            path: directory.join(DATA_DIR),
            created_at: metadata.created_at,
        }))
    }

    fn list_blocking(&self) -> Result<Vec<Volume>, VolumeError> {
        let mut volumes = Vec::new();
        for namespace in names_in(&self.root)? {
            for name in names_in(&self.root.join(namespace.as_str()))? {
                volumes.extend(self.get_blocking(&namespace, &name)?);
            }
        }
        volumes.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(volumes)
    }

    fn delete_blocking(&self, namespace: &VolumeName, name: &VolumeName) -> Result<(), VolumeError> {
        let directory = self.directory(namespace, name);
        // Out of sight first, so that nobody finds half of it.
        let doomed = self.unfinished(namespace);
        match fs::rename(&directory, &doomed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(VolumeError::NotFound { namespace: namespace.clone(), name: name.clone() });
            }
            other => other.map_err(|source| VolumeError::Io {
                what: format!("remove {}", directory.display()),
                source,
            })?,
        }
        remove_tree(&doomed)?;
        // Succeeds only for the namespace's last volume.
        let _ = fs::remove_dir(self.root.join(namespace.as_str()));
        Ok(())
    }

    fn sweep_blocking(&self) -> Result<(), VolumeError> {
        for namespace in names_in(&self.root)? {
            let directory = self.root.join(namespace.as_str());
            for entry in read_dir(&directory)? {
                if entry.file_name().to_string_lossy().starts_with(UNFINISHED_PREFIX) {
                    remove_tree(&entry.path())?;
                }
            }
        }
        Ok(())
    }

    fn make(
        &self,
        namespace: &VolumeName,
        name: &VolumeName,
        seed: Option<&Seed>,
        unfinished: &Path,
    ) -> Result<(), VolumeError> {
        let failed = |what: String| {
            let (namespace, name) = (namespace.clone(), name.clone());
            move |source: io::Error| match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    VolumeError::NoSpace { namespace, name }
                }
                _ => VolumeError::Io { what, source },
            }
        };
        let data = unfinished.join(DATA_DIR);
        fs::create_dir_all(&data).map_err(failed(format!("create {}", data.display())))?;
        if let Some(Seed { rootfs, path }) = seed {
            copy::copy_directory(rootfs, path, &data).map_err(|source| match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => failed(String::new())(source),
                _ => VolumeError::Populate { path: path.clone(), source },
            })?;
        }
        let metadata = Metadata { created_at: Timestamp::now() };
        let write = || {
            let file = fs::File::create(unfinished.join(METADATA_FILE))?;
            serde_json::to_writer(&file, &metadata)?;
            // The whole file system: it is the content that must not be empty after a power failure.
            nix::unistd::syncfs(&file).map_err(io::Error::from)
        };
        write().map_err(failed(format!("write {}", unfinished.display())))?;
        let directory = self.directory(namespace, name);
        match fs::rename(unfinished, &directory) {
            // Someone else made it meanwhile: a directory that is not empty is never replaced.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => remove_tree(unfinished),
            other => other.map_err(failed(format!("create {}", directory.display()))),
        }
    }

    fn directory(&self, namespace: &VolumeName, name: &VolumeName) -> PathBuf {
        self.root.join(namespace.as_str()).join(name.as_str())
    }

    /// A new path beside the namespace's volumes, where renaming to them is possible.
    fn unfinished(&self, namespace: &VolumeName) -> PathBuf {
        self.root.join(namespace.as_str()).join(format!("{UNFINISHED_PREFIX}{:016x}", rand::random::<u64>()))
    }

    async fn on_blocking_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, VolumeError> + Send + 'static,
    ) -> Result<T, VolumeError> {
        let volumes = self.clone();
        match tokio::task::spawn_blocking(move || work(&volumes)).await {
            Ok(outcome) => outcome,
            Err(panic) => {
                Err(VolumeError::Io { what: "work on volumes".into(), source: io::Error::other(panic) })
            }
        }
    }
}

/// The directories that can be namespaces or volumes; none where `directory` does not exist.
fn names_in(directory: &Path) -> Result<Vec<VolumeName>, VolumeError> {
    let entries = read_dir(directory)?;
    Ok(entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

fn read_dir(directory: &Path) -> Result<Vec<fs::DirEntry>, VolumeError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.and_then(Iterator::collect),
    };
    entries.map_err(|source| VolumeError::Io { what: format!("read {}", directory.display()), source })
}

fn remove_tree(directory: &Path) -> Result<(), VolumeError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(VolumeError::Io { what: format!("remove {}", directory.display()), source: error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> VolumeName {
        text.parse().unwrap()
    }

    /// A store of volumes, and an image whose `/data` has a file.
    fn fixture() -> (tempfile::TempDir, Volumes, Seed) {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("image");
        fs::create_dir_all(rootfs.join("data")).unwrap();
        fs::write(rootfs.join("data/seed"), "from the image").unwrap();
        let volumes = Volumes::new(dir.path().join("volumes"));
        (dir, volumes, Seed { rootfs, path: "/data".into() })
    }

    #[test]
    fn a_name_is_one_harmless_component_of_a_path() {
        for text in ["a", "prometheus-data", "a.b_c-1", &"x".repeat(63)] {
            assert_eq!(name(text).as_str(), text);
        }
        for text in ["", ".", "..", ".new-1", "a/b", "A", "a b", "-a", "_a", "\0", &"x".repeat(64)] {
            assert!(matches!(text.parse::<VolumeName>(), Err(VolumeError::Name { .. })), "{text:?}");
        }
    }

    #[tokio::test]
    async fn only_a_new_volume_takes_the_images_content() {
        let (_dir, volumes, seed) = fixture();
        let made = volumes.prepare(&name("ns"), &name("data"), Some(seed.clone())).await.unwrap();
        let file = made.path.join("seed");
        assert_eq!(fs::read_to_string(&file).unwrap(), "from the image");
        fs::write(&file, "changed").unwrap();
        let found = volumes.prepare(&name("ns"), &name("data"), Some(seed)).await.unwrap();
        assert_eq!(found, made);
        assert_eq!(fs::read_to_string(&file).unwrap(), "changed");
    }

    #[tokio::test]
    async fn volumes_are_listed_and_removed() {
        let (_dir, volumes, _) = fixture();
        assert_eq!(volumes.list().await.unwrap(), []);
        let b = volumes.create(&name("two"), &name("b")).await.unwrap();
        let a = volumes.create(&name("one"), &name("a")).await.unwrap();
        let again = volumes.create(&name("one"), &name("a")).await;
        assert!(matches!(again, Err(VolumeError::Exists { .. })), "{again:?}");
        assert_eq!(volumes.list().await.unwrap(), [a.clone(), b.clone()]);
        let users = ["web-1".to_owned()];
        let refused = volumes.delete(&name("one"), &name("a"), &users).await;
        assert!(matches!(&refused, Err(VolumeError::InUse { users: by, .. }) if *by == users), "{refused:?}");
        volumes.delete(&name("one"), &name("a"), &[]).await.unwrap();
        assert!(!a.path.exists());
        assert_eq!(volumes.list().await.unwrap(), [b]);
        let missing = volumes.delete(&name("one"), &name("a"), &[]).await;
        assert!(matches!(missing, Err(VolumeError::NotFound { .. })), "{missing:?}");
    }

    #[tokio::test]
    async fn one_volume_comes_of_many_that_make_it_at_once() {
        let (_dir, volumes, seed) = fixture();
        let makers = (0..16).map(|_| {
            let (volumes, seed) = (volumes.clone(), seed.clone());
            tokio::spawn(
                async move { volumes.prepare(&name("ns"), &name("data"), Some(seed)).await.unwrap() },
            )
        });
        let makers: Vec<_> = makers.collect();
        let mut made = Vec::new();
        for maker in makers {
            made.push(maker.await.unwrap());
        }
        assert!(made.iter().all(|volume| *volume == made[0]), "{made:?}");
        let left = fs::read_dir(volumes.root.join("ns")).unwrap().count();
        assert_eq!(left, 1, "nothing half-made is left");
    }

    #[tokio::test]
    async fn what_a_crash_left_half_made_is_no_volume_and_is_swept_away() {
        let (_dir, volumes, seed) = fixture();
        let half = volumes.unfinished(&name("ns"));
        fs::create_dir_all(half.join(DATA_DIR)).unwrap();
        fs::write(half.join(DATA_DIR).join("part"), "of it").unwrap();
        assert_eq!(volumes.list().await.unwrap(), []);
        let kept = volumes.prepare(&name("ns"), &name("data"), Some(seed)).await.unwrap();
        volumes.sweep().await.unwrap();
        assert!(!half.exists());
        assert_eq!(volumes.list().await.unwrap(), [kept]);
    }

    #[tokio::test]
    async fn a_copy_that_fails_leaves_nothing() {
        let (dir, volumes, _) = fixture();
        // A tree too deep to be copied.
        let rootfs = dir.path().join("deep");
        let mut path = rootfs.join("data");
        for _ in 0..300 {
            path.push("d");
        }
        fs::create_dir_all(&path).unwrap();
        let seed = Seed { rootfs, path: "/data".into() };
        let error = volumes.prepare(&name("ns"), &name("data"), Some(seed)).await.unwrap_err();
        assert!(matches!(error, VolumeError::Populate { .. }), "{error:?}");
        assert_eq!(fs::read_dir(volumes.root.join("ns")).unwrap().count(), 0);
    }
}
