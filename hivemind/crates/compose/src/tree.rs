//! Trees of values that may come from several files, after their variables were filled in.

use std::{collections::HashMap, sync::Arc};

use hivemind_model::ErrorCode;
use hivemind_yaml::{FAULTS_MAX, Node, Place, Plain};

use crate::{
    environment::Environment,
    interpolate::Template,
    limits::INTERPOLATED_BYTES_MAX,
    reader::Reader,
    source::{FileId, TOP},
};

/// Asks for what the files before say to be left out.
pub(crate) const RESET: &str = "!reset";
/// Asks for what the files before say to be replaced as a whole.
pub(crate) const OVERRIDE: &str = "!override";

/// A value and what is below it. Parts that several services share are shared.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) file: FileId,
    pub(crate) place: Place,
    pub(crate) value: Value,
    /// [`RESET`] or [`OVERRIDE`].
    pub(crate) tag: Option<&'static str>,
    /// Bytes that it and all below it stand for, what is shared counted each time.
    pub(crate) weight: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Scalar { text: String, style: Style },
    List(Vec<Arc<Tree>>),
    Map(Vec<Pair>),
}

/// How a scalar is written, which says what it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Its text decides.
    Plain,
    /// A text.
    Quoted,
    /// It has variables filled in, and is of whichever type is wanted.
    Filled,
}

#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) value: Arc<Tree>,
}

/// What a node weighs besides its text.
const NODE_BYTES: usize = 16;

impl Tree {
    pub(crate) fn new(file: FileId, place: Place, value: Value) -> Self {
        let inner = match &value {
            Value::Scalar { text, .. } => text.len(),
            Value::List(items) => items.iter().fold(0, |sum: usize, t| sum.saturating_add(t.weight)),
            Value::Map(pairs) => {
                pairs.iter().fold(0, |sum: usize, p| sum.saturating_add(p.key.len() + p.value.weight))
            }
        };
        Tree { file, place, value, tag: None, weight: inner.saturating_add(NODE_BYTES) }
    }

    /// A text that was part of this one.
    pub(crate) fn text(&self, text: &str) -> Arc<Tree> {
        let style = match &self.value {
            Value::Scalar { style: Style::Filled, .. } => Style::Filled,
            _ => Style::Quoted,
        };
        Arc::new(Tree::new(self.file, self.place, Value::Scalar { text: text.to_owned(), style }))
    }

    /// The same place with another value.
    pub(crate) fn with(&self, value: Value) -> Arc<Tree> {
        Arc::new(Tree { tag: self.tag, ..Tree::new(self.file, self.place, value) })
    }

    /// Nothing, at this place.
    pub(crate) fn null(&self) -> Arc<Tree> {
        let value = Value::Scalar { text: String::new(), style: Style::Plain };
        Arc::new(Tree::new(self.file, self.place, value))
    }

    pub(crate) fn empty_map(file: FileId) -> Arc<Tree> {
        Arc::new(Tree::new(file, TOP, Value::Map(Vec::new())))
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, style: Style::Plain } if hivemind_yaml::plain(text) == Plain::Null)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Arc<Tree>> {
        self.pairs().iter().find(|pair| pair.key == key).map(|pair| &pair.value)
    }

    /// The text of a scalar, whatever it is.
    pub(crate) fn scalar(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// What is in it, if it is a map.
    pub(crate) fn pairs(&self) -> &[Pair] {
        match &self.value {
            Value::Map(pairs) => pairs,
            _ => &[],
        }
    }

    /// Whether both say the same, wherever they stand.
    pub(crate) fn says_as(&self, other: &Tree) -> bool {
        match (&self.value, &other.value) {
            (Value::Scalar { text: a, .. }, Value::Scalar { text: b, .. }) => a == b,
            (Value::List(a), Value::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.says_as(b))
            }
            (Value::Map(a), Value::Map(b)) => {
                let known: HashMap<&str, &Tree> =
                    b.iter().map(|pair| (pair.key.as_str(), &*pair.value)).collect();
                let same = |pair: &Pair| known.get(pair.key.as_str()).is_some_and(|b| pair.value.says_as(b));
                a.len() == b.len() && a.iter().all(same)
            }
            _ => false,
        }
    }
}

/// Makes trees of the nodes of one file.
pub(crate) struct Filling {
    file: FileId,
    environment: Arc<Environment>,
    /// What was made already of nodes that aliases share.
    done: HashMap<*const Node, Arc<Tree>>,
}

impl Filling {
    pub(crate) fn new(file: FileId, environment: Arc<Environment>) -> Self {
        Filling { file, environment, done: HashMap::new() }
    }

    /// The tree of `node` with its variables filled in. The nodes have to live as long as this does.
    pub(crate) fn tree(&mut self, node: &Arc<Node>, reader: &mut Reader<'_>) -> Arc<Tree> {
        if let Some(done) = self.done.get(&Arc::as_ptr(node)) {
            return done.clone();
        }
        let value = match &node.value {
            hivemind_yaml::Value::Scalar { text, plain } => self.scalar(node, text, *plain, reader),
            hivemind_yaml::Value::List(items) => {
                Value::List(items.iter().map(|item| self.tree(item, reader)).collect())
            }
            hivemind_yaml::Value::Map(entries) => {
                let pair = |entry: &hivemind_yaml::Entry| Pair {
                    key: entry.key.clone(),
                    place: entry.key_place,
                    value: self.tree(&entry.value, reader),
                };
                Value::Map(entries.iter().map(pair).collect())
            }
        };
        let tree = Arc::new(Tree { tag: node.tag, ..Tree::new(self.file, node.place, value) });
        self.done.insert(Arc::as_ptr(node), tree.clone());
        tree
    }

    fn scalar(&self, node: &Node, text: &str, plain: bool, reader: &mut Reader<'_>) -> Value {
        let style = if plain { Style::Plain } else { Style::Quoted };
        let as_it_is = Value::Scalar { text: text.to_owned(), style };
        if !text.contains('$') {
            return as_it_is;
        }
        let mut unset = Vec::new();
        let expanded = Template::parse(text)
            .and_then(|template| template.expand(&|name| self.environment.get(name), &mut unset));
        for unset in unset {
            if reader.warnings.list.len() >= FAULTS_MAX {
                reader.warnings.more += 1;
                continue;
            }
            let place = reader.sources.dollar(self.file, node.place, text, unset.offset);
            let message = format!("the variable {} is not set, and stands for nothing", unset.name);
            let hint = format!("set it, or give it a default: ${{{}:-default}}", unset.name);
            reader.warn_in(self.file, place, "", ErrorCode::InvalidEnv, message, hint);
        }
        match expanded {
            Ok(expanded) => {
                reader.expanded_bytes = reader.expanded_bytes.saturating_add(expanded.len());
                if reader.expanded_bytes > INTERPOLATED_BYTES_MAX {
                    let message = "variables that stand for too much".to_owned();
                    let hint = "put what is long into a file, and name that";
                    reader.fault_in(self.file, node.place, "", ErrorCode::OutOfRange, message, hint);
                    return as_it_is;
                }
                Value::Scalar { text: expanded, style: Style::Filled }
            }
            Err(_) if reader.is_full() => {
                reader.faults.more += 1;
                as_it_is
            }
            Err(wrong) => {
                let place = reader.sources.dollar(self.file, node.place, text, wrong.offset);
                reader.fault_in(self.file, place, "", ErrorCode::Malformed, wrong.message, wrong.hint);
                as_it_is
            }
        }
    }
}
