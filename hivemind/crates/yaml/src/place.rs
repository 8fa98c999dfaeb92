//! Where something stands in a text.

use granit_parser::{Marker, Span};

/// A piece of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In characters, at least 1; what goes on in the next line is not counted.
    pub width: usize,
}

impl Place {
    /// One character at the parser's `marker`, which counts columns from 0.
    pub fn of_marker(marker: &Marker) -> Self {
        Place { line: marker.line().max(1), column: marker.col() + 1, width: 1 }
    }

    /// Whether both begin at the same character.
    pub fn begins(self, other: Place) -> bool {
        (self.line, self.column) == (other.line, other.column)
    }

    /// Where `span` begins, as wide as it is within its first line.
    pub fn of_span(span: &Span) -> Self {
        let same_line = span.start.line() == span.end.line();
        let width = if same_line { span.end.col().saturating_sub(span.start.col()) } else { 1 };
        Place { width: width.max(1), ..Place::of_marker(&span.start) }
    }
}
