//! Texts to read, and where in them something stands.

use std::sync::Arc;

use crate::{
    fault::{Excerpt, Fault},
    place::Place,
};
use hivemind_model::ErrorCode;

/// A text to read.
#[derive(Clone, Debug)]
pub struct Source {
    name: Arc<str>,
    bytes: Arc<[u8]>,
}

impl Source {
    /// The text `bytes` of a file that people know as `name`.
    pub fn new(name: &str, bytes: Vec<u8>) -> Self {
        let clean: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        Source { name: clean.into(), bytes: bytes.into() }
    }

    /// The name of the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long it is, in bytes.
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// The text; a fault at the first byte that is none.
    pub fn text(&self) -> Result<&str, Box<Fault>> {
        std::str::from_utf8(&self.bytes).map_err(|error| {
            let before = &self.bytes[..error.valid_up_to()];
            let line = before.iter().filter(|b| **b == b'\n').count() + 1;
            let begin = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            let column = String::from_utf8_lossy(&before[begin..]).chars().count() + 1;
            let place = Place { line, column, width: 1 };
            let hint = "save the file as UTF-8";
            Box::new(self.fault(place, ErrorCode::Malformed, "", "a byte that is not UTF-8".to_owned(), hint))
        })
    }

    /// A fault at `place`.
    pub fn fault(
        &self,
        place: Place,
        code: ErrorCode,
        field: &str,
        message: String,
        hint: impl Into<String>,
    ) -> Fault {
        let line = self.bytes.split(|b| *b == b'\n').nth(place.line.saturating_sub(1)).unwrap_or_default();
        Fault {
            code,
            file: self.name.clone(),
            line: place.line,
            column: place.column,
            field: field.to_owned(),
            message,
            hint: hint.into(),
            excerpt: Excerpt::of(&String::from_utf8_lossy(line), place.column, place.width),
        }
    }
}
