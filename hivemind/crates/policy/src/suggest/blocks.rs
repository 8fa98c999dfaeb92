//! Many addresses, said as few blocks.

use ipnet::IpNet;

use super::peers::Peer;

/// So many blocks of a family are said one by one.
const BLOCKS_MAX: usize = 16;
/// A block that is wider than what was seen has at least so many bits, of IPv4 and IPv6.
const BITS_MIN: [u8; 2] = [24, 64];

/// The blocks themselves, if they are few. Many are said as those that cover them, the narrowest that are few, within [`BITS_MIN`];
/// in what these are `wider` is told. If that does not make them few, they stay as they are.
pub(super) fn cover(peers: &[Peer], wider: &mut Vec<String>) -> Vec<Peer> {
    let block = |peer: &Peer| match peer {
        Peer::Block(block) => Some(*block),
        _ => None,
    };
    let (v4, v6): (Vec<IpNet>, Vec<IpNet>) =
        peers.iter().filter_map(block).partition(|block| matches!(block, IpNet::V4(_)));
    let [v4_bits, v6_bits] = BITS_MIN;
    let mut covering = few(v4, v4_bits, wider);
    covering.extend(few(v6, v6_bits, wider));
    covering.into_iter().map(Peer::Block).collect()
}

fn few(blocks: Vec<IpNet>, bits_min: u8, wider: &mut Vec<String>) -> Vec<IpNet> {
    if blocks.len() <= BLOCKS_MAX {
        return blocks;
    }
    let exact = IpNet::aggregate(&blocks);
    if exact.len() <= BLOCKS_MAX {
        return exact;
    }
    let bits_max = exact.first().map_or(bits_min, IpNet::max_prefix_len);
    let mut candidates = (bits_min..bits_max).rev().map(|bits| within(&exact, bits));
    let Some(groups) = candidates.find(|groups| groups.len() <= BLOCKS_MAX) else { return exact };
    let mut covering = Vec::new();
    for group in groups {
        let Some(block) = narrowest(&group) else { continue };
        if group.as_slice() != [block] {
            let seen = group.iter().fold(0_u128, |sum, one| sum.saturating_add(count(*one)));
            wider.push(format!("{block}: {seen} of its {} addresses were seen", count(block)));
        }
        covering.push(block);
    }
    covering
}

/// The blocks, which are in order, those together that are in the same block of so many bits.
fn within(blocks: &[IpNet], bits: u8) -> Vec<Vec<IpNet>> {
    let mut groups: Vec<(IpNet, Vec<IpNet>)> = Vec::new();
    for block in blocks {
        let whole = IpNet::new(block.addr(), bits.min(block.prefix_len())).map_or(*block, |net| net.trunc());
        match groups.last_mut() {
            Some((last, group)) if last.contains(block) => group.push(*block),
            _ => groups.push((whole, vec![*block])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// The narrowest block that has all of them.
fn narrowest(blocks: &[IpNet]) -> Option<IpNet> {
    let mut block = *blocks.first()?;
    while !blocks.iter().all(|one| block.contains(one)) {
        block = block.supernet()?;
    }
    Some(block)
}

/// How many addresses it has; of the whole of IPv6 one less.
fn count(block: IpNet) -> u128 {
    1_u128.checked_shl(u32::from(block.max_prefix_len() - block.prefix_len())).unwrap_or(u128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(texts: &[String]) -> (Vec<String>, Vec<String>) {
        let peers: Vec<Peer> = texts.iter().map(|text| Peer::Block(text.parse().unwrap())).collect();
        let mut wider = Vec::new();
        let word = |peer: Peer| match peer {
            Peer::Block(block) => block.to_string(),
            other => format!("{other:?}"),
        };
        (cover(&peers, &mut wider).into_iter().map(word).collect(), wider)
    }

    fn addresses(numbers: impl Iterator<Item = u32>) -> Vec<String> {
        numbers.map(|n| format!("192.0.{}.{}/32", n / 256, n % 256)).collect()
    }

    #[test]
    fn few_addresses_stay_as_they_are_even_if_a_block_would_say_the_same() {
        let few = addresses(0..16);
        assert_eq!(covered(&few), (few, Vec::new()));
    }

    #[test]
    fn many_that_fill_blocks_are_said_by_these_and_by_nothing_wider() {
        let blocks = vec!["192.0.0.0/28".to_owned(), "192.0.0.16/30".to_owned()];
        assert_eq!(covered(&addresses(0..20)), (blocks, Vec::new()));
    }

    #[test]
    fn many_with_gaps_are_said_by_the_narrowest_blocks_and_in_what_these_are_wider_is_told() {
        let (blocks, wider) = covered(&addresses((0..20).map(|n| n * 4).chain([1024])));
        assert_eq!(blocks.len(), 11, "{blocks:?}");
        assert_eq!(blocks.last().map(String::as_str), Some("192.0.4.0/32"));
        assert_eq!(wider[0], "192.0.0.0/29: 2 of its 8 addresses were seen");
    }

    #[test]
    fn many_that_lie_far_apart_stay_as_they_are() {
        let far = addresses((0..20).map(|n| n * 256));
        assert_eq!(covered(&far), (far, Vec::new()));
    }
}
