//! How sure the median of some samples is.

/// What the interval misses at most.
const MISSED_MAX: f64 = 0.05;

/// Where the median of what the sorted samples were drawn from lies in at least 95 of 100 cases, whatever its distribution:
/// between the k-th least and the k-th largest sample. How many of n samples lie below the median is binomial with one half,
/// which gives the largest k that keeps to it (David and Nagaraja, "Order Statistics", 3rd edition, section 7.1). Nothing for
/// fewer than six samples, which cannot tell.
pub(super) fn of_median(sorted: &[f64]) -> Option<[f64; 2]> {
    let count = sorted.len();
    // The probability that exactly `below` samples, and that at most so many, lie below the median.
    let mut exactly = 0.5_f64.powi(i32::try_from(count).ok()?);
    let mut at_most = exactly;
    let mut below = 0;
    while exactly > 0.0 && below < count && 2.0 * at_most <= MISSED_MAX {
        exactly *= (count - below) as f64 / (below + 1) as f64;
        at_most += exactly;
        below += 1;
    }
    let least = below.checked_sub(1)?;
    Some([sorted[least], sorted[count - 1 - least]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranks(count: u32) -> Option<[f64; 2]> {
        of_median(&(1..=count).map(f64::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_ends_are_those_of_tables_of_the_sign_test() {
        assert_eq!(ranks(6), Some([1.0, 6.0]));
        assert_eq!(ranks(8), Some([1.0, 8.0]));
        assert_eq!(ranks(9), Some([2.0, 8.0]));
        assert_eq!(ranks(12), Some([3.0, 10.0]));
        assert_eq!(ranks(15), Some([4.0, 12.0]));
        assert_eq!(ranks(25), Some([8.0, 18.0]));
        assert_eq!(ranks(100), Some([40.0, 61.0]));
    }

    #[test]
    fn few_samples_tell_nothing() {
        assert_eq!([0, 1, 5].map(ranks), [None; 3]);
    }

    #[test]
    fn equal_samples_leave_no_doubt() {
        assert_eq!(of_median(&[0.97; 9]), Some([0.97, 0.97]));
    }
}
