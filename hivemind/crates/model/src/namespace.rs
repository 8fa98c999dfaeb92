//! Namespaces: what names are unique within, and what policies select by their labels.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{DEFAULT_NAMESPACE, metadata::Metadata};

/// The namespace of what belongs to Hivemind itself.
pub const SYSTEM_NAMESPACE: &str = "hivemind-system";

/// The label that every namespace has with its own name as its value, as in Kubernetes.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A namespace. Its labels are those of its metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Namespace {
    /// Its name and labels; a namespace is itself in no namespace.
    pub metadata: Metadata,
}

impl Namespace {
    /// A new namespace with its own name as a label.
    pub fn new(name: &str) -> Self {
        let mut namespace = Namespace { metadata: Metadata::new(DEFAULT_NAMESPACE, name) };
        namespace.normalize();
        namespace
    }

    /// Gives it the label that every namespace has.
    pub fn normalize(&mut self) {
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
