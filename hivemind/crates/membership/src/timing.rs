//! How often is probed and how long is waited, by the size of the cluster.
//!
//! A death is found in three steps: some member probes the dead one (within a period or two, whatever the size: every
//! member probes another each period), its probe fails at the end of the period, and the suspicion is not refuted in
//! time. The suspicion is what keeps slow nodes alive: the news has to reach the suspect and its refutation has to come
//! back, each by gossip, which takes the logarithm of the number of members in rounds. The wait grows with that.
//!
//! Lifeguard (arXiv 1707.00788) would stretch period and suspicion by the health of the own node: missed answers and
//! refuted suspicions say that the fault is here. It is not done; it would be another argument of [`foca_config`].

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::PeriodicParams;

use crate::packet::CONTENT_SIZE_BYTES_MAX;

/// How often a member is probed.
const PROBE_PERIOD: Duration = Duration::from_millis(400);
/// How long a direct answer is waited for before others are asked to try.
const PROBE_TIMEOUT: Duration = Duration::from_millis(150);
/// How long a suspicion stands in a cluster of up to ten, before it is taken for a death.
const SUSPICION: Duration = Duration::from_millis(1_250);
const GOSSIP_INTERVAL: Duration = Duration::from_millis(200);
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(10);

const INDIRECT_PROBES: NonZeroUsize = NonZeroUsize::new(3).expect("3 is not 0");
const GOSSIP_MEMBERS: NonZeroUsize = NonZeroUsize::new(3).expect("3 is not 0");
const ANNOUNCE_MEMBERS: NonZeroUsize = NonZeroUsize::MIN;
/// How many are told of the own goodbye at once.
const GOODBYE_MEMBERS: NonZeroUsize = NonZeroUsize::new(32).expect("32 is not 0");
const PACKET_SIZE_BYTES_MAX: NonZeroUsize =
    NonZeroUsize::new(CONTENT_SIZE_BYTES_MAX).expect("a datagram has room for content");

/// What foca is told for a cluster of `members`, the own node included.
pub(crate) fn foca_config(members: usize) -> foca::Config {
    foca::Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_TIMEOUT,
        num_indirect_probes: INDIRECT_PROBES,
        max_transmissions: transmissions(members),
        suspect_to_down_after: suspicion(members),
        // A member is remembered by its number, and of those there are few: nothing needs to be forgotten.
        remove_down_after: None,
        max_packet_size: PACKET_SIZE_BYTES_MAX,
        notify_down_members: true,
        periodic_announce: Some(PeriodicParams {
            frequency: ANNOUNCE_INTERVAL,
            num_members: ANNOUNCE_MEMBERS,
        }),
        // The core announces to whoever is not alive itself, also when nobody is.
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams { frequency: GOSSIP_INTERVAL, num_members: GOSSIP_MEMBERS }),
    }
}

/// The same for a node that says goodbye.
pub(crate) fn goodbye_config(members: usize) -> foca::Config {
    foca::Config { num_indirect_probes: GOODBYE_MEMBERS, ..foca_config(members) }
}

fn decades(members: usize) -> f64 {
    f64::from(u32::try_from(members.max(1)).unwrap_or(u32::MAX)).log10()
}

/// One and a quarter seconds up to 10 members, half of that more for each tenfold: 1.9 s for 100, 2.5 s for 1,000.
fn suspicion(members: usize) -> Duration {
    SUSPICION.mul_f64(1.0 + (decades(members) - 1.0).max(0.0) / 2.0)
}

/// How often a piece of news is passed on by each member: 8 for a few members, 16 for 1,000.
fn transmissions(members: usize) -> NonZeroU8 {
    let transmissions = (4.0 * (decades(members) + 1.0)).ceil().clamp(8.0, 32.0);
    NonZeroU8::new(transmissions as u8).unwrap_or(NonZeroU8::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspicion_and_transmissions_grow_with_the_logarithm_of_the_size() {
        assert_eq!(suspicion(2), Duration::from_millis(1_250));
        assert_eq!(suspicion(10), Duration::from_millis(1_250));
        assert_eq!(suspicion(100), Duration::from_millis(1_875));
        assert_eq!(suspicion(1_000), Duration::from_millis(2_500));
        assert_eq!([2, 10, 100, 1_000].map(|members| transmissions(members).get()), [8, 8, 12, 16]);
    }
}
