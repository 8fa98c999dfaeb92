//! What the fuzzer would do, on every run: 200,000 inputs, random ones and mutations of real gossip.

use hivemind_membership::fuzzing::{fuzz_one, seeds};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

const INPUTS: usize = 200_000;

fn random(rng: &mut StdRng) -> Vec<u8> {
    let mut input = vec![0; rng.random_range(0..1_300)];
    rng.fill_bytes(&mut input);
    input
}

/// A few changes of the kinds that break parsers: other bits, bytes, lengths, and parts that come twice.
fn mutated(rng: &mut StdRng, seed: &[u8]) -> Vec<u8> {
    let mut input = seed.to_vec();
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..=input.len());
        match rng.random_range(0..6) {
            0 => input.truncate(at),
            1 => input.insert(at, rng.random()),
            2 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
            3 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][rng.random_range(0..5)],
            4 => input.extend_from_within(at..),
            _ => input.extend((0..rng.random_range(0..32)).map(|_| rng.random::<u8>())),
        }
        input.truncate(1_400);
    }
    input
}

#[test]
fn no_datagram_brings_a_node_down() {
    let seeds = seeds();
    assert!(seeds.len() > 20, "there is gossip to mutate");
    seeds.iter().for_each(|seed| fuzz_one(seed));
    let mut rng = StdRng::seed_from_u64(0x6869_7665);
    for index in 0..INPUTS {
        let input = if index % 8 == 0 {
            random(&mut rng)
        } else {
            let seed = rng.random_range(0..seeds.len());
            mutated(&mut rng, &seeds[seed])
        };
        fuzz_one(&input);
    }
}
