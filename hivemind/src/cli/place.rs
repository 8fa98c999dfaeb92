//! Faults in files as people and programs read them.

use hivemind_manifest::Fault;
use serde::{Serialize, Serializer};

use super::fault::Colours;

/// A fault as JSON.
#[derive(Serialize)]
struct Placed<'a> {
    code: &'a str,
    file: &'a str,
    line: usize,
    column: usize,
    #[serde(skip_serializing_if = "str::is_empty")]
    field: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    hint: &'a str,
}

/// Writes `faults` with their places.
pub(crate) fn as_json<S: Serializer>(faults: &[Fault], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(faults.iter().map(|fault| Placed {
        code: fault.code.as_str(),
        file: &fault.file,
        line: fault.line,
        column: fault.column,
        field: &fault.field,
        message: &fault.message,
        hint: &fault.hint,
    }))
}

/// The position as compilers write it, so that editors find it; what is wrong; the line; and what to do. `kind` is
/// `error` or `warning`.
pub(crate) fn render(fault: &Fault, kind: &str, colour: &str, colours: Colours) -> String {
    let head = colours.paint(colour, &format!("{kind}[{}]", fault.code));
    let mut text = format!("{}: {head}: {}\n", fault.position(), fault.message);
    if let Some(excerpt) = &fault.excerpt {
        let number = fault.line.to_string();
        let caret = colours.paint(colour, &"^".repeat(excerpt.width));
        text.push_str(&format!("  {number} | {}\n", excerpt.text));
        text.push_str(&format!("  {:w$} | {:b$}{caret}\n", "", "", w = number.len(), b = excerpt.before));
    }
    if !fault.hint.is_empty() {
        text.push_str(&format!("  hint: {}\n", fault.hint));
    }
    text
}

#[cfg(test)]
mod tests {
    use hivemind_manifest::{Options, Source, read};

    use super::*;

    #[test]
    fn a_fault_is_shown_in_its_line() {
        let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec:\n  podselector: {}\n";
        let options = Options { namespace: "default", only_this_namespace: false };
        let faults = read(&[Source::new("rules.yaml", text.into())], options, &|_| Vec::new()).faults;
        assert_eq!(
            render(&faults[0], "error", "1;31", Colours::Off),
            "rules.yaml:5:3: error[HM0113]: unknown field \"podselector\"\n  \
               5 |   podselector: {}\n    \
                 |   ^^^^^^^^^^^\n  \
               hint: did you mean \"podSelector\"?\n"
        );
        let mut json = Vec::new();
        as_json(&faults, &mut serde_json::Serializer::new(&mut json)).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            (&json[0]["line"], &json[0]["column"], &json[0]["file"]),
            (&5.into(), &3.into(), &"rules.yaml".into())
        );
    }
}
