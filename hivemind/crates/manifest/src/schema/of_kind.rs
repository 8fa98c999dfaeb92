//! The schemas of the kinds that documents may be of, and what their types add to what is said.

use hivemind_model::{
    App, ClusterNetworkPolicySpec, ExtendedPolicySpec, Metadata, Namespace, NetworkPolicySpec,
    NetworkPolicyStatus, PolicyKind, Volume,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use utoipa::{PartialSchema, ToSchema};

use super::Schema;
use crate::kind::Kind;

impl Kind {
    /// The schema of a document of that kind, without `apiVersion` and `kind`.
    pub(crate) fn schema(self) -> Schema {
        match self {
            Kind::App => Schema::of::<App>(),
            Kind::Namespace => Schema::of::<Namespace>(),
            Kind::Volume => Schema::of::<Volume>(),
            Kind::Policy(PolicyKind::NetworkPolicy) => of_policy::<NetworkPolicySpec>(),
            Kind::Policy(PolicyKind::ClusterNetworkPolicy) => of_policy::<ClusterNetworkPolicySpec>(),
            Kind::Policy(PolicyKind::Policy) => of_policy::<ExtendedPolicySpec>(),
        }
    }

    /// `document` with what is meant where it says nothing, as far as that is ever written; none if it is no document of the kind.
    pub(crate) fn completed(self, document: &Value) -> Option<Value> {
        match self {
            Kind::App => through::<App>(document),
            Kind::Namespace => through::<Namespace>(document),
            Kind::Volume => through::<Volume>(document),
            Kind::Policy(kind) => {
                let spec = &document["spec"];
                let spec = match kind {
                    PolicyKind::NetworkPolicy => through::<NetworkPolicySpec>(spec)?,
                    PolicyKind::ClusterNetworkPolicy => through::<ClusterNetworkPolicySpec>(spec)?,
                    PolicyKind::Policy => through::<ExtendedPolicySpec>(spec)?,
                };
                Some(json!({"metadata": through::<Metadata>(&document["metadata"])?, "spec": spec}))
            }
        }
    }
}

fn through<T: Serialize + DeserializeOwned>(value: &Value) -> Option<Value> {
    serde_json::to_value(T::deserialize(value).ok()?).ok()
}

/// Of a policy, whose spec is of one of several types.
fn of_policy<Spec: ToSchema>() -> Schema {
    let mut named = vec![
        (Metadata::name().into_owned(), Metadata::schema()),
        (Spec::name().into_owned(), Spec::schema()),
        (NetworkPolicyStatus::name().into_owned(), NetworkPolicyStatus::schema()),
    ];
    Spec::schemas(&mut named);
    NetworkPolicyStatus::schemas(&mut named);
    let json = |schema| serde_json::to_value(schema).unwrap_or_default();
    let named = named.into_iter().map(|(name, schema)| (name, json(schema))).collect();
    let spec: &Value = &json(Spec::schema());
    let property =
        |name: &str, doc: &str| json!({"$ref": format!("#/components/schemas/{name}"), "description": doc});
    let root = json!({
        "type": "object",
        "description": spec["description"],
        "required": ["metadata", "spec"],
        "properties": {
            "metadata": property(&Metadata::name(), "Name, namespace, labels."),
            "spec": property(&Spec::name(), "What is wanted."),
            "status": property(&NetworkPolicyStatus::name(), "What is."),
        },
    });
    Schema::from_json(&root, &named)
}
