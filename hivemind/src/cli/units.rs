//! Ages, sizes and durations as people read and write them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// How long ago `then` was: `45s`, `3m`, `2h`, `5d`; `-` for what has not happened.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    if then == Timestamp::UNIX_EPOCH {
        return "-".to_owned();
    }
    let seconds = now.duration_since(then).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

const SIZES: [(u64, &str); 4] =
    [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];

/// `bytes` in the unit that fits them: `13.1 MB`, `900 B`.
pub(crate) fn size(bytes: u64) -> String {
    match SIZES.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{} {name}", tenths(bytes, *unit)),
        None => format!("{bytes} B"),
    }
}

/// `done` of `total` bytes, both in the unit of the larger: `4.2/13.1 MB`.
pub(crate) fn progress(done: u64, total: u64) -> String {
    if total == 0 {
        return size(done);
    }
    match SIZES.iter().find(|(unit, _)| total >= *unit) {
        Some((unit, name)) => format!("{}/{} {name}", tenths(done, *unit), tenths(total, *unit)),
        None => format!("{done}/{total} B"),
    }
}

/// `bytes` in `unit`s with one digit behind the point, rounded down so that an unfinished download never looks whole.
fn tenths(bytes: u64, unit: u64) -> String {
    format!("{}.{}", bytes / unit, bytes % unit * 10 / unit)
}

/// A time span as people write it: `5m`, `90s`, `1h 30m`, or a bare number of seconds; from 1 second to a day.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let span = match text.parse::<u32>() {
        Ok(seconds) => Duration::from_secs(seconds.into()),
        Err(_) => Duration::try_from(text.parse::<SignedDuration>().ok()?).ok()?,
    };
    (Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&span).then_some(span)
}

/// The seconds of each unit of [`lifetime`].
const SPANS: [(char, i64); 5] = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400), ('w', 604_800)];

/// How long something stays valid: a number and `s`, `m`, `h`, `d` or `w`; from a minute to ten years.
pub(crate) fn lifetime(text: &str) -> Option<SignedDuration> {
    let unit = text.chars().last()?;
    let (_, seconds) = SPANS.iter().find(|(name, _)| *name == unit)?;
    let digits = text.strip_suffix(unit)?;
    let number: u32 = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    let total = i64::from(number) * seconds;
    (60..=3_650 * 86_400).contains(&total).then(|| SignedDuration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_one_unit() {
        let now: Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
        for (seconds, text) in
            [(0, "0s"), (119, "119s"), (120, "2m"), (7_199, "119m"), (7_200, "2h"), (200_000, "2d")]
        {
            assert_eq!(age(now - SignedDuration::from_secs(seconds), now), text);
        }
        assert_eq!(age(now + SignedDuration::from_secs(5), now), "0s");
        assert_eq!(age(Timestamp::UNIX_EPOCH, now), "-");
    }

    #[test]
    fn sizes_share_the_unit_of_the_whole() {
        assert_eq!(progress(4_290_000, 13_100_000), "4.2/13.1 MB");
        assert_eq!(progress(500, 900), "500/900 B");
        assert_eq!(progress(2_000, 0), "2.0 kB");
        assert_eq!(size(13_199_999), "13.1 MB");
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [("5m", 300), ("90s", 90), ("1h30m", 5_400), ("60", 60)] {
            assert_eq!(duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "0", "-5m", "5 parsecs", "2 days", "100ms"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn lifetimes_have_a_unit_and_bounds() {
        for (text, hours) in [("30d", 720), ("12h", 12), ("1w", 168), ("60m", 1), ("3600s", 1)] {
            assert_eq!(lifetime(text), Some(SignedDuration::from_hours(hours)), "{text}");
        }
        for text in ["", "d", "30", "-1d", "+1d", "1.5d", "59s", "3651d", "99999999999w", "30 d", "1y", "1ä"]
        {
            assert_eq!(lifetime(text), None, "{text}");
        }
    }
}
