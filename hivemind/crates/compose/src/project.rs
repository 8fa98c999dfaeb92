//! A project: what all files of a reading come to.

use std::collections::BTreeMap;

use hivemind_model::ErrorCode;

use crate::{
    grant::{Config, Secret},
    limits::SERVICES_MAX,
    network::{Network, Volume},
    print::Out,
    reader::{At, Reader, shown},
    record::{Field, Yaml},
    service::Service,
    source::Sources,
    spot::Located,
};

/// What all files of a reading come to. Every value knows where it stands; two projects are equal if they say the same, wherever.
#[derive(Clone, Debug)]
pub struct Project {
    /// Its name: 1 or more of a-z, 0-9, `-` and `_`, beginning with a letter or digit.
    pub name: Located<String>,
    /// The services that are part of it, by name.
    pub services: BTreeMap<String, Located<Service>>,
    /// Those of which no profile is active.
    pub inactive: BTreeMap<String, Located<Service>>,
    /// Its networks. Services that name none are in `default`, whether or not it is here.
    pub networks: BTreeMap<String, Located<Network>>,
    /// Its volumes.
    pub volumes: BTreeMap<String, Located<Volume>>,
    /// Its secrets.
    pub secrets: BTreeMap<String, Located<Secret>>,
    /// Its configs.
    pub configs: BTreeMap<String, Located<Config>>,
    /// The files that it was read from.
    pub sources: Sources,
}

impl PartialEq for Project {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.services == other.services
            && self.inactive == other.inactive
            && self.networks == other.networks
            && self.volumes == other.volumes
            && self.secrets == other.secrets
            && self.configs == other.configs
    }
}

impl Eq for Project {}

/// The fields of a file. `include` is read before files are merged.
const FIELDS: &[&str] = &["name", "services", "networks", "volumes", "secrets", "configs"];
/// Those that are known besides.
const OTHER: &[&str] = &["version", "include", "models"];

impl Project {
    /// The project as a Compose file in one form: all files in one, variables filled in, short forms written out, all keys in order.
    /// Read in the same directory it gives the same project.
    pub fn to_yaml(&self) -> String {
        let services = self.services.iter().chain(&self.inactive);
        let services: BTreeMap<&String, Out> =
            services.map(|(name, service)| (name, service.value.print())).collect();
        let services = Out::Map(services.into_iter().map(|(name, out)| (name.clone(), out)).collect());
        let fields = [
            ("name", Some(Out::Text(self.name.value.clone()))),
            ("services", Some(services)),
            ("networks", Field::print(&self.networks)),
            ("volumes", Field::print(&self.volumes)),
            ("configs", Field::print(&self.configs)),
            ("secrets", Field::print(&self.secrets)),
        ];
        let fields = fields.into_iter().filter_map(|(name, out)| Some((name.to_owned(), out?)));
        Out::Map(fields.collect()).document()
    }

    /// Reads the project of a tree that has all files in it.
    pub(crate) fn read(
        reader: &mut Reader<'_>,
        at: &At<'_>,
        name: Located<String>,
        is_active: &dyn Fn(&str, &Service) -> bool,
    ) -> Self {
        reader.map(at, FIELDS, OTHER);
        if let Some(version) = at.get("version") {
            let message = "version is obsolete, and says nothing".to_owned();
            reader.warn(&version.spot().of_key(), ErrorCode::Unsupported, message, "leave it out");
        }
        if let Some(models) = at.get("models") {
            let message = "models is not supported".to_owned();
            let hint = "language models are not run; use a service that has one";
            reader.fault_at(&models.spot().of_key(), ErrorCode::Unsupported, message, hint);
        }
        let services: BTreeMap<String, Located<Service>> = match at.get("services") {
            Some(services) if services.node.pairs().len() > SERVICES_MAX => {
                let message = format!("more than {SERVICES_MAX} services");
                reader.fault(&services, ErrorCode::OutOfRange, message, "make several projects of it");
                BTreeMap::new()
            }
            Some(services) => section(reader, &services),
            None => BTreeMap::new(),
        };
        let (services, inactive) = services.into_iter().partition(|(name, service)| is_active(name, service));
        let networks = at.get("networks").map(|at| section(reader, &at)).unwrap_or_default();
        let volumes = at.get("volumes").map(|at| section(reader, &at)).unwrap_or_default();
        let secrets = at.get("secrets").map(|at| section(reader, &at)).unwrap_or_default();
        let configs = at.get("configs").map(|at| section(reader, &at)).unwrap_or_default();
        let sources = Sources::default();
        Project { name, services, inactive, networks, volumes, secrets, configs, sources }
    }

    /// All services, those of inactive profiles included.
    pub fn all_services(&self) -> impl Iterator<Item = (&String, &Located<Service>)> {
        self.services.iter().chain(&self.inactive)
    }
}

/// What one of the sections defines, by name.
fn section<T: Yaml>(reader: &mut Reader<'_>, at: &At<'_>) -> BTreeMap<String, Located<T>> {
    for pair in at.node.pairs() {
        if !is_name(&pair.key) {
            let path = at.below(&pair.key);
            let message = format!("{} is not a name", shown(&pair.key));
            let hint = "use letters, digits, '.', '_' and '-'";
            reader.fault_in(pair.value.file, pair.place, &path, ErrorCode::InvalidName, message, hint);
        }
    }
    Field::read(reader, at)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Whether `name` can be that of a project.
pub(crate) fn is_project_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}

/// The project name that `text`, the name of a directory, comes near to.
pub(crate) fn project_name_of(text: &str) -> String {
    let lower = text.to_lowercase();
    let kept =
        lower.chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'));
    kept.collect::<String>().trim_start_matches(['_', '-']).to_owned()
}
