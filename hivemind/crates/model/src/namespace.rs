//! Namespaces: what names are unique within, and what policies select by their labels.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    DEFAULT_NAMESPACE,
    container::{ALL_CAPABILITIES, Capabilities, Container, capability_name, is_capability, is_path},
    error::{ErrorCode, Problems},
    metadata::Metadata,
    template::Template,
};

/// The namespace of what belongs to Hivemind itself.
pub const SYSTEM_NAMESPACE: &str = "hivemind-system";

/// The label that every namespace has with its own name as its value, as in Kubernetes.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// What the apps of a namespace may, besides what all may. Each of these lets a container reach beyond itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespaceSpec {
    /// Paths of nodes that containers may mount, and all that is below them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_paths: Vec<String>,
    /// Capabilities that containers may have besides the usual ones; `ALL` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Whether containers may run privileged: as root of the node, in all but name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
}

impl NamespaceSpec {
    fn is_usual(&self) -> bool {
        *self == NamespaceSpec::default()
    }

    /// The path below which `path` may be mounted; the longest, where there are several.
    pub fn host_path_of(&self, path: &str) -> Option<&str> {
        let is_below = |allowed: &&String| Path::new(path).starts_with(Path::new(allowed.as_str()));
        self.host_paths.iter().filter(is_below).map(String::as_str).max_by_key(|allowed| allowed.len())
    }

    fn permits_capability(&self, name: &str) -> bool {
        let is_named = |permitted: &String| permitted == ALL_CAPABILITIES || permitted == name;
        Capabilities::USUAL.contains(&name) || self.capabilities.iter().any(is_named)
    }

    /// Checks that the paths are absolute, and the capabilities known.
    pub fn check(&self, problems: &mut Problems) {
        for (i, path) in self.host_paths.iter().enumerate().filter(|(_, path)| !is_path(path)) {
            let what = format!("{path:?} is not an absolute path");
            let hint = "write it from the root on, without '..', for example /srv/shop";
            problems.add(ErrorCode::InvalidMount, format!("spec.hostPaths[{i}]"), what, hint);
        }
        for (i, name) in self.capabilities.iter().enumerate().filter(|(_, name)| !is_capability(name)) {
            let what = format!("{name:?} is no capability");
            let hint = "see capabilities(7) for their names, for example NET_ADMIN; ALL for all";
            problems.add(ErrorCode::OutOfRange, format!("spec.capabilities[{i}]"), what, hint);
        }
    }

    /// Tells what `template` asks for and the namespace `name` does not permit. `at` is where the template stands.
    pub fn check_template(&self, name: &str, at: &str, template: &Template, problems: &mut Problems) {
        let lists = [("initContainers", &template.init_containers), ("containers", &template.containers)];
        for (list, containers) in lists {
            for (i, container) in containers.iter().enumerate() {
                self.check_container(name, &format!("{at}.{list}[{i}]"), container, problems);
            }
        }
    }

    fn check_container(&self, name: &str, at: &str, container: &Container, problems: &mut Problems) {
        let mut refuse = |field: String, what: String, flag: String| {
            let hint = format!("if they may: hivemind namespace permit {name} {flag}");
            problems.add(ErrorCode::NotPermitted, field, what, hint);
        };
        for (i, mount) in container.host_paths.iter().enumerate() {
            if self.host_path_of(&mount.source).is_none() {
                let what = format!("apps of namespace {name:?} may not mount {} of the node", mount.source);
                refuse(format!("{at}.hostPaths[{i}].source"), what, format!("--host-path {}", mount.source));
            }
        }
        if container.privileged && !self.privileged {
            let what = format!("apps of namespace {name:?} may not run privileged");
            refuse(format!("{at}.privileged"), what, "--privileged".to_owned());
        }
        for (i, added) in container.capabilities.add.iter().enumerate() {
            if !self.permits_capability(added) {
                let what = format!("with {added} a container could reach beyond itself");
                refuse(format!("{at}.capabilities.add[{i}]"), what, format!("--capability {added}"));
            }
        }
    }
}

/// A namespace. Its labels are those of its metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Namespace {
    /// Its name and labels; a namespace is itself in no namespace.
    pub metadata: Metadata,
    /// What its apps may.
    #[serde(default, skip_serializing_if = "NamespaceSpec::is_usual")]
    pub spec: NamespaceSpec,
}

impl Namespace {
    /// A new namespace with its own name as a label.
    pub fn new(name: &str) -> Self {
        let metadata = Metadata::new(DEFAULT_NAMESPACE, name);
        let mut namespace = Namespace { metadata, spec: NamespaceSpec::default() };
        namespace.normalize();
        namespace
    }

    /// Gives it the label that every namespace has, and capabilities their names.
    pub fn normalize(&mut self) {
        self.spec.capabilities.iter_mut().for_each(|name| *name = capability_name(name));
        let name = self.metadata.name.clone();
        self.metadata.labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name);
    }

    /// Whether it is there from the start and cannot be deleted.
    pub fn is_built_in(name: &str) -> bool {
        name == DEFAULT_NAMESPACE || name == SYSTEM_NAMESPACE
    }

    /// Its labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.metadata.labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::HostPath;

    fn spec(paths: &[&str], capabilities: &[&str], privileged: bool) -> NamespaceSpec {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        NamespaceSpec { host_paths: words(paths), capabilities: words(capabilities), privileged }
    }

    #[test]
    fn a_path_is_permitted_with_all_below_it_and_nothing_beside_it() {
        let spec = spec(&["/srv", "/srv/shop", "/etc/hosts"], &[], false);
        assert_eq!(spec.host_path_of("/srv/shop/data"), Some("/srv/shop"));
        assert_eq!(spec.host_path_of("/srv/shopping"), Some("/srv"));
        assert_eq!(spec.host_path_of("/etc/hosts"), Some("/etc/hosts"));
        for path in ["/srvx", "/etc", "/", "srv"] {
            assert_eq!(spec.host_path_of(path), None, "{path}");
        }
    }

    #[test]
    fn what_is_not_permitted_is_told_all_at_once() {
        let host = |source: &str| HostPath { source: source.into(), path: "/x".into(), read_only: false };
        let container = Container {
            host_paths: vec![host("/srv/a"), host("/etc")],
            privileged: true,
            capabilities: Capabilities { add: vec!["CHOWN".into(), "NET_ADMIN".into()], drop: vec![] },
            ..Container::default()
        };
        let template = Template { containers: vec![container], ..Template::default() };
        let faults = |spec: &NamespaceSpec| {
            let mut problems = Problems::default();
            spec.check_template("shop", "t", &template, &mut problems);
            let error = problems.into_result().err();
            error.map(|e| e.problems.into_iter().map(|p| p.field).collect::<Vec<_>>()).unwrap_or_default()
        };
        let all = [
            "t.containers[0].hostPaths[0].source",
            "t.containers[0].hostPaths[1].source",
            "t.containers[0].privileged",
            "t.containers[0].capabilities.add[1]",
        ];
        assert_eq!(faults(&NamespaceSpec::default()), all);
        assert_eq!(faults(&spec(&["/srv"], &[], false)), [all[1], all[2], all[3]]);
        assert_eq!(faults(&spec(&["/"], &["ALL"], true)), [""; 0]);
    }

    #[test]
    fn permissions_are_checked_themselves() {
        let mut problems = Problems::default();
        spec(&["srv", "/a/../b", "/ok"], &["NET_ADMIN", "FLY"], false).check(&mut problems);
        let places: Vec<_> =
            problems.into_result().unwrap_err().problems.into_iter().map(|p| p.field).collect();
        assert_eq!(places, ["spec.hostPaths[0]", "spec.hostPaths[1]", "spec.capabilities[1]"]);
    }
}
