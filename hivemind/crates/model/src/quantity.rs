//! Amounts of CPU, memory and time as people write them.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a quantity was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not of the form that `FromStr` describes.
    #[error("{0:?} is not an amount of CPU: write cores (0.5, 2) or thousandths (500m)")]
    Cpu(String),
    /// Not of the form that `FromStr` describes.
    #[error("{0:?} is not an amount of memory: write bytes with a unit (64Mi, 512M, 1Gi)")]
    Memory(String),
}

/// CPU time in thousandths of a core; at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpu {
    millicores: u32,
}

impl Cpu {
    /// `millicores` thousandths of a core; `None` for zero.
    pub fn from_millicores(millicores: u32) -> Option<Self> {
        (millicores > 0).then_some(Cpu { millicores })
    }

    /// Thousandths of a core.
    pub fn millicores(self) -> u32 {
        self.millicores
    }
}

impl FromStr for Cpu {
    type Err = QuantityError;

    /// `500m`, `0.5`, `2`; not finer than a thousandth, up to 4,096 cores.
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let wrong = || QuantityError::Cpu(text.to_owned());
        let millicores = match text.strip_suffix('m') {
            Some(number) => number.parse::<u32>().map_err(|_| wrong())?,
            None => decimal_thousandths(text).ok_or_else(wrong)?,
        };
        match millicores {
            1..=4_096_000 => Ok(Cpu { millicores }),
            _ => Err(wrong()),
        }
    }
}

/// `text` as a decimal number with at most three digits behind the point, times 1,000.
fn decimal_thousandths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || part.len() > 3 || !digits(whole) || !digits(part) {
        return None;
    }
    let whole: u32 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u32 = format!("{part:0<3}").parse().ok()?;
    whole.checked_mul(1_000)?.checked_add(part)
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millicores.is_multiple_of(1_000) {
            write!(f, "{}", self.millicores / 1_000)
        } else {
            write!(f, "{}m", self.millicores)
        }
    }
}

/// Memory in bytes; at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory {
    bytes: u64,
}

const MEMORY_UNITS: [(&str, u64); 12] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("K", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("m", 1_000_000),
    ("g", 1_000_000_000),
    ("", 1),
];

impl Memory {
    /// `bytes` bytes; `None` for zero.
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        (bytes > 0).then_some(Memory { bytes })
    }

    /// Bytes.
    pub fn bytes(self) -> u64 {
        self.bytes
    }
}

impl FromStr for Memory {
    type Err = QuantityError;

    /// A whole number of bytes, or of `Ki`, `Mi`, `Gi`, `Ti` (powers of 1,024) or `k`, `M`, `G`, `T` (of 1,000; `K`, `m` and
    /// `g` are understood as people write them), up to 1 EiB.
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let wrong = || QuantityError::Memory(text.to_owned());
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let (_, factor) = MEMORY_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*factor)).ok_or_else(wrong)?;
        if bytes == 0 || bytes > 1 << 60 { Err(wrong()) } else { Ok(Memory { bytes }) }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("Ti", 1_u64 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
        match units.iter().find(|(_, size)| self.bytes.is_multiple_of(*size)) {
            Some((unit, size)) => write!(f, "{}{unit}", self.bytes / size),
            None => write!(f, "{}", self.bytes),
        }
    }
}

macro_rules! as_string {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                #[serde(untagged, expecting = "an amount, as a text or a number")]
                enum Written {
                    Text(String),
                    Whole(u64),
                    Fraction(f64),
                }
                let text = match Written::deserialize(deserializer)? {
                    Written::Text(text) => text,
                    Written::Whole(number) => number.to_string(),
                    Written::Fraction(number) => number.to_string(),
                };
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
as_string!(Cpu);
as_string!(Memory);

/// A time in seconds, to the millisecond; up to 49 days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds {
    millis: u32,
}

impl Seconds {
    /// `millis` milliseconds.
    pub fn from_millis(millis: u32) -> Self {
        Seconds { millis }
    }

    /// Milliseconds.
    pub fn millis(self) -> u32 {
        self.millis
    }

    /// As the clock takes it.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.millis.into())
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:03}", self.millis / 1_000, self.millis % 1_000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.millis.is_multiple_of(1_000) {
            true => serializer.serialize_u32(self.millis / 1_000),
            false => serializer.serialize_f64(f64::from(self.millis) / 1_000.0),
        }
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        let millis = (seconds * 1_000.0).round();
        if !(0.0..=f64::from(u32::MAX)).contains(&millis) {
            return Err(serde::de::Error::custom(format!("{seconds} is no number of seconds from 0 on")));
        }
        // In range, and whole.
        Ok(Seconds { millis: millis as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_read_in_cores_and_thousandths() {
        for (text, millicores) in
            [("500m", 500), ("0.5", 500), ("2", 2000), (".25", 250), ("1.125", 1125), ("1m", 1)]
        {
            assert_eq!(text.parse::<Cpu>().unwrap().millicores(), millicores, "{text}");
        }
        for text in ["", "0", "-1", "1.0001", "m", "5000", "1e3", "1,5", "."] {
            assert!(text.parse::<Cpu>().is_err(), "{text}");
        }
    }

    #[test]
    fn memory_is_read_with_binary_and_decimal_units() {
        for (text, bytes) in
            [("64Mi", 64 << 20), ("1Gi", 1 << 30), ("512M", 512_000_000), ("100", 100), ("1k", 1000)]
        {
            assert_eq!(text.parse::<Memory>().unwrap().bytes(), bytes, "{text}");
        }
        for text in ["", "0", "-1", "1.5Gi", "Mi", "10Xi", "99999999999Ti"] {
            assert!(text.parse::<Memory>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_amount_may_be_written_as_a_number() {
        let read = |text: &str| serde_json::from_str::<Cpu>(text).map(Cpu::millicores).ok();
        assert_eq!((read("0.5"), read("2"), read("\"500m\"")), (Some(500), Some(2_000), Some(500)));
        assert_eq!((read("-1"), read("0.0001"), read("true")), (None, None, None));
        assert_eq!(serde_json::from_str::<Memory>("1048576").unwrap().to_string(), "1Mi");
    }

    #[test]
    fn seconds_are_kept_to_the_millisecond() {
        for (text, millis, shown) in
            [("0", 0, "0"), ("10", 10_000, "10"), ("0.25", 250, "0.25"), ("1.0004", 1_000, "1")]
        {
            let seconds: Seconds = serde_json::from_str(text).unwrap();
            assert_eq!((seconds.millis(), seconds.to_string().as_str()), (millis, shown), "{text}");
            assert_eq!(serde_json::to_string(&seconds).unwrap(), shown);
        }
        for text in ["-1", "4294968", "\"1\"", "1e300"] {
            assert!(serde_json::from_str::<Seconds>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same() {
        for bytes in [1, 1000, 1024, 1 << 20, (1 << 30) + 1, 3 << 40] {
            let memory = Memory::from_bytes(bytes).unwrap();
            assert_eq!(memory.to_string().parse::<Memory>().unwrap(), memory);
        }
        for millicores in [1, 250, 1000, 1500] {
            let cpu = Cpu::from_millicores(millicores).unwrap();
            assert_eq!(cpu.to_string().parse::<Cpu>().unwrap(), cpu);
        }
    }
}
