//! What two files, or a service and the one that it extends, make together.
//!
//! Maps are merged key by key, lists appended, all else replaced; what is merged in another way is in [`rule`]. Forms that mean
//! the same (a list `KEY=value` and a map) are brought into one before. A value with the tag `!override` replaces the one before
//! as a whole, one with `!reset` takes it away; both stay in the tree until the end, since there may be files before yet.

mod form;
mod rule;

use std::sync::Arc;

use crate::{
    merge::rule::{Rule, rule},
    tree::{OVERRIDE, Pair, RESET, Tree, Value},
};

/// `over` on top of `base`, both being the whole of a file or of what files made.
pub(crate) fn merge_files(base: &Arc<Tree>, over: &Arc<Tree>) -> Arc<Tree> {
    merge(&mut Vec::new(), base, over)
}

/// `over` on top of `base`, both being services.
pub(crate) fn merge_services(base: &Arc<Tree>, over: &Arc<Tree>) -> Arc<Tree> {
    merge(&mut vec!["services".to_owned(), String::new()], base, over)
}

/// `tree` without what is to be left out.
pub(crate) fn settled(tree: &Arc<Tree>) -> Arc<Tree> {
    match &tree.value {
        Value::Map(pairs) => {
            let kept = pairs.iter().filter(|pair| pair.value.tag != Some(RESET));
            let settle = |pair: &Pair| Pair { value: settled(&pair.value), ..pair.clone() };
            tree.with(Value::Map(kept.map(settle).collect()))
        }
        Value::List(items) => {
            let kept = items.iter().filter(|item| item.tag != Some(RESET));
            tree.with(Value::List(kept.map(settled).collect()))
        }
        Value::Scalar { .. } => tree.clone(),
    }
}

fn merge(path: &mut Vec<String>, base: &Arc<Tree>, over: &Arc<Tree>) -> Arc<Tree> {
    if over.tag.is_some() {
        return over.clone();
    }
    if base.tag == Some(RESET) {
        // The files before still have to be left out.
        return Arc::new(Tree { tag: Some(OVERRIDE), ..Tree::clone(over) });
    }
    let rule = rule(path);
    if rule == Rule::Replace {
        return over.clone();
    }
    let (base, over) = (&form::brought(rule, base), &form::brought(rule, over));
    match (&base.value, &over.value) {
        (Value::Map(_) | Value::List(_), _) if over.is_null() => base.clone(),
        (Value::Map(_), Value::Map(_)) if rule == Rule::Logging && !same_driver(base, over) => over.clone(),
        (Value::Map(below), Value::Map(above)) => base.with(Value::Map(merge_maps(path, below, above))),
        (Value::List(below), Value::List(above)) => base.with(Value::List(merge_lists(rule, below, above))),
        _ => over.clone(),
    }
}

fn merge_maps(path: &mut Vec<String>, base: &[Pair], over: &[Pair]) -> Vec<Pair> {
    let mut merged = base.to_vec();
    // Maps may be large: looking each key up by going through them would take the product of their sizes.
    let known: std::collections::HashMap<&str, usize> =
        base.iter().enumerate().map(|(index, pair)| (pair.key.as_str(), index)).collect();
    for pair in over {
        let Some(before) = known.get(pair.key.as_str()).and_then(|index| merged.get_mut(*index)) else {
            merged.push(pair.clone());
            continue;
        };
        path.push(pair.key.clone());
        let value = merge(path, &before.value, &pair.value);
        path.pop();
        // A key stands in the file that its value is from.
        let place = if value.file == before.value.file { before.place } else { pair.place };
        *before = Pair { key: pair.key.clone(), place, value };
    }
    merged
}

fn merge_lists(rule: Rule, base: &[Arc<Tree>], over: &[Arc<Tree>]) -> Vec<Arc<Tree>> {
    let mut merged = base.to_vec();
    let keys: std::collections::HashMap<String, usize> =
        base.iter().enumerate().filter_map(|(index, item)| Some((form::key(rule, item)?, index))).collect();
    for item in over {
        let known = form::key(rule, item).and_then(|key| keys.get(&key));
        match known.and_then(|index| merged.get_mut(*index)) {
            Some(before) => *before = item.clone(),
            None => merged.push(item.clone()),
        }
    }
    merged
}

fn same_driver(base: &Tree, over: &Tree) -> bool {
    let driver = |tree: &Tree| tree.get("driver").and_then(|driver| driver.scalar()).map(str::to_owned);
    driver(over).is_none_or(|name| driver(base).is_none_or(|before| before == name))
}
