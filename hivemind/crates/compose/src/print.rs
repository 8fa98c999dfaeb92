//! Prints values as YAML in one form: block style, two spaces, texts in double quotes unless they are plain words, dollar signs of
//! values doubled, so that nothing is filled in when it is read again.

use hivemind_yaml::Plain;

/// What is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Out {
    /// A text.
    Text(String),
    /// A number or a boolean.
    Bare(String),
    List(Vec<Out>),
    Map(Vec<(String, Out)>),
}

impl Out {
    pub(crate) fn bare(value: impl ToString) -> Self {
        Out::Bare(value.to_string())
    }

    pub(crate) fn texts<'t>(texts: impl IntoIterator<Item = &'t String>) -> Self {
        Out::List(texts.into_iter().map(|text| Out::Text(text.clone())).collect())
    }

    /// A document.
    pub(crate) fn document(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, 0, true);
        text
    }

    /// Writes the value behind what is there; `fresh` says that a line or the `- ` of an entry has just begun.
    fn write(&self, text: &mut String, indent: usize, fresh: bool) {
        match self {
            Out::Text(value) => line(text, fresh, &quoted(&value.replace('$', "$$"))),
            Out::Bare(value) => line(text, fresh, value),
            Out::List(items) if items.is_empty() => line(text, fresh, "[]"),
            Out::Map(pairs) if pairs.is_empty() => line(text, fresh, "{}"),
            Out::List(items) => {
                begin_block(text, fresh);
                for (index, item) in items.iter().enumerate() {
                    if index > 0 || !fresh {
                        text.push_str(&" ".repeat(indent));
                    }
                    text.push_str("- ");
                    item.write(text, indent + 2, true);
                }
            }
            Out::Map(pairs) => {
                begin_block(text, fresh);
                for (index, (key, value)) in pairs.iter().enumerate() {
                    if index > 0 || !fresh {
                        text.push_str(&" ".repeat(indent));
                    }
                    text.push_str(&quoted(key));
                    text.push(':');
                    value.write(text, indent + 2, false);
                }
            }
        }
    }
}

fn line(text: &mut String, fresh: bool, value: &str) {
    if !fresh {
        text.push(' ');
    }
    text.push_str(value);
    text.push('\n');
}

fn begin_block(text: &mut String, fresh: bool) {
    if !fresh {
        text.push('\n');
    }
}

/// The longest plain word: a key has to end within what a parser looks ahead.
const PLAIN_BYTES_MAX: usize = 256;

/// `text` as a scalar that is read as a text.
fn quoted(text: &str) -> String {
    let is_word = text.len() <= PLAIN_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.'))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.' | '-'))
        && text != "..."
        && hivemind_yaml::plain(text) == Plain::Text
        // Other programs read these as booleans.
        && !["y", "n", "yes", "no", "on", "off"].contains(&text.to_ascii_lowercase().as_str());
    if is_word {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                quoted.push_str(&format!("\\U{:08X}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Out {
        Out::Text(text.to_owned())
    }

    #[test]
    fn values_are_printed_in_block_style() {
        let map = |pairs: Vec<(&str, Out)>| {
            Out::Map(pairs.into_iter().map(|(key, out)| (key.to_owned(), out)).collect())
        };
        let out = map(vec![
            ("a", text("x")),
            (
                "b",
                Out::List(vec![text("1"), map(vec![("c", Out::bare(2)), ("d", Out::List(vec![text("$")]))])]),
            ),
            ("e", map(vec![("f g", map(Vec::new())), ("h", Out::List(Vec::new()))])),
            ("i", Out::List(vec![Out::List(vec![text("no"), text("a: b\n\"\\")])])),
        ]);
        let printed = "a: x\nb:\n  - \"1\"\n  - c: 2\n    d:\n      - \"$$\"\ne:\n  \"f g\": {}\n  h: []\ni:\n  - - \"no\"\n    - \"a: b\\n\\\"\\\\\"\n";
        assert_eq!(out.document(), printed);
    }
}
