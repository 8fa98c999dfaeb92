//! Policies: what each identity's endpoints are judged by, as the maps hold it.
//!
//! A policy in the maps is never changed, only replaced by one with another number: it is written whole, then each
//! endpoint is switched to it by one write, then the old one is removed once no program can still be reading it. A
//! daemon that is killed on the way leaves at worst a number that no endpoint names, which the next one removes.

pub(crate) mod lifecycle;
pub(crate) mod rows;
pub(crate) mod table;
