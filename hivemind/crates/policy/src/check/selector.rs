//! Selectors by Kubernetes' rules; besides, one that can never select anything is a fault.

use std::collections::{BTreeMap, BTreeSet};

use hivemind_model::{
    ErrorCode, LabelExpression, LabelOperator, LabelSelector, Problems, is_label_key, is_label_value,
};

/// How many conditions a selector may have.
const CONDITIONS_MAX: usize = 64;
/// How many values a condition may have.
const VALUES_MAX: usize = 256;

pub(super) fn check(at: &str, selector: &LabelSelector, problems: &mut Problems) {
    let before = problems.len();
    for (key, value) in &selector.match_labels {
        let field = format!("{at}.matchLabels.{key}");
        check_key(&field, key, problems);
        check_value(&field, value, problems);
    }
    for (i, expression) in selector.match_expressions.iter().enumerate().take(CONDITIONS_MAX) {
        check_expression(&format!("{at}.matchExpressions[{i}]"), expression, problems);
    }
    if selector.match_labels.len() + selector.match_expressions.len() > CONDITIONS_MAX {
        let what = format!("more than {CONDITIONS_MAX} conditions");
        problems.add(ErrorCode::InvalidSelector, at, what, "ask for fewer labels");
    }
    if problems.len() == before
        && let Some(key) = contradiction(selector)
    {
        let what =
            format!("it selects nothing, ever: its conditions on the label {key:?} contradict each other");
        problems.add(ErrorCode::InvalidSelector, at, what, "remove one of the conditions");
    }
}

fn check_key(field: &str, key: &str, problems: &mut Problems) {
    if !is_label_key(key) {
        problems.add(
            ErrorCode::InvalidSelector,
            field,
            format!("{key:?} is not a label key"),
            "use letters, digits, '-', '_' and '.', for example tier or example.com/tier",
        );
    }
}

fn check_value(field: &str, value: &str, problems: &mut Problems) {
    if !is_label_value(value) {
        problems.add(
            ErrorCode::InvalidSelector,
            field,
            format!("{value:?} is not a label value"),
            "use up to 63 letters, digits, '-', '_' and '.'",
        );
    }
}

fn check_expression(at: &str, expression: &LabelExpression, problems: &mut Problems) {
    check_key(&format!("{at}.key"), &expression.key, problems);
    let field = format!("{at}.values");
    let LabelExpression { operator, values, .. } = expression;
    match operator {
        LabelOperator::In | LabelOperator::NotIn if values.is_empty() => {
            let what = format!("{operator:?} has no values");
            problems.add(
                ErrorCode::InvalidSelector,
                field,
                what,
                "give at least one, or use Exists or DoesNotExist",
            );
        }
        LabelOperator::Exists | LabelOperator::DoesNotExist if !values.is_empty() => {
            let what = format!("{operator:?} takes no values");
            problems.add(ErrorCode::InvalidSelector, field, what, "remove them, or use In or NotIn");
        }
        _ if values.len() > VALUES_MAX => {
            let what = format!("more than {VALUES_MAX} values");
            problems.add(ErrorCode::InvalidSelector, field, what, "give fewer values");
        }
        _ => {
            for (i, value) in values.iter().enumerate() {
                check_value(&format!("{field}[{i}]"), value, problems);
            }
        }
    }
}

/// What a selector asks of one label.
#[derive(Default)]
struct Asked<'a> {
    /// The values that it may have, if that is said.
    among: Option<BTreeSet<&'a str>>,
    not_among: BTreeSet<&'a str>,
    present: bool,
    absent: bool,
}

impl<'a> Asked<'a> {
    fn is_one_of(&mut self, values: BTreeSet<&'a str>) {
        self.present = true;
        self.among = Some(match self.among.take() {
            Some(before) => before.intersection(&values).copied().collect(),
            None => values,
        });
    }

    fn is_impossible(&self) -> bool {
        let no_value = self.among.as_ref().is_some_and(|among| among.is_subset(&self.not_among));
        (self.present && self.absent) || no_value
    }
}

/// The first label of which something impossible is asked.
fn contradiction(selector: &LabelSelector) -> Option<&str> {
    let mut asked: BTreeMap<&str, Asked<'_>> = BTreeMap::new();
    for (key, value) in &selector.match_labels {
        asked.entry(key).or_default().is_one_of([value.as_str()].into());
    }
    for expression in &selector.match_expressions {
        let of_key = asked.entry(&expression.key).or_default();
        let values = expression.values.iter().map(String::as_str);
        match expression.operator {
            LabelOperator::In => of_key.is_one_of(values.collect()),
            LabelOperator::NotIn => of_key.not_among.extend(values),
            LabelOperator::Exists => of_key.present = true,
            LabelOperator::DoesNotExist => of_key.absent = true,
        }
    }
    asked.into_iter().find(|(_, of_key)| of_key.is_impossible()).map(|(key, _)| key)
}
