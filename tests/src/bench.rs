//! The benches: what the product promises in numbers, measured on a node of its own.
//!
//! A bench returns [`Figure`]s. What is compared is measured in the same run, in turns, and times are the medians of nine
//! or more, unless their name says otherwise; a figure with a bound says whether it keeps it, and a ratio of rounds says how
//! sure it is. Only the two ends of a connection that is measured are pinned, to one processor; elsewhere what is measured
//! are several processes at once. Start at [`run`].

mod calls;
mod churn;
mod cluster;
mod containers;
mod datapath;
mod dns;
mod echo;
mod figure;
mod footprint;
mod interval;
mod memory;
mod node;
mod pair;
mod policy;
mod services;
mod telemetry;
mod wires;

use anyhow::{Result, bail};

pub use calls::serve_calls;
pub use cluster::ask;
pub use echo::{echo, ping};
pub use figure::{Figure, json_lines, table};
pub use node::keep_node;

/// What measures, and tells what it is at.
type Bench = fn(&mut dyn FnMut(&str)) -> Result<Vec<Figure>>;

/// The benches by name.
const BENCHES: [(&str, Bench); 9] = [
    ("footprint", footprint::run),
    ("containers", containers::run),
    ("datapath", datapath::run),
    ("services", services::run),
    ("telemetry", telemetry::run),
    ("dns", dns::run),
    ("policy", policy::run),
    ("cluster", cluster::run),
    (CHURN, churn::run),
];

/// The bench that takes many minutes: it is run by its name only.
const CHURN: &str = "churn";

/// Runs the bench of that name, or `all`, and tells `progress` what it is at.
///
/// # Errors
/// When there is no such bench, or when a node cannot be made or does not do what is asked of it.
pub fn run(name: &str, progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    let wanted: Vec<_> =
        BENCHES.iter().filter(|(own, _)| name == *own || (name == "all" && *own != CHURN)).collect();
    if wanted.is_empty() {
        bail!(
            "there is no bench named {name:?}; there are {} and all",
            BENCHES.map(|(own, _)| own).join(", ")
        );
    }
    wanted.into_iter().try_fold(Vec::new(), |mut figures, (_, bench)| {
        figures.extend(bench(progress)?);
        Ok(figures)
    })
}
