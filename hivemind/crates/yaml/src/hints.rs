//! What to do about faults: of the syntax, and of names that are nearly right.

use granit_parser::ErrorKind;

/// What a fault of the syntax is, and what to do.
pub(crate) fn of_syntax(kind: &ErrorKind) -> (String, &'static str) {
    use ErrorKind as E;
    let (message, hint) = match kind {
        E::TabNotAllowed | E::TabInBlockIndentation | E::TabInIndentation | E::TabAtBlockScalarStart => {
            ("a tab where YAML wants spaces".to_owned(), "indent by spaces")
        }
        E::UnclosedQuotedScalar | E::DocumentIndicatorInQuotedScalar => {
            ("a quote is not closed".to_owned(), "close it, in the same line as a rule")
        }
        E::UnclosedFlowCollection { open } => {
            (format!("'{open}' is not closed"), "close it, or use a block with one entry a line")
        }
        E::MismatchedFlowCollectionEnd { open, close } => {
            (format!("'{open}' is closed by '{close}'"), "close it by its own bracket")
        }
        E::MisplacedFlowCollectionEnd => ("a closing bracket without an opening one".to_owned(), "remove it"),
        E::UnknownAnchor => {
            ("an alias of something that is not there".to_owned(), "put text that begins with '*' in quotes")
        }
        E::RecursionLimitExceeded => {
            (format!("nested more than {} deep", crate::DEPTH_MAX), "write it flatter")
        }
        E::SimpleKeyExpected | E::InvalidSimpleKey | E::ExpectedBlockMappingKey => (
            "no 'name: value' where one is wanted".to_owned(),
            "check for a missing ':' and for the indentation, here and in the line before",
        ),
        E::ExpectedFlowMappingSeparator | E::ExpectedFlowSequenceSeparator => (
            "no ',' or closing bracket where one is wanted".to_owned(),
            "add it, or close the bracket before",
        ),
        E::InvalidIndentation
        | E::ExpectedBlockSequenceEntry
        | E::MappingValueNotAllowed
        | E::BlockSequenceEntryNotAllowed
        | E::ExpectedDocumentStart => (
            format!("not YAML: {kind}"),
            "check the indentation, here and in the line before; put text with ': ' or '- ' in it in quotes",
        ),
        E::InvalidColonPlacement => (
            "a ':' where none can be".to_owned(),
            "check whether a '[' or '{' before it is not closed, and the indentation; put text with ':' in quotes",
        ),
        E::UnexpectedCharacter { character } => {
            (format!("{character:?} cannot begin a value"), "put the value in quotes")
        }
        E::UnknownQuotedScalarEscape => (
            "an escape that YAML does not know".to_owned(),
            r"write '\\' for a backslash, or use single quotes",
        ),
        _ => (format!("not YAML: {kind}"), "check this line and the one before"),
    };
    (message, hint)
}

/// The one of `known` that was probably meant by `word`.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let distance = |name: &&'a str| strsim::damerau_levenshtein(&lower, &name.to_lowercase());
    // A long word cannot be near any; measuring would take the product of the lengths.
    let found =
        known.iter().copied().filter(|_| word.len() <= 64).map(|name| (distance(&name), name)).min()?;
    (found.0 <= (word.chars().count() / 3).clamp(1, 3)).then_some(found.1)
}

/// `"a", "b" or "c"`.
pub fn alternatives(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => "nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_nearly_right_is_recognized_and_another_is_not() {
        let known = ["podSelector", "namespaceSelector", "ipBlock"];
        for word in ["podselector", "podSelctor", "PodSelectors", "pod_selector"] {
            assert_eq!(nearest(word, &known), Some("podSelector"), "{word}");
        }
        assert_eq!(nearest("ipblok", &known), Some("ipBlock"));
        for word in ["ports", "x", "", &"podSelector".repeat(100)] {
            assert_eq!(nearest(word, &known), None, "{word}");
        }
    }
}
