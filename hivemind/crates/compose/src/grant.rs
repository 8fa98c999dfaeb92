//! Configs and secrets, and what services get of them.

use std::collections::BTreeMap;

use hivemind_model::ErrorCode;

use crate::{
    print::Out,
    reader::{At, Reader, shown},
    record::{Field, Record, Yaml, record},
    spot::Located,
    tree::Value,
    value::{FileMode, HostPath, KeyValues, Scalar},
};

record! {
    /// A config or secret that a service gets as a file.
    pub struct Grant {
        /// Its name in the project.
        source: Option<Located<String>>,
        /// The file; none: what the kind of it says.
        target: Option<Located<String>>,
        /// Whose file it is.
        uid: Option<Located<Scalar>>,
        /// Whose group's file it is.
        gid: Option<Located<Scalar>>,
        /// Who may do what with it.
        mode: Option<Located<FileMode>>,
    }
}

impl Grant {
    /// The name of what is granted.
    pub fn name(&self) -> &str {
        self.source.as_ref().map(|source| source.as_str()).unwrap_or_default()
    }

    /// The file that it appears as; `directory` is where those go that say no more than a name.
    pub fn path(&self, directory: &str) -> String {
        let target = self.target.as_ref().map(|target| target.as_str()).unwrap_or(self.name());
        match target.starts_with('/') {
            true => target.to_owned(),
            false => format!("{}/{target}", directory.trim_end_matches('/')),
        }
    }
}

impl Yaml for Grant {
    /// A map, or the name.
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        if let Value::Scalar { .. } = at.node.value {
            let name = reader.text(at)?;
            return Some(Grant { source: Some(at.located(name)), ..Grant::default() });
        }
        let grant = Grant::read_record(reader, at)?;
        reader.required(at, "source", "say which one: source: name")?;
        Some(grant)
    }

    fn print(&self) -> Out {
        Out::Map(self.print_fields())
    }
}

/// What a service gets, one at a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(pub Vec<Located<Grant>>);

impl std::ops::Deref for Grants {
    type Target = [Located<Grant>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Field for Grants {
    fn absent() -> Self {
        Grants::default()
    }

    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Self {
        let read: Vec<Located<Grant>> = Field::read(reader, at);
        let mut grants: Vec<Located<Grant>> = Vec::new();
        let mut known = std::collections::HashSet::new();
        for grant in read {
            let target = grant.target.as_ref().map(|target| target.value.clone());
            if !known.insert(target.unwrap_or_else(|| grant.name().to_owned())) {
                let message = format!("{} is the file of another one already", shown(&grant.path("")));
                reader.fault_at(
                    &grant.spot,
                    ErrorCode::Repeated,
                    message,
                    "leave one of the two, or give it another target",
                );
                continue;
            }
            grants.push(grant);
        }
        Grants(grants)
    }

    fn print(&self) -> Option<Out> {
        Field::print(&self.0)
    }
}

record! {
    /// A secret of the project.
    pub struct Secret {
        /// What it is called outside of the project.
        name: Option<Located<String>>,
        /// The file that holds it.
        file: Option<Located<HostPath>>,
        /// The variable that holds it.
        environment: Option<Located<String>>,
        /// Whether it is there already.
        external: Option<Located<External>>,
        /// Its labels.
        labels: KeyValues,
        /// Who keeps it.
        driver: Option<Located<String>>,
        /// What only the driver knows.
        driver_opts: BTreeMap<String, Located<Scalar>>,
        /// Who fills in what is variable in it.
        template_driver: Option<Located<String>>,
    }
}

record! {
    /// A config of the project.
    pub struct Config {
        /// What it is called outside of the project.
        name: Option<Located<String>>,
        /// The file that holds it.
        file: Option<Located<HostPath>>,
        /// The variable that holds it.
        environment: Option<Located<String>>,
        /// What is in it.
        content: Option<Located<String>>,
        /// Whether it is there already.
        external: Option<Located<External>>,
        /// Its labels.
        labels: KeyValues,
        /// Who fills in what is variable in it.
        template_driver: Option<Located<String>>,
    }
}

impl Yaml for Secret {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        let secret = Secret::read_record(reader, at)?;
        one_of(reader, at, &["file", "environment"], secret.external.as_ref(), secret.driver.is_some())?;
        Some(secret)
    }

    fn print(&self) -> Out {
        Out::Map(self.print_fields())
    }
}

impl Yaml for Config {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        let config = Config::read_record(reader, at)?;
        one_of(reader, at, &["file", "environment", "content"], config.external.as_ref(), false)?;
        Some(config)
    }

    fn print(&self) -> Out {
        Out::Map(self.print_fields())
    }
}

/// Checks that exactly one of `fields` says what is in a config or secret, or that it is there already.
fn one_of(
    reader: &mut Reader<'_>,
    at: &At<'_>,
    fields: &[&str],
    external: Option<&Located<External>>,
    is_kept: bool,
) -> Option<()> {
    let said: Vec<At<'_>> = fields.iter().filter_map(|field| at.get(field)).collect();
    let is_external = external.is_some_and(|external| external.is_external());
    match (said.as_slice(), is_external) {
        ([], true) | ([_], false) => Some(()),
        ([], false) if is_kept => Some(()),
        ([], false) => {
            let message = format!("{} says nowhere what is in it", at.path);
            let hint = format!("give it one of {}, or external: true", fields.join(", "));
            reader.fault(at, ErrorCode::WrongType, message, hint);
            None
        }
        ([first, ..], true) => {
            let message = format!("{} is said of something that is there already", first.path);
            reader.fault(first, ErrorCode::Unsupported, message, "leave out one of the two");
            None
        }
        ([_, second, ..], false) => {
            let message = format!("{} says twice what is in it", at.path);
            reader.fault(second, ErrorCode::Repeated, message, "leave out one of the two");
            None
        }
    }
}

/// Whether something is there already, and what it is called then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum External {
    /// The project makes it.
    No,
    /// It is there.
    Yes,
    /// It is there under this name; an old form of `name`.
    Named(String),
}

impl External {
    /// Whether it is there.
    pub fn is_external(&self) -> bool {
        *self != External::No
    }
}

impl Yaml for External {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        if let Value::Scalar { .. } = at.node.value {
            return reader.boolean(at).map(|is| if is { External::Yes } else { External::No });
        }
        if !reader.map(at, &["name"], &[]) {
            return None;
        }
        match at.get("name") {
            Some(name) => reader.text(&name).map(External::Named),
            None => Some(External::Yes),
        }
    }

    fn print(&self) -> Out {
        match self {
            External::No => Out::bare(false),
            External::Yes => Out::bare(true),
            External::Named(name) => Out::Map(vec![("name".to_owned(), Out::Text(name.clone()))]),
        }
    }
}
