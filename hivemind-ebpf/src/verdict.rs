//! Counting what policies said, by rule.

use crate::maps::VERDICTS;
use aya_ebpf::bindings::BPF_NOEXIST;
use hivemind_common::{
    policy::RULE_NONE,
    verdict::{RULE_OTHER, VerdictKey, verdicts_of},
};

/// Counts a connection for the rules that its source's and its destination's policy answered with. `reason` is the number of
/// the reason why it was refused, or zero.
#[inline(always)]
pub(crate) fn count(egress_rule: u32, ingress_rule: u32, reason: u32) {
    let [egress, ingress] = verdicts_of(reason);
    count_one(egress_rule, egress);
    count_one(ingress_rule, ingress);
}

#[inline(always)]
fn count_one(rule: u32, verdict: u32) {
    if rule == RULE_NONE || verdict == 0 {
        return;
    }
    let key = VerdictKey { rule, verdict };
    if is_added(&key) || VERDICTS.insert(&key, &1, BPF_NOEXIST.into()).is_ok() {
        return;
    }
    // Another CPU was faster, or there is no room. The others' place is made before any program runs.
    if !is_added(&key) {
        is_added(&VerdictKey { rule: RULE_OTHER, verdict });
    }
}

#[inline(always)]
fn is_added(key: &VerdictKey) -> bool {
    let Some(count) = VERDICTS.get_ptr_mut(key) else { return false };
    // SAFETY: a pointer to this CPU's value; programs on one CPU do not preempt one another within it.
    unsafe { *count += 1 };
    true
}
