//! Whether an upstream answers, as a machine without I/O: who uses it brings the time.

use std::time::Instant;

use crate::limits::PLAIN_LIFETIME;

/// What is thought of an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// It answers, or was not asked yet.
    #[default]
    Up,
    /// It left a question without an answer.
    Suspected,
    /// It does not answer.
    Down,
}

#[derive(Debug, Default)]
pub(crate) struct Health {
    state: State,
    last_answer: Option<Instant>,
    plain_until: Option<Instant>,
}

impl Health {
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// It answered. Says whether it was down.
    pub(crate) fn answered(&mut self, now: Instant) -> bool {
        self.last_answer = Some(now);
        std::mem::take(&mut self.state) == State::Down
    }

    /// It left a question without an answer that it was asked at `began`. That says nothing if it has answered another
    /// since. Says whether it is suspected now and was not before.
    pub(crate) fn unanswered(&mut self, began: Instant) -> bool {
        let is_alive = self.last_answer.is_some_and(|answer| answer >= began);
        let is_new = self.state == State::Up && !is_alive;
        if is_new {
            self.state = State::Suspected;
        }
        is_new
    }

    /// It cannot be reached, or did not answer a probe. Says whether it was not down before.
    pub(crate) fn unreachable(&mut self) -> bool {
        std::mem::replace(&mut self.state, State::Down) != State::Down
    }

    /// It does not understand EDNS.
    pub(crate) fn set_plain(&mut self, now: Instant) {
        self.plain_until = now.checked_add(PLAIN_LIFETIME);
    }

    pub(crate) fn is_plain(&self, now: Instant) -> bool {
        self.plain_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn silence_is_a_suspicion_unless_it_answered_meanwhile_and_an_answer_clears_it() {
        let (mut health, start) = (Health::default(), Instant::now());
        let later = start + Duration::from_secs(1);
        assert!(!health.answered(later));
        assert!(!health.unanswered(start), "it has answered since");
        assert_eq!(health.state(), State::Up);
        assert!(health.unanswered(later + Duration::from_secs(1)));
        assert!(!health.unanswered(later + Duration::from_secs(2)), "it is told once");
        assert_eq!(health.state(), State::Suspected);
        assert!(health.unreachable());
        assert!(!health.unreachable());
        assert!(health.answered(later + Duration::from_secs(3)));
        assert_eq!(health.state(), State::Up);
    }

    #[test]
    fn edns_is_left_out_for_a_time() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.set_plain(now);
        assert!(health.is_plain(now + PLAIN_LIFETIME / 2) && !health.is_plain(now + PLAIN_LIFETIME));
    }

    proptest! {
        #[test]
        fn changes_are_told_exactly_when_they_happen(steps in proptest::collection::vec(0..3_u8, 0..60)) {
            let (mut health, mut now) = (Health::default(), Instant::now());
            for step in steps {
                let before = health.state();
                now += Duration::from_millis(1);
                let (told, wanted) = match step {
                    0 => (health.answered(now), before == State::Down),
                    1 => (health.unanswered(now), before == State::Up),
                    _ => (health.unreachable(), before != State::Down),
                };
                prop_assert_eq!(told, wanted);
                prop_assert_eq!(health.state() == State::Up, step == 0);
            }
        }
    }
}
