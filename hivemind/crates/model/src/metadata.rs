//! What every object carries.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::name::DEFAULT_NAMESPACE;

/// Name, place and history of an object. Users write `name`, `namespace`, `labels` and `annotations`; the server
/// writes the rest and ignores what a request says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Unique among objects of the kind within the namespace: a DNS label of 1 to 63 characters.
    pub name: String,
    /// The namespace; `default` where nothing is said.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// The short id that people may type instead of the name, for example `app-k3f9q`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Unique over all time.
    #[serde(default)]
    #[schema(value_type = String)]
    pub uid: Uuid,
    /// What selectors match.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Notes for people and tools; nothing selects by them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Counts the changes of `spec`.
    #[serde(default)]
    pub generation: u64,
    /// The store's revision of the last change; a write that names it succeeds only if it is still the last.
    #[serde(default)]
    pub resource_version: u64,
    /// When the object was made.
    #[serde(default)]
    #[schema(value_type = String, format = DateTime)]
    pub creation_timestamp: Timestamp,
    /// When its deletion was asked for; it goes once all that belongs to it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deletion_timestamp: Option<Timestamp>,
}

fn default_namespace() -> String {
    DEFAULT_NAMESPACE.to_owned()
}

impl Metadata {
    /// Metadata of a new object, of which the server has not heard yet.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Metadata {
            name: name.into(),
            namespace: namespace.into(),
            id: String::new(),
            uid: Uuid::nil(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            generation: 0,
            resource_version: 0,
            creation_timestamp: Timestamp::UNIX_EPOCH,
            deletion_timestamp: None,
        }
    }

    /// Whether deletion was asked for.
    pub fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    /// Whether `word` is this object's name, short id or uid.
    pub fn answers_to(&self, word: &str) -> bool {
        self.name == word || (!self.id.is_empty() && self.id == word) || self.uid.to_string() == word
    }
}
