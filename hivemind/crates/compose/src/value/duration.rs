//! Lengths of time, as Go writes them.

use std::fmt;

use hivemind_model::ErrorCode;

use crate::{
    print::Out,
    reader::{At, Reader, shown},
    record::Yaml,
    value::decimal::millionths,
};

/// A length of time, whole microseconds, up to a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub std::time::Duration);

/// Nobody waits longer for a container.
const MICROSECONDS_MAX: u64 = 366 * 24 * 3_600 * 1_000_000;

/// Units in microseconds; those that others begin with come later.
const UNITS: [(&str, u64); 6] =
    [("us", 1), ("µs", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000)];

/// Those that only times between pulls of an image may have besides.
const LONG_UNITS: [(&str, u64); 2] = [("d", 86_400_000_000), ("w", 604_800_000_000)];

impl Duration {
    /// `1m30s`, `500ms`, `1.5h`; `0` without a unit.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::of_units(text, &UNITS)
    }

    /// The same with days and weeks: `1w2d12h`.
    pub(crate) fn parse_long(text: &str) -> Option<Self> {
        Self::of_units(text, &[&UNITS[..], &LONG_UNITS[..]].concat())
    }

    fn of_units(text: &str, units: &[(&str, u64)]) -> Option<Self> {
        if text == "0" {
            return Some(Duration(std::time::Duration::ZERO));
        }
        let (mut rest, mut sum) = (text, 0_u64);
        while !rest.is_empty() {
            let split = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, behind) = rest.split_at_checked(split)?;
            let (unit, size) = units.iter().find(|(unit, _)| behind.starts_with(unit))?;
            let part = u128::from(millionths(number)?) * u128::from(*size) / 1_000_000;
            sum = sum.checked_add(u64::try_from(part).ok()?)?;
            rest = behind.strip_prefix(unit)?;
        }
        (!text.is_empty() && sum <= MICROSECONDS_MAX).then(|| Duration(std::time::Duration::from_micros(sum)))
    }
}

impl fmt::Display for Duration {
    /// As it is read: `1h1m30s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        if left == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in
            [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)]
        {
            if left >= size {
                write!(f, "{}{unit}", left / size)?;
                left %= size;
            }
        }
        Ok(())
    }
}

impl Yaml for Duration {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        let text = reader.scalar(at, "a length of time")?;
        let duration = Duration::parse(text);
        if duration.is_none() {
            let message = format!("{} is not a length of time", shown(text));
            let hint = "write numbers with h, m, s or ms, up to a year: 1m30s";
            reader.fault(at, ErrorCode::OutOfRange, message, hint);
        }
        duration
    }

    fn print(&self) -> Out {
        Out::Text(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_printed_with_their_units() {
        for (text, ms, printed) in [
            ("1m30s", 90_000, "1m30s"),
            ("500ms", 500, "500ms"),
            ("1.5h", 5_400_000, "1h30m"),
            ("90s", 90_000, "1m30s"),
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("1h5m10s20ms", 3_910_020, "1h5m10s20ms"),
            ("1000us", 1, "1ms"),
        ] {
            let read = Duration::parse(text).unwrap();
            assert_eq!((read.0.as_millis(), read.to_string().as_str()), (ms, printed), "{text}");
        }
        for text in
            ["", "5", "s", "-1s", "1 s", "1x", "1m30", "1..5s", "2d", "9999999h", "99999999999999999999s"]
        {
            assert_eq!(Duration::parse(text), None, "{text}");
        }
        let long = Duration::parse_long("1w2d12h").map(|long| long.to_string());
        assert_eq!(long.as_deref(), Some("228h"));
    }
}
