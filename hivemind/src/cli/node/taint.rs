//! Taints that are set and removed, as words of a command line.

use hivemind_model::{ErrorCode, Problems, Taint, TaintEffect, check_label};

/// How the words are written.
const FORM: &str = "write KEY:EFFECT or KEY=VALUE:EFFECT to set a taint, for example gpu=true:NoSchedule; KEY:EFFECT- or KEY- to remove it";

/// What one word does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TaintChange {
    /// It is there, with this value.
    Set(Taint),
    /// None of that key and, if it is given, that effect is there.
    Remove {
        /// The key.
        key: String,
        /// The effect; `None`: any.
        effect: Option<TaintEffect>,
    },
}

impl TaintChange {
    fn key(&self) -> &str {
        match self {
            TaintChange::Set(taint) => &taint.key,
            TaintChange::Remove { key, .. } => key,
        }
    }

    fn effect(&self) -> Option<TaintEffect> {
        match self {
            TaintChange::Set(taint) => Some(taint.effect),
            TaintChange::Remove { effect, .. } => *effect,
        }
    }

    /// Whether both speak of the same taint.
    fn meets(&self, other: &Self) -> bool {
        let (one, two) = (self.effect(), other.effect());
        self.key() == other.key() && (one == two || one.is_none() || two.is_none())
    }
}

/// The changes that `words` mean; all that is wrong with them at once.
pub(super) fn read(words: &[String], problems: &mut Problems) -> Vec<TaintChange> {
    let mut changes: Vec<TaintChange> = Vec::new();
    for word in words {
        let Some(change) = read_one(word, problems) else { continue };
        if changes.iter().any(|other| other.meets(&change)) {
            let message = format!("the taint {:?} is given twice", change.key());
            problems.add(ErrorCode::Repeated, word, message, "give each key and effect once");
        } else {
            changes.push(change);
        }
    }
    changes
}

fn read_one(word: &str, problems: &mut Problems) -> Option<TaintChange> {
    let (text, removes) = match word.strip_suffix('-') {
        Some(text) => (text, true),
        None => (word, false),
    };
    let (text, effect) = match text.rsplit_once(':') {
        Some((text, effect)) => (text, Some(read_effect(word, effect, problems)?)),
        None => (text, None),
    };
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    let change = match (removes, effect, value) {
        (true, effect, None) => TaintChange::Remove { key: key.to_owned(), effect },
        (false, Some(effect), value) => {
            let value = value.unwrap_or_default().to_owned();
            TaintChange::Set(Taint { key: key.to_owned(), value, effect })
        }
        (true, _, Some(_)) => {
            let message = format!("{word:?} has a value, and a taint is removed by its key");
            problems.add(ErrorCode::Malformed, word, message, FORM);
            return None;
        }
        (false, None, _) => {
            problems.add(ErrorCode::Malformed, word, format!("{word:?} has no effect"), FORM);
            return None;
        }
    };
    check_label(word, key, value.unwrap_or_default(), problems);
    Some(change)
}

fn read_effect(word: &str, text: &str, problems: &mut Problems) -> Option<TaintEffect> {
    let all = [TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule];
    let effect = all.into_iter().find(|effect| effect.as_str().eq_ignore_ascii_case(text));
    if effect.is_none() {
        let hint = match text {
            "NoExecute" => "use NoSchedule; to move away what is there: hivemind node drain",
            _ => "use NoSchedule or PreferNoSchedule",
        };
        let message = format!("{text:?} is not an effect of taints");
        problems.add(ErrorCode::Unsupported, word, message, hint);
    }
    effect
}

/// Does what `changes` say to `taints`.
pub(super) fn apply(changes: &[TaintChange], taints: &mut Vec<Taint>) {
    for change in changes {
        taints.retain(|taint| {
            taint.key != change.key() || change.effect().is_some_and(|effect| taint.effect != effect)
        });
        if let TaintChange::Set(taint) = change {
            taints.push(taint.clone());
        }
    }
    taints.sort();
}

#[cfg(test)]
mod tests {
    use super::{super::show::taint_text, *};

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    /// The taints after `changes`, from those that `before` set.
    fn after(before: &[&str], changes: &[&str]) -> Vec<String> {
        let mut taints = Vec::new();
        for list in [before, changes] {
            let mut problems = Problems::default();
            apply(&read(&words(list), &mut problems), &mut taints);
            problems.into_result().unwrap();
        }
        taints.iter().map(taint_text).collect()
    }

    fn faults(list: &[&str]) -> Vec<(String, &'static str)> {
        let mut problems = Problems::default();
        read(&words(list), &mut problems);
        let error = problems.into_result().unwrap_err();
        match error.problems.is_empty() {
            true => vec![(error.field.unwrap_or_default(), error.code.as_str())],
            false => error.problems.into_iter().map(|p| (p.field, p.code.as_str())).collect(),
        }
    }

    #[test]
    fn taints_are_set_with_and_without_a_value() {
        assert_eq!(
            after(&[], &["gpu=true:NoSchedule", "old:PreferNoSchedule", "example.com/a:noschedule"]),
            ["example.com/a:NoSchedule", "gpu=true:NoSchedule", "old:PreferNoSchedule"]
        );
        assert_eq!(after(&["gpu=true:NoSchedule"], &["gpu=false:NoSchedule"]), ["gpu=false:NoSchedule"]);
    }

    #[test]
    fn taints_are_removed_by_key_and_effect_or_by_key_alone() {
        let both = &["gpu=a:NoSchedule", "gpu:PreferNoSchedule", "old:NoSchedule"];
        assert_eq!(after(both, &["gpu:NoSchedule-"]), ["gpu:PreferNoSchedule", "old:NoSchedule"]);
        assert_eq!(after(both, &["gpu-"]), ["old:NoSchedule"]);
        assert_eq!(after(both, &["other-"]).len(), 3, "what is not there cannot be missed");
    }

    #[test]
    fn all_that_is_wrong_with_taints_is_told_at_once() {
        assert_eq!(
            faults(&["gpu", "gpu=1", "gpu=1:NoExecute", "gpu=1-", "_x:NoSchedule", ":NoSchedule"]),
            [
                ("gpu".into(), "HM0100"),
                ("gpu=1".into(), "HM0100"),
                ("gpu=1:NoExecute".into(), "HM0108"),
                ("gpu=1-".into(), "HM0100"),
                ("_x:NoSchedule".into(), "HM0106"),
                (":NoSchedule".into(), "HM0106"),
            ]
        );
        assert_eq!(faults(&["-"]), [("-".into(), "HM0106")]);
        assert_eq!(faults(&["a:NoSchedule", "a=1:NoSchedule"]), [("a=1:NoSchedule".into(), "HM0107")]);
        assert_eq!(faults(&["a:NoSchedule", "a-"]), [("a-".into(), "HM0107")]);
    }
}
