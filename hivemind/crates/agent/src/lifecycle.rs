//! The life of one replica, as a function: what is wanted and what is seen in, the next step out.
//!
//! Up: image, then network, then container, and when that takes connections, its service. Down: out of its service, the signal, and then network and container are
//! removed. Every step may fail and every step may be repeated, so a worker can be killed anywhere.

use std::time::{Duration, Instant};

/// The wait before the second restart in a row; each further one doubles it.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// The longest wait between restarts.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// A container that ran this long is not in a row of failures any more.
const STEADY_AFTER: Duration = Duration::from_secs(60);

/// What is wanted of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It should run.
    Up,
    /// It should be gone.
    Down,
}

/// A replica's container, as containerd tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// There is none.
    Absent,
    /// Its process runs.
    Running,
    /// It exists, but its process does not run (any more, or yet).
    Ended,
}

/// What is there of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether its image is unpacked on the node.
    pub image: bool,
    /// Whether its network is made and written to the data path.
    pub network: bool,
    /// Whether its endpoint has the identity that the replica has by now; of no meaning without a network.
    pub identified: bool,
    /// Its container.
    pub container: Container,
    /// Whether the running container was found ready for connections; of no meaning while none runs.
    pub ready: bool,
}

impl Seen {
    /// Nothing is there.
    pub const NOTHING: Seen =
        Seen { image: false, network: false, identified: true, container: Container::Absent, ready: false };
}

/// What a worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look for the image, and pull it if it is not on the node.
    Pull,
    /// Make the network and write the endpoint.
    MakeNetwork,
    /// Give the endpoint the identity that the replica has by now.
    Identify,
    /// Make and start the container.
    Run,
    /// Wait until the container takes connections, or its end.
    AwaitReady,
    /// Remove the ended container and note how it ended.
    Clear,
    /// Wait for news, or until the time given.
    Wait(Option<Instant>),
    /// Take it out of its service and end its process.
    Stop,
    /// Remove the endpoint and the network.
    RemoveNetwork,
    /// Nothing is left: remove the object.
    Forget,
}

/// The step that is due. `not_before` is when the next attempt may begin, if the last one failed.
pub fn next_step(wanted: Wanted, seen: Seen, not_before: Option<Instant>, now: Instant) -> Step {
    let waits = not_before.filter(|time| *time > now);
    let is_unidentified = seen.network && !seen.identified;
    match (wanted, seen.container) {
        (Wanted::Down, Container::Running) => Step::Stop,
        (_, Container::Ended) => Step::Clear,
        (Wanted::Down, Container::Absent) if seen.network => Step::RemoveNetwork,
        (Wanted::Down, Container::Absent) => Step::Forget,
        (Wanted::Up, _) if is_unidentified && waits.is_none() => Step::Identify,
        (Wanted::Up, Container::Running) if !seen.ready => Step::AwaitReady,
        (Wanted::Up, Container::Running) if is_unidentified => Step::Wait(waits),
        (Wanted::Up, Container::Running) => Step::Wait(None),
        (Wanted::Up, Container::Absent) => match waits {
            Some(_) => Step::Wait(waits),
            None if !seen.image => Step::Pull,
            None if !seen.network => Step::MakeNetwork,
            None => Step::Run,
        },
    }
}

/// How long to wait between attempts: nothing before the first new one, then 1 s, doubled with each further failure up to
/// 60 s; a container that ran for 60 s begins anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A container ended after it had run for `ran`. Returns how long to wait before the next.
    pub fn ended(&mut self, ran: Duration) -> Duration {
        if ran >= STEADY_AFTER {
            self.failures = 0;
        }
        let wait = match self.failures {
            0 => Duration::ZERO,
            n => doubled(n - 1),
        };
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// A step failed. Returns how long to wait before it is tried again, 1 s at least.
    pub fn failed(&mut self) -> Duration {
        let wait = doubled(self.failures);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

fn doubled(times: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(1_u32.checked_shl(times.min(10)).unwrap_or(u32::MAX)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a step does to the world when it works.
    fn carry_out(step: Step, seen: &mut Seen) {
        match step {
            Step::Pull => seen.image = true,
            Step::MakeNetwork => (seen.network, seen.identified) = (true, true),
            Step::Run => (seen.container, seen.ready) = (Container::Running, false),
            Step::AwaitReady => seen.ready = true,
            Step::Identify => seen.identified = true,
            Step::Clear => seen.container = Container::Absent,
            Step::Stop => seen.container = Container::Ended,
            Step::RemoveNetwork => seen.network = false,
            Step::Wait(_) | Step::Forget => {}
        }
    }

    fn any_seen() -> impl Strategy<Value = Seen> {
        let container =
            prop_oneof![Just(Container::Absent), Just(Container::Running), Just(Container::Ended)];
        (any::<[bool; 4]>(), container).prop_map(|([image, network, identified, ready], container)| Seen {
            image,
            network,
            identified,
            container,
            ready,
        })
    }

    #[test]
    fn a_running_replica_is_left_alone() {
        let seen = Seen { network: true, container: Container::Running, ready: true, ..Seen::NOTHING };
        assert_eq!(next_step(Wanted::Up, seen, None, Instant::now()), Step::Wait(None));
    }

    #[test]
    fn a_running_replica_becomes_another_identity_and_goes_on() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let container = Container::Running;
        let seen = Seen { network: true, identified: false, container, ready: true, ..Seen::NOTHING };
        assert_eq!(next_step(Wanted::Up, seen, None, now), Step::Identify);
        assert_eq!(next_step(Wanted::Up, seen, Some(later), now), Step::Wait(Some(later)));
        assert_eq!(next_step(Wanted::Up, Seen { ready: false, ..seen }, Some(later), now), Step::AwaitReady);
        assert_eq!(next_step(Wanted::Down, seen, None, now), Step::Stop);
    }

    #[test]
    fn nothing_is_started_before_its_time() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        assert_eq!(next_step(Wanted::Up, Seen::NOTHING, Some(later), now), Step::Wait(Some(later)));
        assert_eq!(next_step(Wanted::Up, Seen::NOTHING, Some(later), later), Step::Pull);
        assert_eq!(next_step(Wanted::Down, Seen::NOTHING, Some(later), now), Step::Forget);
    }

    #[test]
    fn the_first_restart_is_at_once_and_the_next_ones_wait_longer() {
        let mut backoff = Backoff::default();
        let short = Duration::from_millis(10);
        let waits: Vec<_> = (0..9).map(|_| backoff.ended(short).as_secs()).collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.ended(STEADY_AFTER), Duration::ZERO);
    }

    #[test]
    fn a_failed_step_always_waits() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..8).map(|_| backoff.failed().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    proptest! {
        /// From any state, steps that work lead up or down in at most seven of them, and the container is always ended before
        /// its network is taken away.
        #[test]
        fn steps_that_work_arrive(mut seen in any_seen(), up in any::<bool>()) {
            let wanted = if up { Wanted::Up } else { Wanted::Down };
            let mut steps = 0;
            loop {
                let step = next_step(wanted, seen, None, Instant::now());
                if matches!(step, Step::Wait(_) | Step::Forget) {
                    break;
                }
                if step == Step::RemoveNetwork {
                    prop_assert_eq!(seen.container, Container::Absent);
                }
                carry_out(step, &mut seen);
                steps += 1;
                prop_assert!(steps <= 7);
            }
            match wanted {
                Wanted::Up => {
                    prop_assert!(seen.identified || !seen.network);
                    prop_assert_eq!(seen.container, Container::Running);
                }
                Wanted::Down => prop_assert_eq!((seen.network, seen.container), (false, Container::Absent)),
            }
        }
    }
}
