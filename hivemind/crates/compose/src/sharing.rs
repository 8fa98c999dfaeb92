//! Namespaces that a service shares, what becomes of it when it ends, and what it waits for.

use hivemind_model::ErrorCode;

use crate::{
    print::Out,
    reader::{At, Reader, shown},
    record::{Yaml, choice},
    value::Within,
};

/// Whose namespace a service is in: its network, its processes, its shared memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// The host's.
    Host,
    /// That of another service of the project.
    Service(String),
    /// That of a container.
    Container(String),
    /// What the field knows by this name, such as `none`, `private` or `bridge`.
    Named(String),
}

impl Yaml for Sharing {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        let text = reader.text(at)?;
        let of = match text.split_once(':') {
            Some(("service", name)) if !name.is_empty() => Sharing::Service(name.to_owned()),
            Some(("container", name)) if !name.is_empty() => Sharing::Container(name.to_owned()),
            Some(_) => {
                let message = format!("{} is nobody's", shown(&text));
                reader.fault(at, ErrorCode::Malformed, message, "write host, service:name or container:name");
                return None;
            }
            None if text == "host" => Sharing::Host,
            None => Sharing::Named(text),
        };
        Some(of)
    }

    fn print(&self) -> Out {
        Out::Text(match self {
            Sharing::Host => "host".to_owned(),
            Sharing::Service(name) => format!("service:{name}"),
            Sharing::Container(name) => format!("container:{name}"),
            Sharing::Named(name) => name.clone(),
        })
    }
}

/// What becomes of a container that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// It stays as it is.
    No,
    /// It is started again.
    Always,
    /// It is started again if it failed, so often at most.
    OnFailure(Option<u32>),
    /// It is started again until somebody stops it.
    UnlessStopped,
}

/// The most starts that can be asked for.
type Attempts = Within<0, 1_000_000>;

impl Yaml for Restart {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        let text = reader.text(at)?;
        match text.split_once(':') {
            Some(("on-failure", count)) => {
                let node = at.node.text(count);
                let at = At { node: &node, ..at.clone() };
                let count = Attempts::read(reader, &at)?;
                Some(Restart::OnFailure(u32::try_from(*count).ok()))
            }
            _ => reader.choice(
                at,
                &[
                    ("no", Restart::No),
                    ("always", Restart::Always),
                    ("on-failure", Restart::OnFailure(None)),
                    ("unless-stopped", Restart::UnlessStopped),
                ],
            ),
        }
    }

    fn print(&self) -> Out {
        Out::Text(match self {
            Restart::No => "no".to_owned(),
            Restart::Always => "always".to_owned(),
            Restart::OnFailure(None) => "on-failure".to_owned(),
            Restart::OnFailure(Some(count)) => format!("on-failure:{count}"),
            Restart::UnlessStopped => "unless-stopped".to_owned(),
        })
    }
}

choice! {
    /// What has to be true of a service before one that depends on it is started.
    pub enum Condition {
        /// It was started.
        Started = "service_started",
        /// It is well.
        Healthy = "service_healthy",
        /// It ended well.
        Completed = "service_completed_successfully",
    }
}

/// How a service depends on another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// What it waits for.
    pub condition: Condition,
    /// Whether it is started again with the other.
    pub restart: bool,
    /// Whether it has to be there.
    pub required: bool,
}

impl Default for Dependency {
    fn default() -> Self {
        Dependency { condition: Condition::Started, restart: false, required: true }
    }
}

impl Yaml for Dependency {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        let usual = Dependency::default();
        if at.node.is_null() {
            return Some(usual);
        }
        if !reader.map(at, &["condition", "restart", "required"], &[]) {
            return None;
        }
        let mut flag =
            |key: &str, usual: bool| at.get(key).and_then(|at| reader.boolean(&at)).unwrap_or(usual);
        let (restart, required) = (flag("restart", usual.restart), flag("required", usual.required));
        let condition = at.get("condition").and_then(|at| Condition::read(reader, &at));
        Some(Dependency { condition: condition.unwrap_or(usual.condition), restart, required })
    }

    fn print(&self) -> Out {
        let condition = Some(("condition", Yaml::print(&self.condition)));
        let restart = self.restart.then(|| ("restart", Out::bare(true)));
        let required = (!self.required).then(|| ("required", Out::bare(false)));
        let fields = [condition, restart, required].into_iter().flatten();
        Out::Map(fields.map(|(key, out)| (key.to_owned(), out)).collect())
    }
}
