//! What policies said about connections, counted by rule.
//!
//! A connection that is judged is asked about at each of its ends that is of this node, and each time a rule answers
//! ([`crate::policy::rule_number`]). So a connection counts once for the rule of its source's policy and once for that of its
//! destination's. An end that no policy governs has no rule, and counts for none.

use crate::{
    drop_reason::DropReason,
    policy::{ALLOW, DENY},
};

/// The rule under which is counted what found no room. No rule has this number: see [`crate::policy::rule_number`].
pub const RULE_OTHER: u32 = u32::MAX;

/// Key of `verdicts`; the value is the number of connections, of denied ones attempts, on each CPU.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct VerdictKey {
    /// The number of the rule, or [`RULE_OTHER`].
    pub rule: u32,
    /// [`ALLOW`] or [`DENY`].
    pub verdict: u32,
}

/// What the source's rule and the destination's said, of a connection that was refused for the reason of this number, or not
/// at all if it is zero. Zero: that end was not asked.
#[inline(always)]
pub const fn verdicts_of(reason: u32) -> [u32; 2] {
    if reason == 0 {
        [ALLOW as u32, ALLOW as u32]
    } else if reason == DropReason::PolicyIngress as u32 {
        [ALLOW as u32, DENY as u32]
    } else if reason == DropReason::PolicyEgress as u32 {
        [DENY as u32, 0]
    } else {
        [0, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{EGRESS, RULE_INDEX_BITS, rule_number, rule_parts};

    #[test]
    fn whoever_denies_is_the_last_to_be_asked() {
        let (allow, deny) = (u32::from(ALLOW), u32::from(DENY));
        assert_eq!(verdicts_of(0), [allow, allow]);
        assert_eq!(verdicts_of(DropReason::PolicyEgress as u32), [deny, 0]);
        assert_eq!(verdicts_of(DropReason::PolicyIngress as u32), [allow, deny]);
        // The first reason's number stands for none; it is no verdict's.
        for reason in DropReason::ALL.into_iter().skip(1).filter(|reason| !reason.is_denial()) {
            assert_eq!(verdicts_of(reason as u32), [0, 0], "{}: no policy's verdict", reason.name());
        }
    }

    #[test]
    fn no_rule_has_the_number_of_the_others() {
        let last = rule_number((1 << 20) - 1, EGRESS, Some(2_045));
        assert!(last < RULE_OTHER);
        assert_eq!(
            rule_parts(RULE_OTHER).unwrap().index,
            Some((1 << RULE_INDEX_BITS) - 2),
            "above the last index"
        );
    }
}
