//! The life of one replica, as a function: what is wanted and what is seen in, the next step out.
//!
//! Up: images, then the network, then the containers that run first, one after the other, then the others, and when all of those take
//! connections, the services. Down: out of its services, the signal, and then containers and network are removed. Every step may fail and every step may be repeated, so a worker can be killed anywhere.

use std::time::{Duration, Instant};

/// The wait before the second restart in a row; each further one doubles it.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// The longest wait between restarts.
const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// A container that ran this long is not in a row of failures any more.
const STEADY_AFTER: Duration = Duration::from_secs(600);

/// What is wanted of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It should run.
    Up,
    /// It should be gone.
    Down,
}

/// A container, as containerd tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Container {
    /// There is none.
    #[default]
    Absent,
    /// Its process runs.
    Running,
    /// It exists, but its process does not run (any more, or yet).
    Ended,
}

/// How a container ended that is not started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With code 0: it has done its work.
    Well,
    /// With another one.
    Failed,
}

/// What is there of one container of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// The container.
    pub container: Container,
    /// Whether it takes connections; of no meaning while it does not run.
    pub ready: bool,
    /// Whether its probes want it restarted; of no meaning while it does not run.
    pub lost: bool,
    /// How it ended, if it is not started again.
    pub end: Option<End>,
    /// When it may be started next, if it ended or failed before.
    pub not_before: Option<Instant>,
}

/// What is there of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether its images are unpacked on the node.
    pub images: bool,
    /// Whether its network is made and written to the data path.
    pub network: bool,
    /// Whether its endpoint has the identity that the replica has by now; of no meaning without a network.
    pub identified: bool,
    /// Whether it is in its services.
    pub admitted: bool,
    /// Its containers, those that run first before the others.
    pub members: Vec<Member>,
    /// How many of them run first.
    pub init: usize,
}

impl Seen {
    /// Nothing is there of a replica with `containers` containers, before which `init` others run.
    pub fn nothing(init: usize, containers: usize) -> Seen {
        let members = vec![Member::default(); init + containers];
        Seen { images: false, network: false, identified: true, admitted: false, members, init }
    }

    /// Whether those that run first have done their work.
    pub fn is_initialized(&self) -> bool {
        self.members[..self.init].iter().all(|member| member.end == Some(End::Well))
    }

    /// How the replica ended, if nothing of it is started again.
    pub fn end(&self) -> Option<End> {
        let (init, main) = self.members.split_at(self.init);
        let has_failed = |member: &Member| member.end == Some(End::Failed);
        if init.iter().any(has_failed) {
            return Some(End::Failed);
        }
        let is_over = !main.is_empty() && main.iter().all(|member| member.end.is_some());
        is_over.then(|| if main.iter().any(has_failed) { End::Failed } else { End::Well })
    }

    /// Whether all of its containers that are not over take connections, and there is one.
    pub fn is_ready(&self) -> bool {
        let mut going_on = self.members[self.init..].iter().filter(|member| member.end.is_none()).peekable();
        going_on.peek().is_some()
            && going_on.all(|member| member.container == Container::Running && member.ready && !member.lost)
    }

    fn first(&self, is_meant: impl Fn(&Member) -> bool) -> Option<usize> {
        self.members.iter().position(is_meant)
    }

    /// The containers that should run now and do not: one of those that run first, or else all others.
    fn missing(&self) -> Vec<usize> {
        let of = |members: std::ops::Range<usize>| {
            let is_missing = |i: &usize| {
                let member = &self.members[*i];
                member.container == Container::Absent && member.end.is_none()
            };
            members.filter(is_missing).collect()
        };
        match self.members[..self.init].iter().position(|member| member.end.is_none()) {
            Some(next) => of(next..next + 1),
            None => of(self.init..self.members.len()),
        }
    }
}

/// What a worker does next. Containers are told by their place among the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look for the images, and pull those that are not on the node.
    Pull,
    /// Make the network and write the endpoint.
    MakeNetwork,
    /// Give the endpoint the identity that the replica has by now.
    Identify,
    /// Make and start a container.
    Run(usize),
    /// End a container that its probes want restarted.
    Restart(usize),
    /// Let the replica into its services.
    Admit,
    /// Take the replica out of its services.
    Withdraw,
    /// Remove an ended container and note how it ended.
    Clear(usize),
    /// Wait for news, or until the time given.
    Wait(Option<Instant>),
    /// Take it out of its services and end its processes.
    Stop,
    /// Remove the endpoint and the network.
    RemoveNetwork,
    /// Nothing is left: remove the object.
    Forget,
}

/// The step that is due. `not_before` is when the next attempt may begin, if the last one failed.
pub fn next_step(wanted: Wanted, seen: &Seen, not_before: Option<Instant>, now: Instant) -> Step {
    match wanted {
        Wanted::Up => next_up(seen, not_before.filter(|time| *time > now), now),
        Wanted::Down => next_down(seen),
    }
}

fn next_down(seen: &Seen) -> Step {
    if seen.first(|member| member.container == Container::Running).is_some() {
        return Step::Stop;
    }
    if let Some(ended) = seen.first(|member| member.container == Container::Ended) {
        return Step::Clear(ended);
    }
    if seen.network { Step::RemoveNetwork } else { Step::Forget }
}

/// `waits`: when the next attempt may begin, if that is yet to come.
fn next_up(seen: &Seen, waits: Option<Instant>, now: Instant) -> Step {
    if seen.admitted && !seen.is_ready() {
        return Step::Withdraw;
    }
    if let Some(ended) = seen.first(|member| member.container == Container::Ended) {
        return Step::Clear(ended);
    }
    if seen.end().is_some() {
        let running = seen.first(|member| member.container == Container::Running);
        return match running {
            // Of an older run, before what is to run first failed for good.
            Some(running) => Step::Restart(running),
            None if seen.network => Step::RemoveNetwork,
            None => Step::Wait(None),
        };
    }
    let is_unidentified = seen.network && !seen.identified;
    if is_unidentified && waits.is_none() {
        return Step::Identify;
    }
    if let Some(lost) = seen.first(|member| member.container == Container::Running && member.lost) {
        return Step::Restart(lost);
    }
    let mut earliest = waits.filter(|_| is_unidentified);
    for missing in seen.missing() {
        match seen.members[missing].not_before.into_iter().chain(waits).max().filter(|time| *time > now) {
            None if !seen.images => return Step::Pull,
            None if !seen.network => return Step::MakeNetwork,
            None => return Step::Run(missing),
            Some(time) => earliest = Some(earliest.map_or(time, |earliest| earliest.min(time))),
        }
    }
    if seen.is_ready() && !seen.admitted {
        return Step::Admit;
    }
    Step::Wait(earliest)
}

/// How long to wait between attempts: nothing before the first new one, then 1 s, doubled with each further failure up to
/// 5 minutes; a container that ran for 10 minutes begins anew.
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
            Step::Pull => seen.images = true,
            Step::MakeNetwork => (seen.network, seen.identified) = (true, true),
            // What runs first does its work at once, and the others are ready at once.
            Step::Run(i) if i < seen.init => seen.members[i].container = Container::Ended,
            Step::Run(i) => {
                seen.members[i] = Member { container: Container::Running, ready: true, ..Member::default() };
            }
            Step::Restart(i) => seen.members[i].container = Container::Ended,
            Step::Admit => seen.admitted = true,
            Step::Withdraw => seen.admitted = false,
            Step::Identify => seen.identified = true,
            Step::Clear(i) => {
                let end = (i < seen.init).then_some(End::Well).or(seen.members[i].end);
                seen.members[i] = Member { end, ..Member::default() };
            }
            Step::Stop => {
                seen.admitted = false;
                for member in seen.members.iter_mut().filter(|m| m.container == Container::Running) {
                    member.container = Container::Ended;
                }
            }
            Step::RemoveNetwork => seen.network = false,
            Step::Wait(_) | Step::Forget => {}
        }
    }

    fn any_member() -> impl Strategy<Value = Member> {
        let container =
            prop_oneof![Just(Container::Absent), Just(Container::Running), Just(Container::Ended)];
        let end = prop_oneof![3 => Just(None), 1 => Just(Some(End::Well)), 1 => Just(Some(End::Failed))];
        (container, any::<[bool; 2]>(), end).prop_map(|(container, [ready, lost], end)| Member {
            container,
            ready,
            lost,
            end,
            not_before: None,
        })
    }

    fn any_seen() -> impl Strategy<Value = Seen> {
        let members = |least| prop::collection::vec(any_member(), least..4);
        (any::<[bool; 4]>(), members(0), members(1)).prop_map(
            |([images, network, identified, admitted], init, main)| Seen {
                images,
                network,
                identified,
                admitted,
                init: init.len(),
                members: init.into_iter().chain(main).collect(),
            },
        )
    }

    /// A replica whose containers all run and take connections.
    fn running(init: usize, containers: usize) -> Seen {
        let mut seen =
            Seen { images: true, network: true, admitted: true, ..Seen::nothing(init, containers) };
        for (i, member) in seen.members.iter_mut().enumerate() {
            match i < init {
                true => member.end = Some(End::Well),
                false => (member.container, member.ready) = (Container::Running, true),
            }
        }
        seen
    }

    #[test]
    fn a_running_replica_is_left_alone() {
        let now = Instant::now();
        assert_eq!(next_step(Wanted::Up, &running(0, 1), None, now), Step::Wait(None));
        assert_eq!(next_step(Wanted::Up, &running(2, 3), None, now), Step::Wait(None));
    }

    #[test]
    fn a_running_replica_becomes_another_identity_and_goes_on() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let seen = Seen { identified: false, ..running(0, 1) };
        assert_eq!(next_step(Wanted::Up, &seen, None, now), Step::Identify);
        assert_eq!(next_step(Wanted::Up, &seen, Some(later), now), Step::Wait(Some(later)));
        let new = Seen { admitted: false, ..seen.clone() };
        assert_eq!(next_step(Wanted::Up, &new, Some(later), now), Step::Admit);
        assert_eq!(next_step(Wanted::Down, &seen, None, now), Step::Stop);
    }

    #[test]
    fn nothing_is_started_before_its_time() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let nothing = Seen::nothing(0, 1);
        assert_eq!(next_step(Wanted::Up, &nothing, Some(later), now), Step::Wait(Some(later)));
        assert_eq!(next_step(Wanted::Up, &nothing, Some(later), later), Step::Pull);
        assert_eq!(next_step(Wanted::Down, &nothing, Some(later), now), Step::Forget);
    }

    #[test]
    fn what_runs_first_does_its_work_before_the_others_one_after_the_other() {
        let now = Instant::now();
        let mut seen = Seen { images: true, network: true, ..Seen::nothing(2, 2) };
        let mut steps = Vec::new();
        loop {
            match next_step(Wanted::Up, &seen, None, now) {
                Step::Wait(_) => break,
                step => {
                    steps.push(step);
                    carry_out(step, &mut seen);
                }
            }
        }
        let expected = [
            Step::Run(0),
            Step::Clear(0),
            Step::Run(1),
            Step::Clear(1),
            Step::Run(2),
            Step::Run(3),
            Step::Admit,
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn one_container_waits_for_its_restart_while_the_other_runs() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let mut seen = running(0, 2);
        seen.members[1].container = Container::Ended;
        assert_eq!(next_step(Wanted::Up, &seen, None, now), Step::Withdraw);
        seen.admitted = false;
        assert_eq!(next_step(Wanted::Up, &seen, None, now), Step::Clear(1));
        seen.members[1] = Member { not_before: Some(later), ..Member::default() };
        assert_eq!(next_step(Wanted::Up, &seen, None, now), Step::Wait(Some(later)));
        assert_eq!(next_step(Wanted::Up, &seen, None, later), Step::Run(1));
    }

    #[test]
    fn what_its_probes_give_up_is_out_of_its_services_before_it_is_restarted() {
        let now = Instant::now();
        let mut seen = running(0, 2);
        seen.members[1].lost = true;
        assert_eq!(next_step(Wanted::Up, &seen, None, now), Step::Withdraw);
        seen.admitted = false;
        assert_eq!(next_step(Wanted::Up, &seen, None, now), Step::Restart(1));
    }

    #[test]
    fn a_replica_that_is_over_gives_its_network_back_and_stays() {
        let now = Instant::now();
        let mut seen = Seen { admitted: false, ..running(1, 2) };
        for member in &mut seen.members {
            *member = Member { end: Some(End::Well), ..Member::default() };
        }
        assert_eq!(seen.end(), Some(End::Well));
        assert_eq!(next_step(Wanted::Up, &seen, None, now), Step::RemoveNetwork);
        seen.network = false;
        assert_eq!(next_step(Wanted::Up, &seen, None, now), Step::Wait(None));
        seen.members[2].end = Some(End::Failed);
        assert_eq!(seen.end(), Some(End::Failed));
        assert_eq!(next_step(Wanted::Down, &seen, None, now), Step::Forget);
        // Those that run first failed for good: the others never run.
        let mut seen = Seen::nothing(1, 1);
        seen.members[0].end = Some(End::Failed);
        assert_eq!(
            (seen.end(), next_step(Wanted::Up, &seen, None, now)),
            (Some(End::Failed), Step::Wait(None))
        );
    }

    #[test]
    fn the_first_restart_is_at_once_and_the_next_ones_wait_longer() {
        let mut backoff = Backoff::default();
        let short = Duration::from_millis(10);
        let waits: Vec<_> = (0..11).map(|_| backoff.ended(short).as_secs()).collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(backoff.ended(STEADY_AFTER - short).as_secs(), 300);
        assert_eq!(backoff.ended(STEADY_AFTER), Duration::ZERO);
    }

    #[test]
    fn a_failed_step_always_waits() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..10).map(|_| backoff.failed().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
    }

    proptest! {
        /// From any state, steps that work lead up or down in a bounded number of them; containers are always gone before
        /// their network is taken away; and nothing is started before what runs first has done its work.
        #[test]
        fn steps_that_work_arrive(mut seen in any_seen(), up in any::<bool>()) {
            let wanted = if up { Wanted::Up } else { Wanted::Down };
            let mut steps = 0;
            loop {
                let step = next_step(wanted, &seen, None, Instant::now());
                match step {
                    Step::Wait(_) | Step::Forget => break,
                    Step::RemoveNetwork => {
                        prop_assert!(seen.members.iter().all(|m| m.container == Container::Absent));
                    }
                    Step::Run(i) if i >= seen.init => prop_assert!(seen.is_initialized()),
                    Step::Admit => prop_assert!(seen.is_ready()),
                    _ => {}
                }
                carry_out(step, &mut seen);
                steps += 1;
                prop_assert!(steps <= 6 + 3 * seen.members.len());
            }
            if !up {
                prop_assert!(!seen.network);
            }
            if seen.end().is_some() || !up {
                prop_assert!(seen.members.iter().all(|m| m.container == Container::Absent));
            } else if seen.is_ready() {
                prop_assert!(seen.admitted && (seen.identified || !seen.network));
            } else {
                // Something runs that its probes do not find ready yet.
                let is_unready = |m: &Member| m.container == Container::Running && !m.ready;
                prop_assert!(seen.members.iter().any(is_unready) || !seen.is_initialized());
            }
        }
    }
}
