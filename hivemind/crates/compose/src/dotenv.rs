//! Files of variables: `.env` and what `env_file` names.
//!
//! A line is `NAME=value`, `NAME: value`, `export NAME=value`, a bare `NAME`, or a comment. In single quotes all stands for itself;
//! in double quotes and without quotes variables are filled in, in double quotes with escapes; without quotes, ` #` begins a
//! comment.

use std::collections::HashMap;

use hivemind_model::ErrorCode;
use hivemind_yaml::Place;

use crate::interpolate::{Template, Unset};

/// A variable of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    /// Without one, the variable is to be taken from the environment.
    pub(crate) value: Option<String>,
    pub(crate) place: Place,
}

/// What is wrong with a file of variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) place: Place,
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// How the values of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// With quotes, escapes, comments and variables.
    Compose,
    /// As they stand.
    Raw,
}

/// What a file says.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// In the order of the file.
    pub(crate) variables: Vec<Variable>,
    pub(crate) faults: Vec<Wrong>,
    pub(crate) warnings: Vec<Wrong>,
    /// What each name stands for at the end.
    values: HashMap<String, Option<String>>,
}

/// Reads `text`. `outer` knows variables from elsewhere, which win over those of the file where values name them.
pub(crate) fn read<'e>(text: &str, format: Format, outer: &dyn Fn(&str) -> Option<&'e str>) -> Read {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = Lines { rest: text, line: 1, column: 1 };
    let mut read = Read::default();
    while !lines.rest.is_empty() {
        match assignment(&mut lines, format) {
            Ok(Some(raw)) => take(&mut read, raw, outer),
            Ok(None) => {}
            Err(wrong) => {
                read.faults.push(wrong);
                lines.skip_line();
            }
        }
    }
    read
}

/// A variable whose value is not filled in yet.
struct Raw {
    name: String,
    place: Place,
    value: Option<RawValue>,
}

struct RawValue {
    text: String,
    place: Place,
    has_variables: bool,
}

fn take<'e>(read: &mut Read, raw: Raw, outer: &dyn Fn(&str) -> Option<&'e str>) {
    let Raw { name, place, value } = raw;
    let value = match value {
        Some(RawValue { text, has_variables: true, place }) => {
            let mut unset = Vec::new();
            let own = |wanted: &str| read.values.get(wanted)?.clone();
            let get = |wanted: &str| outer(wanted).map(str::to_owned).or_else(|| own(wanted));
            match expand(&text, &get, &mut unset) {
                Ok(text) => {
                    read.warnings.extend(unset.into_iter().map(|Unset { name, .. }| unset_at(place, &name)));
                    Some(text)
                }
                Err((message, hint)) => {
                    read.faults.push(Wrong { place, code: ErrorCode::Malformed, message, hint });
                    return;
                }
            }
        }
        Some(RawValue { text, .. }) => Some(text),
        None => None,
    };
    read.values.insert(name.clone(), value.clone());
    read.variables.push(Variable { name, value, place });
}

fn expand(
    text: &str,
    get: &dyn Fn(&str) -> Option<String>,
    unset: &mut Vec<Unset>,
) -> Result<String, (String, String)> {
    let template = Template::parse(text).map_err(|wrong| (wrong.message, wrong.hint))?;
    // Values are looked up first: a template borrows what it is filled with.
    let names = template.names();
    let known: HashMap<&str, String> =
        names.into_iter().filter_map(|name| Some((name, get(name)?))).collect();
    let look = |name: &str| known.get(name).map(String::as_str);
    template.expand(&look, unset).map_err(|wrong| (wrong.message, wrong.hint))
}

fn unset_at(place: Place, name: &str) -> Wrong {
    let message = format!("the variable {name} is not set, and stands for nothing");
    let hint = format!("set it, or give it a default: ${{{name}:-default}}");
    Wrong { place, code: ErrorCode::InvalidEnv, message, hint }
}

/// A text that is read from its beginning on, and where the rest of it begins.
struct Lines<'t> {
    rest: &'t str,
    line: usize,
    column: usize,
}

impl<'t> Lines<'t> {
    fn place(&self, width: usize) -> Place {
        Place { line: self.line, column: self.column, width: width.max(1) }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        (self.line, self.column) = if c == '\n' { (self.line + 1, 1) } else { (self.line, self.column + 1) };
        Some(c)
    }

    fn skip(&mut self, chars: usize) {
        for _ in 0..chars {
            self.next();
        }
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(|c| matches!(c, ' ' | '\t' | '\r')) {
            self.next();
        }
    }

    /// What is left of the line, without its end.
    fn line_rest(&self) -> &'t str {
        let line = self.rest.split('\n').next().unwrap_or_default();
        line.strip_suffix('\r').unwrap_or(line)
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|c| c != '\n') {}
    }
}

fn assignment(lines: &mut Lines<'_>, format: Format) -> Result<Option<Raw>, Wrong> {
    lines.skip_blanks();
    let line = lines.line_rest();
    if line.is_empty() || line.starts_with('#') {
        lines.skip_line();
        return Ok(None);
    }
    if let Some(rest) = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])) {
        let blanks = rest.len() - rest.trim_start().len();
        lines.skip("export".len() + blanks);
    }
    let line = lines.line_rest();
    let end = line.find(['=', ':']).unwrap_or(line.len());
    let name = line.get(..end).unwrap_or_default().trim_end().to_owned();
    let place = lines.place(name.chars().count());
    if !is_name(&name) {
        let message = format!("{} is not a variable's name", crate::reader::shown(&name));
        let hint = "write NAME=value, one a line; '#' begins a comment".to_owned();
        return Err(Wrong { place, code: ErrorCode::InvalidEnv, message, hint });
    }
    lines.skip(line.get(..end).unwrap_or_default().chars().count());
    if lines.peek().is_none_or(|c| !matches!(c, '=' | ':')) {
        lines.skip_line();
        return Ok(Some(Raw { name, place, value: None }));
    }
    lines.next();
    let value = value(lines, format)?;
    Ok(Some(Raw { name, place, value: Some(value) }))
}

/// A name without blanks and quotes, which is no more than the kernel asks of it.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | '[' | ']'))
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn value(lines: &mut Lines<'_>, format: Format) -> Result<RawValue, Wrong> {
    if format == Format::Raw {
        let (place, text) = (lines.place(1), lines.line_rest().to_owned());
        lines.skip_line();
        return Ok(RawValue { text, place, has_variables: false });
    }
    lines.skip_blanks();
    match lines.peek() {
        Some(quote @ ('"' | '\'')) => quoted(lines, quote),
        _ => {
            let line = lines.line_rest();
            let comment = line
                .char_indices()
                .find(|(at, c)| *c == '#' && (*at == 0 || line[..*at].ends_with([' ', '\t'])));
            let text = line[..comment.map_or(line.len(), |(at, _)| at)].trim_end().to_owned();
            let place = lines.place(text.chars().count());
            lines.skip_line();
            Ok(RawValue { text, place, has_variables: true })
        }
    }
}

fn quoted(lines: &mut Lines<'_>, quote: char) -> Result<RawValue, Wrong> {
    let place = lines.place(1);
    lines.next();
    let has_variables = quote == '"';
    let mut text = String::new();
    loop {
        match lines.next() {
            None => {
                let message = "a quote is not closed".to_owned();
                let hint = format!("close it by {quote}");
                return Err(Wrong { place, code: ErrorCode::Malformed, message, hint });
            }
            Some(c) if c == quote => break,
            Some('\\') if has_variables => escape(lines, &mut text),
            Some('\\') if lines.peek() == Some('\'') => text.extend(lines.next()),
            Some(c) => text.push(c),
        }
    }
    lines.skip_blanks();
    let rest = lines.line_rest();
    if !rest.is_empty() && !rest.starts_with('#') {
        let message = "text behind the closing quote".to_owned();
        let hint = "put the whole value in quotes, or begin a comment by '#'".to_owned();
        return Err(Wrong { place: lines.place(1), code: ErrorCode::Malformed, message, hint });
    }
    lines.skip_line();
    Ok(RawValue { text, place, has_variables })
}

/// What stands behind a backslash in double quotes. One that is no escape stands for itself, as shells have it.
fn escape(lines: &mut Lines<'_>, text: &mut String) {
    match lines.next() {
        Some('n') => text.push('\n'),
        Some('r') => text.push('\r'),
        Some('t') => text.push('\t'),
        Some(c @ ('\\' | '"')) => text.push(c),
        // Variables are filled in later, and must not be seen here.
        Some('$') => text.push_str("$$"),
        Some('\n') => {}
        Some(c) => text.extend(['\\', c]),
        None => text.push('\\'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outer(name: &str) -> Option<&'static str> {
        (name == "OUTER").then_some("from outside")
    }

    fn values(text: &str) -> Vec<(String, Option<String>)> {
        let read = read(text, Format::Compose, &outer);
        assert_eq!(read.faults, [], "{text}");
        read.variables.into_iter().map(|v| (v.name, v.value)).collect()
    }

    fn value_of(text: &str) -> String {
        values(&format!("A={text}\n")).remove(0).1.unwrap()
    }

    #[test]
    fn values_are_read_with_and_without_quotes() {
        for (text, value) in [
            ("1", "1"),
            (" 1 ", "1"),
            ("", ""),
            ("a b # comment", "a b"),
            ("a#b", "a#b"),
            ("# comment", ""),
            ("'$OUTER \\n # x'", "$OUTER \\n # x"),
            ("'it\\'s'", "it's"),
            ("'a\nb' # comment", "a\nb"),
            ("\"a\\nb\\t\\\"\\\\\\$OUTER\\q\"", "a\nb\t\"\\$OUTER\\q"),
            ("\"$OUTER\"", "from outside"),
            ("${OUTER} ${NONE:-x}", "from outside x"),
            ("$$x", "$x"),
            ("a=b:c", "a=b:c"),
            ("\"\"", ""),
        ] {
            assert_eq!(value_of(text), value, "{text}");
        }
    }

    #[test]
    fn lines_are_assignments_comments_and_bare_names() {
        let text = "\u{feff}# all\r\n\nexport A=1\r\n  B : 2\nC=$A$B\nD\nexport  E = 'x'\nexport=y\nA=$C";
        let some = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        assert_eq!(
            values(text),
            [
                some("A", "1"),
                some("B", "2"),
                some("C", "12"),
                ("D".to_owned(), None),
                some("E", "x"),
                some("export", "y"),
                some("A", "12")
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_told_at_its_place_and_the_rest_is_read() {
        let text = "A=1\n  =2\nB='x' y\n1C=3\nD=${\nE=\"a\nb\" c\nF G=1\nH=1\nI=\"open\n";
        let read = read(text, Format::Compose, &outer);
        let told: Vec<_> = read.faults.iter().map(|w| (w.place.line, w.place.column, w.code)).collect();
        use ErrorCode::{InvalidEnv, Malformed};
        assert_eq!(
            told,
            [
                (2, 3, InvalidEnv),
                (3, 7, Malformed),
                (4, 1, InvalidEnv),
                (5, 3, Malformed),
                (7, 4, Malformed),
                (8, 1, InvalidEnv),
                (10, 3, Malformed)
            ]
        );
        let names: Vec<_> = read.variables.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names, ["A", "H"]);
    }

    #[test]
    fn an_unset_variable_is_a_warning() {
        let read = read("A=x$NONE\n", Format::Compose, &outer);
        assert_eq!(read.variables[0].value.as_deref(), Some("x"));
        assert_eq!((read.warnings.len(), read.warnings[0].place.column), (1, 3));
    }

    #[test]
    fn raw_values_are_taken_as_they_stand() {
        let read = read("A= 'x' # $y \r\nB=\"\n", Format::Raw, &outer);
        let values: Vec<_> = read.variables.iter().map(|v| v.value.as_deref().unwrap()).collect();
        assert_eq!(values, [" 'x' # $y ", "\""]);
    }
}
