//! Blocks of addresses, of which only the longest that holds an address counts.

use std::{collections::BTreeMap, rc::Rc};

use ipnet::IpNet;

use super::transports::Transports;

/// Blocks with what is said of the addresses in them.
#[derive(Default)]
pub(super) struct Blocks {
    /// The rules that begin and those that end to match with each block; everything about the blocks around it aside.
    changes: BTreeMap<IpNet, Vec<Change>>,
    rules: BTreeMap<u32, Transports>,
}

struct Change {
    rule: u32,
    begins: bool,
}

/// Blocks of which the longest that holds an address says all there is to say of it.
#[derive(Debug, Default)]
pub(super) struct Flat {
    /// Each with the index of its content.
    pub(super) prefixes: Vec<(IpNet, u32)>,
    /// What is said; no two are the same.
    pub(super) contents: Vec<Transports>,
}

/// By rule: how many of its peers hold the address.
type Standing = Rc<BTreeMap<u32, usize>>;

/// A block around the present one.
struct Around {
    net: IpNet,
    standing: Standing,
    content: Transports,
}

impl Blocks {
    /// Says `transports`, which are `rule`'s, of the addresses in `whole` but not in `except`, which lie in it.
    pub(super) fn add(&mut self, whole: IpNet, except: &[IpNet], rule: u32, transports: &Transports) {
        self.rules.entry(rule).or_insert_with(|| transports.clone());
        self.changes.entry(whole).or_default().push(Change { rule, begins: true });
        // Of an exception within an exception only the outer one counts.
        for net in IpNet::aggregate(&except.to_vec()) {
            self.changes.entry(net).or_default().push(Change { rule, begins: false });
        }
    }

    /// The blocks in an order in which each comes after those around it, with everything that those say. What `besides`
    /// says of everybody is left out.
    pub(super) fn flatten(self, besides: &Transports) -> Flat {
        let mut flat = Flat::default();
        let mut numbers: BTreeMap<Transports, u32> = BTreeMap::new();
        let mut around: Vec<Around> = Vec::new();
        for (net, changes) in &self.changes {
            while around.last().is_some_and(|outer| !outer.net.contains(net)) {
                around.pop();
            }
            let outer = around.last();
            let mut standing = outer.map(|outer| Rc::clone(&outer.standing)).unwrap_or_default();
            change(Rc::make_mut(&mut standing), changes);
            let content = self.content(&standing, besides);
            let is_news = match outer {
                Some(outer) => outer.content != content,
                None => content != Transports::default(),
            };
            if is_news {
                let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
                let number = *numbers.entry(content.clone()).or_insert_with(|| {
                    flat.contents.push(content.clone());
                    next
                });
                flat.prefixes.push((*net, number));
            }
            around.push(Around { net: *net, standing, content });
        }
        flat
    }

    fn content(&self, standing: &Standing, besides: &Transports) -> Transports {
        let mut content = Transports::default();
        for transports in standing.keys().filter_map(|rule| self.rules.get(rule)) {
            content.add(transports);
        }
        content.reduced(besides)
    }
}

/// Beginnings first: a block may be one peer's exception and the whole of another.
fn change(standing: &mut BTreeMap<u32, usize>, changes: &[Change]) {
    for change in changes.iter().filter(|change| change.begins) {
        *standing.entry(change.rule).or_default() += 1;
    }
    for change in changes.iter().filter(|change| !change.begins) {
        if let Some(count) = standing.get_mut(&change.rule) {
            *count -= 1;
            if *count == 0 {
                standing.remove(&change.rule);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hivemind_common::policy::ALLOW;

    use super::{super::transports::Said, *};

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn everything(rule: u32) -> Transports {
        Transports::of_rule(None, None, Said { precedence: 1, verdict: ALLOW, rule })
    }

    fn flatten(blocks: Blocks) -> Vec<(String, Vec<u32>)> {
        let flat = blocks.flatten(&Transports::default());
        let rules =
            |content: u32| flat.contents[content as usize].iter().map(|(_, said)| said.rule).collect();
        flat.prefixes.iter().map(|(net, content)| (net.to_string(), rules(*content))).collect()
    }

    #[test]
    fn an_exception_is_a_block_of_which_nothing_is_said() {
        let mut blocks = Blocks::default();
        blocks.add(net("10.0.0.0/8"), &[net("10.1.0.0/16"), net("10.1.2.0/24")], 7, &everything(7));
        assert_eq!(flatten(blocks), [("10.0.0.0/8".to_owned(), vec![7]), ("10.1.0.0/16".to_owned(), vec![])]);
    }

    #[test]
    fn a_block_within_an_exception_of_its_own_rule_is_allowed() {
        let mut blocks = Blocks::default();
        blocks.add(net("10.0.0.0/8"), &[net("10.1.0.0/16")], 7, &everything(7));
        blocks.add(net("10.1.2.0/24"), &[], 7, &everything(7));
        blocks.add(net("10.3.0.0/16"), &[], 7, &everything(7));
        let flat = flatten(blocks);
        let names: Vec<_> = flat.iter().map(|(net, _)| net.as_str()).collect();
        assert_eq!(names, ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24"], "10.3.0.0/16 says nothing new");
        assert_eq!(flat[2].1, [7]);
    }

    #[test]
    fn an_exception_that_is_another_peers_whole_block_stays_allowed() {
        let mut blocks = Blocks::default();
        blocks.add(net("10.0.0.0/8"), &[net("10.1.0.0/16")], 7, &everything(7));
        blocks.add(net("10.1.0.0/16"), &[], 7, &everything(7));
        assert_eq!(flatten(blocks), [("10.0.0.0/8".to_owned(), vec![7])]);
    }

    #[test]
    fn blocks_with_the_same_content_share_it() {
        let mut blocks = Blocks::default();
        for third in 0..100 {
            blocks.add(net(&format!("10.0.{}.0/24", third * 2)), &[], 7, &everything(7));
        }
        let flat = blocks.flatten(&Transports::default());
        assert_eq!((flat.prefixes.len(), flat.contents.len()), (100, 1));
    }
}
