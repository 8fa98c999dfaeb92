//! Objects that are read by the schema of their kind.

use std::sync::Arc;

use hivemind_model::{ApiError, App, ErrorCode, Namespace, Problems, Volume};
use hivemind_yaml::{Faults, Node, Source, Value::List};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Reading, add_new};
use crate::{
    document::{AppDocument, NamespaceDocument, Origin, VolumeDocument},
    fields,
    kind::Kind,
    reader::{At, Reader, is_within},
    schema::{Schema, Step},
};

impl Reading<'_> {
    pub(super) fn object(&mut self, source: &Source, root: Arc<Node>, kind: Kind, faults: &mut Faults) {
        let origin = Origin { source: source.clone(), root };
        match kind {
            Kind::App => self.app(origin, faults),
            Kind::Namespace => self.namespace(origin, faults),
            Kind::Volume => {
                let volume = self.typed::<Volume>(&origin, kind, faults);
                self.read.volumes.extend(volume.map(|volume| VolumeDocument { volume, origin }));
            }
            Kind::Policy(_) => {}
        }
    }

    fn namespace(&mut self, origin: Origin, faults: &mut Faults) {
        let before = faults.list.len();
        let Some(mut namespace) = self.typed::<Namespace>(&origin, Kind::Namespace, faults) else { return };
        namespace.normalize();
        let mut problems = Problems::default();
        namespace.spec.check(&mut problems);
        let problems = problems.into_result().err().map(ApiError::into_problems).unwrap_or_default();
        add_new(problems, |problem| origin.fault(problem), before, faults);
        self.read.namespaces.push(NamespaceDocument { namespace, origin });
    }

    fn app(&mut self, origin: Origin, faults: &mut Faults) {
        let before = faults.list.len();
        let Some(mut app) = self.typed::<App>(&origin, Kind::App, faults) else { return };
        app.normalize();
        let mut problems = app.validate().err().map(ApiError::into_problems).unwrap_or_default();
        if faults.list.len() > before {
            // Where something stands in for what is at fault, that it stands twice says nothing.
            problems.retain(|problem| problem.code != ErrorCode::Repeated);
        }
        add_new(problems, |problem| origin.fault(problem), before, faults);
        self.read.apps.push(AppDocument { app, origin });
    }

    /// What the model's type makes of a document, all faults of whose form are told.
    fn typed<T: DeserializeOwned>(&mut self, origin: &Origin, kind: Kind, faults: &mut Faults) -> Option<T> {
        let schema = self.schemas.entry(kind).or_insert_with(|| Arc::new(kind.schema())).clone();
        let before = faults.list.len();
        let at = At { node: &origin.root, path: String::new() };
        let home = |place: &str, field: &str| home(&schema, place, field);
        let mut reader = Reader { source: &origin.source, home: &home, faults };
        reader.map(&at, known(kind, &at));
        let metadata = reader
            .required(&at, "metadata", &format!("give it a name: metadata: {{name: {}}}", kind.example()))
            .and_then(|metadata| reader.metadata(&metadata, kind, self.options));
        let mut document = json!({});
        if let Some((spec, is_required)) = schema.at(&[Step::Key("spec".to_owned())]) {
            let hint = format!("say what is wanted: hivemind explain {}", kind.word());
            let said = if is_required { reader.required(&at, "spec", &hint) } else { at.get("spec") };
            let value = said.and_then(|at| reader.value(&schema, spec, &at));
            if let Some(value) = value.or_else(|| is_required.then(|| schema.stand_in(spec))) {
                document["spec"] = value;
            }
        }
        let named = metadata.as_ref().map(|metadata| [metadata.namespace.clone(), metadata.name.clone()]);
        document["metadata"] = metadata.map_or_else(
            || json!({"name": "", "namespace": self.options.namespace}),
            |metadata| serde_json::to_value(metadata).unwrap_or(Value::Null),
        );
        let typed = reader.typed(&schema, &at, document, before);
        if let Some([namespace, name]) = named {
            self.note_name(&origin.source, &origin.root, kind, [&namespace, &name], faults);
        }
        typed
    }
}

/// The fields that the document may have.
fn known(kind: Kind, at: &At<'_>) -> &'static [&'static str] {
    let prints_replicas = at.get("replicas").is_some_and(|at| matches!(at.node.value, List(_)));
    // A number of replicas there is one that is not indented.
    match kind == Kind::App && prints_replicas {
        true => fields::DOCUMENT_WITH_REPLICAS,
        false => fields::DOCUMENT,
    }
}

/// The most places that a hint names.
const HOMES_MAX: usize = 3;

/// Where a field of the kind belongs that stands in the object at `place`.
fn home(schema: &Schema, place: &str, field: &str) -> Option<String> {
    let mut homes = schema.homes(field);
    // What the server writes is nobody's to say.
    homes.retain(|home| home != "status" && !home.starts_with("status."));
    if homes.first().is_some_and(String::is_empty) || matches!(field, "apiVersion" | "kind") {
        return Some(format!("{field:?} belongs at the top of the document: check the indentation"));
    }
    // What belongs deeper in the same object was meant for that one, rather than for another like it.
    let place = without_indexes(place);
    let is_below = |home: &String| is_within(home, &place);
    if !place.is_empty() && homes.iter().any(is_below) {
        homes.retain(is_below);
    }
    let more = homes.len() > HOMES_MAX;
    homes.truncate(HOMES_MAX);
    let places = match homes.split_last() {
        None => return None,
        Some((last, [])) => last.clone(),
        Some((last, rest)) if !more => format!("{} or {last}", rest.join(", ")),
        Some(_) => format!("{} and others", homes.join(", ")),
    };
    Some(format!("{field:?} belongs below {places}: check the indentation"))
}

/// `spec.template.containers[]` of `spec.template.containers[3]`.
fn without_indexes(path: &str) -> String {
    path.split('[')
        .map(|part| part.split_once(']').map_or(part, |(_, rest)| rest))
        .collect::<Vec<_>>()
        .join("[]")
}
