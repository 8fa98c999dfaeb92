//! How images are built. Nothing here is built: whoever reads a project may.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    device::Ulimit,
    grant::Grants,
    host::ExtraHosts,
    print::Out,
    reader::{At, Reader},
    record::{Field, Record, Yaml, print_map, record},
    spot::Located,
    tree::Value,
    value::{Bytes, KeyValues, Variables},
};

record! {
    /// How the image of a service is built.
    pub struct Build {
        /// What the Dockerfile may copy from; always there: the project's directory if nothing is said.
        context: Option<Located<Context>>,
        /// The Dockerfile, as seen from the context; none: `Dockerfile`.
        dockerfile: Option<Located<String>>,
        /// The text of the Dockerfile.
        dockerfile_inline: Option<Located<String>>,
        /// Its arguments.
        args: Variables,
        /// The stage at which it ends.
        target: Option<Located<String>>,
        /// Other names of the image.
        tags: Vec<Located<String>>,
        /// Labels of the image.
        labels: KeyValues,
        /// Processors that it is built for.
        platforms: Vec<Located<String>>,
        /// Contexts by the names that the Dockerfile has for them.
        additional_contexts: Contexts,
        /// Where results of earlier steps are looked for.
        cache_from: Vec<Located<String>>,
        /// Where results of steps are put.
        cache_to: Vec<Located<String>>,
        /// Whether nothing of earlier builds is used.
        no_cache: Option<Located<bool>>,
        /// Whether base images are pulled though they are there.
        pull: Option<Located<bool>>,
        /// The network that steps are in.
        network: Option<Located<String>>,
        /// Names in the `/etc/hosts` of steps.
        extra_hosts: ExtraHosts,
        /// Secrets that steps may ask for.
        secrets: Grants,
        /// Keys that steps may ask for.
        ssh: Ssh,
        /// What steps may do beyond the usual.
        entitlements: Vec<Located<String>>,
        /// Whether steps may do everything.
        privileged: Option<Located<bool>>,
        /// How steps are isolated, on Windows.
        isolation: Option<Located<String>>,
        /// How large `/dev/shm` of steps is.
        shm_size: Option<Located<Bytes>>,
        /// What processes of steps may use each.
        ulimits: BTreeMap<String, Located<Ulimit>>,
    }
}

impl Yaml for Build {
    /// A map, or the context.
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        match at.node.value {
            Value::Scalar { .. } => {
                let context = Context::read(reader, at)?;
                Some(Build { context: Some(at.located(context)), ..Build::default() })
            }
            _ => {
                let mut build = Build::read_record(reader, at)?;
                if build.context.is_none() {
                    let here = reader.sources.resolve(at.node.file, ".");
                    build.context = Some(at.located(Context::Directory(here)));
                }
                Some(build)
            }
        }
    }

    fn print(&self) -> Out {
        Out::Map(self.print_fields())
    }
}

/// What a Dockerfile may copy from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Context {
    /// A directory of the host.
    Directory(PathBuf),
    /// A repository, an archive or an image, as it is written.
    Remote(String),
}

impl Yaml for Context {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        let text = reader.text(at)?;
        let is_remote = text.contains("://")
            || ["git@", "github.com/", "service:", "target:"].iter().any(|begin| text.starts_with(begin));
        Some(match is_remote {
            true => Context::Remote(text),
            false => Context::Directory(reader.sources.resolve(at.node.file, &text)),
        })
    }

    fn print(&self) -> Out {
        match self {
            Context::Directory(path) => Out::Text(path.display().to_string()),
            Context::Remote(text) => Out::Text(text.clone()),
        }
    }
}

/// Contexts by name: a map, or a list of `name=context`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contexts(pub BTreeMap<String, Located<Context>>);

impl Field for Contexts {
    fn absent() -> Self {
        Contexts::default()
    }

    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Self {
        let mut contexts = BTreeMap::new();
        let pairs: Vec<(String, At<'_>)> = match &at.node.value {
            Value::List(_) => {
                let named = crate::value::key_values(reader, at);
                for (name, value) in named {
                    let text = value.value.clone().unwrap_or_default();
                    let node = at.node.text(&text);
                    let item = At { node: &node, path: value.spot.path().to_owned(), key: None };
                    contexts.extend(Context::read(reader, &item).map(|context| (name, value.with(context))));
                }
                return Contexts(contexts);
            }
            _ if reader.is_map(at) => {
                at.pairs().into_iter().map(|(name, at)| (name.to_owned(), at)).collect()
            }
            _ => Vec::new(),
        };
        for (name, at) in pairs {
            contexts.extend(Context::read(reader, &at).map(|context| (name, at.located(context))));
        }
        Contexts(contexts)
    }

    fn print(&self) -> Option<Out> {
        (!self.0.is_empty()).then(|| print_map(&self.0))
    }
}

/// Keys by name, each with the paths that it is read from: a list of `name=path`, a map, or one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ssh(pub KeyValues);

impl Field for Ssh {
    fn absent() -> Self {
        Ssh::default()
    }

    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Self {
        let Value::Scalar { .. } = at.node.value else { return Ssh(Field::read(reader, at)) };
        let name = reader.text(at).map(|name| (name, at.located(crate::value::Scalar(String::new()))));
        Ssh(KeyValues(name.into_iter().collect()))
    }

    fn print(&self) -> Option<Out> {
        Field::print(&self.0)
    }
}
