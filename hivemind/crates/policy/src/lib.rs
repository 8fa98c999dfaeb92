//! Network policies and workload identities in, verdicts and the data path's table entries out. No I/O.
//!
//! A [`World`] holds namespaces, identities, nodes and policies. [`compile()`] turns it into the [`Tables`] of one identity, by which
//! the data path decides as [`hivemind_common::policy`] says; changing a world tells which identities have to be compiled
//! again. [`judge`] says the same as Kubernetes' documentation does, plainly and slowly: tests hold the two against each
//! other. [`check()`] refuses what cannot be meant, [`warnings()`] tells what may not have been. [`Seen`] is who spoke to whom, as far
//! as recorded flows tell; [`Simulation`] tells what other policies would make of that, [`suggest()`] the least policies that
//! allow it, and [`matrix()`] holds it against all that policies allow.
//!
//! What it does not do: follow the store or write to the kernel (the agent does), give numbers to identities (the controller
//! does) or to policies (the API does).
#![forbid(unsafe_code)]

mod check;
mod cidr;
mod compile;
mod domain;
mod intervals;
mod keys;
mod matrix;
mod outside;
mod reference;
mod rules;
mod seen;
mod simulate;
mod suggest;
mod tables;
mod uncut;
mod warnings;
mod world;

#[cfg(test)]
mod tests;

pub use check::{COMBINATIONS_MAX, EXCEPTIONS_MAX, PEERS_MAX, RULES_MAX, check, check_until};
pub use compile::{Compiler, compile};
pub use domain::{matches as domain_matches, parse as domain_pattern};
pub use keys::LabelKeys;
pub use matrix::{
    Allowed, JUDGEMENTS_MAX, Matrix, MatrixEnd, MatrixOf, MatrixOpen, MatrixPair, MatrixUse, PolicyTransport,
    PortSet, UseNow, matrix,
};
pub use outside::Outside;
pub use reference::{Judgement, OtherEnd, Outcome, Speaks, Step, Tier, judge};
pub use seen::{Between, SEEN_MAX, Seen, SeenCounts, SeenEnd, SeenPair};
pub use simulate::{Change, Decided, Residents, Sides, Simulation};
pub use suggest::{SUGGESTED_RULES_MAX, SuggestFor, Suggested, suggest};
pub use tables::{TableEntry, TablePrefix, Tables, Transport};
pub use uncut::uncut;
pub use warnings::warnings;
pub use world::{Touched, World};
