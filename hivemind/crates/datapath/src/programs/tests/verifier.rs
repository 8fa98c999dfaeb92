//! What the programs cost to load: the greater part of a daemon's start.

use super::Bench;
use crate::programs::LONGEST;

/// Instructions that the kernel may have to follow for one program, in the order of a microsecond each.
const FOLLOWED_MAX: u32 = 30_000;

#[test]
fn no_program_keeps_the_verifier_for_long() {
    let bench = Bench::new();
    let followed: Vec<_> = bench
        .ebpf
        .programs()
        .filter_map(|(name, program)| {
            let info = program.info().ok()?;
            Some((name, info.verified_instruction_count()?))
        })
        .collect();
    println!("{followed:?}");
    assert!(followed.iter().any(|(name, _)| *name == hivemind_common::name::FROM_REPLICA));
    let long: Vec<_> = followed.iter().filter(|(_, count)| *count > FOLLOWED_MAX).collect();
    assert!(long.is_empty(), "{long:?}");
    // What is begun last is short, or all of them wait for it.
    let all: u32 = followed.iter().map(|(_, count)| count).sum();
    let late: Vec<_> =
        followed.iter().filter(|(name, count)| !LONGEST.contains(name) && *count > all / 20).collect();
    assert!(late.is_empty(), "{late:?} are not among the longest");
}
