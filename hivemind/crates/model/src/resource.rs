//! What all kinds of objects have in common, and how lists and watches look.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use crate::{
    App, ErrorCode, Identity, JoinToken, Metadata, Namespace, NetworkPolicy, Node, Replica, Service, Token,
    Volume,
};

/// A kind of object that the store keeps and the API serves.
pub trait Resource: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// `App`, `Replica`, …
    const KIND: &'static str;
    /// The plural in paths and keys: `apps`, `replicas`, …
    const PLURAL: &'static str;
    /// What [`Metadata::id`] begins with.
    const ID_PREFIX: &'static str;
    /// The code of the error that there is no such object.
    const NOT_FOUND: ErrorCode;

    /// Name, place and history.
    fn metadata(&self) -> &Metadata;
    /// Name, place and history, to change.
    fn metadata_mut(&mut self) -> &mut Metadata;
}

macro_rules! resource {
    ($type:ty, $kind:literal, $plural:literal, $prefix:literal, $not_found:ident) => {
        impl Resource for $type {
            const KIND: &'static str = $kind;
            const PLURAL: &'static str = $plural;
            const ID_PREFIX: &'static str = $prefix;
            const NOT_FOUND: ErrorCode = ErrorCode::$not_found;

            fn metadata(&self) -> &Metadata {
                &self.metadata
            }
            fn metadata_mut(&mut self) -> &mut Metadata {
                &mut self.metadata
            }
        }
    };
}

resource!(App, "App", "apps", "app", AppNotFound);
resource!(Replica, "Replica", "replicas", "replica", ReplicaNotFound);
resource!(Service, "Service", "services", "service", ServiceNotFound);
resource!(Volume, "Volume", "volumes", "volume", VolumeNotFound);
resource!(Node, "Node", "nodes", "node", NodeNotFound);
resource!(Namespace, "Namespace", "namespaces", "namespace", NamespaceNotFound);
resource!(NetworkPolicy, "NetworkPolicy", "networkpolicies", "policy", PolicyNotFound);
resource!(Identity, "Identity", "identities", "identity", PathNotFound);
resource!(Token, "Token", "tokens", "token", TokenNotFound);
resource!(JoinToken, "JoinToken", "jointokens", "join", TokenNotFound);

/// All objects of a kind, as of one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    /// The store's revision; a watch from the next one misses nothing.
    pub resource_version: u64,
    /// The objects, in the order of namespace and name.
    pub items: Vec<T>,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WatchKind {
    /// It is there and was not, as far as this watch has told.
    Added,
    /// It changed.
    Modified,
    /// It is gone; the object is as it last was.
    Deleted,
}

/// One line of a watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WatchEvent<T> {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: WatchKind,
    /// The object.
    pub object: T,
}
