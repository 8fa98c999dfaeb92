//! Ports: numbers, ranges and names.

use hivemind_model::{ErrorCode, PolicyPort, PortRef, Problems, check_port_name};

use super::join;

pub(super) fn check(at: &str, port: &PolicyPort, problems: &mut Problems) {
    let first = match &port.port {
        Some(PortRef::Number(number)) => *number,
        unnumbered => {
            if let Some(PortRef::Name(name)) = unnumbered {
                check_name(&join(at, "port"), name, problems);
            }
            if port.end_port.is_some() {
                let what = "endPort without a port that is a number";
                let hint = "say with port where the range begins";
                problems.add(ErrorCode::OutOfRange, join(at, "endPort"), what, hint);
            }
            return;
        }
    };
    check_number(&join(at, "port"), first, problems);
    if let Some(end) = port.end_port.filter(|end| first > 0 && i64::from(*end) < first) {
        let what = format!("the range ends at {end}, before it begins at {first}");
        problems.add(ErrorCode::OutOfRange, join(at, "endPort"), what, "use a number from port on");
    }
}

/// A name by which apps call a port of theirs.
pub(super) fn check_name(field: &str, name: &str, problems: &mut Problems) {
    match name.parse::<u16>() {
        Ok(number) => {
            let what = format!("the port {name:?} is a text");
            problems.add(ErrorCode::InvalidName, field, what, format!("write {number} without quotes"));
        }
        Err(_) => check_port_name(field, name, problems),
    }
}

pub(super) fn check_number(field: &str, number: i64, problems: &mut Problems) {
    if !(1..=65_535).contains(&number) {
        let what = format!("port {number} does not exist");
        problems.add(ErrorCode::OutOfRange, field, what, "use 1 to 65535");
    }
}
