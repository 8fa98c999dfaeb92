//! Documents as trees whose nodes know their places.

use std::sync::Arc;

use crate::place::Place;

/// A value.
#[derive(Debug)]
pub struct Node {
    /// Where it stands.
    pub place: Place,
    /// What it is.
    pub value: Value,
    /// Its tag, if it has one of those that [`crate::Options`] name.
    pub tag: Option<&'static str>,
    /// Bytes that it and all below it stand for, aliases counted each time.
    pub weight: usize,
    /// How many lists and maps are nested in it, itself included.
    pub height: usize,
}

/// What a value is.
#[derive(Debug)]
pub enum Value {
    /// A scalar.
    Scalar {
        /// Its text, without quotes and escapes.
        text: String,
        /// Whether it stands without quotes, so that its text decides whether it is a number.
        plain: bool,
    },
    /// A list.
    List(Vec<Arc<Node>>),
    /// A map, in the order of the text; no key is in it twice.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_place: Place,
    /// The value.
    pub value: Arc<Node>,
}

/// What a node weighs besides its text.
const NODE_BYTES: usize = 16;

impl Node {
    /// A value at `place`.
    pub fn new(place: Place, value: Value) -> Self {
        let (inner, height) = match &value {
            Value::Scalar { text, .. } => (text.len(), 0),
            Value::List(items) => (
                items.iter().fold(0, |sum: usize, n| sum.saturating_add(n.weight)),
                1 + items.iter().map(|n| n.height).max().unwrap_or(0),
            ),
            Value::Map(entries) => (
                entries.iter().fold(0, |sum: usize, e| sum.saturating_add(e.key.len() + e.value.weight)),
                1 + entries.iter().map(|e| e.value.height).max().unwrap_or(0),
            ),
        };
        Node { place, value, tag: None, weight: inner.saturating_add(NODE_BYTES), height }
    }

    /// Whether nothing is said.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// Whether nothing stands there at all.
    pub fn is_empty(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if text.is_empty())
    }

    /// The value of `key`, of a map.
    pub fn get(&self, key: &str) -> Option<&Arc<Node>> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.value),
            _ => None,
        }
    }

    /// The place of the node at `path`, or of the last on the way to it that is there.
    pub fn place_of(&self, path: &str) -> Place {
        self.nearest_to(path).place
    }

    /// The node at `path`, such as `spec.ingress[0].from`, or the last on the way to it that is there. Keys may have dots in them.
    pub fn nearest_to(&self, path: &str) -> &Node {
        let rest = path.strip_prefix('.').unwrap_or(path);
        match &self.value {
            Value::Map(entries) => {
                let tail = |entry: &Entry| -> Option<String> {
                    let bracketed = rest.strip_prefix('[').and_then(|r| {
                        let r = r.strip_prefix('"').unwrap_or(r).strip_prefix(entry.key.as_str())?;
                        r.strip_prefix('"').unwrap_or(r).strip_prefix(']')
                    });
                    let tail = bracketed.or_else(|| rest.strip_prefix(entry.key.as_str()))?;
                    (tail.is_empty() || tail.starts_with(['.', '['])).then(|| tail.to_owned())
                };
                let found =
                    entries.iter().filter_map(|e| Some((e, tail(e)?))).max_by_key(|(e, _)| e.key.len());
                found.map_or(self, |(entry, tail)| entry.value.nearest_to(&tail))
            }
            Value::List(items) => {
                let Some((index, tail)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) else {
                    return self;
                };
                let item = index.parse::<usize>().ok().and_then(|index| items.get(index));
                item.map_or(self, |item| item.nearest_to(tail))
            }
            Value::Scalar { .. } => self,
        }
    }
}
