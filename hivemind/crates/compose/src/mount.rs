//! What services mount.

use hivemind_model::ErrorCode;

use crate::{
    print::Out,
    reader::{At, Reader, shown},
    record::{Field, Record, Yaml, choice, only_as_map, record},
    spot::Located,
    tree::Value,
    value::{Bytes, FileMode, HostPath, KeyValues},
};

/// Something at a path of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// An absolute path in the container.
    pub target: String,
    /// Whether the container may only read it.
    pub read_only: bool,
    /// How fresh what one side reads has to be; it means nothing on Linux.
    pub consistency: Option<String>,
    /// What is there.
    pub what: Mounted,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// A volume; without a name, one of its own for each container.
    Volume(Option<String>, VolumeOptions),
    /// A file or directory of the host.
    Bind(HostPath, BindOptions),
    /// A directory in memory.
    Tmpfs(TmpfsOptions),
    /// What an image holds.
    Image(String, ImageOptions),
}

record! {
    /// How a volume is mounted.
    pub struct VolumeOptions {
        /// Labels of a volume without a name.
        labels: KeyValues,
        /// Whether what the image has at the path is not copied into an empty volume.
        nocopy: Option<Located<bool>>,
        /// The part of the volume that is mounted.
        subpath: Option<Located<String>>,
    }
}

record! {
    /// How a path of the host is mounted.
    pub struct BindOptions {
        /// Whether mounts below it go from one side to the other.
        propagation: Option<Located<Propagation>>,
        /// Whether a directory is made where there is nothing.
        create_host_path: Option<Located<bool>>,
        /// What becomes of mounts below it.
        recursive: Option<Located<Recursive>>,
        /// How SELinux labels it: z or Z.
        selinux: Option<Located<Selinux>>,
    }
}

record! {
    /// How a directory in memory is made.
    pub struct TmpfsOptions {
        /// How much fits.
        size: Option<Located<Bytes>>,
        /// Who may use it.
        mode: Option<Located<FileMode>>,
    }
}

record! {
    /// How an image is mounted.
    pub struct ImageOptions {
        /// The part of the image that is mounted.
        subpath: Option<Located<String>>,
    }
}

only_as_map!(VolumeOptions, BindOptions, TmpfsOptions, ImageOptions);

choice! {
    /// Whether mounts below a mount go from one side to the other.
    pub enum Propagation {
        /// Both ways.
        Shared = "shared",
        /// Into the container.
        Slave = "slave",
        /// Not at all.
        Private = "private",
        /// Both ways, below as well.
        Rshared = "rshared",
        /// Into the container, below as well.
        Rslave = "rslave",
        /// Not at all, below as well.
        Rprivate = "rprivate",
    }
}

choice! {
    /// What becomes of mounts below one.
    pub enum Recursive {
        /// They are mounted, read-only if the kernel can do that.
        Enabled = "enabled",
        /// They are left out.
        Disabled = "disabled",
        /// They are mounted, and stay writable.
        Writable = "writable",
        /// They are mounted read-only.
        Readonly = "readonly",
    }
}

choice! {
    /// How SELinux labels a path.
    pub enum Selinux {
        /// For several containers.
        Shared = "z",
        /// For this one alone.
        Own = "Z",
    }
}

choice! {
    /// Kinds of mounts.
    enum Kind {
        /// Of a volume.
        Volume = "volume",
        /// Of a path of the host.
        Bind = "bind",
        /// Of memory.
        Tmpfs = "tmpfs",
        /// Of an image.
        Image = "image",
        /// Of a Windows pipe.
        Npipe = "npipe",
        /// Of a cluster volume.
        Cluster = "cluster",
    }
}

/// The mounts of a service, one at a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts(pub Vec<Located<Mount>>);

impl std::ops::Deref for Mounts {
    type Target = [Located<Mount>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// The parts of a mount in the short form; those that are left out are empty.
pub(crate) struct Parts<'t> {
    pub(crate) source: &'t str,
    pub(crate) target: &'t str,
    pub(crate) options: &'t str,
}

/// `[source:]target[:options]`; none for more parts.
pub(crate) fn split(text: &str) -> Option<Parts<'_>> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [target] => Some(Parts { source: "", target, options: "" }),
        [source, target] => Some(Parts { source, target, options: "" }),
        [source, target, options] => Some(Parts { source, target, options }),
        _ => None,
    }
}

/// What the short form looks like.
const HINT: &str = "write volume:/path, ./directory:/path or /path, with :ro behind it for reading only";
/// The fields of the long form.
const FIELDS: &[&str] =
    &["type", "source", "target", "read_only", "consistency", "bind", "volume", "tmpfs", "image"];

impl Field for Mounts {
    fn absent() -> Self {
        Mounts::default()
    }

    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Self {
        let mut mounts: Vec<Located<Mount>> = Vec::new();
        let mut known = std::collections::HashSet::new();
        for item in reader.list(at) {
            let read = match &item.node.value {
                Value::Scalar { .. } => short(reader, &item),
                _ => long(reader, &item),
            };
            let Some(mount) = read else { continue };
            if !known.insert(mount.target.trim_end_matches('/').to_owned()) {
                let message = format!("something else is mounted at {} already", shown(&mount.target));
                reader.fault(&item, ErrorCode::Repeated, message, "mount one thing at a path");
                continue;
            }
            mounts.push(item.located(mount));
        }
        Mounts(mounts)
    }

    fn print(&self) -> Option<Out> {
        (!self.0.is_empty()).then(|| Out::List(self.0.iter().map(|mount| mount.print()).collect()))
    }
}

fn short(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Mount> {
    let text = reader.text(at)?;
    let Some(Parts { source, target, options }) = split(&text) else {
        let message = format!("{} has more than a source, a path and options", shown(&text));
        reader.fault(at, ErrorCode::InvalidMount, message, HINT);
        return None;
    };
    check_target(reader, at, target)?;
    let what = match source {
        _ if text.starts_with(':') => {
            let message = format!("{} has no source before the ':'", shown(&text));
            reader.fault(at, ErrorCode::InvalidMount, message, HINT);
            return None;
        }
        "" => Mounted::Volume(None, VolumeOptions::default()),
        path if path.starts_with(['.', '/', '~']) => {
            let path = HostPath(reader.sources.resolve(at.node.file, path));
            // The short form has always made what is not there.
            let create_host_path = Some(at.located(true));
            Mounted::Bind(path, BindOptions { create_host_path, ..BindOptions::default() })
        }
        name => Mounted::Volume(Some(name.to_owned()), VolumeOptions::default()),
    };
    let mut mount = Mount { target: target.to_owned(), read_only: false, consistency: None, what };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        add_option(reader, at, &mut mount, option);
    }
    Some(mount)
}

fn add_option(reader: &mut Reader<'_>, at: &At<'_>, mount: &mut Mount, option: &str) {
    let propagation = match option {
        "shared" => Some(Propagation::Shared),
        "slave" => Some(Propagation::Slave),
        "private" => Some(Propagation::Private),
        "rshared" => Some(Propagation::Rshared),
        "rslave" => Some(Propagation::Rslave),
        "rprivate" => Some(Propagation::Rprivate),
        _ => None,
    };
    match (option, &mut mount.what) {
        ("rw", _) => mount.read_only = false,
        ("ro", _) => mount.read_only = true,
        ("consistent" | "cached" | "delegated", _) => mount.consistency = Some(option.to_owned()),
        ("nocopy", Mounted::Volume(_, options)) => options.nocopy = Some(at.located(true)),
        ("z", Mounted::Bind(_, options)) => options.selinux = Some(at.located(Selinux::Shared)),
        ("Z", Mounted::Bind(_, options)) => options.selinux = Some(at.located(Selinux::Own)),
        // On a volume these labels say nothing that it has not already.
        ("z" | "Z", Mounted::Volume(..)) => {}
        (_, Mounted::Bind(_, options)) if propagation.is_some() => {
            options.propagation = propagation.map(|propagation| at.located(propagation));
        }
        _ => {
            let message = format!("{} is not an option of this mount", shown(option));
            reader.fault(
                at,
                ErrorCode::InvalidMount,
                message,
                "use ro, rw, z, Z or nocopy; see the long form for others",
            );
        }
    }
}

fn long(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Mount> {
    if !reader.map(at, FIELDS, &[]) {
        return None;
    }
    let kind = reader.required(at, "type", "say what it is: type: volume, bind or tmpfs");
    let target = reader.required(at, "target", "say where it appears in the container: target: /data");
    let (kind_at, target_at) = (kind?, target?);
    let kind = Kind::read(reader, &kind_at)?;
    let target = reader.text(&target_at)?;
    check_target(reader, &target_at, &target)?;
    let what = match kind {
        Kind::Volume => Mounted::Volume(source(reader, at), options(reader, at, "volume")),
        Kind::Bind => {
            let hint = "say which path of the host: source: ./data";
            let path = reader.required(at, "source", hint)?;
            Mounted::Bind(HostPath::read(reader, &path)?, options(reader, at, "bind"))
        }
        Kind::Tmpfs => Mounted::Tmpfs(options(reader, at, "tmpfs")),
        Kind::Image => {
            let image = reader.required(at, "source", "say which image: source: nginx:latest")?;
            Mounted::Image(reader.text(&image)?, options(reader, at, "image"))
        }
        Kind::Npipe | Kind::Cluster => {
            let message = format!("mounts of type {} are not supported", kind.as_str());
            reader.fault(&kind_at, ErrorCode::Unsupported, message, "use volume, bind or tmpfs");
            return None;
        }
    };
    for other in ["bind", "volume", "tmpfs", "image"].into_iter().filter(|other| *other != kind.as_str()) {
        if let Some(of_other) = at.get(other) {
            let message = format!("{} says nothing of a mount of type {}", of_other.path, kind.as_str());
            reader.fault(&of_other, ErrorCode::InvalidMount, message, "leave it out, or change the type");
        }
    }
    if kind == Kind::Tmpfs
        && let Some(source) = at.get("source")
    {
        let message = "a directory in memory has no source".to_owned();
        reader.fault(&source, ErrorCode::InvalidMount, message, "leave it out, or change the type");
    }
    let read_only = at.get("read_only").and_then(|at| reader.boolean(&at)).unwrap_or_default();
    let consistency = at.get("consistency").and_then(|at| reader.text(&at));
    Some(Mount { target, read_only, consistency, what })
}

fn source(reader: &mut Reader<'_>, at: &At<'_>) -> Option<String> {
    at.get("source").and_then(|at| reader.text(&at)).filter(|name| !name.is_empty())
}

fn options<T: Record + Default>(reader: &mut Reader<'_>, at: &At<'_>, key: &str) -> T {
    at.get(key).and_then(|at| T::read_record(reader, &at)).unwrap_or_default()
}

fn check_target(reader: &mut Reader<'_>, at: &At<'_>, target: &str) -> Option<()> {
    if !target.starts_with('/') || target.trim_end_matches('/').is_empty() || target.contains('\0') {
        let message = format!("{} is not an absolute path in the container", shown(target));
        reader.fault(at, ErrorCode::InvalidMount, message, HINT);
        return None;
    }
    Some(())
}

impl Mount {
    fn print(&self) -> Out {
        let text = |text: &str| Out::Text(text.to_owned());
        let (kind, source, options) = match &self.what {
            Mounted::Volume(name, options) => ("volume", name.as_deref().map(text), options.print_fields()),
            Mounted::Bind(path, options) => ("bind", Some(path.print()), options.print_fields()),
            Mounted::Tmpfs(options) => ("tmpfs", None, options.print_fields()),
            Mounted::Image(image, options) => ("image", Some(text(image)), options.print_fields()),
        };
        let fields = [
            ("type", Some(text(kind))),
            ("source", source),
            ("target", Some(text(&self.target))),
            ("read_only", self.read_only.then(|| Out::bare(true))),
            ("consistency", self.consistency.as_deref().map(text)),
            (kind, (!options.is_empty()).then_some(Out::Map(options))),
        ];
        Out::Map(fields.into_iter().filter_map(|(key, out)| Some((key.to_owned(), out?))).collect())
    }
}
