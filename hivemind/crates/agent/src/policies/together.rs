//! Which identities come under new policies together.

use std::collections::BTreeSet;

use super::PolicyWriter;

impl PolicyWriter {
    /// `due` in groups: two identities that a policy selects which is not in force yet are in one. A policy for which there is
    /// no room thereby keeps back nothing but what it is about.
    pub(super) fn together(&self, due: Vec<u32>) -> Vec<Vec<u32>> {
        grouped(due, |identity| {
            let keys = self.world.policies_selecting(identity).into_iter();
            keys.filter_map(|(namespace, name)| self.pending.get(&(namespace.to_owned(), name.to_owned())))
                .collect()
        })
    }
}

/// Joins those whose `links` overlap, however many lie between them.
fn grouped<K: Ord>(all: Vec<u32>, links: impl Fn(u32) -> BTreeSet<K>) -> Vec<Vec<u32>> {
    let mut groups: Vec<(BTreeSet<K>, Vec<u32>)> = Vec::new();
    for one in all {
        let (mut keys, mut members) = (links(one), vec![one]);
        groups.retain_mut(|(theirs, others)| {
            let is_apart = theirs.is_disjoint(&keys);
            if !is_apart {
                keys.append(theirs);
                members.append(others);
            }
            is_apart
        });
        groups.push((keys, members));
    }
    groups.into_iter().map(|(_, members)| members).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_share_something_are_together_and_others_are_not() {
        let links = |number| match number {
            1 => BTreeSet::from(["a"]),
            2 => BTreeSet::from(["b"]),
            3 => BTreeSet::from(["a", "b", "c"]),
            4 => BTreeSet::from(["d"]),
            _ => BTreeSet::new(),
        };
        let mut groups = grouped(vec![1, 2, 3, 4, 5, 6], links);
        groups.iter_mut().for_each(|group| group.sort_unstable());
        assert_eq!(groups, [vec![1, 2, 3], vec![4], vec![5], vec![6]]);
    }
}
