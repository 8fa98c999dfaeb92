//! Objects as the documents that say them.

use hivemind_model::{App, ErrorCode, Namespace, NetworkPolicy, Resource, Volume};
use serde_json::{Map, Value};

use crate::cli::{
    fault::{Failure, fault},
    policy,
};

/// The version of Hivemind's own kinds.
pub(crate) const API_VERSION: &str = "hivemind/v1";

/// An object that a manifest can say.
pub(crate) trait Document: Resource {
    /// What its author says of it, and nothing else.
    fn said(&self) -> Result<Value, Failure>;

    /// Whether it is in a namespace of its author's choice.
    fn is_in_namespace(&self) -> bool {
        true
    }
}

impl Document for NetworkPolicy {
    fn said(&self) -> Result<Value, Failure> {
        policy::document::said(self)
    }

    fn is_in_namespace(&self) -> bool {
        !self.spec.kind().is_cluster_wide()
    }
}

impl Document for App {
    fn said(&self) -> Result<Value, Failure> {
        said(self, true)
    }
}

impl Document for Volume {
    fn said(&self) -> Result<Value, Failure> {
        said(self, true)
    }
}

impl Document for Namespace {
    fn said(&self) -> Result<Value, Failure> {
        said(self, false)
    }

    fn is_in_namespace(&self) -> bool {
        false
    }
}

/// `object` with its kind and version, if it is of a kind that manifests can say besides policies, whose kind is their own.
pub(crate) fn of<T: Resource>(object: &T) -> Result<Value, Failure> {
    let mut document = serde_json::to_value(object).map_err(|error| {
        fault(ErrorCode::Internal, format!("the object cannot be written as JSON: {error}"), "")
    })?;
    if let Some(fields) = document.as_object_mut().filter(|_| can_be_said::<T>()) {
        fields.insert("apiVersion".to_owned(), Value::from(API_VERSION));
        fields.insert("kind".to_owned(), Value::from(T::KIND));
    }
    Ok(document)
}

/// Whether objects are of a kind that manifests can say, policies aside.
pub(crate) fn can_be_said<T: Resource>() -> bool {
    [App::KIND, Volume::KIND, Namespace::KIND].contains(&T::KIND)
}

fn said<T: Resource>(object: &T, in_namespace: bool) -> Result<Value, Failure> {
    let mut document = of(object)?;
    if let Some(fields) = document.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = document["metadata"].as_object_mut() {
        let is_said = |field: &str| match field {
            "namespace" => in_namespace,
            field => matches!(field, "name" | "labels" | "annotations"),
        };
        metadata.retain(|field, _| is_said(field));
    }
    Ok(document)
}

/// Several documents as one.
pub(crate) fn list(items: Vec<Value>, resource_version: u64) -> Value {
    let mut list = Map::new();
    list.insert("apiVersion".to_owned(), Value::from("v1"));
    list.insert("kind".to_owned(), Value::from("List"));
    list.insert("resourceVersion".to_owned(), Value::from(resource_version));
    list.insert("items".to_owned(), Value::from(items));
    Value::Object(list)
}

#[cfg(test)]
mod tests {
    use hivemind_manifest::{Options, Source, read_all};

    use super::*;
    use crate::cli::output;

    const APP: &str = "\
apiVersion: hivemind/v1
kind: App
metadata: {name: web, namespace: shop, annotations: {v: '1.10', on: 'yes'}}
spec:
  replicas: 2
  template:
    containers: [{image: 'nginx:1.29', env: [{name: A, value: '0x10'}], resources: {cpu: 500m}}]
---
apiVersion: hivemind/v1
kind: Namespace
metadata: {name: shop, labels: {team: 'null'}}
---
apiVersion: hivemind/v1
kind: Volume
metadata: {name: data, namespace: shop}
spec: {node: '1'}
";

    #[test]
    fn what_is_printed_can_be_applied_again() {
        let from = |text: String| {
            let options = Options { namespace: "default", only_this_namespace: false };
            let read = read_all(&[Source::new("x", text.clone().into())], options, &|_| Vec::new());
            assert_eq!(read.faults, [], "{text}");
            read
        };
        let first = from(APP.to_owned());
        let (app, namespace, volume) =
            (&first.apps[0].app, &first.namespaces[0].namespace, &first.volumes[0].volume);
        for app_document in [of(app).unwrap(), app.said().unwrap()] {
            for text in [output::yaml(&app_document).unwrap(), output::json(&app_document).unwrap()] {
                assert_eq!(from(text).apps[0].app, *app);
            }
        }
        for said in [of(namespace).unwrap(), namespace.said().unwrap()] {
            assert_eq!(from(output::yaml(&said).unwrap()).namespaces[0].namespace, *namespace);
        }
        let all = vec![of(app).unwrap(), of(namespace).unwrap(), volume.said().unwrap()];
        let again = from(output::yaml(&list(all, 7)).unwrap());
        assert_eq!((&again.apps[0].app, &again.volumes[0].volume), (app, volume));
        let said = namespace.said().unwrap();
        assert!(
            said["metadata"].get("namespace").is_none() && said["metadata"].get("uid").is_none(),
            "{said}"
        );
    }
}
