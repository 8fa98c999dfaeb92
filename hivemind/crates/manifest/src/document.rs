//! Objects with the documents that they were read from.

use std::sync::Arc;

use hivemind_model::{App, Namespace, NetworkPolicy, Problem, Volume};
use hivemind_yaml::{Fault, Node, Source};

/// How to read.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The namespace of documents that name none, save for those that are in none of their author's choice.
    pub namespace: &'a str,
    /// Whether documents that name another namespace are at fault.
    pub only_this_namespace: bool,
}

/// What was read, by kind, in the order of the documents. Only objects without faults may be used, and where there are faults
/// none should.
#[derive(Debug)]
pub struct Manifests {
    /// The namespaces.
    pub namespaces: Vec<NamespaceDocument>,
    /// The volumes.
    pub volumes: Vec<VolumeDocument>,
    /// The policies.
    pub policies: Vec<PolicyDocument>,
    /// The apps, normalized.
    pub apps: Vec<AppDocument>,
    /// All faults, in the order of the files and of their lines; at most [`crate::FAULTS_MAX`].
    pub faults: Vec<Fault>,
    /// How many faults there are besides.
    pub more_faults: usize,
}

/// Where the parts of an object stand.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) source: Source,
    pub(crate) root: Arc<Node>,
}

impl Origin {
    pub(crate) fn fault(&self, problem: Problem) -> Fault {
        let Problem { code, field, message, hint } = problem;
        self.source.fault(self.root.place_of(&field), code, &field, message, hint)
    }

    fn says(&self, field: &str) -> bool {
        let mut node = &self.root;
        field.split('.').all(|key| match node.get(key).filter(|value| !value.is_null()) {
            Some(value) => {
                node = value;
                true
            }
            None => false,
        })
    }

    fn position(&self) -> String {
        format!("{}:{}:{}", self.source.name(), self.root.place.line, self.root.place.column)
    }
}

macro_rules! document {
    ($(#[doc = $doc:literal] $name:ident { #[doc = $of:literal] $field:ident: $type:ty })+) => {$(
        #[doc = $doc]
        #[derive(Clone, Debug)]
        pub struct $name {
            #[doc = $of]
            pub $field: $type,
            pub(crate) origin: Origin,
        }

        impl $name {
            /// A fault that someone else found, at the place of its field; `problem.field` is a path such as
            /// `spec.template.containers[0].image`.
            pub fn fault(&self, problem: Problem) -> Fault {
                self.origin.fault(problem)
            }

            /// Whether the document says something of `field`, such as `spec.replicas`; there are no lists on the way to it.
            pub fn says(&self, field: &str) -> bool {
                self.origin.says(field)
            }

            /// `shop.yaml:3:9`, where it begins.
            pub fn position(&self) -> String {
                self.origin.position()
            }
        }
    )+};
}

document! {
    /// A namespace, and where its parts stand.
    NamespaceDocument {
        /// The namespace.
        namespace: Namespace
    }
    /// A volume, and where its parts stand.
    VolumeDocument {
        /// The volume.
        volume: Volume
    }
    /// A policy, and where its parts stand.
    PolicyDocument {
        /// The policy.
        policy: NetworkPolicy
    }
    /// An app, and where its parts stand.
    AppDocument {
        /// The app, normalized.
        app: App
    }
}
