//! Amounts of CPU and memory as people write them.

use std::{fmt, str::FromStr};

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
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
as_string!(Cpu);
as_string!(Memory);

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
