//! Tables that spread connections over backends by weight and change little when the backends do.
//!
//! The algorithm is that of Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016,
//! section 3.4), with weights as Envoy does them: a backend takes a turn only when its share is due. Besides, none takes more
//! than its quota (Hamilton's method), so that shares are those of the weights to the cell. The hash is our own and fixed, so
//! that all nodes and all versions build the same table from the same backends.

/// Cells for each backend at least, so that a share is off by a hundredth of itself at most.
const CELLS_PER_BACKEND: u64 = 100;
/// Cells of the backend with the smallest weight at least, as far as [`CELLS_MAX`] allows.
const CELLS_OF_SMALLEST: u64 = 10;
/// No table is larger.
pub(crate) const CELLS_MAX: u32 = 131_071;

/// One candidate for the cells.
pub(crate) struct Candidate {
    /// What the candidate is recognised by: equal bytes, equal preferences, on every node.
    pub(crate) name: Vec<u8>,
    /// Its share relative to the others', not zero.
    pub(crate) weight: u16,
}

/// How many cells the table for these weights has: a prime, or zero without weights.
pub(crate) fn size(weights: &[u16]) -> u32 {
    let Some(smallest) = weights.iter().copied().filter(|&weight| weight > 0).min() else { return 0 };
    let sum: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    let even = CELLS_PER_BACKEND * weights.len() as u64;
    let fair = (CELLS_OF_SMALLEST * sum).div_ceil(u64::from(smallest));
    next_prime(even.max(fair).min(u64::from(CELLS_MAX)) as u32)
}

/// Fills a table of `size` cells with indexes of candidates. `size` is a prime not below the number of candidates.
pub(crate) fn build(candidates: &[Candidate], size: u32) -> Vec<u32> {
    let mut table = vec![u32::MAX; size as usize];
    let heaviest = f64::from(candidates.iter().map(|candidate| candidate.weight).max().unwrap_or(0));
    if heaviest == 0.0 || size == 0 {
        return Vec::new();
    }
    let quotas = quotas(candidates, size);
    let preferences = candidates.iter().zip(quotas);
    let mut preferences: Vec<Preference> =
        preferences.map(|(candidate, quota)| Preference::of(&candidate.name, size, quota)).collect();
    let mut filled = 0;
    let mut round = 1.0;
    loop {
        for (index, candidate) in candidates.iter().enumerate() {
            let preference = &mut preferences[index];
            let due = round * f64::from(candidate.weight);
            if due < preference.taken_at || preference.left == 0 {
                continue;
            }
            preference.taken_at += heaviest;
            preference.left -= 1;
            let cell = preference.next_free(&table);
            table[cell] = index as u32;
            filled += 1;
            if filled == size {
                return table;
            }
        }
        round += 1.0;
    }
}

/// How many cells each candidate gets: its share rounded down, and of the cells that are left one each for those that lost
/// most by that. Their sum is `size`.
fn quotas(candidates: &[Candidate], size: u32) -> Vec<u32> {
    let sum: u64 = candidates.iter().map(|candidate| u64::from(candidate.weight)).sum();
    let share = |candidate: &Candidate| u64::from(size) * u64::from(candidate.weight);
    // A share of `size` fits.
    let mut quotas: Vec<u32> =
        candidates.iter().map(|candidate| (share(candidate) / sum.max(1)) as u32).collect();
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(share(&candidates[index]) % sum.max(1)));
    let left = size.saturating_sub(quotas.iter().sum());
    for index in order.into_iter().take(left as usize) {
        quotas[index] += 1;
    }
    quotas
}

/// A candidate's permutation of the cells, and how far it has come.
struct Preference {
    next: u64,
    skip: u64,
    size: u64,
    taken_at: f64,
    /// Cells that it still gets.
    left: u32,
}

impl Preference {
    fn of(name: &[u8], size: u32, quota: u32) -> Self {
        let size = u64::from(size);
        let skip = if size > 1 { hash(name, 2) % (size - 1) + 1 } else { 0 };
        Self { next: hash(name, 1) % size, skip, size, taken_at: 0.0, left: quota }
    }

    /// The first cell of the permutation that is free. There is one: the caller stops at a full table.
    fn next_free(&mut self, table: &[u32]) -> usize {
        loop {
            let cell = self.next as usize;
            self.next = (self.next + self.skip) % self.size;
            if table[cell] == u32::MAX {
                return cell;
            }
        }
    }
}

/// FNV-1a over the seed and the bytes, mixed by MurmurHash3's finalizer, which FNV's low entropy needs.
fn hash(bytes: &[u8], seed: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in seed.to_le_bytes().iter().chain(bytes) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

fn next_prime(from: u32) -> u32 {
    let is_prime = |n: u32| n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    (from.max(2)..).find(|&n| is_prime(n)).unwrap_or(CELLS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidates(weights: &[u16]) -> Vec<Candidate> {
        weights
            .iter()
            .enumerate()
            .map(|(index, &weight)| Candidate { name: format!("backend {index}").into_bytes(), weight })
            .collect()
    }

    fn shares(table: &[u32], count: usize) -> Vec<usize> {
        let mut shares = vec![0; count];
        for &index in table {
            shares[index as usize] += 1;
        }
        shares
    }

    proptest! {
        #[test]
        fn every_backend_gets_its_share_of_the_cells_to_the_cell(
            weights in prop::collection::vec(prop_oneof![1u16..50, any::<u16>()], 1..40)
        ) {
            let weights: Vec<u16> = weights.into_iter().map(|weight| weight.max(1)).collect();
            let size = size(&weights);
            let table = build(&candidates(&weights), size);
            prop_assert_eq!(table.len(), size as usize);
            let sum: f64 = weights.iter().map(|&w| f64::from(w)).sum();
            for (share, weight) in shares(&table, weights.len()).into_iter().zip(&weights) {
                let ideal = f64::from(size) * f64::from(*weight) / sum;
                prop_assert!((share as f64 - ideal).abs() < 1.0, "{} instead of {}", share, ideal);
            }
        }

        #[test]
        fn a_backend_that_leaves_moves_few_cells_of_the_others(count in 5usize..30, gone in 0usize..5) {
            let weights = vec![1; count];
            let mut names = candidates(&weights);
            let size = size(&weights);
            let before = build(&names, size);
            names.remove(gone);
            let after = build(&names, size);
            let name_of = |index: u32, shift: bool| if shift && index as usize >= gone { index + 1 } else { index };
            let moved = before.iter().zip(&after)
                .filter(|&(&old, &new)| old as usize != gone && old != name_of(new, true))
                .count();
            prop_assert!(moved * 4 < size as usize, "{} of {} cells moved", moved, size);
        }
    }

    #[test]
    fn the_table_is_the_same_on_every_machine_and_version() {
        assert_eq!(build(&candidates(&[1, 2, 1]), 13), [0, 1, 1, 2, 0, 1, 1, 1, 0, 2, 1, 1, 2]);
    }

    #[test]
    fn the_size_follows_backends_and_weights_within_bounds() {
        assert_eq!(size(&[]), 0);
        assert_eq!(size(&[1]), 101);
        assert_eq!(size(&[1, 1, 1]), 307);
        assert_eq!(size(&[1, 999]), 10_007);
        assert_eq!(size(&[1, u16::MAX]), CELLS_MAX);
    }
}
