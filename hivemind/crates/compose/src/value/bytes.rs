//! Sizes in bytes.

use std::fmt;

use hivemind_model::ErrorCode;

use crate::{
    print::Out,
    reader::{At, Reader, shown},
    record::Yaml,
    value::decimal::millionths,
};

/// A size in bytes, up to 1 EiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// Powers of 1,024, as Docker reads them, with and without a `b` behind.
const UNITS: [(&str, u32); 6] = [("b", 0), ("k", 10), ("m", 20), ("g", 30), ("t", 40), ("p", 50)];

impl Bytes {
    /// `64m`, `1gb`, `1.5 GiB`, `4096`: a number and a unit in whichever case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let split = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
        let (number, unit) = lower.split_at_checked(split)?;
        let unit = unit.trim_start_matches(' ');
        let short =
            unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).filter(|short| !short.is_empty());
        let unit = short.unwrap_or(if unit.is_empty() { "b" } else { unit });
        let (_, power) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let number = millionths(number)?;
        let bytes = (u128::from(number) << power) / 1_000_000;
        u64::try_from(bytes).ok().filter(|bytes| *bytes <= 1 << 60).map(Bytes)
    }
}

impl fmt::Display for Bytes {
    /// A number of bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Yaml for Bytes {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        let text = reader.scalar(at, "a size")?;
        let bytes = Bytes::parse(text);
        if bytes.is_none() {
            let message = format!("{} is not a size", shown(text));
            let hint = "write bytes, or a number and b, k, m or g: 64m";
            reader.fault(at, ErrorCode::OutOfRange, message, hint);
        }
        bytes
    }

    fn print(&self) -> Out {
        Out::Text(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("10b", 10),
            ("2k", 2 << 10),
            ("64m", 64 << 20),
            ("64MB", 64 << 20),
            ("1gb", 1 << 30),
            ("1.5 GiB", 3 << 29),
            ("1t", 1 << 40),
        ] {
            assert_eq!(Bytes::parse(text), Some(Bytes(bytes)), "{text}");
        }
        for text in ["", "m", "-1", "1x", "1mm", "1ib", "1.2.3m", "1 m m", "99999999p", "1,5g", "é"] {
            assert_eq!(Bytes::parse(text), None, "{text}");
        }
    }
}
