//! Reads YAML and JSON into trees whose nodes know where they stand, and tells faults with file, line, column and the line
//! itself.
//!
//! It knows no kind of document: [`documents`] makes a [`Node`] of each document of a [`Source`], and readers of manifests and of
//! Compose files walk them, adding what they find wrong to [`Faults`]. It does no I/O, and every size is bounded.
//!
//! YAML is read by version 1.2 of its specification with the core schema; `yes` and `no` are texts, not booleans. Tags of one's
//! own and merge keys are faults, unless [`Options`] allow them.
#![forbid(unsafe_code)]

mod fault;
mod hints;
mod place;
mod scalar;
mod source;
mod tree;
mod tree_builder;

pub use fault::{Excerpt, Fault, Faults};
pub use hints::{alternatives, nearest};
pub use place::Place;
pub use scalar::{Plain, integer, plain};
pub use source::Source;
pub use tree::{Entry, Node, Value};
pub use tree_builder::{Options, documents, documents_with};

/// How deep lists and maps may be nested in each other.
pub const DEPTH_MAX: usize = 64;
/// The most bytes that all aliases of one document may stand for, so that a short text cannot grow without bound.
pub const ALIAS_BYTES_MAX: usize = 1 << 20;
/// The most faults that are told; the rest is counted.
pub const FAULTS_MAX: usize = 100;
