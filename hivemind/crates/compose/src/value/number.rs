//! Whole numbers within their ranges.

use std::ops::Deref;

use hivemind_model::ErrorCode;

use crate::{
    print::Out,
    reader::{At, Reader},
    record::Yaml,
};

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Within<const MIN: i64, const MAX: i64>(i64);

impl<const MIN: i64, const MAX: i64> Deref for Within<MIN, MAX> {
    type Target = i64;

    fn deref(&self) -> &i64 {
        &self.0
    }
}

impl<const MIN: i64, const MAX: i64> Yaml for Within<MIN, MAX> {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        let number = reader.integer(at)?;
        if !(MIN..=MAX).contains(&number) {
            let hint = match (MIN, MAX) {
                (_, i64::MAX) => format!("write {MIN} or more"),
                _ => format!("write {MIN} to {MAX}"),
            };
            reader.fault(at, ErrorCode::OutOfRange, format!("{number} is out of range"), hint);
            return None;
        }
        Some(Within(number))
    }

    fn print(&self) -> Out {
        Out::bare(self.0)
    }
}

/// A port, as it is written in texts.
pub(crate) struct PortNumber;

impl PortNumber {
    /// `80`; none for what is no port.
    pub(crate) fn parse(text: &str) -> Option<u16> {
        let is_number = !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten().filter(|port| *port > 0)
    }

    /// `80` or `80-89`, the first and the last.
    pub(crate) fn range(text: &str) -> Option<(u16, u16)> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (Self::parse(first)?, Self::parse(last)?);
        (first <= last).then_some((first, last))
    }
}

/// How much there may be of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit<T> {
    /// Not more than this.
    Most(T),
    /// As much as there is, written -1.
    Unlimited,
}

impl<T: Yaml> Yaml for Limit<T> {
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        match at.node.scalar() {
            Some("-1") => Some(Limit::Unlimited),
            _ => T::read(reader, at).map(Limit::Most),
        }
    }

    fn print(&self) -> Out {
        match self {
            Limit::Most(limit) => limit.print(),
            Limit::Unlimited => Out::bare(-1),
        }
    }
}
