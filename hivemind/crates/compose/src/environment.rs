//! What variables stand for.

use std::{collections::BTreeMap, sync::Arc};

/// Variables by name.
pub(crate) type Variables = BTreeMap<String, String>;

/// Layers of variables: what an upper one says wins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    layers: Vec<Arc<Variables>>,
}

impl Environment {
    pub(crate) fn of(variables: Variables) -> Self {
        Environment { layers: vec![Arc::new(variables)] }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.layers.iter().find_map(|layer| layer.get(name)).map(String::as_str)
    }

    /// The same, where it says nothing what `variables` say.
    pub(crate) fn above(&self, variables: Variables) -> Self {
        let mut layers = self.layers.clone();
        layers.push(Arc::new(variables));
        Environment { layers }
    }

    /// The same, where `variables` say nothing.
    pub(crate) fn below(&self, variables: Variables) -> Self {
        let mut layers = vec![Arc::new(variables)];
        layers.extend(self.layers.iter().cloned());
        Environment { layers }
    }
}
