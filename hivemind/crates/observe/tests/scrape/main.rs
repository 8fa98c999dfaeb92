//! Laws of scrapes, over what may be observed.

mod document;
mod laws;
mod promtool;
mod reference;
mod sample;
mod series;
