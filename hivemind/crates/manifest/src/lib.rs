//! Reads manifests, YAML or JSON, into objects of the model. Every fault has its file, line and column, and all faults of
//! all files are told at once.
//!
//! It does no I/O: the caller brings the texts as [`Source`]s. Start with [`read_all`]. A text becomes trees of nodes that know
//! their places (`hivemind-yaml`); what a document is, is told by its kind (`kind`); a reader walks them and collects faults
//! (`reader`). Of policies the fields are known by hand (`policy`), since other programs say what they mean; of all other kinds by
//! the schema that the model derives (`schema`, `object`), so that a field of the model is read as soon as it is there. By the
//! same schemas, [`explain`] says what can be written.
//! What only the engine of policies can judge, such as blocks of addresses, is asked of a function that the caller brings,
//! and its answers, which name fields, are told at the places of these fields.
#![forbid(unsafe_code)]

mod document;
mod explain;
mod fields;
mod kind;
mod metadata;
mod object;
mod policy;
mod reader;
mod reading;
mod schema;

pub use document::{AppDocument, Manifests, NamespaceDocument, Options, PolicyDocument, VolumeDocument};
pub use explain::{ExplainedField, Explanation, explain};
pub use hivemind_yaml::{Excerpt, FAULTS_MAX, Fault, Source};
pub use kind::Kind;
pub use reading::{read, read_all};

/// The most bytes of one file: what the API takes in one request.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// The most bytes of all files of one reading.
pub const TOTAL_BYTES_MAX: usize = 16 << 20;
/// The most documents of one reading, entries of lists included.
pub const DOCUMENTS_MAX: usize = 1_000;
