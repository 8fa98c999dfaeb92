//! Laws of scrapes, over what may be observed.

mod document;
mod laws;
mod promtool;
mod python;
mod reference;
mod rules;
mod sample;
mod series;
