//! Reads manifests, YAML or JSON, into objects of the model. Every fault has its file, line and column, and all faults of
//! all files are told at once.
//!
//! It does no I/O: the caller brings the texts as [`Source`]s. Start with [`read`]. A text becomes trees of nodes that know
//! their places (`tree`); what a document is, is told by its kind (`kind`); a reader that knows the fields of each kind walks
//! them and collects faults (`reader`, `policy`).
//! What only the engine of policies can judge, such as blocks of addresses, is asked of a function that the caller brings,
//! and its answers, which name fields, are told at the places of these fields.
//!
//! YAML is read by version 1.2 of its specification with the core schema; `yes` and `no` are texts, not booleans.
#![forbid(unsafe_code)]

mod document;
mod fault;
mod fields;
mod hints;
mod kind;
mod place;
mod policy;
mod reader;
mod scalar;
mod source;
mod tree;
mod tree_builder;

pub use document::{Manifests, Options, PolicyDocument, read};
pub use fault::{Excerpt, Fault};
pub use source::Source;

/// The most bytes of one file: what the API takes in one request.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// The most bytes of all files of one reading.
pub const TOTAL_BYTES_MAX: usize = 16 << 20;
/// The most documents of one reading, entries of lists included.
pub const DOCUMENTS_MAX: usize = 1_000;
/// How deep lists and maps may be nested in each other.
pub const DEPTH_MAX: usize = 64;
/// The most bytes that all aliases of one document may stand for, so that a short text cannot grow without bound.
pub const ALIAS_BYTES_MAX: usize = 1 << 20;
/// The most faults that are told; the rest is counted.
pub const FAULTS_MAX: usize = 100;
