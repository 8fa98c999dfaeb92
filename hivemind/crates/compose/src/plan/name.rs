//! Names: those of Compose files may have what names of a namespace may not.

use hivemind_model::{ErrorCode, Problems, SYSTEM_NAMESPACE, check_name};

use crate::{
    plan::Planner,
    service::Service,
    spot::{Located, Spot},
};

/// The longest name of an object.
const NAME_MAX: usize = 63;

/// `text` with `-` for what a DNS label cannot have.
pub(super) fn label_of(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let kept: String = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    kept.trim_matches('-').to_owned()
}

/// The namespace of a project of this name.
pub fn namespace_of(project: &str) -> String {
    label_of(project)
}

/// Whether `text` is a DNS label.
pub(super) fn is_label(text: &str) -> bool {
    let mut problems = Problems::default();
    check_name("", text, NAME_MAX, &mut problems);
    problems.is_empty()
}

impl Planner<'_> {
    /// The namespace of the project: its name, with `-` for `_`.
    pub(super) fn namespace(&mut self) -> String {
        let name = &self.project.name;
        let namespace = label_of(name);
        if !is_label(&namespace) || namespace == SYSTEM_NAMESPACE {
            let message = format!("{:?} cannot be the name of a namespace", name.value);
            let hint = format!("use up to {NAME_MAX} of a-z, 0-9 and '-', other than {SYSTEM_NAMESPACE}");
            self.fault(&name.spot, ErrorCode::InvalidName, message, hint);
        } else if namespace != name.value {
            let why = format!("a namespace has no '_', so it is called {namespace}");
            self.warn(&name.spot, &why, format!("write name: {namespace}"));
        }
        namespace
    }

    /// Tells a service whose name cannot be an app's: others could not reach it by that name.
    pub(super) fn check_service_name(&mut self, name: &str, spot: &Spot) {
        if !is_label(name) {
            let message = format!("{name:?} cannot be the name of an app, by which others reach it");
            let hint = format!("call the service {}", label_of(name));
            self.fault(&spot.of_key(), ErrorCode::InvalidName, message, hint);
        }
    }

    /// The image of a service; that of one that is built is called after it if nothing else is said.
    pub(super) fn image(&self, name: &str, service: &Service) -> String {
        match &service.image {
            Some(Located { value, .. }) => value.clone(),
            None => format!("{}-{name}", self.project.name.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_labels() {
        for (text, label) in [("db_data", "db-data"), ("Web.App", "web-app"), ("_a_", "a"), ("a", "a")] {
            assert_eq!(label_of(text), label);
            assert!(is_label(&label_of(text)));
        }
        assert!(!is_label("a_b") && !is_label(""));
    }
}
