//! Variables in values: `$NAME`, `${NAME}`, `${NAME:-default}` and its kin, `$$` for a dollar sign.
//!
//! A text is first parsed whole, so that what is wrong in a default is told even where the default is not used.

use crate::limits::INTERPOLATION_DEPTH_MAX;

/// A text with variables in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable {
        name: String,
        /// Where its dollar sign stands in the text, in bytes.
        offset: usize,
        otherwise: Option<Otherwise>,
    },
}

/// What comes in place of a variable.
#[derive(Debug, PartialEq, Eq)]
struct Otherwise {
    kind: Kind,
    /// With a `:`, an empty variable counts as one that is not set.
    empty_counts: bool,
    text: Template,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `-`: the text, if it is not set.
    Default,
    /// `?`: a fault with the text as its message, if it is not set.
    Required,
    /// `+`: the text, if it is set.
    Alternative,
}

/// What is wrong with a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Where the dollar sign of what is wrong stands, in bytes.
    pub(crate) offset: usize,
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// A variable that stands for nothing, since it is not set and has no default.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unset {
    pub(crate) offset: usize,
    pub(crate) name: String,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        Parser { text, at: 0 }.template(false, 0)
    }

    /// The names of its variables, those in defaults included.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for piece in &self.pieces {
            if let Piece::Variable { name, otherwise, .. } = piece {
                names.push(name.as_str());
                names.extend(otherwise.iter().flat_map(|otherwise| otherwise.text.names()));
            }
        }
        names
    }

    /// The text with what `get` knows of its variables.
    pub(crate) fn expand<'e>(
        &self,
        get: &dyn Fn(&str) -> Option<&'e str>,
        unset: &mut Vec<Unset>,
    ) -> Result<String, Wrong> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Variable { name, offset, otherwise } => {
                    let value = get(name);
                    let Some(otherwise) = otherwise else {
                        match value {
                            Some(value) => text.push_str(value),
                            None => unset.push(Unset { offset: *offset, name: name.clone() }),
                        }
                        continue;
                    };
                    let is_set = value.is_some_and(|value| !otherwise.empty_counts || !value.is_empty());
                    match (otherwise.kind, is_set) {
                        (Kind::Default | Kind::Required, true) => text.push_str(value.unwrap_or_default()),
                        (Kind::Default, false) | (Kind::Alternative, true) => {
                            text.push_str(&otherwise.text.expand(get, unset)?);
                        }
                        (Kind::Alternative, false) => {}
                        (Kind::Required, false) => {
                            let said = otherwise.text.expand(get, unset)?;
                            return Err(missing(name, *offset, value.is_some(), &said));
                        }
                    }
                }
            }
        }
        Ok(text)
    }
}

fn missing(name: &str, offset: usize, is_set: bool, said: &str) -> Wrong {
    let how = if is_set { "is empty" } else { "is not set" };
    let clean: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let message = match clean.is_empty() {
        true => format!("the variable {name} {how}, and has to be"),
        false => format!("the variable {name} {how}: {clean}"),
    };
    Wrong { offset, message, hint: format!("set {name}, in the environment or in .env") }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The pieces up to the end, or up to the `}` that closes what `within` is.
    fn template(&mut self, within: bool, depth: usize) -> Result<Template, Wrong> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        while let Some(c) = self.rest().chars().next() {
            match c {
                '}' if within => break,
                '$' if self.rest().starts_with("$$") => {
                    plain.push('$');
                    self.at += 2;
                }
                '$' => {
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    }
                    pieces.push(self.variable(depth)?);
                }
                c => {
                    plain.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Template { pieces })
    }

    fn variable(&mut self, depth: usize) -> Result<Piece, Wrong> {
        let offset = self.at;
        let wrong = |message: &str, hint: &str| Wrong { offset, message: message.into(), hint: hint.into() };
        self.at += 1;
        let braced = self.rest().starts_with('{');
        self.at += usize::from(braced);
        let name = self.name();
        if name.is_empty() {
            let hint = "write $$ for a dollar sign, ${NAME} for a variable";
            return Err(wrong("a '$' without the name of a variable", hint));
        }
        if !braced {
            return Ok(Piece::Variable { name, offset, otherwise: None });
        }
        if depth >= INTERPOLATION_DEPTH_MAX {
            return Err(wrong("defaults nested too deep", "set the variable in .env instead"));
        }
        let otherwise = self.otherwise(depth, offset)?;
        if !self.rest().starts_with('}') {
            return Err(wrong("a '${' that is not closed", "add the '}'"));
        }
        self.at += 1;
        Ok(Piece::Variable { name, offset, otherwise })
    }

    fn otherwise(&mut self, depth: usize, offset: usize) -> Result<Option<Otherwise>, Wrong> {
        let empty_counts = self.rest().starts_with(':');
        self.at += usize::from(empty_counts);
        let kind = match self.rest().chars().next() {
            Some('-') => Kind::Default,
            Some('?') => Kind::Required,
            Some('+') => Kind::Alternative,
            Some('}') | None if !empty_counts => return Ok(None),
            _ => {
                let message = "what stands behind the variable's name is not known here".to_owned();
                let hint = "write ${NAME:-default}, ${NAME-default}, ${NAME:?message} or ${NAME:+text}; $$ for a dollar sign";
                return Err(Wrong { offset, message, hint: hint.to_owned() });
            }
        };
        self.at += 1;
        let text = self.template(true, depth + 1)?;
        Ok(Some(Otherwise { kind, empty_counts, text }))
    }

    fn name(&mut self) -> String {
        let is_part = |(index, c): &(usize, char)| {
            c.is_ascii_alphabetic() || *c == '_' || (*index > 0 && c.is_ascii_digit())
        };
        let name: String = self.rest().char_indices().take_while(is_part).map(|(_, c)| c).collect();
        self.at += name.len();
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(name: &str) -> Option<&'static str> {
        match name {
            "SET" => Some("value"),
            "EMPTY" => Some(""),
            "DOLLAR" => Some("$SET"),
            _ => None,
        }
    }

    fn expand(text: &str) -> Result<String, Wrong> {
        Template::parse(text)?.expand(&get, &mut Vec::new())
    }

    #[test]
    fn variables_stand_for_their_values_and_defaults() {
        for (text, expanded) in [
            ("", ""),
            ("a $SET b", "a value b"),
            ("${SET}s", "values"),
            ("$SET$SET", "valuevalue"),
            ("${SET:-d} ${EMPTY:-d} ${NONE:-d}", "value d d"),
            ("${SET-d} ${EMPTY-d} ${NONE-d}", "value  d"),
            ("${SET:+a} ${EMPTY:+a} ${NONE:+a}", "a  "),
            ("${SET+a} ${EMPTY+a} ${NONE+a}", "a a "),
            ("${SET:?no} ${EMPTY?no}", "value "),
            ("${NONE:-${EMPTY:-${SET}}}", "value"),
            ("${NONE:-a}b}", "ab}"),
            ("${NONE:-http://x:80/?q=1}", "http://x:80/?q=1"),
            ("$$SET $${SET} $$$SET", "$SET ${SET} $value"),
            ("${NONE:-$$x}", "$x"),
            ("$DOLLAR", "$SET"),
            ("$NONE", ""),
            ("{}}", "{}}"),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(expanded), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_where_it_begins() {
        for (text, offset) in [
            ("é$", 2),
            ("a $1", 2),
            ("${", 0),
            ("${}", 0),
            ("x${SET", 1),
            ("${SET:-${NONE}", 0),
            ("${SET:-$}", 7),
            ("${SET/a/b}", 0),
            ("${SET:}", 0),
            ("a${NONE:?}", 1),
            ("${SET:-x} ${EMPTY:?must be}", 10),
            ("${NONE?must be}", 0),
        ] {
            assert_eq!(expand(text).map_err(|wrong| wrong.offset), Err(offset), "{text}");
        }
        let wrong = expand("${EMPTY:?give a ${SET}}").unwrap_err();
        assert_eq!(wrong.message, "the variable EMPTY is empty: give a value");
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}x{}", "${N:-".repeat(depth), "}".repeat(depth));
        assert!(expand(&nested(INTERPOLATION_DEPTH_MAX)).is_ok());
        assert!(expand(&nested(INTERPOLATION_DEPTH_MAX + 1)).is_err());
        assert!(expand(&nested(100_000)).is_err());
    }

    #[test]
    fn a_variable_without_value_and_default_is_told_and_one_in_an_unused_default_is_not() {
        let mut unset = Vec::new();
        let text = Template::parse("a$NONE ${SET:-$OTHER} ${NONE:-$THIRD}").unwrap();
        assert_eq!(text.expand(&get, &mut unset).as_deref(), Ok("a value "));
        let told: Vec<_> = unset.iter().map(|unset| (unset.name.as_str(), unset.offset)).collect();
        assert_eq!(told, [("NONE", 1), ("THIRD", 30)]);
    }
}
