//! What fields are where nothing is said of them. The schema does not know; the model's types are asked, by giving them a document
//! that says as little as possible.

use serde_json::Value;

use crate::{
    kind::Kind,
    schema::{Schema, Step},
};

/// What the fields of one object are where nothing is said.
#[derive(Debug, Default)]
pub(super) struct Defaults(Value);

impl Defaults {
    /// Those of the fields of the object at `steps`.
    pub(super) fn of(kind: Kind, schema: &Schema, steps: &[Step]) -> Self {
        let mut document = schema.stand_in(&schema.root);
        let whole = enter(schema, &mut document, steps).and_then(|()| kind.completed(&document));
        let object = whole.and_then(|whole| {
            let found = steps.iter().try_fold(&whole, |value, step| match step {
                Step::Key(key) => value.get(key),
                Step::Index(index) => value.get(index),
            });
            found.cloned()
        });
        Defaults(object.unwrap_or_default())
    }

    /// That of the field `name`, if it is a single value.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        match self.0.get(name)? {
            Value::String(text) => Some(text.clone()),
            value @ (Value::Number(_) | Value::Bool(_)) => Some(value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

/// Makes `document` have something at `steps`.
fn enter(schema: &Schema, document: &mut Value, steps: &[Step]) -> Option<()> {
    let mut at = document;
    for (index, step) in steps.iter().enumerate() {
        let (shape, _) = schema.at(&steps[..=index])?;
        let stand_in = || schema.stand_in(shape);
        at = match step {
            Step::Key(key) => at.as_object_mut()?.entry(key).or_insert_with(stand_in),
            Step::Index(_) => {
                let list = at.as_array_mut()?;
                if list.is_empty() {
                    list.push(stand_in());
                }
                list.first_mut()?
            }
        };
    }
    Some(())
}
