//! Whether the kernel takes the programs at all, and what it says of those that it refuses.

use crate::programs::{OBJECT, tables, verify_one};
use aya::{EbpfLoader, maps::Map, programs::ProgramError};
use hivemind_common::{name, telemetry::FEATURES_ALL};
use std::time::{Duration, Instant};

#[test]
fn the_kernel_accepts_every_program() {
    accepts_all(FEATURES_ALL);
}

#[cfg(feature = "next-layout")]
#[test]
fn the_kernel_accepts_every_program_that_takes_over() {
    accepts_all(FEATURES_ALL | hivemind_common::telemetry::FEATURE_TAKE_OVER);
}

fn accepts_all(features: u32) {
    let mut loader = EbpfLoader::new();
    loader.override_global(name::FEATURES, &features, true);
    let mut ebpf = loader.load(OBJECT).unwrap();
    let (mut programs, mut followed, mut took) = (0, 0, Duration::ZERO);
    let mut refused = Vec::new();
    for (name, program) in ebpf.programs_mut() {
        let begun = Instant::now();
        let result = verify_one(program);
        took += begun.elapsed();
        if let Err(error) = result {
            // Not by `Debug`: a verifier's log is read line by line.
            match &error {
                ProgramError::LoadError { io_error, verifier_log } => {
                    println!("{name} is refused: {io_error}\n{verifier_log}");
                }
                other => println!("{name} is refused: {other}"),
            }
            refused.push(name.to_owned());
            continue;
        }
        programs += 1;
        followed += program.info().unwrap().verified_instruction_count().unwrap_or_default();
    }
    let all = programs + refused.len();
    println!(
        "loaded: {programs} of {all} programs, {followed} instructions followed, {} ms",
        took.as_millis()
    );
    assert!(all > 0, "the object has no programs");
    assert!(refused.is_empty(), "refused: {refused:?}");
}

#[test]
fn the_tables_that_are_made_before_the_object_is_read_are_those_of_the_object() {
    let ebpf = EbpfLoader::new().load(OBJECT).unwrap();
    for table in &tables::LARGEST {
        let Some(Map::HashMap(map) | Map::LruHashMap(map)) = ebpf.map(table.name) else {
            panic!("the object has no table {}", table.name);
        };
        let info = map.info().unwrap();
        let found = (info.map_type().unwrap() as u32, info.key_size() as usize, info.value_size() as usize);
        assert_eq!(found, (table.kind, table.key_bytes, table.value_bytes), "{}", table.name);
        assert_eq!(info.map_flags(), 0, "{}", table.name);
    }
}
