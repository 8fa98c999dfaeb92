//! The benches: what the product promises in numbers, measured on a node of its own.
//!
//! A bench returns [`Figure`]s. What is compared is measured in the same run, in turns, and times are the medians of nine
//! or more, unless their name says otherwise; a figure with a bound says whether it keeps it. Only the two ends of a connection that is measured are pinned, to
//! one processor; elsewhere what is measured are several processes at once. Start at [`run`].

mod calls;
mod cluster;
mod containers;
mod dns;
mod echo;
mod figure;
mod footprint;
mod memory;
mod pair;
mod policy;
mod telemetry;

use anyhow::{Result, bail};

pub use calls::serve_calls;
pub use cluster::ask;
pub use echo::{echo, ping};
pub use figure::{Figure, json_lines, table};

/// Runs the bench of that name, or `all`, and tells `progress` what it is at.
///
/// # Errors
/// When there is no such bench, or when a node cannot be made or does not do what is asked of it.
pub fn run(name: &str, progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>> {
    match name {
        "footprint" => footprint::run(progress),
        "containers" => containers::run(progress),
        "telemetry" => telemetry::run(progress),
        "dns" => dns::run(progress),
        "policy" => policy::run(progress),
        "cluster" => cluster::run(progress),
        "all" => {
            let all = [footprint::run, containers::run, telemetry::run, dns::run, policy::run, cluster::run];
            all.into_iter().try_fold(Vec::new(), |mut figures, bench| {
                figures.extend(bench(progress)?);
                Ok(figures)
            })
        }
        _ => {
            bail!(
                "there is no bench named {name:?}; there are footprint, containers, telemetry, dns, policy, cluster and all"
            )
        }
    }
}
