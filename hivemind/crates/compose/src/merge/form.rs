//! Brings the forms in which a field may be written into one, and tells by what entries of lists are the same.

use std::sync::Arc;

use crate::{
    merge::rule::Rule,
    mount, port,
    tree::{Pair, Tree, Value},
};

/// `tree` in the form in which fields of `rule` are merged. What is of neither form stays, and is told when it is read.
pub(super) fn brought(rule: Rule, tree: &Arc<Tree>) -> Arc<Tree> {
    match (rule, &tree.value) {
        (Rule::KeyValues, Value::List(items)) => map_of(tree, items, key_value),
        (Rule::Names, Value::List(items)) => map_of(tree, items, name),
        (Rule::Hosts, Value::Map(pairs)) => hosts(tree, pairs),
        (Rule::OneOrMore | Rule::OneOrMoreUnique, Value::Scalar { .. }) if !tree.is_null() => {
            tree.with(Value::List(vec![tree.clone()]))
        }
        (Rule::Build, Value::Scalar { .. }) if !tree.is_null() => {
            let context = Pair { key: "context".to_owned(), place: tree.place, value: tree.clone() };
            tree.with(Value::Map(vec![context]))
        }
        _ => tree.clone(),
    }
}

/// By what an entry of a list of `rule` is the same as another.
pub(super) fn key(rule: Rule, item: &Tree) -> Option<String> {
    let field = |name: &str| item.get(name).and_then(|value| value.scalar());
    match rule {
        Rule::Unique | Rule::OneOrMoreUnique | Rule::Hosts => item.scalar().map(str::to_owned),
        Rule::Ports => match item.scalar() {
            Some(text) => {
                let port::Parts { address, published, target, protocol } = port::split(text);
                Some(format!("{address} {published} {target} {protocol}"))
            }
            None => Some(format!(
                "{} {} {} {}",
                field("host_ip").unwrap_or_default(),
                field("published").unwrap_or_default(),
                field("target")?,
                field("protocol").unwrap_or("tcp")
            )),
        },
        Rule::Mounts => {
            let target = match item.scalar() {
                Some(text) => mount::split(text)?.target,
                None => field("target")?,
            };
            Some(target.trim_end_matches('/').to_owned())
        }
        Rule::Devices => {
            let of_text = |text: &str| text.split(':').take(2).last().map(str::to_owned);
            let of_map = || field("target").or_else(|| field("source")).map(str::to_owned);
            item.scalar().map_or_else(of_map, of_text)
        }
        Rule::Grants => {
            Some(item.scalar().or_else(|| field("target")).or_else(|| field("source"))?.to_owned())
        }
        _ => None,
    }
}

fn map_of(tree: &Tree, items: &[Arc<Tree>], pair: fn(&Arc<Tree>) -> Option<Pair>) -> Arc<Tree> {
    let mut pairs: Vec<Pair> = Vec::new();
    let mut known = std::collections::HashSet::new();
    for item in items {
        match pair(item) {
            Some(pair) if known.insert(pair.key.clone()) => pairs.push(pair),
            // What cannot be read, or stands twice, is told where the list is read.
            _ => return tree.with(tree.value.clone()),
        }
    }
    tree.with(Value::Map(pairs))
}

fn key_value(item: &Arc<Tree>) -> Option<Pair> {
    let text = item.scalar().filter(|text| !text.is_empty())?;
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, item.text(value)),
        None => (text, item.null()),
    };
    Some(Pair { key: key.to_owned(), place: item.place, value })
}

fn name(item: &Arc<Tree>) -> Option<Pair> {
    let key = item.scalar().filter(|text| !text.is_empty())?.to_owned();
    Some(Pair { key, place: item.place, value: item.null() })
}

fn hosts(tree: &Tree, pairs: &[Pair]) -> Arc<Tree> {
    let mut items = Vec::new();
    for pair in pairs {
        let mut add = |value: &Tree| {
            items.extend(value.scalar().map(|address| value.text(&format!("{}={address}", pair.key))));
        };
        match &pair.value.value {
            Value::List(addresses) => addresses.iter().for_each(|address| add(address)),
            _ => add(&pair.value),
        }
    }
    tree.with(Value::List(items))
}
