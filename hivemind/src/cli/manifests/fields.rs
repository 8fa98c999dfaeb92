//! Which fields of a document differ from those of another.

use serde_json::Value;

/// A field that differs.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Difference {
    /// Its path.
    pub(crate) field: String,
    /// What it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<Value>,
    /// What it would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<Value>,
}

/// The fields of `new` that differ from those of `old`, in the order of their names.
pub(crate) fn differences(old: &Value, new: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    collect(String::new(), Some(old), Some(new), &mut found);
    found
}

fn collect(field: String, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<Difference>) {
    match (old, new) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let mut keys: Vec<&String> =
                a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))).collect();
            keys.sort();
            for key in keys {
                let below = if field.is_empty() { key.clone() } else { format!("{field}.{key}") };
                collect(below, a.get(key), b.get(key), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for index in 0..a.len().max(b.len()) {
                collect(format!("{field}[{index}]"), a.get(index), b.get(index), found);
            }
        }
        (old, new) if old == new => {}
        (old, new) => found.push(Difference { field, from: old.cloned(), to: new.cloned() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_told_with_its_path_and_nothing_else() {
        let old = json!({"spec": {"replicas": 1, "env": [{"name": "A", "value": "1"}, {"name": "B"}], "same": [1]}});
        let new =
            json!({"spec": {"replicas": 3, "env": [{"name": "A", "value": "2"}], "same": [1], "user": "x"}});
        let told: Vec<_> = differences(&old, &new)
            .into_iter()
            .map(|d| (d.field, d.from.unwrap_or_default(), d.to.unwrap_or_default()))
            .collect();
        assert_eq!(
            told,
            [
                ("spec.env[0].value".to_owned(), json!("1"), json!("2")),
                ("spec.env[1]".to_owned(), json!({"name": "B"}), Value::Null),
                ("spec.replicas".to_owned(), json!(1), json!(3)),
                ("spec.user".to_owned(), Value::Null, json!("x")),
            ]
        );
        assert_eq!(differences(&old, &old), []);
    }
}
