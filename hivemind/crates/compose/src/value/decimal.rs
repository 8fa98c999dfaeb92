//! Numbers with a fraction, kept exactly.

use hivemind_model::ErrorCode;

use crate::{
    print::Out,
    reader::{At, Reader, shown},
    record::Yaml,
};

/// `text` in millionths: digits, and up to as many behind a point as are exact.
pub(crate) fn millionths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !is_digits(whole) || !is_digits(part) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // What is finer than a millionth is cut off, whether or not it says something.
    let part: u64 = format!("{part:0<6}").get(..6)?.parse().ok()?;
    whole.checked_mul(1_000_000)?.checked_add(part)
}

fn printed(millionths: u64) -> String {
    let (whole, part) = (millionths / 1_000_000, millionths % 1_000_000);
    match part {
        0 => whole.to_string(),
        _ => format!("{whole}.{}", format!("{part:06}").trim_end_matches('0')),
    }
}

/// Processors, in millionths of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cores(pub u64);

/// More than any machine has.
const CORES_MAX: u64 = 4_096;

impl Yaml for Cores {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        let text = reader.scalar(at, "a number")?;
        let cores = millionths(text).filter(|millionths| *millionths <= CORES_MAX * 1_000_000);
        if cores.is_none() {
            let message = format!("{} is not a number of processors", shown(text));
            reader.fault(
                at,
                ErrorCode::OutOfRange,
                message,
                format!("write 0 to {CORES_MAX}, for example 0.5"),
            );
        }
        cores.map(Cores)
    }

    fn print(&self) -> Out {
        Out::Text(printed(self.0))
    }
}

/// A share, in millionths of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(pub u64);

impl Yaml for Ratio {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        let text = reader.scalar(at, "a number")?;
        let ratio = millionths(text).filter(|millionths| *millionths <= 1_000_000);
        if ratio.is_none() {
            let message = format!("{} is not a share", shown(text));
            reader.fault(at, ErrorCode::OutOfRange, message, "write 0 to 1, for example 0.1");
        }
        ratio.map(Ratio)
    }

    fn print(&self) -> Out {
        Out::Text(printed(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_kept_exactly() {
        for (text, expected) in
            [("0.5", 500_000), ("2", 2_000_000), (".25", 250_000), ("1.", 1_000_000), ("0.1", 100_000)]
        {
            assert_eq!(millionths(text), Some(expected), "{text}");
            assert_eq!(millionths(&printed(expected)), Some(expected));
        }
        for text in ["", ".", "-1", "1e3", "1,5", "x", "99999999999999999999"] {
            assert_eq!(millionths(text), None, "{text}");
        }
    }
}
