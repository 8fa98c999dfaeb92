//! Peers: selectors, or a block of addresses.

use hivemind_model::{ErrorCode, IpBlock, PolicyPeer, Problems};

use super::{EXCEPTIONS_MAX, selector};
use crate::cidr;

pub(super) fn check(at: &str, peer: &PolicyPeer, problems: &mut Problems) {
    let PolicyPeer { pod_selector, namespace_selector, ip_block } = peer;
    let has_selector = pod_selector.is_some() || namespace_selector.is_some();
    if !has_selector && ip_block.is_none() {
        problems.add(
            ErrorCode::InvalidSelector,
            at,
            "the peer says nothing",
            "give podSelector, namespaceSelector or ipBlock; for everybody leave the list of peers out",
        );
    }
    if has_selector && ip_block.is_some() {
        problems.add(
            ErrorCode::InvalidSelector,
            at,
            "ipBlock cannot stand beside podSelector or namespaceSelector",
            "make two peers of it: a connection has to match one of them",
        );
    }
    check_parts(at, peer, problems);
}

/// What is wrong within the fields of a peer, whichever it has.
pub(super) fn check_parts(at: &str, peer: &PolicyPeer, problems: &mut Problems) {
    let PolicyPeer { pod_selector, namespace_selector, ip_block } = peer;
    if let Some(pods) = pod_selector {
        selector::check(&format!("{at}.podSelector"), pods, problems);
    }
    if let Some(namespaces) = namespace_selector {
        selector::check(&format!("{at}.namespaceSelector"), namespaces, problems);
    }
    if let Some(block) = ip_block {
        check_block(&format!("{at}.ipBlock"), block, problems);
    }
}

fn check_block(at: &str, block: &IpBlock, problems: &mut Problems) {
    let whole = cidr::parse(&block.cidr);
    if let Err((message, hint)) = &whole {
        problems.add(ErrorCode::InvalidCidr, format!("{at}.cidr"), message, hint);
    }
    if block.except.len() > EXCEPTIONS_MAX {
        let what = format!("{} exceptions: more than {EXCEPTIONS_MAX}", block.except.len());
        problems.add(ErrorCode::OutOfRange, format!("{at}.except"), what, "divide the block");
    }
    for (i, text) in block.except.iter().enumerate().take(EXCEPTIONS_MAX) {
        let field = format!("{at}.except[{i}]");
        match (cidr::parse(text), &whole) {
            (Err((message, hint)), _) => problems.add(ErrorCode::InvalidCidr, field, message, hint),
            (Ok(except), Ok(whole)) if except == *whole => {
                let what = format!("{text} is the whole block: nothing is left of it");
                problems.add(ErrorCode::InvalidCidr, field, what, "leave the peer out");
            }
            (Ok(except), Ok(whole)) if !whole.contains(&except) => {
                let what = format!("{text} is not within {}", block.cidr);
                problems.add(ErrorCode::InvalidCidr, field, what, "except blocks that cidr contains");
            }
            _ => {}
        }
    }
}
