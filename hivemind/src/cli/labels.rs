//! Labels that are set and removed, as words of a command line.

use std::collections::BTreeMap;

use hivemind_model::{ErrorCode, Problems, check_label};

/// Labels to set, and with `None` to remove.
pub(crate) type Changes = BTreeMap<String, Option<String>>;

/// The changes that `words` mean; all that is wrong with them at once. `reserved` says what keeps a key from being changed.
pub(crate) fn changes(
    flag: &str,
    words: &[String],
    may_remove: bool,
    reserved: impl Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> Changes {
    let mut changes = Changes::new();
    for word in words {
        let field = if flag.is_empty() { word.clone() } else { format!("{flag} {word}") };
        let (key, value) = match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) => (key, Some(value)),
            (None, Some(key)) if may_remove => (key, None),
            (None, _) => {
                let hint = match may_remove {
                    true => "write KEY=VALUE to set a label, KEY- to remove it",
                    false => "write KEY=VALUE, for example team=front",
                };
                problems.add(ErrorCode::InvalidLabel, field, format!("{word:?} has no value"), hint);
                continue;
            }
        };
        check_label(&field, key, value.unwrap_or_default(), problems);
        if let Some(message) = reserved(key) {
            problems.add(ErrorCode::InvalidLabel, field, message, "choose another key");
            continue;
        }
        if changes.insert(key.to_owned(), value.map(str::to_owned)).is_some() {
            let message = format!("the label {key:?} is given twice");
            problems.add(ErrorCode::Repeated, field, message, "give it once");
        }
    }
    changes
}

/// Does what `changes` say to `labels`.
pub(crate) fn apply(changes: &Changes, labels: &mut BTreeMap<String, String>) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(labels.insert(key.clone(), value.clone())),
            None => drop(labels.remove(key)),
        }
    }
}

/// `tier=front,zone=west`.
pub(crate) fn text(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str], may_remove: bool) -> Result<Changes, Vec<(String, &'static str)>> {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let mut problems = Problems::default();
        let reserved = |key: &str| (key == "name").then(|| "it is always there".to_owned());
        let changes = changes("", &words, may_remove, reserved, &mut problems);
        match problems.into_result() {
            Ok(()) => Ok(changes),
            Err(e) if e.problems.is_empty() => Err(vec![(e.field.unwrap_or_default(), e.code.as_str())]),
            Err(e) => Err(e.problems.into_iter().map(|p| (p.field, p.code.as_str())).collect()),
        }
    }

    #[test]
    fn labels_are_set_and_removed() {
        let changes = read(&["team=front", "stage-", "empty=", "a-b=c"], true).unwrap();
        let mut labels = BTreeMap::from([("stage".to_owned(), "test".to_owned()), ("b".into(), "1".into())]);
        apply(&changes, &mut labels);
        assert_eq!(text(&labels), "a-b=c,b=1,empty=,team=front");
    }

    #[test]
    fn all_wrong_labels_are_told_at_once() {
        assert_eq!(
            read(&["team", "_x=1", "a=1", "a-", "name=x"], true).unwrap_err(),
            [
                ("team".into(), "HM0106"),
                ("_x=1".into(), "HM0106"),
                ("a-".into(), "HM0107"),
                ("name=x".into(), "HM0106")
            ]
        );
        assert_eq!(read(&["team-"], false).unwrap_err(), [("team-".into(), "HM0106")]);
    }
}
