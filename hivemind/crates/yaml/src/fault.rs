//! Faults and the lines that they are in.

use std::{fmt, sync::Arc};

use hivemind_model::{ErrorCode, Problem};

use crate::FAULTS_MAX;

/// The most characters of a line that are shown around a fault.
const EXCERPT_CHARS_MAX: usize = 120;

/// A fault and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind of fault.
    pub code: ErrorCode,
    /// The file's name.
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The path of the field, such as `spec.ingress[0].from[1].ipBlock.cidr`; empty where there is none.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
    /// The line that it is in, if it has something to show.
    pub excerpt: Option<Excerpt>,
}

impl Fault {
    /// `rules.yaml:12:9`.
    pub fn position(&self) -> String {
        format!("{}:{}:{}", self.file, self.line, self.column)
    }

    /// The fault without its line, its position as the field.
    pub fn problem(&self) -> Problem {
        let Fault { code, message, hint, .. } = self.clone();
        Problem { code, field: self.position(), message, hint }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.position(), self.code, self.message)
    }
}

/// Faults as they are found: at most [`FAULTS_MAX`], the rest is counted.
#[derive(Debug, Default)]
pub struct Faults {
    /// Those that are told, in the order in which they were found.
    pub list: Vec<Fault>,
    /// How many there are besides.
    pub more: usize,
}

impl Faults {
    /// Adds a fault, which is made only if it is told.
    pub fn add(&mut self, fault: impl FnOnce() -> Fault) {
        if self.list.len() < FAULTS_MAX {
            self.list.push(fault());
        } else {
            self.more += 1;
        }
    }
}

/// A line, or the part of a long line around a fault. It has no control characters; a tab is shown as `→`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The text; `…` stands for what is left out at either end.
    pub text: String,
    /// How many characters of it stand before the fault.
    pub before: usize,
    /// How many characters the fault takes, at least 1.
    pub width: usize,
}

impl Excerpt {
    /// The part of `line` around `column` (from 1) that is shown; nothing of a line that is blank.
    pub fn of(line: &str, column: usize, width: usize) -> Option<Self> {
        let line = line.trim_end();
        if line.trim().is_empty() {
            return None;
        }
        let shown = |c: char| match c {
            '\t' => '→',
            c if c.is_control() => ' ',
            c => c,
        };
        let chars: Vec<char> = line.chars().map(shown).collect();
        // A fault may stand behind the end of its line, where something is missing.
        let at = column.saturating_sub(1).min(chars.len());
        let begin =
            if chars.len() <= EXCERPT_CHARS_MAX { 0 } else { at.saturating_sub(EXCERPT_CHARS_MAX / 2) };
        let end = chars.len().min(begin + EXCERPT_CHARS_MAX);
        let cut = |is_cut: bool| if is_cut { "…" } else { "" };
        let middle: String = chars[begin..end].iter().collect();
        Some(Excerpt {
            text: format!("{}{middle}{}", cut(begin > 0), cut(end < chars.len())),
            before: at - begin + usize::from(begin > 0),
            width: width.clamp(1, (end - at).max(1)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_shown_around_its_fault() {
        let line = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let excerpt = Excerpt::of(&line, 501, 1).unwrap();
        assert_eq!(excerpt.text.chars().nth(excerpt.before), Some('X'));
        assert!(excerpt.text.starts_with('…') && excerpt.text.ends_with('…'));
        assert!(excerpt.text.chars().count() <= EXCERPT_CHARS_MAX + 2);
    }

    #[test]
    fn what_a_terminal_would_act_on_is_not_shown() {
        let excerpt = Excerpt::of("a\u{1b}[31m: \tb\r", 3, 99).unwrap();
        assert_eq!((excerpt.text.as_str(), excerpt.before, excerpt.width), ("a [31m: →b", 2, 8));
        assert_eq!(Excerpt::of("  \t", 1, 1), None);
    }

    #[test]
    fn a_fault_behind_the_end_of_its_line_is_shown_there() {
        assert_eq!(Excerpt::of("ab:", 9, 1), Some(Excerpt { text: "ab:".into(), before: 3, width: 1 }));
    }
}
